"""Which dense kernels are IGCs, and which IGC is nearest to one that is not.

The composed kernel of a block with M = out/L is, entry by entry,

    K[a*M+m, b*(in/L)+i, s] = W_d^m[a, b] * W_p^b[m, i, s].

Fix m and b: what remains is a column times a row. So a dense kernel is an IGC(L, M) if and only
if each of its L*M slices ``K[m::M, b*in/L:(b+1)*in/L]``, read as an ``L x (in/L*S)`` matrix, has
rank at most 1. Different slices share no weights, so the nearest IGC in Frobenius norm takes the
best rank-1 piece of every slice (Eckart-Young).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from igc_ref.errors import SpecError, divides, integer

Array = npt.NDArray[Any]


class Projection(NamedTuple):
    """Weights of the nearest IGC: primary (out, in/L, k, k) and secondary (out, L)."""

    primary: Array
    secondary: Array


def slices(kernel: Array, L: int, M: int) -> Array:
    """Cut a dense kernel into the matrices that must have rank 1.

    Parameters
    ----------
    kernel : ndarray, shape (L*M, in, k, k)
        Dense kernel, in divisible by L.
    L, M : int
        Partitions of the block.

    Returns
    -------
    ndarray, shape (M, L, L, in/L*S)
        Entry [m, b] is the slice of secondary partition m and primary partition b.

    Raises
    ------
    SpecError
        If the kernel has not L*M output channels, or L does not divide its input channels.
    """
    L, M = integer("L", L), integer("M", M)
    if kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3]:
        raise SpecError(f"the kernel has shape {kernel.shape}; allowed is (out, in, k, k)")
    out_channels, in_channels = kernel.shape[:2]
    if out_channels != L * M:
        raise SpecError(f"the kernel has {out_channels} output channels; L*M = {L}*{M} = {L * M}")
    divides("L", L, "in_channels", in_channels)
    if not np.isfinite(kernel).all():
        raise SpecError("the kernel holds numbers that are not finite")
    K = kernel.reshape(L, M, L, -1)  # (a, m, b, i*S + s)
    return K.transpose(1, 2, 0, 3)  # (m, b, a, i*S + s)


def singular_values(kernel: Array, L: int, M: int) -> Array:
    """Return the singular values of all slices, shape (M, L, rank), greatest first."""
    return np.linalg.svd(slices(kernel, L, M), compute_uv=False)


def is_igc(kernel: Array, L: int, M: int, rtol: float | None = None) -> bool:
    """Say whether a dense kernel is an IGC(L, M): whether all its slices have rank at most 1.

    Parameters
    ----------
    kernel : ndarray, shape (L*M, in, k, k)
    L, M : int
    rtol : float, optional
        A singular value counts as zero if it is at most `rtol` times the greatest of all slices;
        by default the square root of its dtype's machine epsilon, 1.5e-8 in float64.

    Raises
    ------
    SpecError
        If L and M do not fit the kernel.
    """
    sigma = singular_values(kernel, L, M)
    if rtol is None:
        rtol = math.sqrt(np.finfo(sigma.dtype).eps)
    return bool(np.all(sigma[..., 1:] <= rtol * sigma.max(initial=0)))


def project(kernel: Array, L: int, M: int) -> Projection:
    """Find the IGC(L, M) nearest to a dense kernel in Frobenius norm, in closed form.

    Parameters
    ----------
    kernel : ndarray, shape (L*M, in, k, k)
        Dense kernel, in divisible by L; real or complex.
    L, M : int
        Partitions of the block.

    Returns
    -------
    primary : ndarray, shape (L*M, in/L, k, k)
    secondary : ndarray, shape (L*M, L)
        The squared distance is the sum of the squares of ``singular_values(...)[..., 1:]``.

    Raises
    ------
    SpecError
        If L and M do not fit the kernel.

    Notes
    -----
    Each weight pair of a slice is known up to a factor and its inverse; here both have equal norm.
    """
    u, sigma, vh = np.linalg.svd(slices(kernel, L, M), full_matrices=False)
    root = np.sqrt(sigma[..., 0])[..., None]  # (M, L, 1)
    W_d = u[..., 0] * root  # (m, b, a)
    W_p = vh[..., 0, :] * root  # (m, b, i*S + s)
    k = kernel.shape[-1]
    return Projection(
        primary=W_p.transpose(1, 0, 2).reshape(L * M, -1, k, k),  # row b*M + m
        secondary=W_d.transpose(0, 2, 1).reshape(M * L, L),  # row m*L + a, column b
    )
