"""The residual sum and its ReLU, the channel shuffle, concatenation and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise, product
from typing import Any, NamedTuple

from igc_ref.backends.operators.checks import Checks
from igc_ref.backends.operators.library import DTYPES, Array, Saved
from igc_ref.backends.operators.taps import Tap, taps
from igc_ref.spec.block import output_length


class MaxPoolSaved(NamedTuple):
    """What the backward pass needs; winner is the tap that was greatest, in numba the pixel."""

    shape: tuple[int, int, int, int]
    dtype: Any
    winner: Array
    taps: Sequence[tuple[Tap, Tap]] = ()


def _scaled(x: Array, gates: Array) -> Array:
    """Multiply groups of channels by gates (N, groups)."""
    groups = x.reshape(gates.shape[1], -1, *x.shape[1:])  # (groups, C/groups, N, H, W)
    return (groups * gates.T[:, None, :, None, None]).reshape(x.shape)


class PointwiseOperators(Checks):
    """Operators without a convolution in them."""

    def add(self, a: Array, b: Array) -> Array:
        """Return a + b: where two gradients meet."""
        self.check_pair("a", a, "b", b)
        return a + b

    def add_relu(self, a: Array, b: Array) -> tuple[Array, Array]:
        """Return max(a + b, 0), the end of a residual block."""
        y = self.add(a, b)
        self.xp.maximum(y, 0, out=y)
        return y, y

    def relu_backward(self, dy: Array, y: Array) -> Array:
        """Return the gradient of `add_relu` with respect to either argument; at zero it is 0."""
        self.check_pair("y", y, "the gradient", dy)
        return self.xp.where(y > 0, dy, dy.dtype.type(0))

    def shuffle(self, x: Array, groups: int) -> tuple[Array, Saved]:
        """Return P x, P = interleave(groups, C/groups): deal out the channels of equal groups.

        Channel ``l*(C/groups) + j`` goes to place ``j*groups + l``.

        Parameters
        ----------
        x : array, shape (C, N, H, W)
        groups : int

        Raises
        ------
        SpecError
            If `groups` is not an integer of at least 1 that divides C.
        """
        groups = self.check_shuffle(x, groups)
        dealt = x.reshape(groups, -1, *x.shape[1:]).swapaxes(0, 1)  # (C/groups, groups, N, H, W)
        return self.xp.ascontiguousarray(dealt).reshape(x.shape), (x.shape, x.dtype, groups)

    def shuffle_backward(self, dy: Array, saved: Saved) -> Array:
        """Return Pᵀ dy: dealing in as many groups as there were channels in each undoes it."""
        shape, dtype, groups = saved
        self.check_batch("the gradient", dy, dtype, shape)
        return self.shuffle(dy, shape[0] // groups)[0]

    def concat(self, batches: Sequence[Array]) -> Array:
        """Return batches one after the other along the channels.

        `split` into the same sizes is its inverse, and its adjoint: the derivative of either is the
        other, and nothing needs to be saved.

        Parameters
        ----------
        batches : sequence of arrays, shapes (C_i, N, H, W)

        Returns
        -------
        y : array, shape (C_1 + C_2 + ..., N, H, W)

        Raises
        ------
        TypeError, SpecError
            If they differ in dtype, or in more than their channels.
        """
        self.check_concat(batches)
        return self.xp.concatenate(list(batches))

    def split(self, x: Array, sizes: Sequence[int]) -> list[Array]:
        """Return the first sizes[0] channels of a batch, the next sizes[1], ...; see `concat`.

        Raises
        ------
        SpecError
            If `sizes` are not integers of at least 1 that sum up to the channels.
        """
        starts = [0, *accumulate(self.check_split(x, sizes))]
        return [self.xp.array(x[first:last]) for first, last in pairwise(starts)]

    def scale_channels(self, x: Array, gates: Array) -> tuple[Array, Saved]:
        """Return D x: each image multiplies groups of channels by gates of its own, (N, groups).

        ``y[c, n] = x[c, n] * gates[n, c // (C/groups)]``; a SpecError if no such groups are equal.
        """
        self.check_gates(x, gates, x.shape[1])
        return _scaled(x, gates), (x, gates)

    def scale_channels_backward(self, dy: Array, saved: Saved) -> tuple[Array, Array]:
        """Return the gradients of `scale_channels` with respect to x and the gates."""
        x, gates = saved
        self.check_batch("the gradient", dy, x.dtype, x.shape)
        sums = (dy * x).sum(axis=(2, 3)).T  # (N, C)
        return _scaled(dy, gates), sums.reshape(*gates.shape, -1).sum(axis=2)

    def global_average_pool(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        """Average every channel of every image: (C, N, H, W) to (N, C)."""
        self.check_batch("x", x)
        return self.xp.ascontiguousarray(x.mean(axis=(2, 3)).T), x.shape

    def global_average_pool_backward(self, dy: Array, shape: tuple[int, ...]) -> Array:
        """Spread dy, shape (N, C), evenly over the positions."""
        self.check("the gradient", dy, *DTYPES, shape=(shape[1], shape[0]))
        dx = self.xp.empty(shape, dy.dtype)
        dx[...] = (dy.T / (shape[2] * shape[3]))[:, :, None, None]
        return dx

    def average_pool(self, x: Array, kernel_size: int | tuple[int, int]) -> tuple[Array, Saved]:
        """Average every window; windows lie side by side, and pixels beyond the last are dropped.

        Parameters
        ----------
        x : array, shape (C, N, H, W)
        kernel_size : int or (kh, kw)

        Returns
        -------
        y : array, shape (C, N, H // kh, W // kw)

        Raises
        ------
        SpecError
            If a window is larger than the images.
        """
        kh, kw = self.check_pool(x, kernel_size)
        rows, columns = x.shape[2] // kh, x.shape[3] // kw
        whole = x[:, :, : rows * kh, : columns * kw]
        windows = whole.reshape(*x.shape[:2], rows, kh, columns, kw)
        return windows.mean(axis=(3, 5)), (x.shape, x.dtype, (kh, kw))

    def average_pool_backward(self, dy: Array, saved: Saved) -> Array:
        """Spread every gradient evenly over its window: the adjoint of `average_pool`."""
        (C, N, H, W), dtype, (kh, kw) = saved
        self.check_batch("the gradient", dy, dtype, (C, N, H // kh, W // kw))
        dx = self.xp.zeros((C, N, H, W), dtype)
        spread = (dy / (kh * kw)).repeat(kh, axis=2).repeat(kw, axis=3)
        dx[:, :, : spread.shape[2], : spread.shape[3]] = spread
        return dx

    def max_pool(
        self, x: Array, kernel_size: int, stride: int, padding: int
    ) -> tuple[Array, Saved]:
        """Take the greatest pixel of every window, not padding: the first of equals, the last NaN.

        Parameters
        ----------
        x : array, shape (C, N, H, W)
        kernel_size, stride, padding : int
            In pixels; ``padding <= kernel_size // 2``.
        """
        kernel_size, stride, padding = self.check_window(x, kernel_size, stride, padding)
        C, N, H, W = x.shape
        out = [output_length(size, kernel_size, stride, padding) for size in (H, W)]
        y = self.xp.full((C, N, *out), -self.xp.inf, x.dtype)
        winner = self.xp.full(y.shape, -1, "int32")
        window = (kernel_size, stride, padding)
        both = list(product(taps(H, *window), taps(W, *window)))
        for tap, (row, column) in enumerate(both):
            candidate = x[:, :, row.pixels, column.pixels]
            best = y[:, :, row.outputs, column.outputs]
            won = winner[:, :, row.outputs, column.outputs]
            won[(candidate > best) | (candidate != candidate) | (won < 0)] = tap
            self.xp.maximum(candidate, best, out=best)
        return y, MaxPoolSaved(x.shape, x.dtype, winner, both)

    def max_pool_backward(self, dy: Array, saved: Saved) -> Array:
        """Send every gradient to the pixel that won its window."""
        self.check_batch("the gradient", dy, saved.dtype, saved.winner.shape)
        dx = self.xp.zeros(saved.shape, dy.dtype)
        for tap, (row, column) in enumerate(saved.taps):
            won = saved.winner[:, :, row.outputs, column.outputs] == tap
            d = dy[:, :, row.outputs, column.outputs]
            dx[:, :, row.pixels, column.pixels] += self.xp.where(won, d, d.dtype.type(0))
        return dx
