"""Group convolution and the IGC block of the numba backend, with their derivatives."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from igc_ref.backends.numba import convolve, pointwise
from igc_ref.backends.numba.base import NumbaBase
from igc_ref.backends.numba.batch import NumbaBatch, Numbers
from igc_ref.backends.numba.plan import Shape, plan
from igc_ref.backends.numba.winograd import POINTS, C as INVERSE_C, G as WG
from igc_ref.backends.operators.lazy import Moments, Sums
from igc_ref.backends.operators.library import Array
from igc_ref.spec.block import IGCSpec


class BlockSaved(NamedTuple):
    """What the backward pass needs; a group convolution has an empty secondary weight."""

    x: NumbaBatch
    ybar: Numbers
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
        given = primary
        C, N, H, W = x.shape
        out, L, M, k, stride = block
        stride = min(stride, max(H, W) + 2 * (k // 2) + 1)  # so far, the first position is alone
        V, size = x.data.shape[-1], x.dtype.itemsize
        shape = Shape(C, out, L, M, k, stride, N, H, W, V, size, self.tile_bytes)
        p = plan(shape, backward=False)
        g = p.sizes
        y = self.pool.batch((out, N, g.rows, g.columns), x.dtype)
        if g.tiles:
            primary = (primary.reshape(-1, 3) @ WG.T.astype(x.dtype)).reshape(-1)
        scratch = self.pool.array((self.team.count, p.size), x.dtype)  # a row for every thread
        y.moments = Moments(np.empty((g.blocks * g.spans, out, 3)), _counts(shape))
        kept = self.pool.array((g.blocks * len(given) * g.kept_plane,), x.dtype)
        self.team.run(
            convolve.forward, min(self.team.count, g.blocks * g.spans), np.zeros(1, np.int64),
            y.flat, kept, y.moments.values,
            (x.flat, *rule), self._pack(primary, p.primary, p.taps),
            self._pack(secondary, p.secondary, p.mixes), g, scratch,
        )  # fmt: skip
        return y, BlockSaved(x, kept, given, secondary, shape)

    def _backward(self, d: NumbaBatch, saved: BlockSaved) -> tuple[NumbaBatch, Array, Array]:
        x, kept, primary, secondary, shape = saved
        p = plan(shape, backward=True)
        g = p.sizes
        self.check_batch("the gradient", d, x.dtype, (len(primary), x.count, g.rows, g.columns))
        (x, rule), (d, derivative) = self._by_rule(x), self._by_derivative(d)
        pieces = g.blocks * g.spans
        dx, sums = self.pool.batch(x.shape, x.dtype), np.zeros((pieces, shape.in_channels, 2))
        given, back = primary, primary
        if g.tiles:
            G = WG.T.astype(x.dtype)
            back = (np.ascontiguousarray(primary[..., ::-1]).reshape(-1, 3) @ G).reshape(-1)
            primary = (primary.reshape(-1, 3) @ G).reshape(-1)
        groups = g.L * (POINTS if g.tiles else 1)
        sizes = groups * g.share, g.M * g.mix_share
        shares = [self.pool.array((pieces, size), x.dtype) for size in sizes]
        scratch = self.pool.array((self.team.count, p.size), x.dtype)
        weights = convolve.BackwardWeights(
            self._pack(primary, p.primary, p.taps),
            self._pack(back, p.back_primary, p.back_taps),
            p.back_starts,
            self._pack(secondary, p.back_secondary, p.mixes),
            p.ybar_mixes,
        )
        self.team.run(
            convolve.backward, min(self.team.count, pieces), np.zeros(1, np.int64),
            dx.flat, *shares, sums, (d.flat, *derivative), (x.flat, *rule), kept, weights, g, scratch,
        )  # fmt: skip
        dx.sums = Sums(rule.table, sums)
        dW = self._add_up(shares[0], primary, p.shares)
        if g.tiles:
            dW = INVERSE_C.astype(x.dtype) @ dW.reshape(6, -1)
            dW = np.ascontiguousarray(dW.T).reshape(given.shape)
        return dx, dW, self._add_up(shares[1], secondary, p.mix_shares)

    def _pack(self, weights: Array, table: Numbers, taps: Numbers) -> convolve.Weights:
        """Order weights as the register tiles read them."""
        packed = self.pool.array(table.shape, weights.dtype)
        pointwise.pack(packed, weights.reshape(-1), table)
        return convolve.Weights(packed, taps)

    def _add_up(self, shares: Numbers, like: Numbers, table: Numbers) -> Numbers:
        """Add up the pieces' shares of a weight's gradient."""
        self.team.run(pointwise.add_up, -(-shares.shape[1] // 4096), shares)
        total = np.empty(like.shape, like.dtype)
        pointwise.pack(total.reshape(-1), shares[0], table)
        return total


@lru_cache
def _counts(shape: Shape) -> Numbers:
    """Return how many numbers of a channel of x' each piece of the batch has."""
    g = plan(shape, backward=False).sizes
    edges = np.arange(g.spans + 1) * g.rows // g.spans
    images = np.minimum(g.lanes, g.images - g.lanes * np.arange(g.blocks))
    return (images[:, None] * np.diff(edges) * float(g.columns)).ravel()
