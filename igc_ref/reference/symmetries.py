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

from igc_ref.errors import SpecError, arrays, divides, instance
from igc_ref.reference.special_cases.convolutions import Weights
from igc_ref.reference.structure import Array, check_weights, first_permutation
from igc_ref.spec.block import IGCSpec


class MiddleChannels(NamedTuple):
    """Row g of W_p makes middle channel g, and column g reads it."""

    rows: Array
    columns: Array


def middle_channels(primary: Array, secondary: Array, spec: IGCSpec) -> MiddleChannels:
    """Read the row that makes each middle channel and the column that reads it, of any block.

    Parameters
    ----------
    primary, secondary, spec
        Weights, or their gradients; a SpecError if they have another shape than `spec` says.

    Returns
    -------
    rows : ndarray, shape (out, in/L*S)
        The rows of W_p without the zeros beside its blocks.
    columns : ndarray, shape (out, out/M)
        ``columns[g]`` is the column of W_d that multiplies output g of W_p, without the zeros.

    Examples
    --------
    >>> spec = IGCSpec.square(L=3, M=2)
    >>> secondary = np.arange(18).reshape(spec.secondary_shape)
    >>> middle_channels(np.ones(spec.primary_shape), secondary, spec).columns[2]
    array([1., 4., 7.])
    """
    check_weights(primary, secondary, spec)
    Pt = first_permutation(spec, sparse=True)  # Pt[p, g] = 1: channel g comes to column p of W_d
    out, side = spec.secondary_shape
    W_dt = secondary.reshape(spec.M, side, side).swapaxes(1, 2).reshape(out, side)
    return MiddleChannels(primary.reshape(out, -1), Pt.T @ W_dt)


def rescale(primary: Array, secondary: Array, spec: IGCSpec, factors: Array) -> Weights:
    """Multiply row g of W_p by ``factors[g]`` and divide its column of W_d by it: the same block.

    Factors, shape (out,), are real or complex, of a modulus from 1e-300 to 1e300, or a SpecError.

    >>> spec = IGCSpec.square(L=3, M=2)
    >>> primary, secondary = np.ones(spec.primary_shape), np.ones(spec.secondary_shape)
    >>> rescale(primary, secondary, spec, np.array([1, 1, 2, 1, 1, 1.0])).secondary[0]
    array([1. , 0.5, 1. ])
    """
    check_weights(primary, secondary, spec)
    arrays((spec.out_channels,), factors=factors)
    for g, modulus in enumerate(np.abs(factors).tolist()):
        if not 1e-300 <= modulus <= 1e300:
            raise SpecError(f"factors[{g}]={factors[g]}: its modulus is not from 1e-300 to 1e300")
    divisors = first_permutation(spec, sparse=True) @ factors  # in the order of W_d's columns
    divisors = np.repeat(divisors.reshape(spec.M, -1), spec.out_channels // spec.M, axis=0)
    return Weights(primary * factors[:, None, None, None], secondary / divisors, spec)


def dimension(spec: IGCSpec) -> int:
    """Return the dimension of the set of kernels that are blocks of this spec.

    A slice of r = out/M rows and c = in/L*S columns may be any matrix of rank ρ = min(q, c), which
    are a set of dimension ρ(r + c - ρ). If q <= c, all this is the parameters less L*M*q².
    A SpecError if L*M does not divide the output channels.

    >>> spec = IGCSpec.square(L=3, M=2)
    >>> spec.parameters, dimension(spec)
    (126, 120)
    """
    instance("spec", spec, IGCSpec)
    L, M, out = spec.L, spec.M, spec.out_channels
    r, c = out // M, spec.in_channels // L * spec.taps
    rank = min(divides("L*M", L * M, "out_channels", out), c)
    return L * M * rank * (r + c - rank)
