"""The block itself, forward and backward, line by line as in the equations.

forward    y = W_p z,   x' = P W_d Pᵀ y                   for every output position
backward   dz̄ = Pᵀ d,   dW_d = blockmask(dz̄ ȳᵀ),   dȳ = W_dᵀ dz̄
           dy = P dȳ,   dW_p = blockmask(dy zᵀ),    dz = W_pᵀ dy
"""

from __future__ import annotations

from typing import NamedTuple

from igc_ref.errors import arrays
from igc_ref.reference.patches import fold, unfold
from igc_ref.reference.structure import (
    Array,
    diagonal_blocks,
    first_permutation,
    masked_product,
    matrices,
)
from igc_ref.spec.block import IGCSpec


class Gradients(NamedTuple):
    """Gradients of a scalar loss: with respect to the images and to both weights."""

    x: Array
    primary: Array
    secondary: Array


def forward(
    x: Array, primary: Array, secondary: Array, spec: IGCSpec, sparse: bool = False
) -> Array:
    """Compute x' = P W_d Pᵀ W_p x.

    Parameters
    ----------
    x : ndarray, shape (N, in, H, W)
        Images, float64 or complex128.
    primary, secondary : ndarray
        Weights, shapes ``spec.primary_shape`` and ``spec.secondary_shape``.
    spec : IGCSpec
        The shape of the block.
    sparse : bool
        Multiply by ``scipy.sparse`` matrices; for larger blocks.

    Returns
    -------
    ndarray, shape (N, out, out_height, out_width)

    Raises
    ------
    SpecError
        If x or the weights have other shapes than `spec` says.

    Examples
    --------
    >>> import numpy as np
    >>> spec = IGCSpec.square(L=3, M=2, stride=2)
    >>> primary, secondary = np.ones(spec.primary_shape), np.ones(spec.secondary_shape)
    >>> forward(np.ones((1, 6, 8, 8)), primary, secondary, spec).shape
    (1, 6, 4, 4)
    """
    W_p, P, W_d = matrices(primary, secondary, spec, sparse)
    Pt = first_permutation(spec, sparse)  # = P.T when M = out/L

    Z = _patches(x, spec)
    X = P @ W_d @ Pt @ W_p @ Z

    return _to_images(X, x.shape, spec)


def backward(
    d: Array, x: Array, primary: Array, secondary: Array, spec: IGCSpec, sparse: bool = False
) -> Gradients:
    """Pull the upstream gradient d back through x' = P W_d Pᵀ W_p x.

    Parameters
    ----------
    d : ndarray, shape (N, out, out_height, out_width)
        Gradient of the loss with respect to x'.
    x, primary, secondary, spec, sparse
        As in `forward`.

    Returns
    -------
    x, primary, secondary : ndarrays
        Gradients, each of the shape of its argument.

    Raises
    ------
    SpecError
        If d, x or the weights have other shapes than `spec` says.

    Notes
    -----
    The pairing is bilinear, ``sum(d * dx')``, also for complex arrays: transposes, no conjugates.
    """
    W_p, P, W_d = matrices(primary, secondary, spec, sparse)
    Pt = first_permutation(spec, sparse)

    Z = _patches(x, spec)
    y_bar = Pt @ W_p @ Z
    D = _to_columns(d, x.shape, spec)

    dz_bar = P.T @ D
    dW_d = masked_product(dz_bar, y_bar, spec.M, sparse)
    dy_bar = W_d.T @ dz_bar
    dy = Pt.T @ dy_bar
    dW_p = masked_product(dy, Z, spec.L, sparse)
    dZ = W_p.T @ dy

    return Gradients(
        x=fold(dZ, x.shape, spec.kernel_size, spec.stride),
        primary=diagonal_blocks(dW_p, spec.L).reshape(spec.primary_shape),
        secondary=diagonal_blocks(dW_d, spec.M).reshape(spec.secondary_shape),
    )


def composed_kernel(primary: Array, secondary: Array, spec: IGCSpec) -> Array:
    """Multiply the block out into one dense kernel, P W_d Pᵀ W_p, shape (out, in, kh, kw).

    When M = out/L its entries are

        K[a*M+m, b*(in/L)+i, s] = W_d^m[a, b] * W_p^b[m, i, s].
    """
    W_p, P, W_d = matrices(primary, secondary, spec)
    Pt = first_permutation(spec)
    K: Array = P @ W_d @ Pt @ W_p
    return K.reshape(spec.composed_shape)


def _patches(x: Array, spec: IGCSpec) -> Array:
    arrays(f"(N, {spec.in_channels}, H, W)", x=x)
    return unfold(x, spec.kernel_size, spec.stride)


def _to_images(X: Array, x_shape: tuple[int, ...], spec: IGCSpec) -> Array:
    """Reshape columns (out, positions*N) to images (N, out, out_height, out_width)."""
    height, width = spec.output_size(*x_shape[2:])
    return X.reshape(spec.out_channels, height, width, x_shape[0]).transpose(3, 0, 1, 2)


def _to_columns(d: Array, x_shape: tuple[int, ...], spec: IGCSpec) -> Array:
    """Reshape images (N, out, out_height, out_width) to columns (out, positions*N)."""
    arrays((x_shape[0], spec.out_channels, *spec.output_size(*x_shape[2:])), d=d)
    return d.transpose(1, 2, 3, 0).reshape(spec.out_channels, -1)
