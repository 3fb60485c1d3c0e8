"""Which inputs an output depends on: after the other shuffle, and after many blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

from igc_ref.errors import SpecError, instance, integer
from igc_ref.spec.block import IGCSpec

LONGEST = 2**20  # partitions and pixels: the loops below take a second for as many


def share_met_by_other_deal(L: int, M: int) -> float:
    """Return the share of channel pairs that meet in a square block shuffled the other way.

    After ``interleave(L, M)`` every primary partition meets every secondary one. If
    ``interleave(M, L)`` takes its place, they do if and only if L = M or one of both is 1. For
    L <= M, from L² to L² + M - gcd(L, M) of the L*M pairs meet; a share is 1/min(L, M) at least.
    Both are at most 2**20.

    >>> share_met_by_other_deal(8, 4), share_met_by_other_deal(4, 4)
    (0.5, 1.0)
    """
    L, M = sorted(integer(*pair, maximum=LONGEST) for pair in (("L", L), ("M", M)))  # symmetric
    # L² pairs begin where W_p's output is one of the first L of its partition. Secondary partition
    # d begins with output (d*L mod M)*L + d*L//M, and adds a pair if that is not one of those.
    late = sum((d * L % M * L + d * L // M) % M >= L for d in range(M))
    return (L * L + late) / (L * M)


def mixing_time(blocks: IGCSpec | Iterable[IGCSpec], height: int, width: int) -> float:
    """Return after how many blocks every output depends on every input pixel and channel, or inf.

    With n blocks it does, for almost all weights, exactly if ∏ in_i*out_i/(L_i*M_i) >= in_1 and
    Σ floor((k_i - 1)/2) * stride_1 * ... * stride_(i-1) >= height - 1, k_i the kernels' heights,
    and likewise for the width.

    Parameters
    ----------
    blocks : IGCSpec or iterable of IGCSpec
        One block that is repeated, or the blocks of a network. A SpecError if the channels do not
        fit, or a stride above ``k // 2 + 1`` may leave out pixels, along a side longer than 1.
    height, width : int
        Of the input image, in pixels; at most 2**20.

    Examples
    --------
    >>> mixing_time(IGCSpec.square(L=24, M=2), 32, 32)
    31
    """
    far = integer("height", height, 1, LONGEST) - 1, integer("width", width, 1, LONGEST) - 1
    if isinstance(blocks, IGCSpec):  # each gains a pixel and doubles the channels, or none ever
        blocks = itertools.repeat(blocks, max(*far, 31))
    instance("blocks", blocks, Iterable)
    met, reach, step, first, given = 1, [0, 0], 1, 0, 0  # channels; pixels to a side; pixels apart
    for n, spec in enumerate(blocks, start=1):
        instance("block", spec, IGCSpec)
        if given and given != spec.in_channels:
            raise SpecError(f"{spec} takes {spec.in_channels} channels; it is given {given}")
        if any(spec.stride > k // 2 + 1 for k, n in zip(spec.kernel, far, strict=True) if n):
            raise SpecError(f"{spec}: a stride above k//2 + 1 may leave out pixels")
        first, given = first or spec.in_channels, spec.out_channels
        met *= (spec.in_channels // spec.L) * (spec.out_channels // spec.M)
        reach = [r + (k - 1) // 2 * step for r, k in zip(reach, spec.kernel, strict=True)]
        step *= spec.stride
        if met >= first and reach[0] >= far[0] and reach[1] >= far[1]:
            return n
    return math.inf
