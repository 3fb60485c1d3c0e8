"""The shapes of the block's successors, IGCV2 and IGCV3, and of any other product of factors.

    x' = P_n W_n ... P_2 W_2 P_1 W_1 x

Every W_i is a group convolution and every P_i an interleaving permutation; one factor is spatial
(kh x kw), the others are 1 x 1. S = kh*kw taps, as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement, pairwise

from igc_ref.errors import KernelSize, SpecError, divides, instance, integer, kernel_pair
from igc_ref.spec.block import Factor, IGCSpec, Product, convolution_text, whole_numbers


@dataclass(frozen=True)
class Chain(Product):
    """Any factors, one after another: for products that are no IGC, IGCV2 or IGCV3.

    Parameters
    ----------
    factors : iterable of Factor
        In the order in which they are applied. A SpecError if there is none, or one does not give
        the channels that the next one takes.

    Examples
    --------
    >>> shuffled = Chain((Factor(6, 6, 3, kernel_size=3, deal=3), Factor(6, 6, 2, deal=2)))
    >>> shuffled.parameters, shuffled.composed_shape
    (126, (6, 6, 3, 3))
    """

    factors: tuple[Factor, ...] = ()

    def __post_init__(self) -> None:
        instance("factors", self.factors, Iterable)
        object.__setattr__(self, "factors", tuple(self.factors))
        if not self.factors:
            raise SpecError("a chain needs at least one factor")
        for i, factor in enumerate(self.factors, start=1):
            instance(f"factor {i}", factor, Factor)
        for i, (before, after) in enumerate(pairwise(self.factors), start=1):
            gives, takes = before.out_channels, after.in_channels
            if gives != takes:
                raise SpecError(f"factor {i} gives {gives} channels; factor {i + 1} takes {takes}")

    @classmethod
    def sum_of(cls, spec: IGCSpec, rank: int) -> Chain:
        """Return the sum of `rank` equal blocks as one block, `rank` times as wide in the middle.

        A SpecError if L*M does not divide the output channels.

        >>> spec = IGCSpec.square(L=3, M=2)
        >>> spec.parameters, Chain.sum_of(spec, rank=2).parameters
        (126, 252)
        """
        instance("spec", spec, IGCSpec)
        divides("L*M", spec.L * spec.M, "out_channels", spec.out_channels)
        first, last = spec.factors
        wide = integer("rank", rank) * spec.out_channels
        return cls((replace(first, out_channels=wide), replace(last, in_channels=wide)))

    @property
    def in_channels(self) -> int:  # type: ignore[override]
        """Channels of x."""
        return self.factors[0].in_channels

    @property
    def out_channels(self) -> int:  # type: ignore[override]
        """Channels of x'."""
        return self.factors[-1].out_channels

    @property
    def kernel_size(self) -> KernelSize:  # type: ignore[override]
        """Kernel size of the one spatial factor in pixels, 1 if there is none.

        A SpecError if several are spatial, or one before it has a stride: the kernel is larger.
        """
        sizes = [factor.kernel_size for factor in self.factors]
        spatial = [i for i, size in enumerate(sizes) if size != 1]
        if not spatial:
            return 1
        if len(spatial) > 1 or any(f.stride > 1 for f in self.factors[: spatial[0]]):
            raise SpecError(f"kernel sizes {sizes}: only one may be above 1, no stride before it")
        return sizes[spatial[0]]


@dataclass(frozen=True)
class IGCV2Spec(Product):
    """IGCV2 (arXiv:1804.06202): a kh x kw group convolution, then 1 x 1 group convolutions.

    Number the output channels by n digits of radix K_n, ..., K_1, the last one fastest. W_i mixes
    the channels that differ in digit i alone: ``G_i = out/K_i`` blocks. Where W_i acts, its digit
    is the fastest, and ``P_i = interleave(G_i, K_i)`` makes it the slowest; after P_n the digits
    are in their old order. An input in block g of W_1 chooses digit 1 freely, then digit 2, and so
    on: to every output there is exactly one path, the *complementary condition* of the paper.

    With n = 2 it is the IGC block of ``L = K_2``, ``M = K_1``, weights included.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of x and of x'; G_1 divides both.
    K : tuple of int
        Outputs of one block of every factor, K_1 first; their product is `out_channels`.
    kernel_size, stride
        Of the first factor, in pixels; as in `IGCSpec`.

    Raises
    ------
    SpecError
        If no such product exists; names the numbers.

    Examples
    --------
    >>> spec = IGCV2Spec(64, 64, K=(1, 8, 8))
    >>> [factor.groups for factor in spec.factors]
    [64, 8, 8]
    >>> spec.parameters
    1600
    """

    in_channels: int
    out_channels: int
    K: tuple[int, ...]
    kernel_size: KernelSize = 3
    stride: int = 1

    def __post_init__(self) -> None:
        whole_numbers(self)
        K = tuple(integer(f"K_{i}", radix) for i, radix in enumerate(self.K, start=1))
        object.__setattr__(self, "K", K)
        if not K or math.prod(K) != self.out_channels:
            raise SpecError(f"the product of K={K} is not out_channels={self.out_channels}")
        divides("K_2*...*K_n", self.out_channels // K[0], "in_channels", self.in_channels)

    @classmethod
    def balanced(
        cls,
        in_channels: int,
        out_channels: int,
        factors: int = 3,
        kernel_size: KernelSize = 3,
        stride: int = 1,
    ) -> IGCV2Spec:
        """Return the product of `factors` factors with the fewest parameters; see `is_balanced`.

        It is found by trying all: integers seldom meet the balance condition exactly. Of equally
        cheap ones it has the smallest K_1; K_2 <= ... <= K_n.

        Raises
        ------
        SpecError
            If a number is not an integer of at least 1.

        Examples
        --------
        >>> IGCV2Spec.balanced(64, 128).K
        (2, 8, 8)
        """
        inp, out = integer("in_channels", in_channels), integer("out_channels", out_channels)
        common = math.gcd(inp, out)  # G_1 = K_2*...*K_n divides it
        radices = [radix for radix in range(1, common + 1) if common % radix == 0]
        found = [
            cls(inp, out, (out // math.prod(rest), *rest), kernel_size, stride)
            for rest in combinations_with_replacement(radices, integer("factors", factors) - 1)
            if common % math.prod(rest) == 0
        ]
        return min(found, key=lambda spec: (spec.parameters, spec.K))

    @property
    def factors(self) -> tuple[Factor, ...]:
        """W_1, P_1, ..., W_n, P_n."""
        out, (first, *rest) = self.out_channels, self.K
        groups = out // first
        spatial = Factor(self.in_channels, out, groups, self.kernel_size, self.stride, groups)
        return spatial, *(Factor(out, out, out // radix, deal=out // radix) for radix in rest)

    def __str__(self) -> str:
        shape = convolution_text(self.kernel_size, self.stride, self.in_channels, self.out_channels)
        return f"igcv2 {shape} K{'x'.join(map(str, self.K))}"

    @property
    def weights_per_output(self) -> tuple[int, ...]:
        """``(S*a, K_2, ..., K_n)``, a = in/G_1: weights of one output channel of every factor."""
        return tuple(math.prod(factor.weight_shape[1:]) for factor in self.factors)

    @property
    def is_balanced(self) -> bool:
        """The balance condition: ``S*a = K_2 = ... = K_n``, where a = in/G_1 (square: a = K_1).

        Among all products of n factors between these channels, a balanced one has the fewest
        parameters. Their number is ``T = out * (S*a + K_2 + ... + K_n)``, and the product
        ``a * K_2 * ... * K_n`` is ``in``, because G_1 = K_2*...*K_n. The arithmetic mean is at
        least the geometric one, so

            T >= n * out * (S*in)^(1/n),   with equality if and only if S*a = K_2 = ... = K_n.

        If the first factor is depthwise, a = 1, its share is always S; for the other factors the
        same argument says K_2 = ... = K_n = in^(1/(n-1)).
        """
        return len(set(self.weights_per_output)) == 1


def least_parameters(
    in_channels: int, out_channels: int, factors: int, kernel_size: KernelSize = 3
) -> float:
    """Return ``n * out * (S*in)^(1/n)``: no IGCV2 of n factors has fewer; see `is_balanced`."""
    inp, out = integer("in_channels", in_channels), integer("out_channels", out_channels)
    n, taps = integer("factors", factors), math.prod(kernel_pair(kernel_size))
    return n * out * math.pow(taps * inp, 1 / n)


@dataclass(frozen=True)
class IGCV3Spec(Product):
    """IGCV3 (arXiv:1806.00178): an inverted bottleneck of interleaved group convolutions.

        x' = P_3 W_3 W_2 P_1 W_1 x

    W_1 widens, 1 x 1 in G_1 groups, to ``hidden = expansion*in`` channels; W_2 is kh x kw and
    depthwise; W_3 narrows, 1 x 1 in G_2 groups. ``P_1 = interleave(G_1, hidden/G_1)``, and
    ``P_3 = interleave(out/G_2, G_2)`` permutes back. The layer `igc_ref.networks.IGCV3` adds batch
    norm and ReLU.

    The hidden channels from one group of W_1 to one group of W_3 are a *super-channel*. Any two
    groups share exactly one, and all have ``hidden/(G_1*G_2)`` channels: the *loose complementary
    condition*. This is also the number of paths from every input to every output.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of x and of x', divisible by G_1 and by G_2.
    expansion : int
    groups : tuple of two int
        G_1 and G_2; G_1*G_2 divides ``expansion*in``.
    kernel_size, stride
        Of the depthwise convolution, in pixels; as in `IGCSpec`.

    Raises
    ------
    SpecError
        If no such block exists; names the numbers.

    Examples
    --------
    >>> IGCV3Spec(24, 32, stride=2).parameters
    5328
    """

    in_channels: int
    out_channels: int
    expansion: int = 6
    groups: tuple[int, int] = (2, 2)
    kernel_size: KernelSize = 3
    stride: int = 1

    def __post_init__(self) -> None:
        whole_numbers(self)
        if len(self.groups) != 2:
            raise SpecError(f"groups={self.groups} is not allowed: G_1 and G_2 are needed")
        first, last = (integer(f"G_{i}", g) for i, g in zip((1, 2), self.groups, strict=True))
        object.__setattr__(self, "groups", (first, last))
        divides("G_1", first, "in_channels", self.in_channels)
        divides("G_2", last, "out_channels", self.out_channels)
        divides("G_1*G_2", first * last, "expansion*in_channels", self.hidden)

    @property
    def hidden(self) -> int:
        """Channels between W_1 and W_3."""
        return self.expansion * self.in_channels

    @property
    def is_residual(self) -> bool:
        """Whether x' has the shape of x, so that the layer adds x to it."""
        same = self.in_channels == self.out_channels
        return same and self.stride == 1 and all(side % 2 for side in self.kernel)

    def __str__(self) -> str:
        channels = self.in_channels, self.hidden, self.out_channels
        shape = convolution_text(self.kernel_size, self.stride, *channels)
        groups = "x".join(map(str, self.groups))
        return f"igcv3 {shape} G{groups}" + " + x" * self.is_residual

    @property
    def factors(self) -> tuple[Factor, ...]:
        """W_1 and P_1; W_2; W_3 and P_3."""
        hidden, out, (first, last) = self.hidden, self.out_channels, self.groups
        return (
            Factor(self.in_channels, hidden, first, deal=first),
            Factor(hidden, hidden, hidden, self.kernel_size, self.stride),
            Factor(hidden, out, last, deal=out // last),
        )
