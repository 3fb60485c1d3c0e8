"""The gated block x' = P W_d Pᵀ D(x) W_p x, and its two gates, forward and backward.

D is diagonal, for each image its own. D W_p is block-diagonal as W_p is, so that a gated block is,
image by image, a block with the primary weights V = D W_p (`special_cases.gated`):

    dW_p = D dV,   dD = diag(rowsum(dV * W_p))

A gate depends on means over the positions, of y = W_p x (`channels`) or of x (`partitions`). What
it gives back to a mean is shared out evenly over them: dy, or dx, gains ds/positions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from igc_ref.errors import arrays
from igc_ref.reference import block
from igc_ref.reference.structure import Array
from igc_ref.spec.block import IGCSpec

Pull = Callable[[Array], tuple[Array, ...]]  # from the gradient of a gate to those of its arguments


def forward(x: Array, primary: Array, secondary: Array, gate: Array, spec: IGCSpec) -> Array:
    """Compute x' = P W_d Pᵀ D W_p x.

    Parameters
    ----------
    x, primary, secondary, spec
        As in `block.forward`.
    gate : ndarray, shape (N, out)
        For each image the diagonal of D. A SpecError if it has another shape.

    Examples
    --------
    >>> spec = IGCSpec.square(L=2, M=2, kernel_size=1)
    >>> weights = np.ones(spec.primary_shape), np.ones(spec.secondary_shape)
    >>> gate = np.array([[1.0, 1, 0, 0]])  # of the second partition nothing comes through
    >>> forward(np.ones((1, 4, 1, 1)), *weights, gate, spec).ravel()
    array([2., 2., 2., 2.])
    """
    D = _diagonals(gate, x, spec)
    each = range(len(x))
    return np.concatenate([block.forward(x[[n]], D[n] * primary, secondary, spec) for n in each])


def backward(
    d: Array, x: Array, primary: Array, secondary: Array, gate: Array, spec: IGCSpec
) -> tuple[Array, Array, Array, Array]:
    """Return the gradients of `forward` with respect to x, both weights and the gate."""
    D = _diagonals(gate, x, spec)
    each = range(len(x))
    dx, dV, dW_d = zip(
        *(block.backward(d[[n]], x[[n]], D[n] * primary, secondary, spec) for n in each),
        strict=True,
    )
    dgate = (np.array(dV) * primary).sum(axis=(2, 3, 4))
    return np.concatenate(dx), (D * np.array(dV)).sum(axis=0), sum(dW_d), dgate


def channels(s: Array, W_1: Array, b_1: Array, W_2: Array, b_2: Array) -> tuple[Array, Pull]:
    """Return the gates sigmoid(W_2 relu(W_1 s + b_1) + b_2), (N, out), and their backward pass.

    Squeeze and excitation (arXiv:1709.01507, equation 3); s are the means of y, shape (N, out).
    """
    hidden = np.maximum(s @ W_1.T + b_1, 0)
    gate = _sigmoid(hidden @ W_2.T + b_2)

    def pull(dgate: Array) -> tuple[Array, ...]:
        da_2 = dgate * gate * (1 - gate)
        da_1 = (da_2 @ W_2) * (hidden > 0)
        return da_1 @ W_1, da_1.T @ s, da_1.sum(axis=0), da_2.T @ hidden, da_2.sum(axis=0)

    return gate, pull


def partitions(s: Array, W: Array, b: Array, keep: int) -> tuple[Array, Pull]:
    """Return the gates sigmoid(W s + b), (N, L), and their backward pass; s are the means of x.

    Of each image the `keep` greatest stay, of equals the first, and the others are 0.
    ``np.repeat(gate, out // L, axis=1)`` is the diagonal of D.
    """
    gate = _sigmoid(s @ W.T + b)
    for row in gate:
        row[np.argsort(-row, kind="stable")[keep:]] = 0

    def pull(dgate: Array) -> tuple[Array, ...]:
        da = dgate * gate * (1 - gate)
        return da @ W, da.T @ s, da.sum(axis=0)

    return gate, pull


def _sigmoid(a: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-a)))


def _diagonals(gate: Array, x: Array, spec: IGCSpec) -> Any:
    arrays((len(x), spec.out_channels), gate=gate)
    return gate[:, :, None, None, None]  # (N, out, 1, 1, 1): they multiply primary weights
