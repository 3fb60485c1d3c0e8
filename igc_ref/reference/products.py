"""Products of more than two factors, as explicit matrices: IGCV2 and IGCV3.

    x' = P_n W_n ... P_2 W_2 P_1 W_1 x

W_i is block-diagonal and P_i an interleaving permutation. A spatial factor reads patches: for one
output position it takes the patch vector z_i of its input, ordered (channel, ky, kx), and
x_i = P_i W_i z_i; for a 1 x 1 factor z_i is the pixel. Only the linear map is
meant: an IGCV3 layer has batch norm and ReLU between its factors, this product has not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from igc_ref.errors import SpecError, arrays, instance
from igc_ref.reference.patches import fold, unfold
from igc_ref.reference.structure import (
    Array,
    Matrix,
    block_diagonal,
    diagonal_blocks,
    interleave,
    masked_product,
)
from igc_ref.spec.block import Product


class FactorMatrices(NamedTuple):
    """One factor: W of shape (out_i, in_i*S_i) and P of shape (out_i, out_i)."""

    W: Matrix
    P: Matrix


class ProductGradients(NamedTuple):
    """Gradients of a scalar loss: with respect to the images and to all factors' weights."""

    x: Array
    weights: tuple[Array, ...]


def matrices(
    weights: Sequence[Array], product: Product, sparse: bool = False
) -> tuple[FactorMatrices, ...]:
    """Write the weights of all factors as explicit matrices.

    Parameters
    ----------
    weights : sequence of ndarray
        One for each factor, of the shape ``factor.weight_shape``, W_1 first.
    product : Product
        An `IGCV2Spec` or an `IGCV3Spec`.
    sparse : bool
        Return ``scipy.sparse`` arrays (CSR) instead of dense ones.

    Raises
    ------
    SpecError
        If the weights have other shapes than `product` says.
    """
    instance("product", product, Product)
    instance("weights", weights, Sequence)
    arrays(**{f"W_{i}": weight for i, weight in enumerate(weights, start=1)})
    needed = [factor.weight_shape for factor in product.factors]
    found = [weight.shape for weight in weights]
    if found != needed:
        raise SpecError(f"weights have shapes {found}; {product} needs {needed}")
    return tuple(
        FactorMatrices(
            W=block_diagonal(weight.reshape(f.groups, f.out_channels // f.groups, -1), sparse),
            P=interleave(f.deal, f.out_channels // f.deal, sparse),
        )
        for weight, f in zip(weights, product.factors, strict=True)
    )


def forward(x: Array, weights: Sequence[Array], product: Product, sparse: bool = False) -> Array:
    """Compute x' = P_n W_n ... P_1 W_1 x.

    Parameters
    ----------
    x : ndarray, shape (N, in, H, W)
        Images, float64 or complex128.
    weights, product, sparse
        As in `matrices`.

    Returns
    -------
    ndarray, shape (N, out, out_height, out_width)

    Raises
    ------
    SpecError
        If x or the weights have other shapes than `product` says.
    """
    *_, last = _images(x, matrices(weights, product, sparse), product)
    return last


def backward(
    d: Array, x: Array, weights: Sequence[Array], product: Product, sparse: bool = False
) -> ProductGradients:
    """Pull the upstream gradient d back through x' = P_n W_n ... P_1 W_1 x.

    For every factor, the last one first, with d the gradient of its output:

        dy = Pᵀ d,   dW = blockmask(dy zᵀ),   dz = Wᵀ dy,

    and dz, folded from patches to images, is the gradient of the output before it.

    Parameters
    ----------
    d : ndarray, shape (N, out, out_height, out_width)
        Gradient of the loss with respect to x'.
    x, weights, product, sparse
        As in `forward`.

    Returns
    -------
    x, weights : ndarray and tuple of ndarrays
        Gradients, each of the shape of its argument.

    Raises
    ------
    SpecError
        If d, x or the weights have other shapes than `product` says.

    Notes
    -----
    The pairing is bilinear, ``sum(d * dx')``, also for complex arrays: transposes, no conjugates.
    """
    explicit = matrices(weights, product, sparse)
    *inputs, output = _images(x, explicit, product)
    arrays(output.shape, d=d)
    gradients = []
    for factor, (W, P), before in zip(
        reversed(product.factors), reversed(explicit), reversed(inputs), strict=True
    ):
        Z = unfold(before, factor.kernel_size, factor.stride)
        dy = P.T @ d.transpose(1, 2, 3, 0).reshape(factor.out_channels, -1)
        dW = masked_product(dy, Z, factor.groups, sparse)
        gradients.append(diagonal_blocks(dW, factor.groups).reshape(factor.weight_shape))
        d = fold(W.T @ dy, before.shape, factor.kernel_size, factor.stride)
    return ProductGradients(d, tuple(reversed(gradients)))


def composed_kernel(weights: Sequence[Array], product: Product) -> Array:
    """Multiply the product out into one dense kernel, shape (out, in, kh, kw).

    A 1 x 1 factor before the spatial one acts on every pixel of a patch alike: W ⊗ I_S, where I_S
    is the identity on the taps.
    """
    explicit = matrices(weights, product)
    kernel: Array = np.eye(product.in_channels)  # of the factors so far, (channels, in*taps)
    for factor, (W, P) in zip(product.factors, explicit, strict=True):
        kernel = P @ W @ np.kron(kernel, np.eye(math.prod(factor.weight_shape[2:])))
    return kernel.reshape(product.composed_shape)


def paths(product: Product) -> npt.NDArray[np.int64]:
    """Count the paths from every input channel to every output channel, shape (out, in).

    Each W_i is replaced by its mask: 1 on the blocks, taps aside, and 0 elsewhere.
    The product of the masks and the permutations counts the ways through the blocks.
    """
    instance("product", product, Product)
    count = np.eye(product.in_channels)
    for f in product.factors:
        ones = np.ones((f.groups, f.out_channels // f.groups, f.in_channels // f.groups))
        P = interleave(f.deal, f.out_channels // f.deal, sparse=True)
        count = P @ (block_diagonal(ones, sparse=True) @ count)
    return count.astype(np.int64)


def is_complementary(product: Product) -> bool:
    """Say whether exactly one path leads from every input channel to every output channel.

    The complementary condition of IGCV2 (arXiv:1804.06202): the composed kernel is dense, and no
    entry of it is a sum.
    """
    return bool(np.all(paths(product) == 1))


def is_loosely_complementary(product: Product) -> bool:
    """Say whether the number of paths is the same between all inputs and all outputs.

    For IGCV3 that is its loose complementary condition (arXiv:1806.00178), the complementary one
    over super-channels. The paths from input i to output o lead through the hidden channels that
    are both in the group of i in W_1 and in the group of o in W_3: one super-channel, and
    ``paths`` is its size. All sizes are equal (and then none is 0) if and only if every group of
    W_1 shares one super-channel, of one size, with every group of W_3.
    """
    count = paths(product)
    return bool(count.min() == count.max())


def _images(x: Array, explicit: Sequence[FactorMatrices], product: Product) -> list[Array]:
    """Return the images before every factor, x first, and after the last one."""
    arrays(f"(N, {product.in_channels}, H, W)", x=x)
    found = [x]
    for factor, (W, P) in zip(product.factors, explicit, strict=True):
        height, width = factor.output_size(*found[-1].shape[2:])
        X = P @ W @ unfold(found[-1], factor.kernel_size, factor.stride)  # (out_i, positions*N)
        found.append(X.reshape(factor.out_channels, height, width, len(x)).transpose(3, 0, 1, 2))
    return found
