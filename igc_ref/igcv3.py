"""The IGCV3 network (arXiv:1806.00178) for pictures of 32x32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from igc_ref.backends import GenericBackend
from igc_ref.errors import SpecError
from igc_ref.layers import IGCV3, BatchNorm, Conv2d, GlobalAveragePool, Linear
from igc_ref.network import Layer, Sequential
from igc_ref.spec import integer
from igc_ref.spec_products import IGCV3Spec

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
