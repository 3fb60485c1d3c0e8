"""A block turned round is a block with the roles of L and M, and of W_p and W_d, exchanged.

The matrix of a square block with S = 1 is K = Aᵀ W_d A W_p, A = interleave(L, M). So
A Kᵀ Aᵀ = A W_pᵀ Aᵀ W_dᵀ and A K⁻¹ Aᵀ = A W_p⁻¹ Aᵀ W_d⁻¹ are an IGC(M, L): its first permutation is
interleave(M, L) = Aᵀ. Of any block, the gradient of the images is such a product: `adjoint`.

All functions take `Weights` of finite numbers, as the constructions of `special_cases` return them.
"""

from __future__ import annotations

import numpy as np

from igc_ref.errors import SpecError, finite, instance
from igc_ref.reference.special_cases.convolutions import Weights
from igc_ref.reference.structure import Array, check_weights
from igc_ref.spec.block import Factor, IGCSpec
from igc_ref.spec.products import Chain


def transpose(weights: Weights) -> Weights:
    """Return the IGC(M, L) of A Kᵀ Aᵀ: primary blocks (W_d^m)ᵀ, secondary blocks (W_p^b)ᵀ.

    A SpecError unless the block is square, in = out = L*M, with kernel size 1 and stride 1.

    >>> from igc_ref.reference import special_cases
    >>> print(transpose(special_cases.cooley_tukey(3, 2)).spec)
    igc 1x1 6-6 L2 M3
    """
    return _exchanged(*(blocks.swapaxes(1, 2) for blocks in _blocks(weights, square=True)))


def inverse(weights: Weights) -> Weights:
    """Return the IGC(M, L) of A K⁻¹ Aᵀ: primary blocks (W_d^m)⁻¹, secondary blocks (W_p^b)⁻¹.

    A SpecError as in `transpose`, or if a block is singular: the message names it.

    >>> from igc_ref.reference import special_cases
    >>> inverse(special_cases.kronecker(np.diag([2.0, 4.0]), np.eye(1))).primary.ravel()
    array([0.5 , 0.  , 0.  , 0.25])
    """
    both = _blocks(weights, square=True)
    for name, blocks in zip(("W_p", "W_d"), both, strict=True):
        if (singular := np.linalg.matrix_rank(blocks) < blocks.shape[-1]).any():
            raise SpecError(f"{name}^{singular.argmax()} is singular; all must be invertible")
    return _exchanged(*map(np.linalg.inv, both))


def slogdet(weights: Weights) -> tuple[complex, float]:
    """Return the sign (or phase) of det K and ``log |det K|``, as ``numpy.linalg.slogdet`` does.

    det K is the product of the determinants of all blocks and of the signs of both permutations,
    which cancel in the square block: interleave(a, b) has a(a-1)/2 * b(b-1)/2 inversions.
    A SpecError unless in = out and the kernel size is 1.

    >>> from igc_ref.reference import special_cases
    >>> slogdet(special_cases.kronecker(np.diag([1.0, -1.0, 1.0]), np.eye(3)))
    (-1.0, 0.0)
    """
    both, spec, out = _blocks(weights), weights.spec, weights.spec.out_channels
    if spec.composed_shape != (out, out, 1, 1):
        raise SpecError(f"{spec} has no determinant: in = out and k = 1 are needed")
    signs, logarithms = np.concatenate([np.linalg.slogdet(blocks) for blocks in both], axis=1)
    inversions = sum(a * (a - 1) * (b := out // a) * (b - 1) // 4 for a in (spec.L, spec.M))
    return (np.prod(signs) * (-1) ** inversions).item(), float(logarithms.real.sum())


def adjoint(weights: Weights) -> tuple[list[Array], Chain]:
    """Return weights and chain of the map from d, the gradient of x', to the gradient of x.

    The chain undoes the last permutation (a factor of ones), applies W_dᵀ in M groups, and
    convolves in L groups with the blocks of W_p transposed and flipped. Any block will do. If its
    stride is above 1, d must first be put on every stride-th pixel of zeros of the size that stride
    1 would give. Along a side of an even kernel, the result has one pixel too many at both ends.

    >>> from igc_ref.reference import backward, products, special_cases
    >>> igc = special_cases.group_convolution(np.ones((6, 2, 3, 3)), L=3)
    >>> x, d = np.random.default_rng(0).normal(size=(2, 1, 6, 8, 8))
    >>> np.allclose(products.forward(d, *adjoint(igc)), backward(d, x, *igc).x)
    True
    """
    (W_p, W_d), spec = _blocks(weights), weights.spec
    inp, out, L, M = spec.in_channels, spec.out_channels, spec.L, spec.M
    W_p = W_p.reshape(L, out // L, inp // L, *spec.kernel)[..., ::-1, ::-1]
    undo, mix = Factor(out, out, out, deal=out // M), Factor(out, out, M, deal=out // L)
    chain = Chain((undo, mix, Factor(out, inp, L, spec.kernel_size)))
    flat = np.ones(out), W_d.swapaxes(1, 2), W_p.swapaxes(1, 2)
    return [a.reshape(f.weight_shape) for a, f in zip(flat, chain.factors, strict=True)], chain


def _blocks(weights: Weights, square: bool = False) -> tuple[Array, Array]:
    """Return all W_p^b, shape (L, out/L, in/L*S), and all W_d^m, shape (M, out/M, out/M)."""
    instance("weights", weights, Weights)
    check_weights(*weights)
    primary, secondary, spec = weights
    finite("W_p", primary)
    finite("W_d", secondary)
    if square and spec != IGCSpec.square(spec.L, spec.M, kernel_size=1):
        raise SpecError(f"{spec}: a square block, in = out = L*M, with k = 1, stride 1 is needed")
    out, L, M = spec.out_channels, spec.L, spec.M
    return primary.reshape(L, out // L, -1), secondary.reshape(M, out // M, -1)


def _exchanged(W_p: Array, W_d: Array) -> Weights:
    """Return the IGC(M, L) whose primary blocks are these W_d, its secondary ones these W_p."""
    spec = IGCSpec.square(len(W_d), len(W_p), kernel_size=1)
    return Weights(W_d.reshape(spec.primary_shape), W_p.reshape(spec.secondary_shape), spec)
