"""The gated block, forward and backward, and the two gates, as explicit matrices.

forward    y = W_p z,   x' = P W_d Pᵀ D y,   D = diag(gate of the image)
backward   dz̄ = Pᵀ d,   dW_d = blockmask(dz̄ ȳᵀ),   dȳ = W_dᵀ dz̄,   with ȳ = Pᵀ D y
           dgate = rowsum(P dȳ * y),   dy = D P dȳ,   dW_p = blockmask(dy zᵀ),   dz = W_pᵀ dy

A gate depends on means over the positions, of y (`channels`) or of x (`partitions`). What it gives
back to a mean is shared out evenly over them: dy, or dx, gains ds/positions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from igc_ref.errors import arrays
from igc_ref.reference.patches import fold, unfold
from igc_ref.reference.structure import (
    Array,
    blockmask,
    diagonal_blocks,
    first_permutation,
    matrices,
)
from igc_ref.spec.block import IGCSpec


class GatedGradients(NamedTuple):
    """Gradients of a scalar loss with respect to the images, both weights and the gate."""

    x: Array
    primary: Array
    secondary: Array
    gate: Array


def forward(x: Array, primary: Array, secondary: Array, gate: Array, spec: IGCSpec) -> Array:
    """Compute x' = P W_d Pᵀ D W_p x, image by image.

    Parameters
    ----------
    x, primary, secondary, spec
        As in `block.forward`.
    gate : ndarray, shape (N, out)
        For each image the diagonal of D.

    Returns
    -------
    ndarray, shape (N, out, out_height, out_width)

    Raises
    ------
    SpecError
        If an array has another shape than `spec` says.

    Examples
    --------
    >>> spec = IGCSpec.square(L=2, M=2, kernel_size=1)
    >>> weights = np.ones(spec.primary_shape), np.ones(spec.secondary_shape)
    >>> gate = np.array([[1.0, 1, 0, 0]])  # of the second partition nothing comes through
    >>> forward(np.ones((1, 4, 1, 1)), *weights, gate, spec).ravel()
    array([2., 2., 2., 2.])
    """
    W_p, P, W_d = matrices(primary, secondary, spec)
    mix, size = P @ W_d @ first_permutation(spec), spec.output_size(*x.shape[2:])
    arrays((len(x), spec.out_channels), gate=gate)
    each = [
        mix @ np.diag(g) @ W_p @ _patches(image, spec) for image, g in zip(x, gate, strict=True)
    ]
    return np.stack(each).reshape(len(x), spec.out_channels, *size)


def backward(
    d: Array, x: Array, primary: Array, secondary: Array, gate: Array, spec: IGCSpec
) -> GatedGradients:
    """Pull the upstream gradient d, of the shape of x', back through `forward`."""
    W_p, P, W_d = matrices(primary, secondary, spec)
    Pt = first_permutation(spec)
    dx, dgate, dW_p, dW_d = np.zeros_like(x), np.zeros_like(gate), 0 * W_p, 0 * W_d
    for n in range(len(x)):
        Z, D = _patches(x[n], spec), np.diag(gate[n])
        Y = W_p @ Z
        dz_bar = P.T @ d[n].reshape(spec.out_channels, -1)
        dW_d += blockmask(dz_bar @ (Pt @ D @ Y).T, spec.M)
        dDy = Pt.T @ W_d.T @ dz_bar
        dgate[n] = (dDy * Y).sum(axis=1)
        dW_p += blockmask(D @ dDy @ Z.T, spec.L)
        dx[n] = fold(W_p.T @ D @ dDy, x[n : n + 1].shape, spec.kernel_size, spec.stride)[0]
    return GatedGradients(
        x=dx,
        primary=diagonal_blocks(dW_p, spec.L).reshape(spec.primary_shape),
        secondary=diagonal_blocks(dW_d, spec.M).reshape(spec.secondary_shape),
        gate=dgate,
    )


def channels(s: Array, W_1: Array, b_1: Array, W_2: Array, b_2: Array) -> Array:
    """Return the gates of squeeze and excitation, sigmoid(W_2 relu(W_1 s + b_1) + b_2).

    Parameters
    ----------
    s : ndarray, shape (N, out)
        Means over the positions of ``y = W_p x``.
    W_1, b_1, W_2, b_2 : ndarrays
        Shapes (hidden, out), (hidden,), (out, hidden) and (out,).

    References
    ----------
    .. [1] arXiv:1709.01507, equation 3.
    """
    return _sigmoid(np.maximum(s @ W_1.T + b_1, 0) @ W_2.T + b_2)


def channels_backward(
    dgate: Array, s: Array, W_1: Array, b_1: Array, W_2: Array, b_2: Array
) -> tuple[Array, ...]:
    """Return the gradients of `channels` with respect to s, W_1, b_1, W_2 and b_2."""
    hidden, gate = np.maximum(s @ W_1.T + b_1, 0), channels(s, W_1, b_1, W_2, b_2)
    da_2 = dgate * gate * (1 - gate)
    da_1 = (da_2 @ W_2) * (hidden > 0)
    return da_1 @ W_1, da_1.T @ s, da_1.sum(axis=0), da_2.T @ hidden, da_2.sum(axis=0)


def partitions(means: Array, W: Array, b: Array, keep: int) -> Array:
    """Return a gate for each primary partition, sigmoid(W mean(x) + b), 0 but for the greatest.

    Parameters
    ----------
    means : ndarray, shape (N, in)
        Means of x over the positions.
    W, b : ndarrays, shapes (L, in) and (L,)
    keep : int
        How many gates of an image stay; of equals the first.

    Returns
    -------
    ndarray, shape (N, L)
        ``np.repeat(gate, out // L, axis=1)`` is the diagonal of D.
    """
    gate = _sigmoid(means @ W.T + b)
    for row in gate:
        row[np.argsort(-row, kind="stable")[keep:]] = 0
    return gate


def partitions_backward(
    dgate: Array, means: Array, W: Array, b: Array, keep: int
) -> tuple[Array, Array, Array]:
    """Return the gradients of `partitions` with respect to means, W and b."""
    gate = partitions(means, W, b, keep)
    da = dgate * gate * (1 - gate)
    return da @ W, da.T @ means, da.sum(axis=0)


def _sigmoid(a: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-a)))


def _patches(image: Array, spec: IGCSpec) -> Array:
    arrays(f"({spec.in_channels}, H, W)", x=image)
    return unfold(image[None], spec.kernel_size, spec.stride)
