"""Batch and group normalisation, with the ReLU that follows if there is one.

Batch norm is of arXiv:1502.03167, group norm, and layer norm as one group, of arXiv:1803.08494.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Any, NamedTuple

from igc_ref.backends.operators.checks import Checks
from igc_ref.backends.operators.library import Array, Saved
from igc_ref.backends.operators.shared import SharedBatches


class BatchNormSaved(NamedTuple):
    """What the backward pass needs; y is kept for its signs, if a ReLU was applied."""

    x: Array
    mean: Array
    inv_std: Array
    gamma: Array
    y: Array | None
    train: bool


class NormalisationOperators(SharedBatches, Checks):
    """y = gamma * x_hat + beta, with x_hat of mean 0 and variance 1 in every channel, or group."""

    def batch_norm(
        self,
        x: Array,
        gamma: Array,
        beta: Array,
        running_mean: Array,
        running_var: Array,
        *,
        momentum: float,
        eps: float,
        train: bool,
        relu: bool = False,
    ) -> tuple[Array, Saved]:
        """Normalise every channel over images and positions.

        Parameters
        ----------
        x : array, shape (C, N, H, W)
        gamma, beta : arrays, shape (C,)
        running_mean, running_var : arrays, shape (C,)
            Updated in place when training: ``running = momentum*running + (1-momentum)*batch``,
            with the biased variance, as in the authors' framework. Used when not training.
        relu : bool
            Clip the result at zero.

        Returns
        -------
        y : array, shape (C, N, H, W)
        saved : BatchNormSaved
        """
        self.check_channels(x, gamma, beta, running_mean, running_var)
        xp, rows = self.xp, x.reshape(len(x), -1)  # (C, n)
        y = xp.empty_like(rows)
        mean, var = xp.array(running_mean), xp.array(running_var)
        for c in self._channels(rows):
            if train:
                mean[c] = rows[c].mean(axis=1)
            xp.subtract(rows[c], mean[c, None], out=y[c])
            if train:
                off = y[c].mean(axis=1)  # what the mean of large numbers lost by rounding
                y[c] -= off[:, None]
                mean[c] += off
                var[c] = _dot(y[c], y[c]) / rows.shape[1]
            var[c] += 0 * var[c]  # an overflow is no number, so that the loss shows it
            y[c] *= (gamma[c] / xp.sqrt(var[c] + eps))[:, None]
            y[c] += beta[c, None]
            if relu:
                xp.maximum(y[c], 0, out=y[c])
        if train:
            running_mean += (1 - momentum) * (mean - running_mean)
            running_var += (1 - momentum) * (var - running_var)
        inv_std = 1 / xp.sqrt(var + eps)
        return y.reshape(x.shape), BatchNormSaved(
            x, mean, inv_std, gamma, y if relu else None, train
        )

    def batch_norm_backward(self, dy: Array, saved: Saved) -> tuple[Array, Array, Array]:
        """Return the gradients of `batch_norm` with respect to x, gamma and beta."""
        xp, (x, mean, inv_std, gamma, y, train) = self.xp, saved
        self.check_batch("the gradient", dy, x.dtype, x.shape)
        x, rows, n = x.reshape(len(x), -1), dy.reshape(len(x), -1), x[0].size  # (C, n)
        dx, dgamma, dbeta = xp.empty_like(x), xp.empty_like(gamma), xp.empty_like(gamma)
        for c in self._channels(x):
            d = rows[c] if y is None else xp.where(y[c] > 0, rows[c], rows.dtype.type(0))
            x_hat = x[c] - mean[c, None]
            x_hat *= inv_std[c, None]
            dbeta[c], dgamma[c] = d.sum(axis=1), _dot(d, x_hat)
            scale = (gamma[c] * inv_std[c])[:, None]
            if train:  # dx = scale * (d - mean(d) - x_hat * mean(d * x_hat))
                x_hat *= (dgamma[c] / n)[:, None]
                x_hat += (dbeta[c] / n)[:, None]
                xp.subtract(d, x_hat, out=dx[c])
                dx[c] *= scale
            else:
                xp.multiply(d, scale, out=dx[c])
        return dx.reshape(dy.shape), dgamma, dbeta

    def group_norm(
        self, x: Array, gamma: Array, beta: Array, groups: int, *, eps: float, relu: bool = False
    ) -> tuple[Array, Saved]:
        """Normalise every group of channels of every image over its channels and positions.

        That is batch norm of one image whose channels are those groups, then gamma and beta.

        Parameters
        ----------
        x : array, shape (C, N, H, W)
        gamma, beta : arrays, shape (C,)
        groups : int
            Divides C; with 1 this is layer normalisation, with C instance normalisation.
        relu : bool
            Clip the result at zero.

        Returns
        -------
        y : array, shape (C, N, H, W)
        saved : tuple

        Examples
        --------
        >>> from igc_ref.backends import get_backend
        >>> x, ones = np.arange(4.0).reshape(4, 1, 1, 1), np.ones(4)
        >>> get_backend("numpy").group_norm(x, ones, 0 * ones, groups=2, eps=0)[0].ravel()
        array([-1.,  1., -1.,  1.])
        """
        self.check_channels(x, gamma, beta)
        groups, (C, N, H, W), alone = self.check_shuffle(x, groups), x.shape, self._alone()
        apart = 1, N * groups, C // groups * H, W
        lines = [self.xp.full(apart[1], n, x.dtype) for n in (1, 0, 0, 1)]
        rows = self._as(x, apart, alone)
        x_hat, first = alone.batch_norm(rows, *lines, momentum=0.0, eps=eps, train=True)
        x_hat, lines = alone._as(x_hat, (N, C, H, W), self), [gamma * 0, gamma * 0 + 1]
        y, last = self.batch_norm(
            x_hat, gamma, beta, *lines, momentum=0.0, eps=0.0, train=False, relu=relu
        )
        return y, (first, last, apart, (N, C, H, W))

    def group_norm_backward(self, dy: Array, saved: Saved) -> tuple[Array, Array, Array]:
        """Return the gradients of `group_norm` with respect to x, gamma and beta."""
        (first, last, apart, shape), alone = saved, self._alone()
        d, dgamma, dbeta = self.batch_norm_backward(dy, last)
        dx, *_ = alone.batch_norm_backward(self._as(d, apart, alone), first)
        return alone._as(dx, shape, self), dgamma, dbeta

    def _alone(self) -> Any:
        """Return this backend without other ranks: the statistics of an image are its own."""
        alone = copy(self)
        alone.communicator = None
        return alone

    def _as(self: Any, x: Array, shape: tuple[int, ...], other: Any) -> Array:
        """Return a batch as another backend's, of other public shape."""
        return other.to_layout(self.from_layout(x).reshape(shape))

    def _channels(self, rows: Array) -> Iterator[slice]:
        """Cut the channels into tiles of which input, output and one temporary fit in the cache."""
        return self.tiles(len(rows), 3 * rows.shape[1] * rows.dtype.itemsize)


def _dot(a: Array, b: Array) -> Array:
    """Return the inner product of each row of a with the same row of b, shape (C,)."""
    return (a[:, None, :] @ b[:, :, None])[:, 0, 0]
