"""From the numbers of an architecture to its layers, and what the network costs.

`Builder` makes the layers in the order in which data flows, all weights from one random stream.
`rows` and `cost` count a network without drawing its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from igc_ref.backends import GenericBackend, NumpyBackend
from igc_ref.errors import KernelSize, SpecError
from igc_ref.networks.architecture import Architecture, Stage
from igc_ref.networks.blocks import IGC, IGCV2, IGCV3, MixedIGC, SummationFusion
from igc_ref.networks.gates import GatedIGC
from igc_ref.networks.layer import Dense, Layer, Residual, Row, Sequential
from igc_ref.networks.layers import (
    AveragePool,
    BatchNorm,
    Conv2d,
    GlobalAveragePool,
    GroupNorm,
    Linear,
    MaxPool,
)
from igc_ref.spec.block import IGCSpec
from igc_ref.spec.mixed import MixedSpec
from igc_ref.spec.products import IGCV2Spec, IGCV3Spec

NORM_GROUPS = 8  # group norm has the most groups up to here that divide the channels


class Builder:
    """Makes the layers of one architecture.

    Parameters
    ----------
    architecture, backend, dtype
        As in `igc_ref.networks.model.build`.
    rng : numpy Generator
        Draws all weights.
    bn_momentum : float, optional
        Weight of the past in batch norm's running averages; by default the authors' value, 0.99 in
        the plain networks and 0.9 in the others.

    Raises
    ------
    SpecError
        If `bn_momentum` is not in the half-open interval from 0 to 1.
    """

    def __init__(
        self,
        architecture: Architecture,
        backend: GenericBackend,
        dtype: str,
        rng: Any,
        *,
        bn_momentum: float | None = None,
    ) -> None:
        self.a, self.backend = architecture, backend
        self.draw: dict[str, Any] = {"rng": rng, "dtype": dtype}  # of every layer with weights
        if bn_momentum is None:
            bn_momentum = 0.9 if architecture.is_residual else 0.99
        if not 0 <= bn_momentum < 1:
            raise SpecError(f"bn_momentum={bn_momentum} is not allowed; it must be in [0, 1)")
        self.bn_momentum = bn_momentum

    def network(self) -> Layer:
        """Stem, blocks, global average pool, linear."""
        parts: dict[str, Layer] = {"stem": self._stem()}
        blocks = {"igcv3": self._bottlenecks, "densenet": self._dense_blocks}
        parts.update(blocks.get(self.a.family, self._stages)())
        channels = Sequential(parts).output_shape(self.a.input_shape)[0]
        parts["pool"] = GlobalAveragePool(self.backend)
        parts["linear"] = Linear(self.backend, channels, self.a.num_classes, **self.draw)
        return Sequential(parts)

    def _stem(self) -> Layer:
        a, channels = self.a, self.a.stem_channels
        if a.family == "densenet":  # the first layers normalise
            return Conv2d(self.backend, a.input_shape[0], channels, **self.draw)
        if a.family != "imagenet":
            return self._conv_bn(a.input_shape[0], channels, kernel_size=self._kernel(3))
        stem = self._conv_bn(a.input_shape[0], channels, kernel_size=7, stride=2)
        stem.children["pool"] = MaxPool(self.backend)
        return stem

    def _stages(self) -> Iterator[tuple[str, Layer]]:
        """Yield the blocks of a network whose stages double their width."""
        channels = self.a.stem_channels
        make: Callable[..., Layer] = self._residual_block if self.a.is_residual else self._unit
        for number, stage in enumerate(self.a.stages, start=1):
            for block in range(1, stage.blocks + 1):
                stride = stage.stride if block == 1 else 1
                yield f"stage{number}.block{block}", make(channels, stage, stride)
                channels = stage.channels

    def _residual_block(self, channels: int, stage: Stage, stride: int) -> Layer:
        out, shortcut = stage.channels, None
        if channels != out:
            shape: dict[str, Any] = {"kernel_size": 1, "stride": stride, "groups": stage.L or 1}
            shortcut = self._conv_bn(channels, out, **shape, relu=False)
        branch = {"unit1": self._unit(channels, stage, stride)}
        branch["unit2"] = self._unit(out, stage, 1, relu=False)
        return Residual(self.backend, Sequential(branch), shortcut)

    def _kernel(self, k: int) -> KernelSize:
        """Return the size of a kernel of k pixels along every axis that the network has."""
        return (1, k) if self.a.dims == "1" else k

    def _unit(self, channels: int, stage: Stage, stride: int, *, relu: bool = True) -> Sequential:
        """Make a convolution, or a block in its place, and its norm."""
        a, out, kernel = self.a, stage.channels, self._kernel(self.a.kernel_sizes[0])
        if a.unit == "regular":
            return self._conv_bn(channels, out, relu=relu, kernel_size=kernel, stride=stride)
        name = "igc" if a.unit == "xception" else a.unit
        layer = self._block(channels, stage, stride)
        return Sequential({name: layer, "bn": self._norm(out, relu)})

    def _block(self, channels: int, stage: Stage, stride: int) -> Layer:
        a, out, L = self.a, stage.channels, stage.L or 1
        kernel, *others = map(self._kernel, a.kernel_sizes)
        if a.unit == "igcv2":
            product = IGCV2Spec.balanced(channels, out, kernel_size=kernel, stride=stride)
            return IGCV2(self.backend, product, **self.draw)
        # The authors' CIFAR networks have in/L secondary partitions where a stage begins.
        M = (channels if a.unit == "igc" and a.family == "resnet" else out) // L
        if a.unit == "xception":
            L, M = channels, 1
        if others:
            mixed: Any = MixedSpec(channels, out, L, M, (kernel, *others), stride)
            return MixedIGC(self.backend, mixed, **self.draw)
        spec = IGCSpec(channels, out, L, M, kernel, stride)
        if a.gate != "none":
            keep = a.keep and a.keep * L // (a.L or 1)
            return GatedIGC(self.backend, spec, a.gate, keep, **self.draw)
        return (SummationFusion if a.unit == "fusion" else IGC)(self.backend, spec, **self.draw)

    def _bottlenecks(self) -> Iterator[tuple[str, Layer]]:
        """Yield the blocks of an IGCV3 network, and its head, a 1x1 convolution."""
        channels = self.a.channels
        for i, spec in enumerate(igcv3_blocks(self.a), start=1):
            yield f"block{i}", IGCV3(self.backend, spec, momentum=self.bn_momentum, **self.draw)
            channels = spec.out_channels
        yield "head", self._conv_bn(channels, _scaled(PUBLISHED_HEAD, self.a), kernel_size=1)

    def _dense_blocks(self) -> Iterator[tuple[str, Layer]]:
        """Yield the layers and transitions of a DenseNet-BC (arXiv:1608.06993), and its last norm.

        Every layer adds k channels, through a bottleneck of 4k. A transition is a regular 1x1
        convolution to half of the channels, rounded down to a multiple of L, and average pooling.
        """
        channels, k, L = self.a.stem_channels, self.a.channels, self.a.L or 1
        for block in range(1, 4):
            for layer in range(1, (self.a.depth - 4) // 6 + 1):
                yield f"dense{block}.layer{layer}", self._dense_layer(channels, k)
                channels += k
            if block < 3:
                out = channels // 2 // L * L
                conv = Conv2d(self.backend, channels, out, kernel_size=1, **self.draw)
                parts = {"bn": self._norm(channels, True), "conv": conv}
                parts["pool"] = AveragePool(self.backend, 2)
                yield f"transition{block}", Sequential(parts)
                channels = out
        yield "bn", self._norm(channels, True)

    def _dense_layer(self, channels: int, k: int) -> Layer:
        """Make a batch norm and a 1x1 convolution or block, another norm and a 3x3 one."""
        parts: dict[str, Layer] = {}
        for i, (inp, out, size) in enumerate(((channels, 4 * k, 1), (4 * k, k, 3)), start=1):
            parts[f"bn{i}"] = self._norm(inp, True)
            if self.a.unit == "igc":
                L = self.a.L or 1
                spec = IGCSpec(inp, out, L, out // L, kernel_size=size)
                parts[f"igc{i}"] = IGC(self.backend, spec, **self.draw)
            else:
                parts[f"conv{i}"] = Conv2d(self.backend, inp, out, kernel_size=size, **self.draw)
        return Dense(self.backend, parts)

    def _conv_bn(self, channels: int, out: int, *, relu: bool = True, **shape: Any) -> Sequential:
        conv = Conv2d(self.backend, channels, out, **shape, **self.draw)
        return Sequential({"conv": conv, "bn": self._norm(out, relu)})

    def _norm(self, channels: int, relu: bool) -> Layer:
        momentum, dtype = self.bn_momentum, self.draw["dtype"]
        if self.a.norm != "batch":
            most = NORM_GROUPS if self.a.norm == "group" else 1
            groups = max(g for g in range(1, most + 1) if channels % g == 0)
            return GroupNorm(self.backend, channels, groups, relu=relu, dtype=dtype)
        return BatchNorm(self.backend, channels, momentum=momentum, relu=relu, dtype=dtype)


# -- IGCV3: the published network, scaled ------------------------------------------------------

PUBLISHED_WIDTH = 32  # channels of the stem
PUBLISHED_HEAD = 1280  # channels before the average pool
ROUNDING = 4  # G_1 * G_2 divides every width, so that the loose complementary condition holds
# Expansion, channels, blocks, and stride of the first block. The strides are for images of 32x32:
# the last blocks see 4x4.
BOTTLENECKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def igcv3_blocks(architecture: Architecture) -> Iterator[IGCV3Spec]:
    """Yield the blocks of an IGCV3 network in their order.

    Its depth is ``9 + 45*r``. With r = 2 the blocks are those of the published IGCV3-D, with r = 1
    those of MobileNetV2 (arXiv:1801.04381). All widths are the published ones, whose stem has 32
    channels, times ``width / 32``, rounded to a multiple of 4.

    Notes
    -----
    Three things differ from the published network: ReLU is not clipped at 6, there is no dropout,
    and below width 32 the head is narrower too. The strides are ours; parameters do not depend on
    them.
    """
    repeats = (architecture.depth - 9) // 45
    channels = architecture.channels
    for expansion, published, blocks, stride in BOTTLENECKS:
        out = _scaled(published, architecture)
        for block in range(blocks * repeats if blocks > 1 else 1):
            yield IGCV3Spec(channels, out, expansion, stride=stride if block == 0 else 1)
            channels = out


def _scaled(channels: int, architecture: Architecture) -> int:
    """Return a published width for the network's own stem: a multiple of 4, at least 4."""
    exact = channels * architecture.channels / PUBLISHED_WIDTH
    return max(1, round(exact / ROUNDING)) * ROUNDING


# -- what a network costs ----------------------------------------------------------------------


class Cost(NamedTuple):
    """What a network costs: trained parameters, and multiply-adds for one image."""

    parameters: int
    multiply_adds: int


def rows(architecture: Architecture, size: Sequence[int] | None = None) -> list[Row]:
    """Return a summary line for every layer of a network, without drawing its weights.

    `size` is (H, W) of an image; by default of those that the network was designed for.
    """
    network = Builder(architecture, _Unstored(), "float32", _Undrawn()).network()
    channels, *designed = architecture.input_shape
    return list(network.rows((channels, *(size or designed))))


def cost(architecture: Architecture, size: Sequence[int] | None = None) -> Cost:
    """Count the parameters of a network, and its multiply-adds for one image, (H, W) as in `rows`.

    Examples
    --------
    >>> cost(Architecture("plain_igc", 8, L=4, M=8))
    Cost(parameters=78634, multiply_adds=13141248)
    """
    counted = rows(architecture, size)
    return Cost(sum(r.parameters for r in counted), sum(r.multiply_adds for r in counted))


class _Undrawn:
    """Takes the place of a Generator where only shapes matter: every weight is zero."""

    def normal(self, mean: float, std: float, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        return np.broadcast_to(np.float64(0), shape)

    uniform = normal


class _Unstored(NumpyBackend):
    """Makes no copies, so that those weights take no memory however large a network is."""

    def _bring(self, array: npt.NDArray[Any], dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
        return array
