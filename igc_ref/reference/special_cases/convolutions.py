"""Convolutions that are IGC blocks: regular, grouped, summed, separable, aggregated, shuffled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from igc_ref.errors import SpecError, arrays, divides
from igc_ref.reference.structure import Array, check_kernel
from igc_ref.spec.block import IGCSpec


class Weights(NamedTuple):
    """An IGC block with its weights: what every construction of a special case returns."""

    primary: Array
    secondary: Array
    spec: IGCSpec


def regular_convolution(kernel: Array, stride: int = 1) -> Weights:
    """Any regular convolution is an IGC with one primary partition: L = 1, W_d = identity.

    Parameters
    ----------
    kernel : ndarray, shape (out, in, kh, kw)

    Returns
    -------
    Weights
        M = out: the secondary blocks are 1x1, one scale a channel, all one.
    """
    return group_convolution(kernel, 1, stride)


def group_convolution(kernel: Array, L: int, stride: int = 1) -> Weights:
    """Group convolution: W_d = identity (paper, section 3).

    Parameters
    ----------
    kernel : ndarray, shape (out, in/L, kh, kw)
        out divisible by the number of groups L.

    Returns
    -------
    Weights
        M = out/L, each W_d^m the L x L identity.
    """
    spec = _spec(kernel, L, _per_group(kernel, L), stride)
    return Weights(kernel, np.tile(np.eye(L, dtype=kernel.dtype), (spec.M, 1)), spec)


def summation_fusion(kernel: Array, L: int, stride: int = 1) -> Weights:
    """Group convolution whose partitions are summed: every W_d^m is all ones (paper, section 3).

    Parameters
    ----------
    kernel : ndarray, shape (out, in/L, kh, kw)

    Returns
    -------
    Weights
        The output repeats the sum of the L partitions L times: channel ``a*M + m`` is
        channel m of the sum, for every a.
    """
    spec = _spec(kernel, L, _per_group(kernel, L), stride)
    return Weights(kernel, np.ones(spec.secondary_shape, kernel.dtype), spec)


def regular_convolution_by_branches(kernel: Array, n: int = 2, stride: int = 1) -> Weights:
    """Regular convolution, the paper's way: n x n blocks, n² branches (paper, section 3).

    With the kernel cut into blocks W_ij and the input into x_j, branch (i, j) computes
    W_ij x_j, and a fixed cross-summation of zeros and ones adds the n branches of each i.

    Parameters
    ----------
    kernel : ndarray, shape (out, in, kh, kw)
        out and in divisible by n.
    n : int
        Blocks along each side; the paper's figure has n = 2, four branches.

    Returns
    -------
    Weights
        L = n², M = out/n. It maps the input repeated n times along the channels,
        ``np.tile(x, (1, n, 1, 1))``, to the convolution repeated n times, so blocks chain.
    """
    check_kernel(kernel)
    out, inp, *sides = kernel.shape
    each = divides("n", n, "out_channels", out), n, divides("n", n, "in_channels", inp)
    W = kernel.reshape(n, *each, *sides).swapaxes(1, 2)  # (i, j, out/n, in/n, kh, kw)
    # Output partition (p, i) adds the branches (i, j) of all j; p only repeats.
    W_d = np.tile(np.kron(np.eye(n), np.ones((1, n))), (n, 1))  # (p i, i j), the same for all m
    primary = W.reshape(n * out, inp // n, *sides)
    secondary = np.tile(W_d, (out // n, 1)).astype(kernel.dtype)
    spec = IGCSpec(n * inp, n * out, n * n, out // n, kernel.shape[2:], stride)
    return Weights(primary, secondary, spec)


def xception(depthwise: Array, pointwise: Array, stride: int = 1) -> Weights:
    """Xception or MobileNet block without the activation between: M = 1 (paper, section 3).

    Parameters
    ----------
    depthwise : ndarray, shape (in, 1, kh, kw)
        One filter a channel.
    pointwise : ndarray, shape (out, in)
        out a multiple of in.

    Returns
    -------
    Weights
        L = in, M = 1. A widening block is ResNeXt's with branches of one channel.
    """
    arrays("(in, 1, kh, kw)", depthwise=depthwise)
    arrays("(out, in)", pointwise=pointwise)
    return resnext(depthwise, pointwise, depthwise.shape[0], stride)


def resnext(branches: Array, expansion: Array, L: int, stride: int = 1) -> Weights:
    """ResNeXt's aggregated kh x kw convolutions, sum over l of E_l (W_l x_l), linear: M = 1.

    Parameters
    ----------
    branches : ndarray, shape (L*d, in/L, kh, kw)
        The kh x kw convolutions W_l of the L branches, d channels each.
    expansion : ndarray, shape (out, L*d)
        The 1 x 1 convolutions E_l side by side; out a multiple of L, out/L >= d.
    L : int
        Cardinality, the number of branches.

    Returns
    -------
    Weights
        L partitions of out/L channels, of which d are used; M = 1, so W_d is dense.
    """
    arrays("(out, L*d)", expansion=expansion)
    d, out = _per_group(branches, L), expansion.shape[0]
    width = out // L
    if out % L or width < d or expansion.shape[1] != L * d:
        raise SpecError(
            f"expansion of shape {expansion.shape} needs L*d = {L}*{d} columns and a number of "
            f"rows that is divisible by L={L} and at least {L * d}"
        )
    primary = np.zeros((L, width, *branches.shape[1:]), branches.dtype)
    primary[:, :d] = branches.reshape(L, d, *branches.shape[1:])
    secondary = np.zeros((out, width, L), expansion.dtype)  # columns interleaved: (j, l)
    secondary[:, :d] = expansion.reshape(out, L, d).swapaxes(1, 2)
    primary = primary.reshape(out, *branches.shape[1:])
    return Weights(primary, secondary.reshape(out, out), _spec(primary, L, 1, stride))


def shufflenet(first: Array, second: Array, groups: int, stride: int = 1) -> Weights:
    """ShuffleNet's pair of group convolutions, a shuffle between and one after; no activations.

    Parameters
    ----------
    first : ndarray, shape (out, in/groups, kh, kw)
    second : ndarray, shape (out, out/groups)
        Rows in the order after the shuffle, as ShuffleNet applies it.
    groups : int
        Groups of both convolutions.

    Returns
    -------
    Weights
        L = M = groups: the IGC computes shuffle(second * shuffle(first * x)).
    """
    _per_group(first, groups)
    spec = _spec(first, groups, groups, stride)
    arrays(spec.secondary_shape, second=second)
    return Weights(first, second, spec)


def shufflenet_unit(reduce: Array, depthwise: Array, expand: Array, groups: int) -> Weights:
    """ShuffleNet's unit without activations, 1x1, shuffle, depthwise, 1x1, as *one* IGC.

    A depthwise convolution commutes with permutations, so it moves before the shuffle and
    multiplies into the primary weights: the constraint is primary[o, i, s] = d[o, s] * r[o, i].

    Parameters
    ----------
    reduce, expand : ndarray, shape (C, C/groups)
    depthwise : ndarray, shape (C, 1, kh, kw)
        Filters in the order after the shuffle.

    Returns
    -------
    Weights
        L = M = groups; the IGC computes the unit's output followed by one more shuffle.
    """
    arrays("(C, C/groups)", reduce=reduce)
    C = len(reduce)
    arrays(f"({C}, 1, kh, kw)", depthwise=depthwise)
    each = divides("groups", groups, "out_channels", C)
    # The shuffle makes channel b*(C/groups) + j channel j*groups + b.
    filters = depthwise.reshape(each, groups, *depthwise.shape[2:]).swapaxes(0, 1)
    first = reduce[:, :, None, None] * filters.reshape(C, 1, *depthwise.shape[2:])
    return shufflenet(first, expand, groups)


def _per_group(kernel: Array, L: int) -> int:
    """Return the number of output channels of each group, or raise."""
    check_kernel(kernel)
    return divides("L", L, "out_channels", len(kernel))


def _spec(kernel: Array, L: int, M: int, stride: int) -> IGCSpec:
    """Return the spec of a block whose primary weights are this kernel."""
    out, per_group, *sides = kernel.shape
    return IGCSpec(per_group * L, out, L, M, (sides[0], sides[1]), stride)
