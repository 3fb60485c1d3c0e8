"""Group convolution and the IGC block of the numba backend, with their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from igc_ref.backends.numba import convolve, pointwise, winograd
from igc_ref.backends.numba.base import NumbaBase
from igc_ref.backends.numba.batch import NumbaBatch, Numbers
from igc_ref.backends.numba.plan import BEYOND, Shape, Sizes, plan
from igc_ref.backends.operators.lazy import Moments, Sums
from igc_ref.backends.operators.library import Array, Saved
from igc_ref.spec.block import IGCSpec
from igc_ref.spec.mixed import MixedSpec

ONE = np.ones((1, 1))  # weights are taken as they are,
TO_POINTS = winograd.G.T.copy()  # or, as rows w of the kernel, as w @ TO_POINTS
NONE = {kind: np.empty(0, kind) for kind in "fd"}  # a weight or a gradient that there is not
UNGATED = {kind: np.empty((0, 0, 0), kind) for kind in "fd"}


class BlockSaved(NamedTuple):
    """What the backward pass needs; a group convolution has an empty secondary weight.

    x is laid out as the kernels read it.
    """

    x: NumbaBatch
    ybar: Numbers
    primary: Numbers
    secondary: Numbers
    shape: Shape


class Packs:
    """Weights as the register tiles read them, kept until the weights have changed or are gone."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, int], tuple[Any, ...]] = {}  # by the identity of both arrays
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[Packs], tuple[()]]:
        return Packs, ()  # a copy starts empty

    def of(
        self, weights: Array, table: Numbers, points: Numbers, pack: Callable[..., None]
    ) -> Numbers:
        """Return weights packed as a table says; see `pointwise.pack`."""
        key, flat = (id(weights), id(table)), weights.reshape(-1)
        bits = flat.view(f"i{flat.itemsize}")
        with self._lock:
            if key not in self.kept:
                gone = ref(weights, lambda _: self.kept.pop(key, None))
                packed = np.empty(table.size * points.shape[1], flat.dtype)
                self.kept[key] = gone, table, ~bits, packed
            _, _, copy, packed = self.kept[key]
            if pointwise.renew(copy, bits):
                pack(packed, flat, table, points)
        return packed  # type: ignore[no-any-return]


class Convolutions(NumbaBase):
    """The two operators that take nearly all of the time."""

    def __init__(self, threads: int | None = None) -> None:
        super().__init__(threads)
        self.packs = Packs()

    def conv2d(
        self, x: NumbaBatch, weight: Array, groups: int = 1, stride: int = 1
    ) -> tuple[NumbaBatch, BlockSaved]:
        """Convolve in groups; see `GenericBackend.conv2d`."""
        groups, stride = self.check_conv2d(x, weight, groups, stride)
        block = len(weight), groups, 0, *weight.shape[2:], stride
        return self._forward(x, weight, NONE[weight.dtype.char], block)

    def conv2d_backward(
        self, dy: NumbaBatch, saved: BlockSaved, input_gradient: bool = True
    ) -> tuple[NumbaBatch | None, Array]:
        """Return the gradients of `conv2d` with respect to x (None if not wanted) and weight."""
        dx, dweight, *_ = self._backward(dy, saved, input_gradient=input_gradient)
        return dx if input_gradient else None, dweight

    def igc(
        self, x: NumbaBatch, primary: Array, secondary: Array, spec: IGCSpec
    ) -> tuple[NumbaBatch, BlockSaved]:
        """Compute x' = P W_d Pᵀ W_p x; see `GenericBackend.igc`."""
        self.check_igc(x, primary, secondary, spec)
        block = spec.out_channels, spec.L, spec.M, *spec.kernel, spec.stride
        return self._forward(x, primary, secondary, block)

    def igc_backward(self, d: NumbaBatch, saved: BlockSaved) -> tuple[NumbaBatch, Array, Array]:
        """Return the gradients of `igc` with respect to x, primary and secondary."""
        return self._backward(d, saved)[:3]

    def gated_igc(
        self, x: NumbaBatch, primary: Array, secondary: Array, gates: Array, spec: IGCSpec
    ) -> tuple[NumbaBatch, Saved]:
        """Compute x' = P W_d Pᵀ D W_p x; a partition is left out that no image of a block needs."""
        self.check_igc(x, primary, secondary, spec)
        self.check("gates", gates, x.dtype, shape=(self.in_all(x.shape[1]), spec.L))
        block = spec.out_channels, spec.L, spec.M, *spec.kernel, spec.stride
        y, saved = self._forward(x, primary, secondary, block, gates)
        return y, (saved, gates)

    def gated_igc_backward(self, d: NumbaBatch, saved: Saved) -> tuple[Any, ...]:
        """Return the gradients of `gated_igc` with respect to x, both weights and the gates."""
        block, gates = saved
        *found, sums = self._backward(d, block, gates)
        return *found, np.divide(sums, gates, out=np.zeros_like(gates), where=gates != 0)

    def mix(
        self, y: NumbaBatch, secondary: Array, spec: IGCSpec | MixedSpec
    ) -> tuple[NumbaBatch, BlockSaved]:
        """Return P W_d Pᵀ y, as a block whose W_p is the identity: it copies nothing."""
        out, L = spec.out_channels, spec.L
        identity = IGCSpec(out, out, L, spec.M, kernel_size=1)
        return self.igc(y, _identity(out, L, y.dtype.char), secondary, identity)

    def mix_backward(self, d: NumbaBatch, saved: BlockSaved) -> tuple[NumbaBatch, Array]:
        """Return the gradients of `mix` with respect to y and secondary."""
        dy, _, dsecondary = self.igc_backward(d, saved)
        return dy, dsecondary

    def _forward(
        self,
        x: NumbaBatch,
        primary: Array,
        secondary: Array,
        block: tuple[int, ...],
        gates: Array | None = None,
    ) -> tuple[NumbaBatch, BlockSaved]:
        x, rule = self._by_rule(x)
        C, N, H, W = x.shape
        out, L, M, kh, kw, stride = block
        far = max(H + 2 * (kh // 2), W + 2 * (kw // 2)) + 1  # the first position is alone
        stride = min(stride, far)
        V, size = x.data.shape[-1], x.dtype.itemsize
        whole = self.in_all(N)
        shape = Shape(C, out, L, M, kh, kw, stride, N, whole, H, W, V, size, self.tile_bytes)
        p = plan(shape, backward=False)
        g = p.sizes
        x = self._relaid(x, g.x)
        y = self._empty((out, N, g.y.height, g.columns), x.dtype, g.y)
        kept = g.blocks * out * g.kept_plane + BEYOND * V
        ybar = self.pool.array((kept if g.kept_plane else 0,), x.dtype)
        scratch = self.pool.array((self.team.count, p.size), x.dtype)  # a row for every thread
        y.moments = Moments(np.empty((g.blocks * g.spans, out, 3)), p.counts)
        self._share_out(
            convolve.forward, g, y.flat, ybar, y.moments.values, (x.flat, *rule),
            self._kept(primary, p.primary, p.taps, _points(g)),
            self._kept(secondary, p.secondary, p.mixes, ONE),
            self._gates(gates, x.dtype, g), g, scratch,
        )  # fmt: skip
        return y, BlockSaved(x, ybar, primary, secondary, shape)

    def _backward(
        self,
        d: NumbaBatch,
        saved: BlockSaved,
        gates: Array | None = None,
        input_gradient: bool = True,
    ) -> tuple[NumbaBatch, Array, Array, Any]:
        x, ybar, primary, secondary, shape = saved
        p = plan(shape, backward=True)
        g = p.sizes
        self.check_batch("the gradient", d, x.dtype, (len(primary), *g.y[:2], g.columns))
        (x, rule), (d, derivative) = self._by_rule(x), self._by_derivative(d)
        pieces, points = g.blocks * g.spans, _points(g)
        dx, sums = self._empty(x.shape, x.dtype, g.x), np.zeros((pieces, shape.in_channels, 2))
        sizes = points.shape[1] * g.L * g.share, g.M * g.mix_share
        shares = [self.pool.array((pieces, size), x.dtype) for size in sizes]
        scratch = self.pool.array((self.team.count, p.size), x.dtype)
        weights = convolve.BackwardWeights(
            self._kept(primary, p.primary, p.taps, points),
            self._packed(primary, p.back_primary, p.back_taps, points[::-1].copy()),  # mirrored
            p.back_starts,
            self._packed(secondary, p.back_secondary, p.mixes, ONE),
            p.ybar_mixes,
        )
        of_gates = np.zeros((g.blocks, 0 if gates is None else g.spans, g.L, g.lanes), x.dtype)
        self._share_out(
            convolve.backward, g, dx.flat if input_gradient else NONE[x.dtype.char], *shares, sums,
            (d.flat, *derivative), (x.flat, *rule), ybar, weights,
            (self._gates(gates, x.dtype, g), of_gates), g, scratch,
        )  # fmt: skip
        dx = self._relaid(dx, self._layout(*g.x[:3]))
        dx.sums = Sums(rule.table, sums, g.x.together, g.spans)
        back = winograd.C if g.tiles else ONE
        dW_p = self._add_up(shares[0], g, primary, p.shares, back)
        dW_d = self._add_up(shares[1], g, secondary, p.mix_shares, ONE)
        gated = None if gates is None else self._of_images(of_gates.sum(axis=1), g.y)
        return dx, dW_p, dW_d, gated

    def _gates(self, gates: Array | None, dtype: Any, g: Sizes) -> Numbers:
        """Return gates in lanes, none of them for a block without."""
        return UNGATED[dtype.char] if gates is None else self._in_lanes(gates, g.y)

    def _share_out(self, kernel: Any, g: Sizes, *arguments: Any) -> None:
        """Let every thread take pieces, one after the other, until there are none left."""
        threads = min(self.team.count, g.blocks * g.spans)
        self.team.run(kernel, threads, np.zeros(1, np.int64), *arguments)

    def _kept(
        self, weights: Array, table: Numbers, taps: Numbers, points: Numbers
    ) -> convolve.Weights:
        """Order weights as the way forward reads them, if they have changed."""
        return convolve.Weights(self.packs.of(weights, table, points, self._pack), taps)

    def _packed(
        self, weights: Array, table: Numbers, taps: Numbers, points: Numbers
    ) -> convolve.Weights:
        """Order weights as the way back reads them."""
        packed = self.pool.array((table.size * points.shape[1],), weights.dtype)
        self._pack(packed, weights.reshape(-1), table, points)
        return convolve.Weights(packed, taps)

    def _pack(self, packed: Numbers, weights: Array, table: Numbers, points: Numbers) -> None:
        self._strips(pointwise.pack, len(table), packed, weights, table, points)

    def _add_up(
        self, shares: Numbers, g: Sizes, like: Numbers, table: Numbers, points: Numbers
    ) -> Numbers:
        """Add up the pieces' shares of a weight's gradient: those of a unit, then the units."""
        each, size = self.unit // g.y.together * g.spans, shares.shape[1]
        self._strips(pointwise.add_up, size, shares, 1, each)
        if self.communicator is not None and size:  # a group convolution has no second weight
            shares, each = self.gathered(np.ascontiguousarray(shares[::each]), self.unit), 1
        self._strips(pointwise.add_up, size, shares, each, len(shares))
        gradient = np.empty(like.shape, like.dtype)
        self._strips(pointwise.unpack, len(table), gradient.reshape(-1), shares[0], table, points)
        return gradient

    def _strips(self, kernel: Any, length: int, *arguments: Any) -> None:
        """Share out a row of numbers among the threads."""
        self.team.run(kernel, -(-length // pointwise.STRIP), *arguments)


@lru_cache
def _identity(channels: int, L: int, kind: str) -> Numbers:
    """Return W_p with which y = x."""
    each = channels // L
    return np.tile(np.eye(each, dtype=kind), (L, 1)).reshape(channels, each, 1, 1)


def _points(g: Sizes) -> Numbers:
    """Return what the weights are multiplied by."""
    return TO_POINTS if g.tiles else ONE
