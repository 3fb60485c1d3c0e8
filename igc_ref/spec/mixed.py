"""The IGC block with several kernel sizes, MixConv (arXiv:1907.09595) interleaved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from igc_ref.errors import KernelSize, SpecError, instance, int_or_pair, kernel_pair, shown
from igc_ref.spec.block import Factor, IGCSpec, Product


@dataclass(frozen=True)
class MixedSpec(Product):
    """The IGC(L, M) of the largest kernel, `igc`, whose outer taps are zero and cost nothing.

    Partition b has S_b taps, so that there are ``(in/L)*(out/L)*(S_1 + ... + S_L) + out*(out/M)``
    parameters.

    Parameters
    ----------
    in_channels, out_channels, L, M, stride : int
        As in `IGCSpec`.
    kernel_sizes : tuple of int or (int, int)
        Different ones of odd sides. Each is that of one of the runs into which `numpy.array_split`
        cuts the L partitions.

    Raises
    ------
    SpecError
        If there is no such block, or it has fewer partitions than kernel sizes.

    Examples
    --------
    >>> spec = MixedSpec(48, 48, L=24, M=2, kernel_sizes=(3, 5))
    >>> print(spec, [run.weight_shape for run in spec.runs], spec.parameters)
    igc 3x3+5x5 48-48 L24 M2 [(24, 2, 3, 3), (24, 2, 5, 5)] 2784
    """

    in_channels: int
    out_channels: int
    L: int
    M: int
    kernel_sizes: tuple[KernelSize, ...]
    stride: int = 1

    def __post_init__(self) -> None:
        instance("kernel_sizes", self.kernel_sizes, Sequence)
        sizes = tuple(int_or_pair("kernel_sizes", size) for size in self.kernel_sizes)
        odd = {size for size in sizes if all(side % 2 for side in kernel_pair(size))}
        if len(odd) < max(1, len(sizes)):
            raise SpecError(f"kernel_sizes={shown(sizes)} must be different odd numbers")
        object.__setattr__(self, "kernel_sizes", sizes)
        for name in ("in_channels", "out_channels", "L", "M", "stride"):
            object.__setattr__(self, name, getattr(self.igc, name))
        if len(sizes) > self.L:
            raise SpecError(f"L={self.L} is fewer partitions than kernel_sizes={shown(sizes)} has")

    @property
    def igc(self) -> IGCSpec:
        """The block of the least kernel that holds all others."""
        shape = self.in_channels, self.out_channels, self.L, self.M
        height, width = map(max, zip(*map(kernel_pair, self.kernel_sizes), strict=True))
        return IGCSpec(*shape, (height, width), self.stride)

    @property
    def runs(self) -> tuple[Factor, ...]:
        """The group convolutions that W_p is made of: one for each kernel size."""
        least, more = divmod(self.L, len(self.kernel_sizes))
        runs = ((least + (i < more), k) for i, k in enumerate(self.kernel_sizes))
        inp, out = self.in_channels // self.L, self.out_channels // self.L
        return tuple(Factor(n * inp, n * out, n, k, self.stride) for n, k in runs)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the weights of `runs`, such as "primary3" or "primary1x3"."""
        sides = (k if isinstance(k, tuple) else (k,) for k in self.kernel_sizes)
        return tuple(f"primary{'x'.join(map(str, side))}" for side in sides)

    @property
    def secondary_shape(self) -> tuple[int, int]:
        """Shape of the secondary weights, ``(out, out/M)``."""
        return self.igc.secondary_shape

    @property
    def kernel_size(self) -> KernelSize:  # type: ignore[override]
        """That of `igc`."""
        return self.igc.kernel_size

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Those of `igc`."""
        return self.igc.factors

    @property
    def parameters(self) -> int:
        """Number of weights, outer taps not counted."""
        return sum(math.prod(f.weight_shape) for f in (*self.runs, self.factors[1]))

    def multiply_adds(self, height: int, width: int) -> int:
        """Multiply-adds for one image: the weights times the output positions."""
        return self.parameters * math.prod(self.output_size(height, width))

    def __str__(self) -> str:
        every = (self.kernel_size, *self.kernel_sizes)
        whole, *sizes = ("x".join(map(str, kernel_pair(k))) for k in every)
        return str(self.igc).replace(whole, "+".join(sizes), 1)
