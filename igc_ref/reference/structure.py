"""Block-diagonal matrices and interleaving permutations, the factors of the block.

For one output position, with z the patch vector of length in*S:

    x' = P W_d Pᵀ W_p z

Every matrix here is explicit: dense NumPy, or ``scipy.sparse`` on request.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from igc_ref.errors import SpecError, arrays, divides, instance, integer
from igc_ref.spec.block import IGCSpec

Array = npt.NDArray[Any]
Matrix = Any  # a NumPy matrix or a scipy.sparse array: both know @ and .T


def check_kernel(kernel: Array) -> None:
    """Raise unless this is the kernel of a convolution, (out, in, kh, kw), and not empty."""
    arrays("(out, in, kh, kw)", kernel=kernel)
    if kernel.size == 0:
        raise SpecError(f"kernel has shape {kernel.shape}; it is empty")


def check_weights(primary: Array, secondary: Array, spec: IGCSpec) -> None:
    """Raise unless these are weights of this block."""
    instance("spec", spec, IGCSpec)
    arrays(spec.primary_shape, primary=primary)
    arrays(spec.secondary_shape, secondary=secondary)


class Matrices(NamedTuple):
    """The three matrices of the block, in the order in which they are applied.

    ``W_p`` has shape (out, in*S), ``P`` and ``W_d`` have shape (out, out).
    """

    W_p: Matrix
    P: Matrix
    W_d: Matrix


def block_diagonal(blocks: Array, sparse: bool = False) -> Matrix:
    """Put blocks on the diagonal of a matrix that is zero elsewhere.

    Parameters
    ----------
    blocks : ndarray, shape (B, p, q)
        B blocks of equal shape.
    sparse : bool
        Return a ``scipy.sparse`` array (CSR) instead of a dense one.

    Returns
    -------
    ndarray or sparse array, shape (B*p, B*q)
    """
    arrays("(B, p, q)", blocks=blocks)
    if sparse:
        return sp.block_diag([sp.csr_array(block) for block in blocks], format="csr")
    B, p, q = blocks.shape
    matrix = np.zeros((B, p, B, q), blocks.dtype)
    matrix[np.arange(B), :, np.arange(B), :] = blocks
    return matrix.reshape(B * p, B * q)


def diagonal_blocks(matrix: Matrix, B: int) -> Array:
    """Read the B diagonal blocks, shape (B, p, q), of a (B*p, B*q) matrix."""
    if sp.issparse(matrix):
        matrix = matrix.toarray()  # type: ignore[attr-defined]
    arrays("(B*p, B*q)", matrix=matrix)
    p, q = (divides("B", B, "a side of the matrix", size) for size in matrix.shape)
    return np.stack([matrix[b * p : (b + 1) * p, b * q : (b + 1) * q] for b in range(B)])


def blockmask(matrix: Array, B: int) -> Array:
    """Keep the B diagonal blocks of a matrix and set everything else to zero."""
    masked: Array = block_diagonal(diagonal_blocks(matrix, B))
    return masked


def masked_product(a: Array, b: Array, B: int, sparse: bool = False) -> Matrix:
    """Return blockmask(a bᵀ); the sparse form computes the diagonal blocks only."""
    if not sparse:
        return blockmask(a @ b.T, B)
    blocks = [a_i @ b_i.T for a_i, b_i in zip(np.split(a, B), np.split(b, B), strict=True)]
    return block_diagonal(np.stack(blocks), sparse=True)


def interleave(groups: int, size: int, sparse: bool = False) -> Matrix:
    """Build the permutation that interleaves `groups` partitions of `size` channels.

    Channel ``b*size + j`` becomes channel ``j*groups + b``: afterwards the channels j of all
    partitions stand together.

    Parameters
    ----------
    groups, size : int
        Partitions, and channels of each.
    sparse : bool
        Return a ``scipy.sparse`` array (CSR) instead of a dense one.

    Returns
    -------
    ndarray or sparse array of float64, shape (groups*size, groups*size)
        The matrix with ``(interleave @ y)[j*groups + b] == y[b*size + j]``.

    Examples
    --------
    >>> interleave(2, 3) @ np.arange(6)
    array([0., 3., 1., 4., 2., 5.])
    """
    groups, size = integer("groups", groups), integer("size", size)
    source = np.arange(groups * size).reshape(groups, size).T.ravel()
    if sparse:
        return sp.eye_array(groups * size, format="csr")[source]
    return np.eye(groups * size)[source]


def first_permutation(spec: IGCSpec, sparse: bool = False) -> Matrix:
    """Build Pᵀ = interleave(L, out/L), which stands between W_p and W_d.

    It is the transpose of ``matrices(...).P`` when M = out/L, as in the paper. In the residual
    network's rectangular blocks it is not, so it has a name of its own.
    """
    instance("spec", spec, IGCSpec)
    return interleave(spec.L, spec.out_channels // spec.L, sparse)


def matrices(primary: Array, secondary: Array, spec: IGCSpec, sparse: bool = False) -> Matrices:
    """Write the block's weights as explicit matrices.

    Parameters
    ----------
    primary : ndarray, shape (out, in/L, kh, kw)
        Primary weights, as PyTorch's ``conv2d(groups=L)`` takes them.
    secondary : ndarray, shape (out, out/M)
        Secondary weights, rows partition by partition.
    spec : IGCSpec
        The shape of the block.
    sparse : bool
        Return ``scipy.sparse`` arrays (CSR) instead of dense ones.

    Returns
    -------
    W_p, P, W_d : dense or sparse arrays, shapes (out, in*S), (out, out), (out, out)
        W_p has L diagonal blocks of (out/L, in/L*S), columns ordered (channel, ky, kx);
        W_d has M diagonal blocks of (out/M, out/M); ``P = interleave(M, out/M)``.

    Raises
    ------
    SpecError
        If the weights have other shapes than `spec` says.

    References
    ----------
    .. [1] arXiv:1707.02725, section 3.

    Examples
    --------
    >>> spec = IGCSpec.square(L=3, M=2)
    >>> W_p, P, W_d = matrices(np.ones(spec.primary_shape), np.ones(spec.secondary_shape), spec)
    >>> W_p.shape, P.shape, W_d.shape
    ((6, 54), (6, 6), (6, 6))
    """
    check_weights(primary, secondary, spec)
    L, M, out = spec.L, spec.M, spec.out_channels
    W_p = block_diagonal(primary.reshape(L, out // L, -1), sparse)  # L blocks (out/L, in/L*S)
    W_d = block_diagonal(secondary.reshape(M, out // M, -1), sparse)  # M blocks (out/M, out/M)
    P = interleave(M, out // M, sparse)
    return Matrices(W_p, P, W_d)
