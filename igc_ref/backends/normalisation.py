"""Batch normalisation (arXiv:1502.03167), with the ReLU that follows it if there is one."""

from __future__ import annotations

from typing import NamedTuple

from igc_ref.backends.library import Array, Library


class BatchNormSaved(NamedTuple):
    """What the backward pass needs; y is kept for its signs, if a ReLU was applied."""

    x_hat: Array
    scale: Array
    gamma: Array
    y: Array | None
    train: bool


class NormalisationOperators(Library):
    """y = gamma * x_hat + beta, with x_hat of mean 0 and variance 1 in every channel."""

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
    ) -> tuple[Array, BatchNormSaved]:
        """Normalise every channel over pictures and positions.

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
        xp, C = self.xp, len(x)
        rows = x.reshape(C, -1)  # (C, n)
        x_hat, y = xp.empty_like(rows), xp.empty_like(rows)
        inv_std = xp.empty_like(gamma)
        for c in self.tiles(C, rows.shape[1] * rows.dtype.itemsize):  # channels that fit in cache
            mean = rows[c].mean(axis=1) if train else running_mean[c]
            xp.subtract(rows[c], mean[:, None], out=x_hat[c])
            var = xp.square(x_hat[c]).mean(axis=1) if train else running_var[c]
            inv_std[c] = 1 / xp.sqrt(var + eps)
            x_hat[c] *= inv_std[c, None]
            xp.multiply(x_hat[c], gamma[c, None], out=y[c])
            y[c] += beta[c, None]
            if relu:
                xp.maximum(y[c], 0, out=y[c])
            if train:
                running_mean[c] += (1 - momentum) * (mean - running_mean[c])
                running_var[c] += (1 - momentum) * (var - running_var[c])
        saved = BatchNormSaved(x_hat, gamma * inv_std, gamma, y if relu else None, train)
        return y.reshape(x.shape), saved

    def batch_norm_backward(self, dy: Array, saved: BatchNormSaved) -> tuple[Array, Array, Array]:
        """Return the gradients of `batch_norm` with respect to x, gamma and beta."""
        xp = self.xp
        x_hat, scale, gamma, y, train = saved
        C, n = x_hat.shape
        rows = dy.reshape(C, n)
        dx, dgamma, dbeta = xp.empty_like(x_hat), xp.empty_like(gamma), xp.empty_like(gamma)
        for c in self.tiles(C, n * x_hat.dtype.itemsize):
            d = rows[c] if y is None else rows[c] * (y[c] > 0)
            dbeta[c] = d.sum(axis=1)
            dgamma[c] = (d * x_hat[c]).sum(axis=1)
            if not train:
                xp.multiply(d, scale[c, None], out=dx[c])
                continue
            # dx = scale * (d - mean(d) - x_hat * mean(d * x_hat))
            xp.multiply(x_hat[c], (-dgamma[c] / n)[:, None], out=dx[c])
            dx[c] += d
            dx[c] -= (dbeta[c] / n)[:, None]
            dx[c] *= scale[c, None]
        return dx.reshape(dy.shape), dgamma, dbeta
