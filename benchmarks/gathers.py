"""What the ranks that share a batch gather in a training step, counted from the layers' plans."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from igc_ref.backends.numba.backend import NumbaBackend
from igc_ref.backends.numba.layout import layout_of
from igc_ref.backends.numba.plan import Shape, plan
from igc_ref.backends.numba.winograd import POINTS
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.blocks import IGC
from igc_ref.networks.layer import Layer, Residual
from igc_ref.networks.layers import BatchNorm, Conv2d, GlobalAveragePool
from igc_ref.networks.model import build


def gathers(a: Architecture, batch: int) -> dict[str, tuple[int, int]]:
    """Return how often ranks gather in a training step, and the bytes of all together, by kind.

    For the networks of convolutions, IGC blocks, batch norms and residual sums, in float32.
    """
    found: dict[str, list[int]] = {"features": [], "moments": [], "sums": [], "gradients": []}
    backend, pieces = NumbaBackend(1), 0
    V = backend.unit
    for layer, shape in reversed([*leaves(build(a, "numpy").network, a.input_shape)]):
        if isinstance(layer, GlobalAveragePool):
            found["features"].append(4 * batch * shape[0])
        elif isinstance(layer, BatchNorm):  # a convolution that alone reads it takes its sums
            blocks = layout_of(batch, shape[1], V).blocks
            found["sums"].append(16 * shape[0] * (pieces or blocks))
        pieces = 0
        if isinstance(layer, Conv2d | IGC):
            weight, *_ = layer.parameters.values()
            of = layer.spec if isinstance(layer, IGC) else layer
            block = (of.L, of.M) if isinstance(layer, IGC) else (of.groups, 0)
            g = plan(Shape(shape[0], len(weight), *block, *weight.shape[2:], of.stride, batch,
                           batch, *shape[1:], V, 4, backend.tile_bytes),
                     backward=True).sizes  # fmt: skip
            pieces = g.blocks * g.spans
            found["moments"].append(24 * len(weight) * pieces)
            each = (POINTS if g.tiles else 1) * g.L * g.share, g.M * g.mix_share
            found["gradients"] += [4 * -(-batch // V) * size for size in each if size]
    return {kind: (len(sizes), sum(sizes)) for kind, sizes in found.items()}


def leaves(layer: Layer, shape: Any) -> Iterator[tuple[Layer | None, Any]]:
    """Yield the layers without parts and their inputs' shapes; None where ways part or meet."""
    if not layer.children:
        yield layer, shape
    for child in layer.children.values():
        if isinstance(layer, Residual):
            yield None, shape
        yield from leaves(child, shape)
        shape = shape if isinstance(layer, Residual) else child.output_shape(shape)
    yield from [(None, shape)] * isinstance(layer, Residual)
