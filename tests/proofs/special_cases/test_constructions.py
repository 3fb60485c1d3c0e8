"""What an IGC block contains, as theorems: every test name states one, every example tries it.

What is an IGC also has the gradients of its IGC: both are tried on the same example.

Left sides are the explicit matrices of `igc_ref.reference`; right sides are independent: loops over
positions, ``numpy.kron``, ``scipy.linalg.hadamard``, ``numpy.fft``, sums over indices.
Which kernels are sums of IGCs: `test_sums_and_products.py`. The nearest IGC: `../test_nearest.py`.
"""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
from hypothesis import strategies as st

from igc_ref.reference import (
    backward,
    composed_kernel,
    forward,
    is_igc,
    singular_values,
    slices,
    special_cases,
)
from igc_ref.reference.special_cases import composed_matrix
from tests.proofs.special_cases.trials import agree, dtypes, given, numbers, partitions, trials
from tests.support import oracles
from tests.support.strategies import normal, ranked_specs, seeds, specs, weights

# -- regular convolution ---------------------------------------------------------------------


@given(trials, numbers, numbers)
def test_a_regular_convolution_is_an_igc_with_one_primary_partition(t, inp, out):
    x, kernel = t.images(inp), t.kernel(out, inp)
    igc = special_cases.regular_convolution(kernel, t.stride)
    y = forward(x, *igc)
    agree(y, t.loop(x, kernel))
    assert igc.spec.L == 1
    assert np.array_equal(igc.secondary, np.ones((out, 1)))
    d = t.like(y)
    dx, dkernel = t.loop_gradients(d, x, kernel)
    gradients = backward(d, x, *igc)
    agree(gradients.x, dx)
    agree(gradients.primary, dkernel)


@given(trials, numbers, numbers, numbers)
def test_a_regular_convolution_is_an_igc_of_n_squared_branches(t, n, inp, out):
    x, kernel = t.images(n * inp), t.kernel(n * out, n * inp)
    igc = special_cases.regular_convolution_by_branches(kernel, n, t.stride)
    tiled = np.tile(x, (1, n, 1, 1))
    repeated = forward(tiled, *igc)
    agree(repeated, np.tile(t.loop(x, kernel), (1, n, 1, 1)))
    assert (n * n, out) == (igc.spec.L, igc.spec.M)
    assert set(np.unique(igc.secondary)) <= {0, 1}
    assert np.array_equal(igc.secondary.sum(axis=1), np.full(n * n * out, n))
    d = t.like(repeated)
    # A repeated output receives the sum of its copies' gradients; a repeated input gives it.
    dx, dkernel = t.loop_gradients(sum(np.split(d, n, axis=1)), x, kernel)
    gradients = backward(d, tiled, *igc)
    agree(sum(np.split(gradients.x, n, axis=1)), dx)
    branches = np.split(gradients.primary, n * n)  # W_ij, i slowest
    rows = [np.concatenate(branches[i * n : (i + 1) * n], axis=1) for i in range(n)]
    agree(np.concatenate(rows), dkernel)


@given(trials, numbers, numbers)
def test_the_four_branches_of_two_regular_convolutions_chain(t, inp, out):
    x, first, second = t.images(2 * inp), t.kernel(2 * out, 2 * inp), t.kernel(2, 2 * out)
    y = np.tile(x, (1, 2, 1, 1))
    for kernel in (first, second):
        y = forward(y, *special_cases.regular_convolution_by_branches(kernel, 2, t.stride))
    agree(y, np.tile(t.loop(t.loop(x, first), second), (1, 2, 1, 1)))


# -- group convolutions ----------------------------------------------------------------------


@given(trials, partitions, numbers, numbers)
def test_a_group_convolution_is_an_igc_with_identity_secondary(t, L, inp, out):
    x, kernel = t.images(L * inp), t.kernel(L * out, inp)
    igc = special_cases.group_convolution(kernel, L, t.stride)
    y = forward(x, *igc)
    agree(y, t.loop(x, kernel, L))
    for block in np.split(igc.secondary, igc.spec.M):
        assert np.array_equal(block, np.eye(L))
    d = t.like(y)
    dx, dkernel = t.loop_gradients(d, x, kernel, L)
    gradients = backward(d, x, *igc)
    agree(gradients.x, dx)
    agree(gradients.primary, dkernel)


@given(trials, partitions, numbers, numbers)
def test_summation_fusion_is_an_igc_whose_secondary_weights_are_all_one(t, L, inp, out):
    x, kernel = t.images(L * inp), t.kernel(L * out, inp)
    igc = special_cases.summation_fusion(kernel, L, t.stride)
    total = sum(np.split(t.loop(x, kernel, L), L, axis=1))
    y = forward(x, *igc)
    agree(y, np.tile(total, (1, L, 1, 1)))
    assert np.array_equal(igc.secondary, np.ones((L * out, L)))
    d = t.like(y)
    every = np.tile(sum(np.split(d, L, axis=1)), (1, L, 1, 1))  # to every summand the same
    dx, dkernel = t.loop_gradients(every, x, kernel, L)
    gradients = backward(d, x, *igc)
    agree(gradients.x, dx)
    agree(gradients.primary, dkernel)


# -- separable, aggregated, shuffled ---------------------------------------------------------


@given(trials, partitions, numbers)
def test_an_xception_block_is_an_igc_with_one_secondary_partition(t, C, widening):
    x, depthwise = t.images(C), t.kernel(C, 1)
    pointwise = t.matrix(widening * C, C)
    igc = special_cases.xception(depthwise, pointwise, t.stride)
    y, filtered = forward(x, *igc), t.loop(x, depthwise, C)
    agree(y, oracles.convolve(filtered, pointwise[:, :, None, None]))
    assert (igc.spec.L, igc.spec.M) == (C, 1)
    if widening == 1:  # then nothing is padded: the weights are the block's own
        assert np.array_equal(igc.primary, depthwise)
        assert np.array_equal(igc.secondary, pointwise)
    d = t.like(y)
    dy, dpointwise = oracles.convolve_gradients(d, filtered, pointwise[:, :, None, None])
    dx, ddepthwise = t.loop_gradients(dy, x, depthwise, C)
    gradients = backward(d, x, *igc)
    agree(gradients.x, dx)
    agree(gradients.primary[::widening], ddepthwise)  # of each partition, the channel in use
    agree(gradients.secondary[:, :C], dpointwise[:, :, 0, 0])


@given(trials, partitions, numbers, numbers, st.integers(0, 2))
def test_resnext_s_aggregated_transformation_is_an_igc_with_one_secondary_partition(
    t, L, inp, d, spare
):
    x, branches = t.images(L * inp), t.kernel(L * d, inp)
    expansion = t.matrix(L * (d + spare), L * d)
    igc = special_cases.resnext(branches, expansion, L, t.stride)
    y, transformed = forward(x, *igc), t.loop(x, branches, L)
    pairs = zip(*(np.split(a, L, axis=1) for a in (expansion, transformed)), strict=True)
    agree(y, sum(oracles.convolve(y_l, E_l[:, :, None, None]) for E_l, y_l in pairs))
    assert (igc.spec.L, igc.spec.M) == (L, 1)
    upstream = t.like(y)
    dy, dexpansion = oracles.convolve_gradients(upstream, transformed, expansion[:, :, None, None])
    dx, dbranches = t.loop_gradients(dy, x, branches, L)
    gradients = backward(upstream, x, *igc)
    agree(gradients.x, dx)
    for l, j in np.ndindex(L, d):  # of each partition d channels are in use
        agree(gradients.primary[l * (d + spare) + j], dbranches[l * d + j])
        agree(gradients.secondary[:, j * L + l], dexpansion[:, l * d + j, 0, 0])


@given(trials, partitions, numbers, numbers)
def test_shufflenet_s_pair_of_group_convolutions_is_an_igc_up_to_a_last_shuffle(t, g, inp, n):
    x, first = t.images(g * inp), t.kernel(g * n, inp)
    second = t.matrix(g * n, n)
    igc = special_cases.shufflenet(first, second, g, t.stride)
    y = oracles.shuffle(t.loop(x, first, g), g)
    kernel = second[:, :, None, None]
    agree(forward(x, *igc), oracles.shuffle(oracles.convolve(y, kernel, groups=g), g))
    assert igc.spec.L == igc.spec.M == g
    d = t.like(forward(x, *igc))
    dz = oracles.shuffle(d, n)  # shuffling by n undoes shuffling by g
    dy, dsecond = oracles.convolve_gradients(dz, y, kernel, groups=g)
    dx, dfirst = t.loop_gradients(oracles.shuffle(dy, n), x, first, g)
    gradients = backward(d, x, *igc)
    agree(gradients.x, dx)
    agree(gradients.primary, dfirst)
    agree(gradients.secondary, dsecond[:, :, 0, 0])


@given(trials, partitions, numbers)
def test_shufflenet_s_whole_unit_is_one_igc_with_factored_primary_weights(t, g, n):
    C = g * n
    x, reduce, expand, depthwise = t.images(C), t.matrix(C, n), t.matrix(C, n), t.kernel(C, 1)
    igc = special_cases.shufflenet_unit(reduce, depthwise, expand, g)
    kernels = reduce[:, :, None, None], depthwise, expand[:, :, None, None]
    shuffled = oracles.shuffle(oracles.convolve(x, kernels[0], groups=g), g)
    filtered = oracles.convolve(shuffled, depthwise, groups=C)
    y = forward(x, *igc)
    agree(y, oracles.shuffle(oracles.convolve(filtered, kernels[2], groups=g), g))
    for row in igc.primary.reshape(C, n, -1):  # primary[o, i, s] = d[o, s] * r[o, i]
        assert np.linalg.matrix_rank(row) <= 1
    d = t.like(y)
    dz = oracles.shuffle(d, n)
    dfiltered, dexpand = oracles.convolve_gradients(dz, filtered, kernels[2], groups=g)
    dshuffled, ddepthwise = oracles.convolve_gradients(dfiltered, shuffled, depthwise, groups=C)
    dx, dreduce = oracles.convolve_gradients(oracles.shuffle(dshuffled, n), x, kernels[0], groups=g)
    gradients = backward(d, x, *igc)
    agree(gradients.x, dx)
    agree(gradients.secondary, dexpand[:, :, 0, 0])
    # The chain rule through primary[o, i, s] = f[o, s] * r[o, i], f as it is before the shuffle.
    f = oracles.shuffle(depthwise[None, :, 0], n)[0]
    agree(np.einsum("oiyx,oyx->oi", gradients.primary, f), dreduce[:, :, 0, 0])
    df = np.einsum("oiyx,oi->oyx", gradients.primary, reduce)
    agree(oracles.shuffle(df[None], g)[0], ddepthwise[:, 0])


# -- structured matrices, S = 1 --------------------------------------------------------------


@given(partitions, partitions, seeds, dtypes)
def test_a_monarch_matrix_is_an_igc_with_a_kernel_of_one_tap(L, M, seed, dtype):
    rng = np.random.default_rng(seed)
    R, left = normal(rng, (L, M, M), dtype), normal(rng, (M, L, L), dtype)
    igc = special_cases.monarch(R, left)
    # arXiv:2204.00595: with rows (a, m) and columns (b, i), entry = left[m, a, b] * R[b, m, i].
    expected = np.einsum("mab,bmi->ambi", left, R).reshape(L * M, L * M)
    agree(composed_matrix(igc), expected)
    assert igc.spec.taps == 1


@given(partitions, partitions, seeds, dtypes)
def test_a_kronecker_product_is_an_igc_with_shared_blocks(L, M, seed, dtype):
    rng = np.random.default_rng(seed)
    A, B = normal(rng, (L, L), dtype), normal(rng, (M, M), dtype)
    igc = special_cases.kronecker(A, B)
    agree(composed_matrix(igc), np.kron(A, B))


@pytest.mark.parametrize("order", [2, 4, 8, 16, 32, 64])
def test_the_walsh_hadamard_transform_is_an_igc_at_every_power_of_two(order):
    igc = special_cases.walsh_hadamard(order)
    assert np.array_equal(composed_matrix(igc), scipy.linalg.hadamard(order))


@given(st.integers(1, 9), st.integers(1, 9), seeds)
def test_one_cooley_tukey_step_is_an_igc_on_decimated_input(L, M, seed):
    x = normal(np.random.default_rng(seed), (L * M,), np.complex128)
    igc = special_cases.cooley_tukey(L, M)
    z = np.concatenate([x[l::L] for l in range(L)])
    assert np.array_equal(special_cases.decimate(x, L), z)
    agree(forward(z.reshape(1, L * M, 1, 1), *igc).ravel(), np.fft.fft(x))


@given(st.lists(st.integers(1, 4), max_size=4))
def test_the_fast_fourier_transform_of_any_factored_length_is_igcs_all_the_way_down(factors):
    n = math.prod(factors)
    agree(special_cases.fourier(factors), np.fft.fft(np.eye(n)))


radices = st.lists(st.integers(1, 4), min_size=2, max_size=4).filter(lambda K: math.prod(K) <= 64)


def path_sum(factors, K):
    """Multiply the factors out by walking every path: one digit changes at a time, last first.

    There is exactly one between any two channels: IGCV2's complementary condition.
    """
    C = math.prod(K)
    W = np.zeros((C, C), factors[0].dtype)
    ranges = [range(radix) for radix in K]
    for inp in itertools.product(*ranges):
        for out in itertools.product(*ranges):
            weight, here = 1, list(inp)
            for t in reversed(range(len(K))):
                others = here[:t] + here[t + 1 :]
                radix = K[:t] + K[t + 1 :]
                block = np.ravel_multi_index(others, radix) if radix else 0
                weight = weight * factors[t][block, out[t], inp[t]]
                here[t] = out[t]
            W[np.ravel_multi_index(out, K), np.ravel_multi_index(inp, K)] = weight
    return W


@given(radices, seeds, dtypes)
def test_igcv2_s_product_of_structured_sparse_factors_is_an_igc(K, seed, dtype):
    rng, C = np.random.default_rng(seed), math.prod(K)
    factors = [normal(rng, (C // radix, radix, radix), dtype) for radix in K]
    igc = special_cases.complementary_product(factors)
    agree(composed_matrix(igc), path_sum(factors, K))
    assert (igc.spec.L, igc.spec.M, igc.spec.taps) == (K[0], C // K[0], 1)


# -- if and only if --------------------------------------------------------------------------


@given(ranked_specs(), seeds, dtypes)
def test_every_igc_has_slices_of_rank_at_most_one_or_q_if_it_is_q_times_as_wide(spec, seed, dtype):
    kernel = composed_kernel(*weights(np.random.default_rng(seed), spec, dtype), spec)
    rows, n = spec.out_channels // spec.M, spec.in_channels // spec.L
    for m, b in np.ndindex(spec.M, spec.L):
        piece = kernel[m :: spec.M, b * n : (b + 1) * n].reshape(rows, -1)
        assert np.linalg.matrix_rank(piece) <= rows // spec.L
        assert np.array_equal(slices(kernel, spec.L, spec.M)[m, b], piece)
    assert is_igc(kernel, spec.L, spec.M)


@given(specs(square=True).filter(lambda s: s.L > 1 and s.M * s.taps > 1), seeds, dtypes)
def test_a_random_dense_kernel_is_not_an_igc(spec, seed, dtype):
    kernel = normal(np.random.default_rng(seed), spec.composed_shape, dtype)
    assert not is_igc(kernel, spec.L, spec.M)
    second = singular_values(kernel, spec.L, spec.M)[..., 1]
    assert second.min() > 1e-6 * np.abs(kernel).max()
