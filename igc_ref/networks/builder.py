"""From the numbers of an architecture to its layers, all drawn from one random stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from igc_ref.backends import GenericBackend, NumpyBackend
from igc_ref.errors import SpecError, integer
from igc_ref.networks import (
    IGC,
    IGCV2,
    IGCV3,
    BatchNorm,
    Conv2d,
    GlobalAveragePool,
    Linear,
    MaxPool,
    SummationFusion,
)
from igc_ref.networks.architecture import Architecture, Stage
from igc_ref.networks.layer import Layer, Residual, Row, Sequential
from igc_ref.spec.block import IGCSpec
from igc_ref.spec.products import IGCV2Spec, IGCV3Spec


class Builder:
    """Makes the layers of one architecture.

    Parameters
    ----------
    architecture : Architecture
    backend : GenericBackend
    dtype : str
    rng : numpy Generator
        Draws all weights.
    """

    def __init__(
        self, architecture: Architecture, backend: GenericBackend, dtype: str, rng: Any
    ) -> None:
        self.a, self.backend, self.dtype, self.rng = architecture, backend, dtype, rng

    def network(self) -> Layer:
        """Stem, stages, global average pool, linear."""
        a, channels = self.a, self.a.stem_channels
        if a.family == "igcv3":
            return self._igcv3()
        parts = {"stem": self._stem()}
        make = self._residual_block if a.is_residual else self._plain_block
        for number, stage in enumerate(a.stages, start=1):
            for block in range(1, stage.blocks + 1):
                stride = stage.stride if block == 1 else 1
                parts[f"stage{number}.block{block}"] = make(channels, stage, stride)
                channels = stage.channels
        parts["pool"] = GlobalAveragePool(self.backend)
        parts["linear"] = Linear(
            self.backend, channels, a.num_classes, rng=self.rng, dtype=self.dtype
        )
        return Sequential(parts)

    def _igcv3(self) -> Layer:
        a = self.a
        return igcv3(
            self.backend,
            depth=a.depth,
            width=a.channels,
            num_classes=a.num_classes,
            rng=self.rng,
            dtype=self.dtype,
        )

    def _stem(self) -> Layer:
        a, channels = self.a, self.a.stem_channels
        if a.family == "imagenet":
            conv = self._conv(a.input_shape[0], channels, kernel_size=7, stride=2)
            pool = {"pool": MaxPool(self.backend)}
        else:
            conv, pool = self._conv(a.input_shape[0], channels), {}
        return Sequential({"conv": conv, "bn": self._norm(channels, relu=True), **pool})

    def _plain_block(self, channels: int, stage: Stage, stride: int) -> Layer:
        return Sequential(dict(self._unit(channels, stage, stride, relu=True)))

    def _residual_block(self, channels: int, stage: Stage, stride: int) -> Layer:
        out, shortcut = stage.channels, None
        if channels != out:
            conv = self._conv(channels, out, kernel_size=1, stride=stride, groups=stage.L or 1)
            shortcut = Sequential({"conv": conv, "bn": self._norm(out, relu=False)})
        first = self._unit(channels, stage, stride, relu=True)
        branch = {"unit1": Sequential(dict(first))}
        branch["unit2"] = Sequential(dict(self._unit(out, stage, 1, relu=False)))
        return Residual(self.backend, Sequential(branch), shortcut)

    def _unit(
        self, channels: int, stage: Stage, stride: int, *, relu: bool
    ) -> Iterator[tuple[str, Layer]]:
        """Yield a convolution or a block in its place, then its batch norm."""
        out, unit = stage.channels, self.a.unit
        if unit == "regular":
            yield "conv", self._conv(channels, out, stride=stride)
        elif unit == "xception":
            yield "igc", self._block(IGC, IGCSpec(channels, out, L=channels, M=1, stride=stride))
        elif unit == "igcv2":
            product = IGCV2Spec.balanced(channels, out, stride=stride)
            yield unit, IGCV2(self.backend, product, rng=self.rng, dtype=self.dtype)
        else:
            L = stage.L or 1
            # The authors' CIFAR networks have in/L secondary partitions where a stage begins.
            as_before = unit == "igc" and self.a.family == "resnet"
            spec = IGCSpec(channels, out, L, (channels if as_before else out) // L, stride=stride)
            layer = IGC if unit == "igc" else SummationFusion
            yield unit, self._block(layer, spec)
        yield "bn", self._norm(out, relu)

    def _conv(
        self, channels: int, out: int, *, kernel_size: int = 3, stride: int = 1, groups: int = 1
    ) -> Layer:
        return Conv2d(
            self.backend,
            channels,
            out,
            kernel_size=kernel_size,
            stride=stride,
            groups=groups,
            rng=self.rng,
            dtype=self.dtype,
        )

    def _block(self, layer: type[IGC] | type[SummationFusion], spec: IGCSpec) -> Layer:
        return layer(self.backend, spec, rng=self.rng, dtype=self.dtype)

    def _norm(self, channels: int, relu: bool) -> Layer:
        momentum = 0.9 if self.a.is_residual else 0.99
        return BatchNorm(self.backend, channels, momentum=momentum, relu=relu, dtype=self.dtype)


class Cost(NamedTuple):
    """What a network costs: trained numbers, and multiply-adds for one picture."""

    parameters: int
    multiply_adds: int


def rows(architecture: Architecture) -> list[Row]:
    """Return a summary line for every layer of a network, without drawing its weights."""
    network = Builder(architecture, NumpyBackend(), "float32", _Undrawn()).network()
    return list(network.rows(architecture.input_shape))


def cost(architecture: Architecture) -> Cost:
    """Count the parameters of a network, and its multiply-adds for one picture."""
    counted = rows(architecture)
    return Cost(sum(r.parameters for r in counted), sum(r.multiply_adds for r in counted))


class _Undrawn:
    """Stands in for a Generator where only shapes matter: every weight is zero."""

    def normal(self, mean: float, std: float, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        return np.broadcast_to(np.float64(0), shape)

    uniform = normal


PUBLISHED_WIDTH = 32  # channels of the stem
PUBLISHED_HEAD = 1280  # channels before the average pool
ROUNDING = 4  # G_1 * G_2 divides every width, so that the loose complementary condition holds


class Bottlenecks(NamedTuple):
    """Blocks of one width, of the published network; the first of them takes the stride."""

    expansion: int
    channels: int
    blocks: int
    stride: int


STAGES = (  # the strides are for pictures of 32x32: the last blocks see 4x4
    Bottlenecks(1, 16, 1, 1),
    Bottlenecks(6, 24, 2, 1),
    Bottlenecks(6, 32, 3, 2),
    Bottlenecks(6, 64, 4, 2),
    Bottlenecks(6, 96, 3, 1),
    Bottlenecks(6, 160, 3, 2),
    Bottlenecks(6, 320, 1, 1),
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
        conv = Conv2d(
            backend, in_channels, out_channels, kernel_size=kernel_size, rng=rng, dtype=dtype
        )
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


def _scaled(channels: int, width: int) -> int:
    """Return a published width for a stem of `width` channels, a multiple of 4, at least 4."""
    return max(1, round(channels * width / (PUBLISHED_WIDTH * ROUNDING))) * ROUNDING
