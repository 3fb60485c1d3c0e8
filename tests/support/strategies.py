"""Hypothesis strategies: blocks, pictures and random arrays, all from drawn seeds."""

import math

import numpy as np
from hypothesis import strategies as st

from igc_ref.networks.architecture import ARCHITECTURES
from igc_ref.spec.block import IGCSpec
from igc_ref.spec.mixed import MixedSpec
from igc_ref.spec.products import IGCV2Spec, IGCV3Spec

seeds = st.integers(0, 2**32 - 1)
kernel_sizes = st.sampled_from([1, 2, 3, 5, (1, 5), (3, 1), (2, 3)])
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
def mixed_specs(draw):
    """Blocks of one to three kernel sizes, square or rectangular, of any stride."""
    k = tuple(
        draw(
            st.lists(
                st.sampled_from([1, 3, 5, (1, 3), (5, 1)]), min_size=1, max_size=3, unique=True
            )
        )
    )
    L, M = len(k) + draw(st.integers(0, 2)), draw(st.integers(1, 3))
    out = math.lcm(L, M) if draw(st.booleans()) else L * M
    return MixedSpec(L * draw(st.integers(1, 2)), out, L, M, k, draw(strides))


# Groups of eight and more, which numba transforms (k = 3, stride 1), or of which it keeps ybar.
wide_specs = st.sampled_from([
    *(IGCSpec.square(*numbers) for numbers in [(1, 9), (2, 8), (1, 8, 2), (1, 9, 3, 2)]),
    IGCSpec.square(1, 8, (1, 3)), IGCSpec(16, 8, 2, 4, (3, 1), stride=2),
    IGCSpec(16, 26, 2, 13), IGCSpec(9, 8, 1, 2), IGCSpec(10, 22, 1, 11), IGCSpec(24, 12, 2, 3),
])  # fmt: skip


@st.composite
def ranked_specs(draw):
    """Blocks with out = q*L*M, q = 1 or 2, of any stride; narrowing ones as well."""
    L, M, q = draw(partitions), draw(st.integers(1, 4)), draw(st.integers(1, 2))
    return IGCSpec(L * draw(st.integers(1, 4)), q * L * M, L, M, draw(kernel_sizes), draw(strides))


@st.composite
def igcv2_specs(draw, fewest=1, most=4):
    """Products of up to four factors, their first one spatial, widening or narrowing."""
    K = tuple(draw(st.lists(st.integers(1, 3), min_size=fewest, max_size=most)))
    inputs = draw(st.integers(1, 3)) * math.prod(K[1:])
    return IGCV2Spec(inputs, math.prod(K), K, draw(kernel_sizes), draw(strides))


@st.composite
def igcv3_specs(draw):
    """Inverted bottlenecks, residual or not, with up to three groups in each 1 x 1 convolution."""
    groups = draw(partitions.filter(lambda n: n < 4)), draw(partitions.filter(lambda n: n < 4))
    inputs = draw(st.integers(1, 2)) * math.lcm(*groups)
    expansion = math.lcm(math.prod(groups), inputs) // inputs * draw(st.integers(1, 2))
    out = inputs if draw(st.booleans()) else groups[1] * draw(st.integers(1, 3))
    return IGCV3Spec(inputs, out, expansion, groups, draw(kernel_sizes), draw(strides))


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


def product_weights(rng, product, dtype=np.float64):
    """Random weights of all factors of a product."""
    return [normal(rng, factor.weight_shape, dtype) for factor in product.factors]


def weights(rng, spec, dtype=np.float64):
    """Random primary and secondary weights of a block."""
    return normal(rng, spec.primary_shape, dtype), normal(rng, spec.secondary_shape, dtype)


def depth_of(arch):
    """A small depth that networks of this architecture can have."""
    return {"imagenet": 18, "igcv3": 54, "densenet": 10}.get(ARCHITECTURES[arch][0], 8)
