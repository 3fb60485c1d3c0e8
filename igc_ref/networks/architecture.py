"""Which networks exist: the numbers that name one, their validation, and the stages they make.

The CIFAR networks take images of 3x32x32, or sequences: a 3x3 stem to C channels; three stages of
widths C, 2C, 4C, stride 2 at the first block of stages 2 and 3; global average pool; linear. C is
``width``, or L*M. A DenseNet-BC (arXiv:1608.06993) has a stem of 2k channels, k the growth rate
``width`` or L*M, and three dense blocks with transitions between them. The ImageNet networks take
3x224x224: a 7x7 stem and max pooling; four stages of two residual blocks. `builder` makes the
layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from igc_ref.errors import MAX_INTEGER, SpecError, choice, integer, odd_sizes, shown
from igc_ref.spec.mixed import MixedSpec

DOUBLINGS = ("M", "L")
GATES = ("none", "channels", "partitions")
NORMS = ("batch", "group", "layer")
DIMS = ("2", "1")
# What may be chosen beside the sizes: fields of `Architecture`, settings of a training run.
FORM = ("kernel_sizes", "gate", "keep", "norm", "dims")

ARCHITECTURES = {  # name: family, and the unit in the place of a regular 3x3 convolution
    "plain": ("plain", "regular"),
    "plain_igc": ("plain", "igc"),
    "plain_fusion": ("plain", "fusion"),
    "plain_xception": ("plain", "xception"),
    "plain_igcv2": ("plain", "igcv2"),
    "resnet": ("resnet", "regular"),
    "resnet_igc": ("resnet", "igc"),
    "resnet_fusion": ("resnet", "fusion"),
    "resnet_xception": ("resnet", "xception"),
    "densenet_bc": ("densenet", "regular"),
    "densenet_bc_igc": ("densenet", "igc"),
    "imagenet": ("imagenet", "regular"),
    "imagenet_igc": ("imagenet", "igc"),
    "igcv3": ("igcv3", "igcv3"),
}
DEPTHS = {  # family: which depths exist, and why no others
    "plain": (
        range(5, MAX_INTEGER + 1, 3),
        "a plain network has 3 equal stages and 2 more layers, so 5, 8, 11, ...",
    ),
    "resnet": (
        range(8, MAX_INTEGER + 1, 2),
        "a residual network has 2 layers a block and 2 more, so an even depth of at least 8",
    ),
    "imagenet": (range(18, 19), "the ImageNet networks have 18 layers"),
    "igcv3": (range(54, MAX_INTEGER + 1, 45), "an IGCV3 network has 54, 99, 144, ..."),
    "densenet": (
        range(10, MAX_INTEGER + 1, 6),
        "a DenseNet-BC has 3 equal blocks of 2 layers each time and 4 more layers, so 10, 16, ...",
    ),
}
PARTITIONED = ("igc", "fusion")  # the units that are described by L and M, not by a width


class Stage(NamedTuple):
    """Blocks of one width; the first block has the stride, and widens to `channels`."""

    channels: int
    blocks: int
    stride: int
    L: int | None  # primary partitions; None where the unit has none of its own


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
    doubling: str = "M"
    kernel_sizes: tuple[int, ...] = (3,)
    gate: str = "none"
    keep: int | None = None
    norm: str = "batch"
    dims: str = "2"
    in_channels: int = 3

    def __post_init__(self) -> None:
        choice("arch", self.arch, tuple(ARCHITECTURES))
        needed = numbers_of(self.arch)
        for name in ("L", "M", "width"):
            value = getattr(self, name)
            if name in needed and value is None:
                raise SpecError(f"{self.arch} needs {' and '.join(needed)}; {name} is missing")
            if name not in needed and value is not None:
                raise SpecError(f"{self.arch} takes no {name}={value}, only {' and '.join(needed)}")
        for name in (*needed, "depth", "num_classes", "in_channels"):
            object.__setattr__(self, name, integer(name, getattr(self, name)))
        choice("doubling", self.doubling, DOUBLINGS)
        if self.doubling == "L" and (self.unit not in PARTITIONED or self.family == "densenet"):
            raise SpecError(f"{self.arch} has no L to double: doubling='L' is not allowed")
        # Stages that double L begin with L partitions of M/2 channels.
        if self.doubling == "L" and (self.M or 1) % 2:
            raise SpecError(f"M={self.M} is not allowed with doubling='L': it must be even")
        depths, why = DEPTHS[self.family]
        if self.depth not in depths:
            raise SpecError(f"depth={self.depth} is not allowed: {why}")
        if self.family == "igcv3" and (self.width or 4) % 4:
            raise SpecError(f"width={self.width} is not allowed: it must be divisible by 4")
        self._check_form()

    def _check_form(self) -> None:
        """Check what is chosen beside the sizes."""
        for name, allowed in (("gate", GATES), ("norm", NORMS), ("dims", DIMS)):
            object.__setattr__(self, name, choice(name, getattr(self, name), allowed))
        sizes = odd_sizes("kernel_sizes", self.kernel_sizes)
        object.__setattr__(self, "kernel_sizes", sizes)
        taken = {"plain": FORM, "resnet": FORM, "densenet": ("norm",)}.get(self.family, ())
        others = [name for name in FORM if name not in taken]
        changed = [name for name in others if getattr(self, name) != getattr(type(self), name)]
        if changed:
            raise SpecError(f"{self.arch} takes no {changed[0]}={shown(getattr(self, changed[0]))}")
        if (len(sizes) > 1 or self.gate != "none") and not self.is_igc:
            raise SpecError(
                f"{self.arch} has no IGC blocks: several kernel_sizes or a gate need them"
            )
        if len(sizes) > 1 and self.gate != "none":
            raise SpecError(f"gate={self.gate!r} takes one of kernel_sizes={sizes}, not several")
        if self.keep is not None:
            if self.gate != "partitions":
                raise SpecError(f"keep={self.keep} needs gate='partitions', not {self.gate!r}")
            object.__setattr__(self, "keep", integer("keep", self.keep, maximum=self.L or 1))
        if len(sizes) > 1:  # of the first stage, which has the fewest partitions
            MixedSpec(self.channels, self.channels, self.L or 1, self.M or 1, sizes)

    @property
    def family(self) -> str:
        """The skeleton: "plain", "resnet", "imagenet", "igcv3" or "densenet"."""
        return ARCHITECTURES[self.arch][0]

    @property
    def unit(self) -> str:
        """The convolution: "regular", "igc", "fusion", "xception", "igcv2" or "igcv3"."""
        return ARCHITECTURES[self.arch][1]

    @property
    def is_igc(self) -> bool:
        """Whether the units are IGC blocks with both weights trained."""
        return self.unit == "igc"

    @property
    def is_residual(self) -> bool:
        """Whether a block's input also goes around it ("+Ident." in the paper)."""
        return self.family != "plain"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (channels, height, width) of the images that the network was designed for."""
        if self.dims == "1":
            return self.in_channels, 1, 128
        side = 224 if self.family == "imagenet" else 32
        return self.in_channels, side, side

    @property
    def channels(self) -> int:
        """Width of the first stage, or growth rate of a DenseNet: ``width``, or L*M."""
        return self.width or (self.L or 1) * (self.M or 1)

    @property
    def stem_channels(self) -> int:
        """Channels of the stem: of the first stage, or half as many in an ImageNet network that
        doubles L; in a DenseNet twice the growth rate.
        """
        if self.family == "densenet":
            return 2 * self.channels
        halves = self.family == "imagenet" and self.doubling == "L"
        return self.channels // 2 if halves else self.channels

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks of the stages; the remainder of a division goes to the later ones.

        Empty for an IGCV3 network and a DenseNet, whose widths do not double: see `Builder`.
        """
        if self.family in ("igcv3", "densenet"):
            return ()
        if self.family == "imagenet":
            return (2, 2, 2, 2)
        total = (self.depth - 2) // (2 if self.is_residual else 1)
        first = total // 3
        second = (total - first) // 2
        return first, second, total - first - second

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages: every one but the first doubles the channels and halves the image."""
        return tuple(
            Stage(
                channels=self.channels * 2**number,
                blocks=blocks,
                stride=1 if number == 0 else 2,
                L=self.L and self.L * (2**number if self.doubling == "L" else 1),
            )
            for number, blocks in enumerate(self.blocks)
        )

    def with_unit(
        self, unit: str, *, L: int | None = None, M: int | None = None, width: int | None = None
    ) -> Architecture:
        """Return the network of this family and depth with another unit.

        Examples
        --------
        >>> print(Architecture("plain_igc", 8, L=4, M=8).with_unit("regular", width=16))
        plain-8 W16
        """
        arch = next(name for name, kind in ARCHITECTURES.items() if kind == (self.family, unit))
        k = self.kernel_sizes if unit == "igc" or len(self.kernel_sizes) == 1 else (3,)  # a default
        own: dict[str, Any] = {"doubling": "M", "kernel_sizes": k, "gate": "none", "keep": None}
        return replace(self, arch=arch, L=L, M=M, width=width, **own)

    def __str__(self) -> str:
        name = f"L{self.L}M{self.M}" if self.unit in PARTITIONED else f"W{self.width}"
        text = f"{self.arch}-{self.depth} {name}" + (" doubling L" * (self.doubling == "L"))
        if self.kernel_sizes != (3,):
            text += f" k{'+'.join(map(str, self.kernel_sizes))}"
        if self.gate != "none":
            text += f" gate {self.gate}" + ("" if self.keep is None else f" keep {self.keep}")
        if self.norm != "batch":
            text += f" {self.norm} norm"
        return text + (" 1-D" if self.dims == "1" else "")


def numbers_of(arch: str) -> tuple[str, ...]:
    """Name the numbers that an architecture needs beside its depth: L and M, or the width."""
    return ("L", "M") if ARCHITECTURES[arch][1] in PARTITIONED else ("width",)
