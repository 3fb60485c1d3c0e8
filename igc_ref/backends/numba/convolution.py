"""Group convolution and the IGC block of the numba backend, with their derivatives."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from igc_ref.backends.numba import convolve, pointwise
from igc_ref.backends.numba.base import NumbaBase
from igc_ref.backends.numba.batch import NumbaBatch, Numbers
from igc_ref.backends.numba.layout import layout_of
from igc_ref.backends.numba.plan import Shape, plan
from igc_ref.backends.operators.lazy import Moments, Sums
from igc_ref.backends.operators.library import Array
from igc_ref.spec.block import IGCSpec


class BlockSaved(NamedTuple):
    """What the backward pass needs; a group convolution has an empty secondary weight.

    x is laid out as the kernels read it.
    """

    x: NumbaBatch
    primary: Numbers
    secondary: Numbers
    shape: Shape


class Convolutions(NumbaBase):
    """The two operators that take nearly all of the time."""

    def conv2d(
        self, x: NumbaBatch, weight: Array, groups: int = 1, stride: int = 1
    ) -> tuple[NumbaBatch, BlockSaved]:
        """Convolve in groups; see `GenericBackend.conv2d`."""
        groups, stride = self.check_conv2d(x, weight, groups, stride)
        none = np.empty(0, weight.dtype)
        return self._forward(x, weight, none, (len(weight), groups, 0, weight.shape[2], stride))

    def conv2d_backward(
        self, dy: NumbaBatch, saved: BlockSaved, input_gradient: bool = True
    ) -> tuple[NumbaBatch | None, Array]:
        """Return the gradients of `conv2d` with respect to x (None if not wanted) and weight."""
        dx, dweight, _ = self._backward(dy, saved)
        return dx if input_gradient else None, dweight

    def igc(
        self, x: NumbaBatch, primary: Array, secondary: Array, spec: IGCSpec
    ) -> tuple[NumbaBatch, BlockSaved]:
        """Compute x' = P W_d Pᵀ W_p x; see `GenericBackend.igc`."""
        self.check_igc(x, primary, secondary, spec)
        block = spec.out_channels, spec.L, spec.M, spec.kernel_size, spec.stride
        return self._forward(x, primary, secondary, block)

    def igc_backward(self, d: NumbaBatch, saved: BlockSaved) -> tuple[NumbaBatch, Array, Array]:
        """Return the gradients of `igc` with respect to x, primary and secondary."""
        return self._backward(d, saved)

    def _forward(
        self, x: NumbaBatch, primary: Array, secondary: Array, block: tuple[int, ...]
    ) -> tuple[NumbaBatch, BlockSaved]:
        x, rule = self._by_rule(x)
        C, N, H, W = x.shape
        out, L, M, k, stride = block
        stride = min(stride, max(H, W) + 2 * (k // 2) + 1)  # so far, the first position is alone
        V, size = x.data.shape[-1], x.dtype.itemsize
        shape = Shape(C, out, L, M, k, stride, N, H, W, V, size, self.tile_bytes)
        p = plan(shape, backward=False)
        g = p.sizes
        x = self._relaid(x, g.x)
        y = self.pool.batch((out, N, g.y.height, g.columns), x.dtype, g.y)
        scratch = self.pool.array((self.team.count, p.size), x.dtype)  # a row for every thread
        y.moments = Moments(np.empty((g.blocks * g.spans, out, 3)), p.counts)
        self.team.run(
            convolve.forward, g.blocks * g.spans, y.flat, y.moments.values,
            (x.flat, *rule), self._pack(primary, p.primary, p.taps),
            self._pack(secondary, p.secondary, p.mixes), g, scratch,
        )  # fmt: skip
        return y, BlockSaved(x, primary, secondary, shape)

    def _backward(self, d: NumbaBatch, saved: BlockSaved) -> tuple[NumbaBatch, Array, Array]:
        x, primary, secondary, shape = saved
        p = plan(shape, backward=True)
        g = p.sizes
        self.check_batch("the gradient", d, x.dtype, (len(primary), *g.y[:2], g.columns))
        (x, rule), (d, derivative) = self._by_rule(x), self._by_derivative(d)
        pieces = g.blocks * g.spans
        dx, sums = self.pool.batch(x.shape, x.dtype, g.x), np.zeros((pieces, shape.in_channels, 2))
        shares = [self.pool.array((pieces, w.size), w.dtype) for w in (primary, secondary)]
        for share in shares:
            share[...] = 0
        scratch = self.pool.array((self.team.count, p.size), x.dtype)
        weights = convolve.BackwardWeights(
            self._pack(primary, p.primary, p.taps),
            self._pack(primary, p.back_primary, p.back_taps),
            p.back_starts,
            self._pack(secondary, p.back_secondary, p.mixes),
            p.y_mixes,
        )
        self.team.run(
            convolve.backward, pieces, dx.flat, *shares, sums,
            (d.flat, *derivative), (x.flat, *rule), weights, g, scratch,
        )  # fmt: skip
        dx = self._relaid(dx, layout_of(*g.x[:3]))
        dx.sums = Sums(rule.table, sums)
        return dx, _add_up(shares[0], primary), _add_up(shares[1], secondary)

    def _pack(self, weights: Array, table: Numbers, taps: Numbers) -> convolve.Weights:
        """Order weights as the register tiles read them."""
        packed = self.pool.array(table.shape, weights.dtype)
        pointwise.pack(packed, weights.reshape(-1), table)
        return convolve.Weights(packed, taps)


def _add_up(shares: Numbers, like: Numbers) -> Numbers:
    """Add up the pieces' shares of a weight's gradient."""
    total = np.empty(like.shape, like.dtype)
    pointwise.add_up(total.reshape(-1), shares)
    return total
