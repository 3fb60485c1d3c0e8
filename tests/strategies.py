"""Hypothesis strategies: blocks, pictures and random arrays, all from drawn seeds."""

import math

import numpy as np
from hypothesis import strategies as st

from igc_ref.spec import IGCSpec

seeds = st.integers(0, 2**32 - 1)
kernel_sizes = st.sampled_from([1, 2, 3, 5])
strides = st.sampled_from([1, 2, 3])
sizes = st.integers(1, 7)
partitions = st.integers(1, 5)


@st.composite
def specs(draw, square=None, kernels=kernel_sizes):
    """Any block: square, or rectangular with L | in, L | out, M | out."""
    L, M, k, stride = draw(partitions), draw(partitions), draw(kernels), draw(strides)
    if draw(st.booleans()) if square is None else square:
        return IGCSpec.square(L, M, k, stride)
    out = math.lcm(L, M) * draw(st.integers(1, 2))
    return IGCSpec(L * draw(st.integers(1, 3)), out, L, M, k, stride)


@st.composite
def pictures(draw, spec):
    """The shape (N, in, H, W) of a small batch for this block."""
    return (draw(st.integers(1, 3)), spec.in_channels, draw(sizes), draw(sizes))


def normal(rng, shape, dtype=np.float64):
    """Standard normal numbers, real or complex."""
    values = rng.normal(size=shape)
    if np.issubdtype(dtype, np.complexfloating):
        values = values + 1j * rng.normal(size=shape)
    return values.astype(dtype)


def weights(rng, spec, dtype=np.float64):
    """Random primary and secondary weights of a block."""
    return normal(rng, spec.primary_shape, dtype), normal(rng, spec.secondary_shape, dtype)
