"""IGCV2 and IGCV3 as layers, and the IGCV3 network.

A factor P W of a product is a group convolution and a channel shuffle; see `igc_ref.spec_products`
for the equations and `igc_ref.reference.products` for the matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from igc_ref.backends import GenericBackend
from igc_ref.backends.library import Array
from igc_ref.errors import SpecError
from igc_ref.layers import BatchNorm, Conv2d, GlobalAveragePool, Linear
from igc_ref.network import Layer, Sequential
from igc_ref.spec import integer
from igc_ref.spec_products import Factor, IGCV2Spec, IGCV3Spec


class Shuffle(Layer):
    """P x, P = interleave(groups, C/groups): the channels of equal groups, dealt out like cards.

    Parameters
    ----------
    backend : GenericBackend
    groups : int
    """

    def __init__(self, backend: GenericBackend, groups: int) -> None:
        super().__init__()
        self.backend, self.groups = backend, groups

    def forward(self, x: Array, train: bool = False) -> Array:
        y, self._saved = self.backend.shuffle(x, self.groups)
        return y

    def backward(self, dy: Array) -> Array:
        return self.backend.shuffle_backward(dy, self._take_saved())

    def describe(self) -> str:
        return f"shuffle {self.groups}"


class IGCV2(Sequential):
    """The block x' = P_n W_n ... P_1 W_1 x (arXiv:1804.06202), nothing between the factors.

    As in the IGC block; a network has batch norm and ReLU after it. Its parts are ``conv1``,
    ``shuffle1``, ``conv2`` and so on.

    Parameters
    ----------
    backend : GenericBackend
    spec : IGCV2Spec
    rng : numpy Generator
        Draws the He-normal weights of all factors, fan-in.
    dtype : str
    """

    def __init__(
        self,
        backend: GenericBackend,
        spec: IGCV2Spec,
        *,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        parts: dict[str, Layer] = {}
        for i, factor in enumerate(spec.factors, start=1):
            parts[f"conv{i}"] = _convolution(backend, factor, rng, dtype)
            parts[f"shuffle{i}"] = Shuffle(backend, factor.deal)
        super().__init__(parts)
        self.spec = spec

    def describe(self) -> str:
        s = self.spec
        stride = f" /{s.stride}" if s.stride > 1 else ""
        k, K = s.kernel_size, "x".join(map(str, s.K))
        return f"igcv2 {k}x{k}{stride} {s.in_channels}-{s.out_channels} K{K}"


class IGCV3(Sequential):
    """The inverted bottleneck of IGCV3 (arXiv:1806.00178), plus x where the shapes agree.

    Expand, batch norm, shuffle; depthwise, batch norm, ReLU; project, batch norm, shuffle. The
    published network clips its ReLU at 6, ours does not.

    Parameters
    ----------
    backend : GenericBackend
    spec : IGCV3Spec
    momentum : float
        Weight of the past in the running averages of the batch norms.
    rng : numpy Generator
        Draws the He-normal weights of all convolutions, fan-in.
    dtype : str
    """

    def __init__(
        self,
        backend: GenericBackend,
        spec: IGCV3Spec,
        *,
        momentum: float = 0.9,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        def normalised(factor: Factor, relu: bool) -> tuple[Layer, Layer]:
            conv = _convolution(backend, factor, rng, dtype)
            out = factor.out_channels
            return conv, BatchNorm(backend, out, momentum=momentum, relu=relu, dtype=dtype)

        first, middle, last = spec.factors
        parts: dict[str, Layer] = {}
        parts["expand"], parts["expand_bn"] = normalised(first, relu=False)
        parts["expand_shuffle"] = Shuffle(backend, first.deal)
        parts["depthwise"], parts["depthwise_bn"] = normalised(middle, relu=True)
        parts["project"], parts["project_bn"] = normalised(last, relu=False)
        parts["project_shuffle"] = Shuffle(backend, last.deal)
        super().__init__(parts)
        self.backend, self.spec = backend, spec

    def forward(self, x: Array, train: bool = False) -> Array:
        y = super().forward(x, train)
        return self.backend.add(y, x) if self.spec.is_residual else y

    def backward(self, dy: Array) -> Array:
        dx = super().backward(dy)
        return self.backend.add(dx, dy) if self.spec.is_residual else dx

    def describe(self) -> str:
        s = self.spec
        stride = f" /{s.stride}" if s.stride > 1 else ""
        k, groups = s.kernel_size, "x".join(map(str, s.groups))
        shape = f"{s.in_channels}-{s.hidden}-{s.out_channels}"
        return f"igcv3 {k}x{k}{stride} {shape} G{groups}" + " + x" * s.is_residual


# -- the IGCV3 network -----------------------------------------------------------------------------

PUBLISHED_WIDTH = 32  # channels of the stem
PUBLISHED_HEAD = 1280  # channels before the average pool
ROUNDING = 4  # G_1 * G_2 divides every width, so that the loose complementary condition holds


class Stage(NamedTuple):
    """Blocks of one width, of the published network; the first of them takes the stride."""

    expansion: int
    channels: int
    blocks: int
    stride: int


STAGES = (  # the strides are for pictures of 32x32: the last blocks see 4x4
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 1),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


def igcv3_blocks(depth: int, width: int) -> Iterator[IGCV3Spec]:
    """Yield the blocks of the network in their order; see `igcv3`."""
    repeats, rest = divmod(integer("depth", depth) - 9, 45)
    if rest or repeats < 1:
        raise SpecError(f"depth={depth} is not allowed: an IGCV3 network has 54, 99, 144, ...")
    if integer("width", width) % ROUNDING:
        raise SpecError(f"width={width} is not allowed: it must be divisible by {ROUNDING}")
    channels = width
    for expansion, published, blocks, stride in STAGES:
        out = _scaled(published, width)
        for block in range(blocks * repeats if blocks > 1 else 1):
            yield IGCV3Spec(channels, out, expansion, stride=stride if block == 0 else 1)
            channels = out


def igcv3(
    backend: GenericBackend,
    *,
    depth: int = 99,
    width: int = PUBLISHED_WIDTH,
    num_classes: int = 10,
    momentum: float = 0.9,
    rng: np.random.Generator,
    dtype: str = "float32",
) -> Sequential:
    """Make an IGCV3 network for pictures of 32x32: stem, blocks, head, average pool, linear.

    Parameters
    ----------
    backend : GenericBackend
    depth : int
        Convolutions and the linear layer: ``9 + 45*r``. With r = 2 the blocks are those of the
        published IGCV3-D, with r = 1 those of MobileNetV2 (arXiv:1801.04381).
    width : int
        Channels of the stem, a multiple of 4. All other widths are the published ones, whose stem
        has 32, times ``width / 32``, rounded to a multiple of 4.
    num_classes : int
    momentum : float
        Weight of the past in the running averages of the batch norms.
    rng : numpy Generator
        Draws the weights.
    dtype : str

    Raises
    ------
    SpecError
        If no such network exists; names the number.

    Notes
    -----
    Against the published one: ReLU is not clipped at 6, there is no dropout, and below width 32
    the head is narrower too. The strides are ours; parameters do not depend on them.
    """

    def unit(in_channels: int, out_channels: int, kernel_size: int) -> Sequential:
        factor = Factor(in_channels, out_channels, groups=1, kernel_size=kernel_size)
        conv = _convolution(backend, factor, rng, dtype)
        norm = BatchNorm(backend, out_channels, momentum=momentum, relu=True, dtype=dtype)
        return Sequential({"conv": conv, "bn": norm})

    blocks, head = list(igcv3_blocks(depth, width)), _scaled(PUBLISHED_HEAD, width)
    parts: dict[str, Layer] = {"stem": unit(3, width, kernel_size=3)}
    for i, spec in enumerate(blocks, start=1):
        parts[f"block{i}"] = IGCV3(backend, spec, momentum=momentum, rng=rng, dtype=dtype)
    parts["head"] = unit(blocks[-1].out_channels, head, kernel_size=1)
    parts["pool"] = GlobalAveragePool(backend)
    parts["linear"] = Linear(backend, head, num_classes, rng=rng, dtype=dtype)
    return Sequential(parts)


def _convolution(
    backend: GenericBackend, factor: Factor, rng: np.random.Generator, dtype: str
) -> Conv2d:
    """Make the layer of a factor's W."""
    return Conv2d(
        backend,
        factor.in_channels,
        factor.out_channels,
        kernel_size=factor.kernel_size,
        stride=factor.stride,
        groups=factor.groups,
        rng=rng,
        dtype=dtype,
    )


def _scaled(channels: int, width: int) -> int:
    """Return a published width for a stem of `width` channels, a multiple of 4, at least 4."""
    return max(1, round(channels * width / (PUBLISHED_WIDTH * ROUNDING))) * ROUNDING
