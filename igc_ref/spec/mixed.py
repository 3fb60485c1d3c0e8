"""The shape of a block with several kernel sizes: MixConv (arXiv:1907.09595) made interleaved.

The L primary partitions stand in runs, and every run has a kernel size of its own. Such a block is
the IGC(L, M) of the largest kernel whose outer taps are zero; it costs its real taps only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from igc_ref.errors import SpecError, instance, integer, shown
from igc_ref.spec.block import Factor, IGCSpec, Product


@dataclass(frozen=True)
class MixedSpec(Product):
    """One block x' = P W_d Pᵀ W_p x whose primary partitions have several kernel sizes.

    Partition b has k_b*k_b taps, so T = (in/L)*(out/L)*(k_1² + ... + k_L²) + out*(out/M)
    parameters, and as many multiply-adds for every output position.

    Parameters
    ----------
    in_channels, out_channels, L, M, stride : int
        As in `IGCSpec`.
    kernel_sizes : sequence of int
        Different odd numbers, in the order of the runs. The runs share out the L partitions as
        `numpy.array_split` does: as equally as possible, the first ones get one more.

    Raises
    ------
    SpecError
        If there is no such block, or it has fewer partitions than kernel sizes.

    Examples
    --------
    >>> spec = MixedSpec(48, 48, L=24, M=2, kernel_sizes=(3, 5))
    >>> [run.weight_shape for run in spec.runs]
    [(24, 2, 3, 3), (24, 2, 5, 5)]
    >>> spec.parameters, spec.igc.parameters
    (2784, 3552)
    >>> print(spec)
    igc 3x3+5x5 48-48 L24 M2
    """

    in_channels: int
    out_channels: int
    L: int
    M: int
    kernel_sizes: tuple[int, ...]
    stride: int = 1

    def __post_init__(self) -> None:
        instance("kernel_sizes", self.kernel_sizes, Sequence)
        sizes = tuple(integer("kernel_sizes", size) for size in self.kernel_sizes)
        if not sizes or len(set(sizes)) < len(sizes) or any(size % 2 == 0 for size in sizes):
            raise SpecError(
                f"kernel_sizes={shown(sizes)} is not allowed; different odd numbers are"
            )
        object.__setattr__(self, "kernel_sizes", sizes)
        for name in ("in_channels", "out_channels", "L", "M", "stride"):
            object.__setattr__(self, name, getattr(self.igc, name))
        if len(sizes) > self.L:
            raise SpecError(f"L={self.L} is fewer partitions than kernel_sizes={shown(sizes)} has")

    @property
    def kernel_size(self) -> int:  # type: ignore[override]
        """The largest k, the side of the composed kernel in pixels."""
        return max(self.kernel_sizes)

    @property
    def igc(self) -> IGCSpec:
        """The block of the largest kernel, of which this is the case with zero outer taps."""
        shape = self.in_channels, self.out_channels, self.L, self.M
        return IGCSpec(*shape, kernel_size=self.kernel_size, stride=self.stride)

    @property
    def runs(self) -> tuple[Factor, ...]:
        """The group convolutions of the runs: `groups` of each are its primary partitions."""
        inp, out = self.in_channels // self.L, self.out_channels // self.L  # of one partition
        least, more = divmod(self.L, len(self.kernel_sizes))
        counts = [least + (i < more) for i in range(len(self.kernel_sizes))]
        return tuple(
            Factor(n * inp, n * out, n, k, self.stride)
            for n, k in zip(counts, self.kernel_sizes, strict=True)
        )

    @property
    def factors(self) -> tuple[Factor, ...]:
        """W_p and Pᵀ, W_d and P, as of `igc`: with the zero taps, which cost nothing here."""
        return self.igc.factors

    @property
    def secondary_shape(self) -> tuple[int, int]:
        """Shape of the secondary weights, ``(out, out/M)``, rows partition by partition."""
        return self.igc.secondary_shape

    @property
    def parameters(self) -> int:
        """Number of weights: T, outer taps not counted."""
        shapes = [*(run.weight_shape for run in self.runs), self.secondary_shape]
        return sum(math.prod(shape) for shape in shapes)

    def multiply_adds(self, height: int, width: int) -> int:
        """Multiply-adds for one image: the real taps times the output positions."""
        return self.parameters * math.prod(self.output_size(height, width))

    def __str__(self) -> str:
        sizes = "+".join(f"{k}x{k}" for k in self.kernel_sizes)
        step = f" /{self.stride}" if self.stride > 1 else ""
        return f"igc {sizes}{step} {self.in_channels}-{self.out_channels} L{self.L} M{self.M}"
