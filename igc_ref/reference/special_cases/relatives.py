"""Relatives of the block: mixed kernel sizes, learned groups, gates, BLAST, causal convolutions.

A kernel, weights or channels that do not fit are a SpecError, what is no array a TypeError.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from igc_ref.errors import SpecError, arrays, divides, instance, int_or_pair, integer, kernel_pair
from igc_ref.reference.special_cases.convolutions import Weights, group_convolution, xception
from igc_ref.reference.structure import Array, check_kernel, check_weights, diagonal_blocks
from igc_ref.spec.block import IGCSpec
from igc_ref.spec.mixed import MixedSpec


def mixconv(kernels: Sequence[Array], stride: int = 1) -> Weights:
    """MixConv (arXiv:1907.09595): group convolution, each group with its own kernel size.

    The L kernels, shapes (out/L, in/L, kh_b, kw_b), are padded with zeros to the largest size.
    Heights are all odd or all even, and widths: otherwise the paddings k // 2 give images of
    different sizes.

    >>> print(mixconv([np.ones((2, 1, 3, 3)), np.ones((2, 1, 5, 5))]).spec)
    igc 5x5 2-4 L2 M2
    """
    instance("kernels", kernels, Sequence)
    axes = "(out/L, in/L, kh, kw)"
    for b, kernel in enumerate(kernels):
        arrays(axes, **{f"kernels[{b}]": kernel})
        axes = "({}, {}, kh, kw)".format(*kernel.shape)  # all others have as many channels
    sizes = np.array([kernel_pair(kernel.shape[2:]) for kernel in kernels]).reshape(-1, 2)
    if not len(sizes) or np.any((sizes - sizes[0]) % 2):
        shown = [int_or_pair("kernel_size", tuple(size)) for size in sizes.tolist()]
        raise SpecError(f"kernel sizes {shown} are not all odd or all even")
    rings = [[(0, 0)] * 2 + [(n, n) for n in (sizes.max(axis=0) - size) // 2] for size in sizes]
    return group_convolution(np.concatenate(list(map(np.pad, kernels, rings))), len(sizes), stride)


def mixed(kernels: Sequence[Array], secondary: Array, spec: MixedSpec) -> Weights:
    """Block with several kernel sizes, from the kernels of `spec.runs`; see `MixedSpec`.

    With W_d the identity it is MixConv; see `mixconv`.

    >>> spec = MixedSpec(2, 2, L=2, M=1, kernel_sizes=(1, 3))
    >>> igc = mixed([np.ones((1, 1, 1, 1)), np.ones((1, 1, 3, 3))], np.ones((2, 2)), spec)
    >>> igc.primary[0, 0, 1]
    array([0., 1., 0.])
    """
    instance("spec", spec, MixedSpec)
    if len(kernels) != len(spec.runs):
        raise SpecError(f"{len(kernels)} kernels are given; {spec} has {len(spec.runs)} runs")
    partitions: list[Array] = []
    for kernel, run in zip(kernels, spec.runs, strict=True):
        arrays(run.weight_shape, kernel=kernel)
        partitions += np.split(kernel, run.groups)
    return Weights(mixconv(partitions).primary, secondary, spec.igc)


def unmixed(primary: Array, spec: MixedSpec) -> list[Array]:
    """Take the kernels out of the primary weights of `mixed`, of which it is the adjoint.

    >>> [w.shape for w in unmixed(np.ones((2, 1, 3, 3)), MixedSpec(2, 2, 2, 1, (1, 3)))]
    [(1, 1, 1, 1), (1, 1, 3, 3)]
    """
    instance("spec", spec, MixedSpec)
    arrays(spec.igc.primary_shape, primary=primary)
    ends, found = np.cumsum([run.out_channels for run in spec.runs])[:-1], []
    for rows, run in zip(np.split(primary, ends), spec.runs, strict=True):
        sides = zip(primary.shape[2:], run.weight_shape[2:], strict=True)
        found.append(rows[:, :, *(slice((K - k) // 2, (K + k) // 2) for K, k in sides)])
    return found


def dgconv(kernel: Array, gates: Sequence[int], stride: int = 1) -> tuple[Weights, Array, Array]:
    """Dynamic grouping convolution (arXiv:1908.05867): a group convolution of permuted channels.

    It multiplies a dense kernel, shape (out, in, kh, kw), by the mask U_1 ⊗ ... ⊗ U_n ⊗ ones: U_t
    is ones(2, 2) if gates[t] is 1, else eye(2); 2^n divides out and in. Returns the weights and
    the two orders of channels for which ``y[:, outputs] = forward(x[:, inputs], *weights)``.

    >>> weights, outputs, inputs = dgconv(np.ones((4, 4, 3, 3)), [1, 0])
    >>> weights.spec.L, outputs  # even channels are one group, odd ones the other
    (2, array([0, 2, 1, 3]))
    """
    check_kernel(kernel)
    instance("gates", gates, Sequence)
    gates = [integer(f"gates[{t}]", gate, 0, 1) for t, gate in enumerate(gates)]
    (out, inp, *sides), n, L = kernel.shape, len(gates), 2 ** gates.count(0)
    # Channels are in one group if they have equal binary digits wherever the gate is 0.
    digits = int("0" + "".join(str(1 - gate) for gate in gates), base=2)
    outputs, inputs = (
        np.argsort(np.arange(size) // divides("2^n", 2**n, name, size) & digits, kind="stable")
        for name, size in (("out_channels", out), ("in_channels", inp))
    )
    blocks = diagonal_blocks(kernel[outputs][:, inputs].reshape(out, -1), L)
    return group_convolution(blocks.reshape(out, inp // L, *sides), L, stride), outputs, inputs


def gated(weights: Weights, gates: Array, after: bool = False) -> Weights:
    """Scale the middle channels, x' = P W_d Pᵀ diag(gates) W_p x, or the outputs.

    The gates, shape (out,), are in the order of W_p's rows or, with `after`, of the channels of x'.
    Squeeze-and-excitation (arXiv:1709.01507) has other gates for each image. For one image they
    scale rows of a weight, so they give no new kernels.

    >>> igc = xception(np.ones((2, 1, 3, 3)), np.ones((2, 2)))
    >>> gated(igc, np.array([1.0, 0.5]), after=True).secondary
    array([[1. , 1. ],
           [0.5, 0.5]])
    """
    instance("weights", weights, Weights)
    check_weights(*weights)
    primary, secondary, spec = weights
    arrays((spec.out_channels,), gates=gates)
    if after:  # row r of W_d^m becomes output channel r*M + m
        return Weights(primary, gates.reshape(-1, spec.M).T.reshape(-1, 1) * secondary, spec)
    return Weights(gates[:, None, None, None] * primary, secondary, spec)


def blast(s: Array, V: Array) -> Weights:
    """BLAST matrix (arXiv:2410.21262) with one-hot U: these are exactly the IGCs with S = 1.

    Block (a, b) of the matrix is U diag(s[a, b]) V[b]ᵀ, with U = I_M ⊗ (1 ... 1), q ones. So
    V[b]ᵀ = W_p^b, shape (L, in/L, q*M), and s[a, b, m*q + j] = W_d^m[a, j*L + b], (q*L, L, q*M).

    >>> print(blast(np.ones((3, 3, 2)), np.ones((3, 4, 2))).spec)
    igc 1x1 12-6 L3 M2
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
    taps of a kernel 1 x (2c - 1), zero elsewhere. `pointwise`, (out, C) with C
    dividing out, is a 1 x 1 convolution after them; by default the identity.

    >>> causal_convolution(np.array([[2.0, 3.0]])).primary[0, 0, 0]  # y[t] = 2x[t-1] + 3x[t]
    array([2., 3., 0.])
    """
    arrays("(C, c)", filters=filters)
    C, c = filters.shape
    kernel = np.zeros((C, 1, 1, 2 * integer("c", c) - 1), filters.dtype)
    kernel[:, 0, 0, :c] = filters
    return xception(kernel, np.eye(C) if pointwise is None else pointwise)
