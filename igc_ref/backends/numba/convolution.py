"""Group convolution and the IGC block of the numba backend, with their derivatives."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from igc_ref.backends.numba import convolve, pointwise, winograd
from igc_ref.backends.numba.base import NumbaBase
from igc_ref.backends.numba.batch import NumbaBatch, Numbers
from igc_ref.backends.numba.layout import layout_of
from igc_ref.backends.numba.plan import Shape, Sizes, plan
from igc_ref.backends.operators.lazy import Moments, Sums
from igc_ref.backends.operators.library import Array
from igc_ref.spec.block import IGCSpec

ONE = np.ones((1, 1))  # weights are taken as they are


class BlockSaved(NamedTuple):
    """What the backward pass needs; a group convolution has an empty secondary weight.

    x is laid out as the kernels read it.
    """

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
        C, N, H, W = x.shape
        out, L, M, k, stride = block
        stride = min(stride, max(H, W) + 2 * (k // 2) + 1)  # so far, the first position is alone
        V, size = x.data.shape[-1], x.dtype.itemsize
        shape = Shape(C, out, L, M, k, stride, N, H, W, V, size, self.tile_bytes)
        p = plan(shape, backward=False)
        g = p.sizes
        x = self._relaid(x, g.x)
        y = self.pool.batch((out, N, g.y.height, g.columns), x.dtype, g.y)
        ybar = self.pool.array((g.blocks * out * g.kept_plane,), x.dtype)
        scratch = self.pool.array((self.team.count, p.size), x.dtype)  # a row for every thread
        y.moments = Moments(np.empty((g.blocks * g.spans, out, 3)), p.counts)
        self._share_out(
            convolve.forward, g, y.flat, ybar, y.moments.values, (x.flat, *rule),
            self._pack(primary, p.primary, p.taps, _points(g)),
            self._pack(secondary, p.secondary, p.mixes), g, scratch,
        )  # fmt: skip
        return y, BlockSaved(x, ybar, primary, secondary, shape)

    def _backward(self, d: NumbaBatch, saved: BlockSaved) -> tuple[NumbaBatch, Array, Array]:
        x, ybar, primary, secondary, shape = saved
        p = plan(shape, backward=True)
        g = p.sizes
        self.check_batch("the gradient", d, x.dtype, (len(primary), *g.y[:2], g.columns))
        (x, rule), (d, derivative) = self._by_rule(x), self._by_derivative(d)
        pieces, points = g.blocks * g.spans, _points(g)
        dx, sums = self.pool.batch(x.shape, x.dtype, g.x), np.zeros((pieces, shape.in_channels, 2))
        again = p.primary.size if g.M and not g.kept_plane else 0  # for ybar
        sizes = points.shape[1] * g.L * g.share, g.M * g.mix_share
        shares = [self.pool.array((pieces, size), x.dtype) for size in sizes]
        scratch = self.pool.array((self.team.count, p.size), x.dtype)
        weights = convolve.BackwardWeights(
            self._pack(primary, p.primary[:again], p.taps, points),
            self._pack(primary, p.back_primary, p.back_taps, points[::-1].copy()),  # a mirror image
            p.back_starts,
            self._pack(secondary, p.back_secondary, p.mixes),
            p.ybar_mixes,
        )
        self._share_out(
            convolve.backward, g, dx.flat, *shares, sums, (d.flat, *derivative),
            (x.flat, *rule), ybar, weights, g, scratch,
        )  # fmt: skip
        dx = self._relaid(dx, layout_of(*g.x[:3]))
        dx.sums = Sums(rule.table, sums)
        back = winograd.C if g.tiles else ONE
        dW_p = self._add_up(shares[0], primary, p.shares, back)
        return dx, dW_p, self._add_up(shares[1], secondary, p.mix_shares, ONE)

    def _share_out(self, kernel: Any, g: Sizes, *arguments: Any) -> None:
        """Let every thread take pieces, one after the other, until there are none left."""
        threads = min(self.team.count, g.blocks * g.spans)
        self.team.run(kernel, threads, np.zeros(1, np.int64), *arguments)

    def _pack(
        self, weights: Array, table: Numbers, taps: Numbers, points: Numbers = ONE
    ) -> convolve.Weights:
        """Order weights as the register tiles read them."""
        packed = self.pool.array((table.size * points.shape[1],), weights.dtype)
        self._strips(pointwise.pack, table, packed, weights.reshape(-1), table, points)
        return convolve.Weights(packed, taps)

    def _add_up(self, shares: Numbers, like: Numbers, table: Numbers, points: Numbers) -> Numbers:
        """Add up the pieces' shares of a weight's gradient."""
        self._strips(pointwise.add_up, shares[0], shares)
        gradient = np.empty(like.shape, like.dtype)
        self._strips(pointwise.unpack, table, gradient.reshape(-1), shares[0], table, points)
        return gradient

    def _strips(self, kernel: Any, numbers: Numbers, *arguments: Any) -> None:
        """Share out a row of numbers among the threads."""
        self.team.run(kernel, -(-len(numbers) // pointwise.STRIP), *arguments)


def _points(g: Sizes) -> Numbers:
    """Return what a row of the kernel is multiplied by."""
    return winograd.G.T.copy() if g.tiles else ONE
