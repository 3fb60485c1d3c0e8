"""The IGCV2 near to a dense kernel: split off one factor after another."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from igc_ref.errors import SpecError, arrays, instance
from igc_ref.reference.structure import Array
from igc_ref.spec.products import IGCV2Spec


class NearestProduct(NamedTuple):
    """Weights of a near product, its ‖K - K'‖ / ‖K‖, and what every product has at least."""

    weights: tuple[Array, ...]
    error: float
    bound: float


def nearest_product(kernel: Array, product: IGCV2Spec) -> NearestProduct:
    """Find an IGCV2 near to a dense kernel in Frobenius norm: the nearest one for n <= 2 factors.

    An IGCV2 is an IGC with ``L = K_2*...*K_n``, ``M = K_1`` whose blocks W_d^m are such products of
    the other factors. So take the nearest IGC, keep its W_p with rows of norm one as W_1, and go on
    with every W_d^m. The squared errors e_i² of the n - 1 steps add up, and no product is nearer
    than the greatest e_i. So the error is at most sqrt(n - 1) times the least possible one, and a
    kernel that is a product is found exactly.

    Parameters
    ----------
    kernel : ndarray, shape ``product.composed_shape``
        Real or complex.
    product : IGCV2Spec

    Returns
    -------
    weights : tuple of ndarray
        Shapes ``factor.weight_shape``; every output channel of all factors but the last one has
        weights of norm one.
    error : float
        ‖K - K'‖ / ‖K‖ = sqrt(Σ e_i²) / ‖K‖; 0 for a kernel of zeros.
    bound : float
        max e_i / ‖K‖: every product has at least this error. Equal to `error` for n <= 2.

    Raises
    ------
    SpecError
        If the kernel has another shape, or holds numbers that are not finite.

    References
    ----------
    .. [1] Le, Zheng, Riccietti and Gribonval, "Butterfly factorization with error guarantees",
       arXiv:2411.04506: more general patterns.

    Examples
    --------
    >>> spec = IGCV2Spec(8, 8, K=(2, 2, 2))
    >>> weights, error, bound = nearest_product(np.ones(spec.composed_shape), spec)
    >>> [weight.shape for weight in weights], error < 1e-7
    ([(8, 2, 3, 3), (8, 2, 1, 1), (8, 2, 1, 1)], True)
    """
    instance("product", product, IGCV2Spec)
    arrays(product.composed_shape, kernel=kernel)
    if not np.isfinite(kernel).all():
        raise SpecError("the kernel holds numbers that are not finite")
    weights, squares = [], [0.0]
    rest = kernel.reshape(1, len(kernel), -1)  # (d_i-1 ... d_1, d_n ... d_i, inputs of W_i)
    for radix in product.K[:-1]:
        p, L = len(rest), rest.shape[1] // radix
        pieces = rest.reshape(p, L, radix, L, -1).transpose(0, 3, 2, 1, 4)  # (p, b, m, r, i*S + s)
        U, sigma, Vh = np.linalg.svd(pieces, full_matrices=False)
        weights.append(Vh[..., 0, :])  # (p, b, m, i*S + s): the channels in the order of W_i
        W_d = U[..., 0] * sigma[..., :1]  # (p, b, m, r)
        rest = W_d.transpose(2, 0, 3, 1).reshape(radix * p, L, L)  # (m p, r, b)
        squares.append(float(np.sum(sigma[..., 1:] ** 2)))
    weights.append(rest)
    total = float(np.sum(np.abs(kernel) ** 2)) or 1.0
    return NearestProduct(
        tuple(w.reshape(f.weight_shape) for w, f in zip(weights, product.factors, strict=True)),
        error=math.sqrt(sum(squares) / total),
        bound=math.sqrt(max(squares) / total),
    )
