"""Which dense kernels are IGCs, and which IGC is nearest to one that is not: one theorem.

The block of spec (in, out, L, M) with ``out = q*L*M`` amounts to one dense kernel, entry by entry

    K[r*M+m, b*(in/L)+i, s] = Σ_{j<q} W_d^m[r, j*L+b] * W_p^b[m*q+j, i, s].

Fix m and b. What remains is a sum of q products of a column (r) and a row (i, s), so each of the
M*L slices ``K[m::M, b*in/L:(b+1)*in/L]``, read as an ``out/M x (in/L*S)`` matrix, has rank at most
q. The formula also reads backwards: q columns and q rows for every slice *are* the weights of a
block, and no weight belongs to two slices. Therefore:

**Theorem.** A dense kernel is an IGC(L, M) if and only if every slice has rank at most
``q = out/(L*M)``. The nearest IGC in Frobenius norm takes the best rank-q part of every slice,
from its singular value decomposition (Eckart and Young), and

    ‖K - K'‖² = Σ over all slices of Σ_{t>q} σ_t².

The paper's square block has q = 1. The widening blocks of the residual networks have q = 2.

Everything holds with r*q in place of q for sums of r blocks, because a matrix of rank r*q is a sum
of r matrices of rank q. Relatives: arXiv:2406.06248 (Block Tensor-Train), arXiv:1808.05517.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import NamedTuple

import numpy as np

from igc_ref.errors import SpecError, arrays, divides, finite, instance, integer, shown
from igc_ref.reference.structure import Array, check_kernel
from igc_ref.spec.block import IGCSpec
from igc_ref.spec.products import IGCV2Spec


class Projection(NamedTuple):
    """Weights of the nearest sum of IGCs, q = 1: (rank*out, in/L, kh, kw) and (out, rank*L)."""

    primary: Array
    secondary: Array


class NearestProduct(NamedTuple):
    """Weights of a near product, its ‖K - K'‖ / ‖K‖, and a lower bound of it for all products."""

    weights: tuple[Array, ...]
    error: float
    bound: float


class Nearest(NamedTuple):
    """Weights of the nearest block, and ‖K - K'‖ / ‖K‖ in Frobenius norm, from 0 to 1."""

    primary: Array
    secondary: Array
    error: float


def slices(kernel: Array, L: int, M: int) -> Array:
    """Cut a dense kernel into the matrices whose rank must not exceed q = out/(L*M).

    Parameters
    ----------
    kernel : ndarray, shape (out, in, kh, kw)
        Dense kernel; L*M divides out, L divides in.
    L, M : int
        Partitions of the block.

    Returns
    -------
    ndarray, shape (M, L, out/M, in/L*S)
        Entry [m, b] is the slice of secondary partition m and primary partition b.

    Raises
    ------
    SpecError
        If L and M do not fit the kernel, or it holds numbers that are not finite.
    """
    L, M = integer("L", L), integer("M", M)
    check_kernel(kernel)
    out_channels, in_channels = kernel.shape[:2]
    divides("L*M", L * M, "out_channels", out_channels)
    divides("L", L, "in_channels", in_channels)
    finite("kernel", kernel)
    K = kernel.reshape(out_channels // M, M, L, -1)  # (r, m, b, i*S + s)
    return K.transpose(1, 2, 0, 3)  # (m, b, r, i*S + s)


def singular_values(kernel: Array, L: int, M: int) -> Array:
    """Return the singular values of all slices, shape (M, L, rank), greatest first."""
    return np.linalg.svd(slices(kernel, L, M), compute_uv=False)


def is_igc(kernel: Array, L: int, M: int, rtol: float | None = None) -> bool:
    """Say whether a dense kernel is an IGC(L, M): whether no slice has a rank above q.

    Parameters
    ----------
    kernel : ndarray, shape (out, in, kh, kw)
    L, M : int
        L*M divides out; q = out/(L*M), 1 for the paper's square block.
    rtol : float, optional
        A singular value counts as zero if it is at most `rtol` times the greatest of all slices;
        by default the square root of its dtype's machine epsilon, 1.5e-8 in float64.

    Raises
    ------
    SpecError
        If L and M do not fit the kernel.

    Examples
    --------
    >>> is_igc(np.ones((6, 6, 3, 3)), L=3, M=2)
    True
    >>> is_igc(np.random.default_rng(0).normal(size=(6, 6, 3, 3)), L=3, M=2)
    False
    """
    return least_rank(kernel, L, M, rtol) <= 1


def least_rank(kernel: Array, L: int, M: int, rtol: float | None = None) -> int:
    """Return the least r for which a kernel is a sum of r IGC(L, M); arguments as in `is_igc`.

    It is the greatest rank of a slice over q, rounded up, and 0 for a kernel of zeros. No kernel
    needs more than ``min(L, M*S*in/out)``, rounded up: for square blocks min(L, M*S).

    >>> least_rank(np.random.default_rng(0).normal(size=(6, 6, 3, 3)), L=3, M=2)
    3
    """
    sigma = singular_values(kernel, L, M)
    if rtol is None:
        rtol = math.sqrt(np.finfo(sigma.dtype).eps)
    if not isinstance(rtol, Real) or not 0 <= rtol < 1:
        raise SpecError(f"rtol={shown(rtol)} is not a number of at least 0 and below 1")
    greatest = int(np.sum(sigma > float(rtol) * sigma.max(), axis=-1).max())
    return math.ceil(greatest * L * M / len(kernel))


def project(kernel: Array, L: int, M: int, rank: int = 1) -> Projection:
    """Find the IGC(L, M), or sum of them, nearest to a dense kernel: `nearest_block` with q = 1.

    Parameters
    ----------
    kernel : ndarray, shape (L*M, in, kh, kw)
        Dense kernel, in divisible by L; real or complex.
    L, M : int
        Partitions of the block.
    rank : int, default 1
        Number of blocks in the sum.

    Returns
    -------
    primary : ndarray, shape (rank*L*M, in/L, kh, kw)
    secondary : ndarray, shape (L*M, rank*L)
        The squared distance is the sum of the squares of ``singular_values(...)[..., rank:]``.

    Raises
    ------
    SpecError
        If L and M do not fit the kernel.

    Notes
    -----
    Each weight pair of a slice is known up to a factor and its inverse; here both have equal norm.
    Block t of the sum has the weights ``primary[t::rank]`` and ``secondary[:, t*L : (t + 1)*L]``.
    ``primary, secondary[:, :, None, None]`` are the two factors of ``Chain.sum_of(spec, rank)``.

    Examples
    --------
    >>> kernel = np.random.default_rng(0).normal(size=(6, 6, 3, 3))
    >>> primary, secondary = project(kernel, L=3, M=2)
    >>> primary.shape, secondary.shape
    ((6, 2, 3, 3), (6, 3))
    >>> [weight.shape for weight in project(kernel, L=3, M=2, rank=2)]
    [(12, 2, 3, 3), (6, 6)]
    """
    check_kernel(kernel)
    G = integer("L", L) * integer("M", M)
    spec = IGCSpec(kernel.shape[1], G, L, M, kernel.shape[2:])
    return Projection(*nearest_block(kernel, spec, rank)[:2])


def nearest_block(kernel: Array, spec: IGCSpec, rank: int = 1) -> Nearest:
    """Find the block of this spec, or sum of them, nearest to a dense kernel in Frobenius norm.

    Parameters
    ----------
    kernel : ndarray, shape ``spec.composed_shape``
        Real or complex.
    spec : IGCSpec
        L*M divides the output channels.
    rank : int, default 1
        Number of blocks in the sum.

    Returns
    -------
    primary, secondary : ndarrays
        Shapes ``spec.primary_shape`` with `rank` times the rows, ``spec.secondary_shape`` with
        `rank` times the columns. Of the weights with this kernel they are the ones whose columns
        and rows in a slice are orthogonal, each column as long as its row, its entry of greatest
        modulus real and positive.
    error : float
        ‖K - K'‖ / ‖K‖; 0 for a kernel of zeros.

    Raises
    ------
    SpecError
        If the kernel has another shape, or L*M does not divide its output channels.
    """
    instance("spec", spec, IGCSpec)
    arrays(spec.composed_shape, kernel=kernel)
    L, M, out = spec.L, spec.M, spec.out_channels
    U, sigma, Vh = np.linalg.svd(slices(kernel, L, M), full_matrices=False)
    top = np.abs(U).argmax(axis=2, keepdims=True)
    phase = np.sign(np.take_along_axis(U, top, axis=2))  # free in each pair of singular vectors
    U, Vh = U / phase, Vh * phase.swapaxes(2, 3)
    q = integer("rank", rank) * out // (L * M)
    full = sigma.shape[-1]  # a slice may be smaller than q: the rest is zero
    root = np.sqrt(sigma[..., :q])  # (m, b, j)
    W_d = np.zeros((M, L, out // M, q), U.dtype)  # (m, b, r, j)
    W_p = np.zeros((M, L, q, Vh.shape[-1]), U.dtype)  # (m, b, j, i*S + s)
    W_d[..., :full] = U[..., :q] * root[..., None, :]
    W_p[..., :full, :] = Vh[..., :q, :] * root[..., None]
    return Nearest(
        primary=W_p.swapaxes(0, 1).reshape(-1, *spec.primary_shape[1:]),  # row (b*M + m)*q + j
        secondary=W_d.transpose(0, 2, 3, 1).reshape(out, -1),  # column j*L + b
        error=_ratio(sigma[..., q:], sigma),
    )


def nearest_groups(kernel: Array, groups: int) -> tuple[Array, float]:
    """Find the group convolution nearest to a dense kernel (out, in, kh, kw): its diagonal blocks.

    Returns its weight (out, in/groups, kh, kw) and ‖K - K'‖ / ‖K‖, 0 for a kernel of zeros.
    """
    check_kernel(kernel)
    finite("kernel", kernel)
    out = divides("groups", groups, "out_channels", kernel.shape[0])
    inp = divides("groups", groups, "in_channels", kernel.shape[1])
    lost, g = kernel.reshape(groups, out, groups, inp, *kernel.shape[2:]).copy(), np.arange(groups)
    kept = lost[g, :, g]  # (groups, out/groups, in/groups, kh, kw)
    lost[g, :, g] = 0
    return kept.reshape(-1, *kept.shape[2:]), _ratio(lost, kernel)


def nearest_product(kernel: Array, product: IGCV2Spec) -> NearestProduct:
    """Find an IGCV2 near to a dense kernel in Frobenius norm, the nearest one if n <= 2.

    An IGCV2 is an IGC(K_2*...*K_n, K_1) whose blocks W_d^m are products of the other factors. So
    take the nearest IGC with rows of W_p of norm one, keep W_p, and go on with every W_d^m. The
    squared errors e_i² of the n - 1 steps add up, and no product is nearer than the greatest e_i:
    the error is at most sqrt(n - 1) times the least possible one. Compare arXiv:2411.04506.

    Parameters
    ----------
    kernel : ndarray, shape ``product.composed_shape``, real or complex
        A SpecError if it has another shape, or holds numbers that are not finite.
    product : IGCV2Spec

    Returns
    -------
    weights : tuple of ndarray
        Shapes ``factor.weight_shape``; the rows of all factors but the last have norm one.
    error, bound : float
        sqrt(Σ e_i²) / ‖K‖ and max e_i / ‖K‖; 0 for a kernel of zeros.

    Examples
    --------
    >>> spec = IGCV2Spec(8, 8, K=(2, 2, 2))
    >>> weights, error, bound = nearest_product(np.ones(spec.composed_shape), spec)
    >>> [weight.shape for weight in weights], error < 1e-7
    ([(8, 2, 3, 3), (8, 2, 1, 1), (8, 2, 1, 1)], True)
    """
    instance("product", product, IGCV2Spec)
    arrays(product.composed_shape, kernel=kernel)
    finite("kernel", kernel)
    weights, lost = [], [np.zeros(1)]
    rest = kernel.reshape(1, len(kernel), -1)  # p matrices, one for each (d_i-1, ..., d_1)
    for K_i in product.K[:-1]:
        p, L = len(rest), rest.shape[1] // K_i
        pieces = rest.reshape(p, L, K_i, L, -1).transpose(0, 3, 2, 1, 4)  # (p, b, m, r, i*S + s)
        U, sigma, Vh = np.linalg.svd(pieces, full_matrices=False)
        weights.append(Vh[..., 0, :])  # (p, b, m, i*S + s): rows in the order of W_i
        W_d = (U[..., 0] * sigma[..., :1]).transpose(2, 0, 3, 1)  # (m, p, r, b)
        rest = W_d.reshape(K_i * p, L, L)
        lost.append(sigma[..., 1:].ravel())
    shaped = zip((*weights, rest), product.factors, strict=True)
    return NearestProduct(
        tuple(weight.reshape(factor.weight_shape) for weight, factor in shaped),
        error=_ratio(np.concatenate(lost), kernel),
        bound=max(_ratio(part, kernel) for part in lost),
    )


def _ratio(lost: Array, whole: Array) -> float:
    """Return ‖lost‖ / ‖whole‖, 0 if both are zero; scaled first, so that no square overflows."""
    top = float(np.abs(whole * 1.0).max())
    return float(np.linalg.norm(lost / top) / np.linalg.norm(whole / top)) if top else 0.0
