"""Which networks exist: the numbers that name one, and their validation."""

from __future__ import annotations

from dataclasses import dataclass

from igc_ref.errors import SpecError
from igc_ref.spec import choice, integer

ARCHITECTURES = ("plain", "plain_igc", "resnet", "resnet_igc")
INPUT_SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class Architecture:
    """The numbers that name a network; see `igc_ref.build_model`.

    Raises
    ------
    SpecError
        If no such network exists; names the number.
    """

    arch: str
    depth: int
    L: int | None = None
    M: int | None = None
    width: int | None = None
    num_classes: int = 10

    def __post_init__(self) -> None:
        choice("arch", self.arch, ARCHITECTURES)
        needed = ("L", "M") if self.is_igc else ("width",)
        for name in ("L", "M", "width"):
            value = getattr(self, name)
            if name in needed and value is None:
                raise SpecError(f"{self.arch} needs {' and '.join(needed)}; {name} is missing")
            if name not in needed and value is not None:
                raise SpecError(f"{self.arch} takes no {name}={value}, only {' and '.join(needed)}")
        for name in (*needed, "depth", "num_classes"):
            object.__setattr__(self, name, integer(name, getattr(self, name)))
        if self.is_residual and (self.depth % 2 or self.depth < 8):
            raise SpecError(
                f"depth={self.depth} is not allowed: a residual network has 2 layers a block and "
                f"2 more, so an even depth of at least 8"
            )
        if not self.is_residual and (self.depth % 3 != 2 or self.depth < 5):
            raise SpecError(
                f"depth={self.depth} is not allowed: a plain network has 3 equal stages and "
                f"2 more layers, so 5, 8, 11, ..."
            )

    @property
    def is_igc(self) -> bool:
        """Whether the units are IGC blocks, not regular convolutions."""
        return self.arch.endswith("_igc")

    @property
    def is_residual(self) -> bool:
        """Whether the blocks are residual ("+Ident." in the paper)."""
        return self.arch.startswith("resnet")

    @property
    def channels(self) -> int:
        """Width of the first stage: ``width``, or L*M."""
        return self.width or (self.L or 1) * (self.M or 1)

    @property
    def blocks(self) -> tuple[int, int, int]:
        """Blocks of the three stages; what does not divide evenly goes to the later ones."""
        total = (self.depth - 2) // (2 if self.is_residual else 1)
        first = total // 3
        second = (total - first) // 2
        return first, second, total - first - second

    def __str__(self) -> str:
        name = f"L{self.L}M{self.M}" if self.is_igc else f"W{self.width}"
        return f"{self.arch}-{self.depth} {name}"
