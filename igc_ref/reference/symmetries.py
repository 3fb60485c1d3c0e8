"""What can change in the weights while the block stays the same, and what follows from it.

Row g of W_p makes middle channel g, and one column of W_d reads it. The kernel contains them only
as the product column times row: with c times the row and 1/c times the column, it is the same.

**Conservation.** For any loss, <row, its gradient> = <column, its gradient> at every middle
channel. So gradient flow keeps ‖row‖² - ‖column‖²; under weight decay λ it shrinks as exp(-2λt).

**Uniqueness.** Let ``out = q*L*M``. The kernel determines the weights up to an invertible q x q
matrix in every slice (with q = 1: a factor) if and only if every slice has rank q.

**Orthogonality.** With q = 1, a kernel has orthonormal rows if and only if, up to these factors,
W_p has orthonormal rows and W_d is orthogonal (arXiv:2406.10019 has one direction).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from igc_ref.errors import SpecError, arrays, instance
from igc_ref.reference.special_cases.convolutions import Weights
from igc_ref.reference.structure import Array, first_permutation
from igc_ref.spec.block import IGCSpec


class MiddleChannels(NamedTuple):
    """Row g of W_p makes middle channel g, and column g reads it."""

    rows: Array
    columns: Array


def middle_channels(primary: Array, secondary: Array, spec: IGCSpec) -> MiddleChannels:
    """Read the row that makes each middle channel and the column that reads it, of any block.

    Parameters
    ----------
    primary, secondary : ndarray
        Weights, or their gradients.
    spec : IGCSpec

    Returns
    -------
    rows : ndarray, shape (out, in/L*S)
        The rows of W_p without the zeros beside its blocks.
    columns : ndarray, shape (out, out/M)
        ``columns[g]`` is the column of W_d that multiplies output g of W_p, without the zeros.

    Raises
    ------
    SpecError
        If an array has another shape than `spec` says.

    Examples
    --------
    >>> spec = IGCSpec.square(L=3, M=2)
    >>> secondary = np.arange(18).reshape(spec.secondary_shape)
    >>> middle_channels(np.ones(spec.primary_shape), secondary, spec).columns[2]
    array([1., 4., 7.])
    """
    Pt = first_permutation(spec, sparse=True)  # Pt[p, g] = 1: channel g comes to column p of W_d
    arrays(spec.primary_shape, primary=primary)
    arrays(spec.secondary_shape, secondary=secondary)
    columns = Pt.T @ _transposed_blocks(secondary, spec)
    return MiddleChannels(primary.reshape(spec.out_channels, -1), columns)


def rescale(primary: Array, secondary: Array, spec: IGCSpec, factors: Array) -> Weights:
    """Multiply row g of W_p by ``factors[g]`` and divide its column of W_d by it: the same block.

    Parameters
    ----------
    primary, secondary, spec
        As in `middle_channels`.
    factors : ndarray, shape (out,)
        Real or complex, none of them zero.

    Raises
    ------
    SpecError
        If an array has another shape, or a factor is zero or not finite.

    Examples
    --------
    >>> spec = IGCSpec.square(L=3, M=2)
    >>> primary, secondary = np.ones(spec.primary_shape), np.ones(spec.secondary_shape)
    >>> rescale(primary, secondary, spec, np.array([1, 1, 2, 1, 1, 1.0])).secondary[0]
    array([1. , 0.5, 1. ])
    """
    rows, columns = middle_channels(primary, secondary, spec)
    arrays((spec.out_channels,), factors=factors)
    for g in np.flatnonzero(~np.isfinite(factors) | (factors == 0)):
        raise SpecError(f"factors[{g}]={factors[g]} is not allowed; it must be finite and not zero")
    columns = first_permutation(spec, sparse=True) @ (columns / factors[:, None])
    rows = (rows * factors[:, None]).reshape(spec.primary_shape)
    return Weights(rows, _transposed_blocks(columns, spec), spec)


def dimension(spec: IGCSpec) -> int:
    """Return the dimension of the set of kernels that are blocks of this spec.

    A slice of r = out/M rows and c = in/L*S columns may be any matrix of rank ρ = min(q, c), which
    are a set of dimension ρ(r + c - ρ). If q <= c, all this is the parameters less L*M*q².

    Raises
    ------
    SpecError
        If L*M does not divide the output channels.

    Examples
    --------
    >>> spec = IGCSpec.square(L=3, M=2)
    >>> spec.parameters, dimension(spec)
    (126, 120)
    """
    instance("spec", spec, IGCSpec)
    L, M, out = spec.L, spec.M, spec.out_channels
    if out % (L * M):
        raise SpecError(f"out_channels={out} is not divisible by L*M = {L}*{M} = {L * M}")
    r, c = out // M, spec.in_channels // L * spec.taps
    rank = min(out // (L * M), c)
    return L * M * rank * (r + c - rank)


def _transposed_blocks(secondary: Array, spec: IGCSpec) -> Array:
    """Transpose every block W_d^m; shape (out, out/M) as before."""
    side = spec.out_channels // spec.M
    return secondary.reshape(spec.M, side, side).swapaxes(1, 2).reshape(spec.secondary_shape)
