"""The numbers of a block or group convolution in the words of block.cuh."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from igc_ref.errors import KernelSize, kernel_pair
from igc_ref.spec.block import IGCSpec, output_size

SPLIT = 16  # outputs of a group that one CUDA block takes, where it may share them out: a guess


@dataclass(frozen=True)
class Geometry:
    """A batch of `N` images, `H` x `W`, and what is computed of it.

    ``slabs`` slabs have ``I`` inputs and ``O`` outputs each; the outputs go into ``M`` secondary
    partitions of ``A`` channels. A convolution has ``groups``, and ``share`` CUDA blocks for the
    outputs of one group; for it ``M = O``, ``A = 1``. Kernels are ``KH`` x ``KW`` at stride ``S``;
    ``K`` is both, or one number if they are equal.
    """

    secondary: bool
    slabs: int
    I: int
    O: int
    M: int
    A: int
    K: KernelSize
    S: int
    H: int
    W: int
    N: int
    groups: int = 1
    share: int = 1

    @property
    def outputs(self) -> tuple[int, int]:
        """Height and width of the outputs."""
        return output_size((self.H, self.W), self.K, self.S)

    @cached_property
    def KH(self) -> int:
        """Height of the kernel."""
        return kernel_pair(self.K)[0]

    @cached_property
    def KW(self) -> int:
        """Width of the kernel."""
        return kernel_pair(self.K)[1]

    def shared_out(self) -> Iterator[Geometry]:
        """Yield a convolution with the outputs of a group in 1, 2, 3, ... shares."""
        outputs = self.O * self.share
        for share in divisors(outputs):
            yield replace(self, O=outputs // share, M=outputs // share, share=share)

    @property
    def R(self) -> int:
        """Outputs of a slab that go into one secondary partition."""
        return self.O // self.M


def divisors(n: int) -> list[int]:
    """Return all divisors of n, the least first."""
    return [d for d in range(1, n + 1) if n % d == 0]


def of_block(spec: IGCSpec, N: int, H: int, W: int) -> Geometry | None:
    """Return the geometry of an IGC block, or None if its partitions do not fit the kernels."""
    L, M, out = spec.L, spec.M, spec.out_channels
    if out // L % M:
        return None  # outputs of a primary partition go into parts of the secondary partitions
    I, O = spec.in_channels // L, out // L
    return Geometry(True, L, I, O, M, out // M, spec.kernel_size, spec.stride, H, W, N)


def of_convolution(
    shape: tuple[int, int, int, int], out: int, groups: int, K: KernelSize, S: int, split: bool
) -> Geometry:
    """Return the geometry of a group convolution of images (C, N, H, W).

    `split`: CUDA blocks may share the outputs of a group; each then reads all of its inputs.
    """
    channels, N, H, W = shape
    inputs, outputs = channels // groups, out // groups
    # Inputs of a slab: a guess; those of the paper's blocks have 2.
    I = next(n for n in (2, 3, 1) if inputs % n == 0)
    share = 1
    if split and outputs > SPLIT:
        share = next(n for n in divisors(outputs) if n >= outputs // SPLIT)
    O = outputs // share
    return Geometry(False, inputs // I, I, O, O, 1, K, S, H, W, N, groups, share)
