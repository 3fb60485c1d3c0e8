"""The shape of one interleaved group convolution block, and every closed form that follows from it.

`Factor` and `Product` are what it has in common with its successors, in `products`.

Symbols are the paper's (arXiv:1707.02725): L primary partitions, M secondary partitions,
S = kh*kw taps, and, for the square block, G = L*M channels on both sides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from igc_ref.errors import KernelSize, SpecError, divides, int_or_pair, integer, kernel_pair


@dataclass(frozen=True)
class Factor:
    """One factor P W: a group convolution, and the permutation of its outputs.

    Parameters
    ----------
    in_channels, out_channels : int
    groups : int
        Blocks on the diagonal of W.
    kernel_size : int or (int, int), default 1
        k, or height and width (kh, kw), of the kernel in pixels; the padding is ``k // 2`` of each.
        A pair of equal numbers becomes the int.
    stride : int, default 1
        Of the convolution, in pixels.
    deal : int, default 1
        P = ``interleave(deal, out/deal)``: channel ``b*(out/deal) + j`` becomes channel
        ``j*deal + b``. With 1, P is the identity.

    Raises
    ------
    SpecError
        If a number is not an integer of at least 1, or one does not divide the channels.
    """

    in_channels: int
    out_channels: int
    groups: int
    kernel_size: KernelSize = 1
    stride: int = 1
    deal: int = 1

    def __post_init__(self) -> None:
        whole_numbers(self)
        divides("groups", self.groups, "in_channels", self.in_channels)
        divides("groups", self.groups, "out_channels", self.out_channels)
        divides("deal", self.deal, "out_channels", self.out_channels)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the weights, PyTorch's: ``(out, in/groups, kh, kw)``."""
        return (self.out_channels, self.in_channels // self.groups, *kernel_pair(self.kernel_size))

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output, in pixels, for an image of this height and width."""
        size = integer("height", height), integer("width", width)
        return output_size(size, self.kernel_size, self.stride)


class Product:
    """Base of all specs: shapes and costs that follow from the factors alone."""

    in_channels: int
    out_channels: int
    kernel_size: KernelSize

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The factors, in the order in which they are applied."""
        raise NotImplementedError

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the kernel in pixels, (kh, kw), also of a square one."""
        return kernel_pair(self.kernel_size)

    @property
    def composed_shape(self) -> tuple[int, int, int, int]:
        """Shape of the dense kernel that the product amounts to, ``(out, in, kh, kw)``."""
        return (self.out_channels, self.in_channels, *self.kernel)

    @property
    def parameters(self) -> int:
        """Number of weights of all factors."""
        return sum(math.prod(factor.weight_shape) for factor in self.factors)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of x', in pixels, for an image of this height and width."""
        for factor in self.factors:
            height, width = factor.output_size(height, width)
        return height, width

    def multiply_adds(self, height: int, width: int) -> int:
        """Multiply-adds for one image: every factor's weights times its output positions."""
        total = 0
        for factor in self.factors:
            height, width = factor.output_size(height, width)
            total += math.prod(factor.weight_shape) * height * width
        return total


@dataclass(frozen=True)
class IGCSpec(Product):
    """One block x' = P W_d Pᵀ W_p x: a primary group convolution, then a secondary one.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of x and of x'.
    L : int
        Number of primary partitions (groups of the kh x kw convolution).
    M : int
        Number of secondary partitions (groups of the 1 x 1 convolution).
    kernel_size : int or (int, int), default 3
        k, the side of the primary kernel in pixels, or its height and width (kh, kw); the padding
        is ``k // 2`` of each. A pair of equal numbers becomes the int.
    stride : int, default 1
        Stride of the primary convolution in pixels.

    Raises
    ------
    SpecError
        If a number is not an integer of at least 1, or L or M does not divide the channels.

    Examples
    --------
    >>> spec = IGCSpec.square(L=24, M=2)
    >>> spec.primary_shape, spec.secondary_shape
    ((48, 2, 3, 3), (48, 24))
    >>> spec.parameters
    2016
    >>> print(spec)
    igc 3x3 48-48 L24 M2
    >>> print(IGCSpec.square(L=24, M=2, kernel_size=(1, 5)))
    igc 1x5 48-48 L24 M2
    """

    in_channels: int
    out_channels: int
    L: int
    M: int
    kernel_size: KernelSize = 3
    stride: int = 1

    def __post_init__(self) -> None:
        whole_numbers(self)
        divides("L", self.L, "in_channels", self.in_channels)
        divides("L", self.L, "out_channels", self.out_channels)
        divides("M", self.M, "out_channels", self.out_channels)

    @classmethod
    def square(cls, L: int, M: int, kernel_size: KernelSize = 3, stride: int = 1) -> IGCSpec:
        """Return the paper's block: G = L*M channels on both sides (paper, section 3)."""
        G = integer("L", L) * integer("M", M)
        return cls(G, G, L, M, kernel_size, stride)

    @property
    def factors(self) -> tuple[Factor, ...]:
        """W_p and Pᵀ, W_d and P; square: T = G²(S/L + 1/M) = G(M*S + L) parameters."""
        inp, out, L, M = self.in_channels, self.out_channels, self.L, self.M
        return Factor(inp, out, L, self.kernel_size, self.stride, L), Factor(out, out, M, deal=M)

    @property
    def taps(self) -> int:
        """S = kh*kw, the number of kernel positions."""
        return math.prod(self.kernel)

    @property
    def padding(self) -> KernelSize:
        """Zeros added on each side of the image, in pixels: k // 2, or (kh // 2, kw // 2)."""
        kh, kw = self.kernel
        return kh // 2 if kh == kw else (kh // 2, kw // 2)

    @property
    def primary_shape(self) -> tuple[int, int, int, int]:
        """Shape of the primary weights, ``(out, in/L, kh, kw)``."""
        return (self.out_channels, self.in_channels // self.L, *self.kernel)

    @property
    def secondary_shape(self) -> tuple[int, int]:
        """Shape of the secondary weights, ``(out, out/M)``, rows partition by partition."""
        return (self.out_channels, self.out_channels // self.M)

    @property
    def is_square(self) -> bool:
        """Whether this is the paper's block, G = L*M channels in and out."""
        return self.in_channels == self.out_channels == self.L * self.M

    def __str__(self) -> str:
        shape = convolution_text(self.kernel_size, self.stride, self.in_channels, self.out_channels)
        return f"igc {shape} L{self.L} M{self.M}"

    @property
    def is_wider_than_regular(self) -> bool:
        """The width theorem: G > C if and only if L/(L-1) < M*S (square block).

        C is the width of the regular convolution with the same number of parameters, C²S = T.

        Raises
        ------
        SpecError
            If the block is not square: the theorem speaks of one width G.
        """
        if not self.is_square:
            raise SpecError(
                f"the width theorem needs in_channels = out_channels = L*M, not "
                f"{self.in_channels}, {self.out_channels} and {self.L}*{self.M}"
            )
        return self.M * self.taps * (self.L - 1) > self.L


def whole_numbers(spec: Any) -> None:
    """Make each number of a frozen dataclass a plain int, its kernel an int or a pair, or raise."""
    for field in fields(spec):
        if check := {"int": integer, "KernelSize": int_or_pair}.get(str(field.type)):
            object.__setattr__(spec, field.name, check(field.name, getattr(spec, field.name)))


def equal_cost_width(parameters: float, kernel_size: KernelSize = 3) -> float:
    """Return C = sqrt(T/S), the width of the regular convolution with T parameters."""
    return math.sqrt(parameters) / math.sqrt(math.prod(kernel_pair(kernel_size)))


def optimal_L(M: int, kernel_size: KernelSize = 3) -> int:
    """Return L = M*S, at which the width G is greatest for a fixed number of parameters.

    T = G(M*S + L) >= 2 G sqrt(M*S*L) = 2 sqrt(S) G^(3/2), with equality at L = M*S.

    Examples
    --------
    >>> optimal_L(M=2)
    18
    """
    return integer("M", M) * math.prod(kernel_pair(kernel_size))


def maximal_width(parameters: float, kernel_size: KernelSize = 3) -> float:
    """Return G_max = (T / (2 sqrt(S)))^(2/3), the bound that `optimal_L` attains."""
    root = math.sqrt(math.prod(kernel_pair(kernel_size)))
    return math.pow(parameters / (2 * root), 2 / 3)


def output_length(length: int, kernel_size: int, stride: int, padding: int | None = None) -> int:
    """Return the number of output positions in a row of `length` pixels.

    The padding on each side is ``kernel_size // 2`` unless it is given.

    Examples
    --------
    >>> output_length(32, kernel_size=3, stride=2)
    16
    """
    if padding is None:
        padding = kernel_size // 2
    return (length + 2 * padding - kernel_size) // integer("stride", stride) + 1


def output_size(size: tuple[int, int], kernel_size: KernelSize, stride: int) -> tuple[int, int]:
    """Return height and width of a convolution's output, from those of the image, in pixels.

    Examples
    --------
    >>> output_size((1, 32), kernel_size=(1, 5), stride=2)
    (1, 16)
    """
    (H, W), (kh, kw) = size, kernel_pair(kernel_size)
    return output_length(H, kh, stride), output_length(W, kw, stride)


def convolution_text(kernel_size: KernelSize, stride: int, *channels: int) -> str:
    """Write a convolution in a few characters: kernel, stride if it is not 1, channels.

    Examples
    --------
    >>> convolution_text(3, 2, 8, 16)
    '3x3 /2 8-16'
    """
    step = f" /{stride}" if stride > 1 else ""
    kernel = "x".join(map(str, kernel_pair(kernel_size)))
    return f"{kernel}{step} {'-'.join(map(str, channels))}"
