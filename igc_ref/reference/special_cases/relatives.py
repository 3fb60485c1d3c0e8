"""Relatives of the block: mixed kernel sizes, learned groups, gates, BLAST, causal convolutions.

>>> print(mixconv([np.ones((2, 1, 3, 3)), np.ones((2, 1, 5, 5))]).spec)
igc 5x5 2-4 L2 M2
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from igc_ref.errors import SpecError, arrays, divides, instance, integer
from igc_ref.reference.special_cases.convolutions import Weights, group_convolution, xception
from igc_ref.reference.structure import Array, check_kernel, diagonal_blocks
from igc_ref.spec.block import IGCSpec


def mixconv(kernels: Sequence[Array], stride: int = 1) -> Weights:
    """MixConv (arXiv:1907.09595): group convolution, each group with its own kernel size.

    L kernels (out/L, in/L, k_b, k_b) are put in the middle of the largest, with zeros around. Sizes
    are all odd or all even: otherwise the paddings k // 2 give images of different sizes.
    """
    instance("kernels", kernels, Sequence)
    for b, kernel in enumerate(kernels):
        check_kernel(kernel)
        arrays("({}, {}, k, k)".format(*kernels[0].shape), **{f"kernels[{b}]": kernel})
    sizes = [kernel.shape[-1] for kernel in kernels]
    if len({size % 2 for size in sizes}) != 1:
        raise SpecError(f"kernel sizes {sizes} are not all odd or all even")
    rings = [[(0, 0)] * 2 + [((max(sizes) - size) // 2,) * 2] * 2 for size in sizes]
    return group_convolution(np.concatenate(list(map(np.pad, kernels, rings))), len(sizes), stride)


def dgconv(kernel: Array, gates: Sequence[int], stride: int = 1) -> tuple[Weights, Array, Array]:
    """Dynamic grouping convolution (arXiv:1908.05867), ``(weights, outputs, inputs)``.

    It multiplies a dense kernel, shape (out, in, k, k), by the mask U_1 ⊗ ... ⊗ U_n ⊗ ones: U_t is
    ones(2, 2) if gates[t] is 1, eye(2) if it is 0; 2^n divides out and in. That is a group
    convolution between two permutations: ``y[:, outputs] = forward(x[:, inputs], *weights)``.
    """
    check_kernel(kernel)
    instance("gates", gates, Sequence)
    gates = [integer(f"gates[{t}]", gate, 0, 1) for t, gate in enumerate(gates)]
    # Of a channel's binary digits those of gate 0, made the slowest, are the number of its group.
    digits = [*np.argsort(gates, kind="stable"), len(gates)]
    outputs, inputs = (
        np.arange(channels).reshape(*[2] * len(gates), rest).transpose(digits).ravel()
        for name, channels in zip(("out_channels", "in_channels"), kernel.shape, strict=False)
        for rest in [divides("2^n", 2 ** len(gates), name, channels)]
    )
    dealt, L = kernel[outputs][:, inputs].reshape(len(kernel), -1), 2 ** gates.count(0)
    primary = diagonal_blocks(dealt, L).reshape(len(kernel), -1, *kernel.shape[2:])
    return group_convolution(primary, L, stride), outputs, inputs


def gated(weights: Weights, gates: Array, after: bool = False) -> Weights:
    """Scale middle channels, x' = P W_d Pᵀ diag(gates) W_p x, or outputs; gates has shape (out,).

    Squeeze-and-excitation (arXiv:1709.01507) has other gates for each image, in the order of the
    rows of W_p or, with `after`, of x'. For one image they scale rows of a weight: no new kernels.
    """
    instance("weights", weights, Weights)
    primary, secondary, spec = weights
    arrays((spec.out_channels,), gates=gates)
    if after:  # row r of W_d^m becomes output channel r*M + m
        return Weights(primary, gates.reshape(-1, spec.M).T.reshape(-1, 1) * secondary, spec)
    return Weights(gates[:, None, None, None] * primary, secondary, spec)


def blast(s: Array, V: Array) -> Weights:
    """BLAST matrix (arXiv:2410.21262) with one-hot U: these are exactly the IGCs with S = 1.

    Block (a, b) is U diag(s[a, b]) V[b]ᵀ, with U = I_M ⊗ (1 ... 1), q ones, V[b]ᵀ = W_p^b and
    s[a, b, m*q+j] = W_d^m[a, j*L+b]. Shapes: s (q*L, L, q*M), V (L, in/L, q*M).
    """
    arrays("(L, in/L, q*M)", V=V)
    L, n, rank = V.shape
    arrays(f"(q*L, {L}, {rank})", s=s)
    q = divides("L", L, "q*L", len(s))
    spec = IGCSpec(L * n, L * rank, L, divides("q", q, "q*M", rank), kernel_size=1)
    W_d = s.reshape(q * L, L, spec.M, q).transpose(2, 0, 3, 1)  # (m, a, j, b)
    return Weights(V.swapaxes(1, 2).reshape(-1, n, 1, 1), W_d.reshape(spec.secondary_shape), spec)


def causal_convolution(filters: Array, pointwise: Array | None = None) -> Weights:
    """Depthwise causal convolution over time, Mamba's (arXiv:2312.00752), of images (N, C, 1, T).

    Filters, shape (C, c), end at the present: y[t] = Σ_j f[j] x[t-(c-1)+j]. They are the first c
    taps of the middle row in a kernel of side 2c - 1, zero elsewhere. `pointwise`, (out, C) with C
    dividing out, is a 1 x 1 convolution after them; by default the identity.
    """
    arrays("(C, c)", filters=filters)
    C, c = filters.shape
    kernel = np.zeros((C, 1, *[2 * integer("c", c) - 1] * 2), filters.dtype)
    kernel[:, 0, c - 1, :c] = filters
    return xception(kernel, np.eye(C) if pointwise is None else pointwise)
