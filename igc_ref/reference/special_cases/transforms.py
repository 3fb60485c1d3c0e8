"""Structured matrices that are IGC blocks with S = 1: Monarch, Kronecker, Fourier, and products."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from igc_ref.errors import SpecError, arrays, divides, instance, integer
from igc_ref.reference.block import composed_kernel
from igc_ref.reference.special_cases.convolutions import Weights
from igc_ref.reference.structure import Array
from igc_ref.spec.block import IGCSpec


def monarch(right: Array, left: Array) -> Weights:
    """Monarch matrix P L Pᵀ R (arXiv:2204.00595): an IGC with S = 1.

    Parameters
    ----------
    right : ndarray, shape (L, M, M)
        Blocks of R, the factor that acts first: W_p^b.
    left : ndarray, shape (M, L, L)
        Blocks of L, the factor that acts second: W_d^m.
    """
    arrays("(L, M, M)", right=right)
    L, M, _ = right.shape
    arrays((M, L, L), left=left)
    primary, secondary = right.reshape(L * M, M, 1, 1), left.reshape(M * L, L)
    return Weights(primary, secondary, IGCSpec.square(L, M, kernel_size=1))


def kronecker(A: Array, B: Array) -> Weights:
    """Kronecker product A ⊗ B: W_d^m = A for all m, W_p^b = B for all b, S = 1.

    Parameters
    ----------
    A : ndarray, shape (L, L)
    B : ndarray, shape (M, M)
    """
    arrays("(L, L)", A=A)
    arrays("(M, M)", B=B)
    return monarch(np.stack([B] * len(A)), np.stack([A] * len(B)))


def walsh_hadamard(order: int) -> Weights:
    """Walsh-Hadamard transform H_n = H_2 ⊗ H_(n/2), Sylvester's order, recursively.

    Parameters
    ----------
    order : int
        n, a power of two, at least 2.
    """
    if integer("order", order) < 2 or order & (order - 1):
        raise SpecError(f"order={order} is not a power of two of at least 2")
    H_2 = np.array([[1.0, 1.0], [1.0, -1.0]])
    H_half = np.ones((1, 1)) if order == 2 else composed_matrix(walsh_hadamard(order // 2))
    return kronecker(H_2, H_half)


def cooley_tukey(L: int, M: int, F_M: Array | None = None) -> Weights:
    """One Cooley-Tukey step of the discrete Fourier transform of length G = L*M.

    With z_b = x[b::L], so that the input is ``decimate(x, L)``,

        W_p^b = F_M,   W_d^m[a, b] = ω_L^(a*b) * ω_G^(b*m),   ω_n = exp(-2πi/n),

    and output channel a*M + m is X[a*M + m].

    Parameters
    ----------
    L, M : int
        Factors of the length.
    F_M : ndarray, shape (M, M), optional
        The shorter transform, for a recursion; by default it is written out.
    """
    G = integer("L", L) * integer("M", M)
    a, l, m = np.arange(L)[:, None], np.arange(L), np.arange(M)[:, None, None]
    W_d = np.exp(-2j * np.pi * ((l * a * M + l * m) % G) / G)  # (m, a, l): ω_L = ω_G^M
    if F_M is None:
        F_M = np.exp(-2j * np.pi * (np.arange(M)[:, None] * np.arange(M) % M) / M)
    arrays((M, M), F_M=F_M)
    return monarch(np.stack([F_M] * L), W_d)


def decimate(x: Array, L: int) -> Array:
    """Put x[l::L] of all l one after another along the last axis (decimation in time)."""
    arrays(x=x)
    divides("L", L, "length", x.shape[-1])
    return x.reshape(*x.shape[:-1], -1, L).swapaxes(-1, -2).reshape(x.shape)


def fourier(factors: Sequence[int]) -> Array:
    """Multiply out the fast Fourier transform of length prod(factors): all its steps are IGCs.

    Returns
    -------
    ndarray of complex128, shape (n, n)
        The matrix of ``np.fft.fft`` for this length.
    """
    instance("factors", factors, Sequence)
    if not factors:
        return np.ones((1, 1), complex)
    L, *rest = factors
    F_M = fourier(rest)
    step = composed_matrix(cooley_tukey(L, len(F_M), F_M))
    order = decimate(np.arange(L * len(F_M)), L)  # column c of the step multiplies x[order[c]]
    F = np.empty_like(step)
    F[:, order] = step
    return F


def complementary_product(factors: Sequence[Array]) -> Weights:
    """IGCV2 without taps: a product of structured sparse factors under its complementary condition.

    The channels are numbered by n digits, d_1 slowest, of radix K_1, ..., K_n with
    K_1 * ... * K_n = C. A factor mixes the channels that differ in one digit alone. Each input
    then reaches each output along exactly one path, which is the complementary condition of
    arXiv:1804.06202. All factors but the slowest digit's make up the primary blocks. The same
    product with taps and n factors of its own is `igc_ref.spec.IGCV2Spec`.

    Parameters
    ----------
    factors : sequence of ndarray, factor t of shape (C/K_t, K_t, K_t)
        In the order of the digits. Block g of factor t mixes digit t where g numbers the
        other digits, slowest first. The factor of the last digit acts first.

    Returns
    -------
    Weights
        L = K_1, M = C/K_1, S = 1; W_p^b is the product of the other factors where d_1 = b.
    """
    instance("factors", factors, Sequence)
    if not factors:
        raise SpecError("a product needs at least one factor")
    named = {f"factor_{t}": factor for t, factor in enumerate(factors)}
    arrays("(C/K, K, K)", **named)
    K = [integer("K", factor.shape[-1]) for factor in factors]
    for radix, (name, factor) in zip(K, named.items(), strict=True):
        arrays((math.prod(K) // radix, radix, radix), **{name: factor})
    first, *rest = factors
    L = K[0]
    if not rest:
        return monarch(np.ones((L, 1, 1)), first)
    per_branch = [np.split(factor, L) for factor in rest]  # the slowest digit numbers the branches
    W_p = [
        composed_matrix(complementary_product([part[b] for part in per_branch])) for b in range(L)
    ]
    return monarch(np.stack(W_p), first)


def composed_matrix(weights: Weights) -> Array:
    """Multiply a block with S = 1 out into its matrix, shape (out, in)."""
    instance("weights", weights, Weights)
    return composed_kernel(*weights)[:, :, 0, 0]
