"""IGCV2 and IGCV3 as products of matrices: loops, gradients, paths, the balance condition."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from igc_ref import IGCSpec, reference
from igc_ref.errors import SpecError
from igc_ref.reference import is_igc, products, special_cases
from igc_ref.reference.products import is_complementary, is_loosely_complementary, paths
from igc_ref.spec import Chain, Factor, IGCV2Spec, IGCV3Spec, least_parameters
from igc_ref.testing import assert_close, check_grads, dot_test
from tests.support import oracles
from tests.support.strategies import (
    igcv2_specs,
    igcv3_specs,
    normal,
    pictures,
    product_weights,
    seeds,
    weights,
)

dtypes = st.sampled_from([np.float64, np.complex128])
any_product = st.one_of(igcv2_specs(), igcv3_specs())
counts = st.integers(1, 4)


def sums(product):
    """How many products one number of the result is a sum of, at most."""
    return math.prod(math.prod(factor.weight_shape[1:]) for factor in product.factors)


# -- the matrices: asserted exactly ----------------------------------------------------------


@given(any_product, seeds, st.booleans())
def test_a_factor_is_its_weights_on_the_blocks_zero_elsewhere_and_a_permutation(
    product, seed, sparse
):
    given_weights = product_weights(np.random.default_rng(seed), product)
    factors = products.matrices(given_weights, product, sparse)
    for (W, P), weight, f in zip(factors, given_weights, product.factors, strict=True):
        assert sp.issparse(W) == sp.issparse(P) == sparse
        W, P = (matrix.toarray() if sparse else matrix for matrix in (W, P))
        inp, taps = f.in_channels // f.groups, math.prod(f.weight_shape[2:])
        for o, (c, tap) in itertools.product(
            range(f.out_channels), itertools.product(range(f.in_channels), range(taps))
        ):
            inside = o // (f.out_channels // f.groups) == c // inp
            value = weight[o, c % inp].ravel()[tap] if inside else 0
            assert W[o, c * taps + tap] == value
        places = oracles.shuffle(np.arange(f.out_channels)[None], f.deal)[0]
        assert np.array_equal(P @ np.arange(f.out_channels), places)


@given(any_product)
def test_parameters_count_the_cells_on_the_blocks(product):
    ones = [np.ones(factor.weight_shape) for factor in product.factors]
    assert product.parameters == sum(
        np.count_nonzero(W) for W, _ in products.matrices(ones, product)
    )


@given(any_product, st.data())
def test_multiply_adds_count_every_factor_s_weights_at_each_of_its_positions(product, data):
    _, _, H, W = shape = data.draw(pictures(product))
    x, total = np.zeros(shape), 0
    for factor in product.factors:
        x = oracles.convolve(x, np.zeros(factor.weight_shape), factor.stride, factor.groups)
        total += math.prod(factor.weight_shape) * x.shape[2] * x.shape[3]
    assert product.multiply_adds(H, W) == total
    assert product.output_size(H, W) == x.shape[2:]


# -- forward and backward --------------------------------------------------------------------


def by_loops(x, given_weights, product):
    for weight, factor in zip(given_weights, product.factors, strict=True):
        x = oracles.convolve(x, weight, factor.stride, factor.groups)
        x = oracles.shuffle(x, factor.deal)
    return x


@given(any_product, st.data(), seeds, dtypes, st.booleans())
def test_forward_equals_loops(product, data, seed, dtype, sparse):
    rng = np.random.default_rng(seed)
    x, given_weights = (
        normal(rng, data.draw(pictures(product)), dtype),
        product_weights(rng, product, dtype),
    )
    actual = products.forward(x, given_weights, product, sparse)
    assert actual.dtype == dtype
    assert_close(actual, by_loops(x, given_weights, product), sums(product))


@given(any_product, st.data(), seeds, st.booleans())
def test_backward_is_the_derivative_of_forward(product, data, seed, sparse):
    rng = np.random.default_rng(seed)
    x, given_weights = normal(rng, data.draw(pictures(product))), product_weights(rng, product)

    def vjp(d):
        gradients = products.backward(d, x, given_weights, product, sparse)
        return [gradients.x, *gradients.weights]

    check_grads(
        lambda x, *w: products.forward(x, w, product, sparse), vjp, (x, *given_weights), rng
    )


@given(any_product, st.data(), seeds, dtypes)
def test_backward_to_the_images_is_the_adjoint_of_forward(product, data, seed, dtype):
    rng, shape = np.random.default_rng(seed), data.draw(pictures(product))
    given_weights, x = product_weights(rng, product, dtype), np.zeros(shape, dtype)
    dot_test(
        lambda u: products.forward(u, given_weights, product),
        lambda v: products.backward(v, x, given_weights, product).x,
        shape,
        rng,
        dtype=dtype,
        length=sums(product),
    )


@given(any_product, st.data(), seeds, dtypes)
def test_dense_and_sparse_gradients_agree(product, data, seed, dtype):
    rng = np.random.default_rng(seed)
    x = normal(rng, data.draw(pictures(product)), dtype)
    given_weights = product_weights(rng, product, dtype)
    d = normal(rng, products.forward(x, given_weights, product).shape, dtype)
    dense = products.backward(d, x, given_weights, product)
    sparse = products.backward(d, x, given_weights, product, sparse=True)
    for a, b in zip((dense.x, *dense.weights), (sparse.x, *sparse.weights), strict=True):
        assert_close(a, b, d.size * sums(product))


@given(any_product, st.data(), seeds)
def test_the_composed_kernel_is_one_dense_convolution_with_the_same_result(product, data, seed):
    rng = np.random.default_rng(seed)
    x, given_weights = normal(rng, data.draw(pictures(product))), product_weights(rng, product)
    kernel = products.composed_kernel(given_weights, product)
    assert kernel.shape == product.composed_shape
    dense = oracles.convolve(x, kernel, product.stride)
    assert_close(products.forward(x, given_weights, product), dense, sums(product))


# -- IGCV2 and the IGC -----------------------------------------------------------------------


@given(igcv2_specs(2, 2), st.data(), seeds, dtypes)
def test_igcv2_with_two_factors_is_the_igc_of_l_k2_and_m_k1(product, data, seed, dtype):
    rng, p = np.random.default_rng(seed), product
    M, L = p.K
    spec = IGCSpec(p.in_channels, p.out_channels, L, M, p.kernel_size, p.stride)
    x, (primary, secondary) = (
        normal(rng, data.draw(pictures(spec)), dtype),
        weights(rng, spec, dtype),
    )
    both = primary, secondary[:, :, None, None]
    igc = reference.forward(x, primary, secondary, spec)
    assert_close(products.forward(x, both, p), igc, sums(p))
    kernel = reference.composed_kernel(primary, secondary, spec)
    assert_close(products.composed_kernel(both, p), kernel, 1)
    d = normal(rng, igc.shape, dtype)
    dx, (dprimary, dsecondary) = products.backward(d, x, both, p)
    expected = reference.backward(d, x, primary, secondary, spec)
    for a, b in zip((dx, dprimary, dsecondary[:, :, 0, 0]), expected, strict=True):
        assert_close(a, b, d.size * sums(p))
    assert (p.parameters, p.multiply_adds(9, 7)) == (spec.parameters, spec.multiply_adds(9, 7))


@given(igcv2_specs(2, 4), seeds)
def test_igcv2_with_any_factors_is_an_igc_split_after_the_last_but_one(product, seed):
    kernel = products.composed_kernel(
        product_weights(np.random.default_rng(seed), product), product
    )
    L = product.K[-1]
    assert is_igc(kernel, L, product.out_channels // L)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), seeds, dtypes)
def test_igcv2_without_taps_is_the_special_case_complementary_product(K, seed, dtype):
    rng, C = np.random.default_rng(seed), math.prod(K)
    product = IGCV2Spec(C, C, tuple(K), kernel_size=1)
    given_weights = product_weights(rng, product, dtype)
    blocks = [w.reshape(-1, radix, radix) for w, radix in zip(given_weights, K, strict=True)]
    # There the last digit's factor acts first, and its blocks are numbered by the other digits,
    # slowest first; here those of W_i by the digits i-1, ..., 1, n, ..., i+1.
    n, slowest_first = len(K), []
    for i in reversed(range(n)):
        ours = [*reversed(range(i)), *reversed(range(i + 1, n))]
        theirs = [j for j in reversed(range(n)) if j != i]
        shape = [K[j] for j in ours]
        order = np.arange(C // K[i]).reshape(shape).transpose([ours.index(j) for j in theirs])
        slowest_first.append(blocks[i][order.ravel()])
    expected = special_cases.composed_matrix(special_cases.complementary_product(slowest_first))
    assert_close(products.composed_kernel(given_weights, product)[:, :, 0, 0], expected, C)


# -- the complementary condition -------------------------------------------------------------


@given(igcv2_specs())
def test_igcv2_has_exactly_one_path_between_any_two_channels(product):
    assert (paths(product) == 1).all()
    assert is_complementary(product)
    ones = [np.ones(factor.weight_shape) for factor in product.factors]
    assert np.array_equal(products.composed_kernel(ones, product), np.ones(product.composed_shape))


@given(igcv2_specs(3, 3), seeds)
def test_an_entry_of_igcv2_s_kernel_is_the_product_of_the_weights_on_its_path(product, seed):
    """With digits d of the output and e of the input; W_i's block is named by what it leaves."""
    given_weights = product_weights(np.random.default_rng(seed), product)
    kernel = products.composed_kernel(given_weights, product)
    K1, K2, K3 = product.K
    W1, W2, W3 = given_weights
    for d3, d2, d1, e3, e2 in np.ndindex(K3, K2, K1, K3, K2):
        first = W1[(e3 * K2 + e2) * K1 + d1]  # block (e3, e2)
        second = W2[(d1 * K3 + e3) * K2 + d2, e2]  # block (d1, e3)
        third = W3[(d2 * K1 + d1) * K3 + d3, e3]  # block (d2, d1)
        inputs = slice((e3 * K2 + e2) * len(first), (e3 * K2 + e2 + 1) * len(first))
        actual = kernel[(d3 * K2 + d2) * K1 + d1, inputs]
        assert_close(actual, third * second * first, 1)


def ways(product, i):
    """Walk from input i through all blocks; return how often every output is reached."""
    at = [i]
    for f in product.factors:
        inp, out = f.in_channels // f.groups, f.out_channels // f.groups
        reached = [c // inp * out + o for c in at for o in range(out)]
        size = f.out_channels // f.deal
        at = [c % size * f.deal + c // size for c in reached]
    return np.bincount(at, minlength=product.out_channels)


@st.composite
def chains(draw):
    """Two pointwise factors with any groups and any dealing between them."""
    inp, hidden, out = (draw(st.integers(1, 12)) for _ in range(3))

    def divisor(*numbers):
        return draw(st.sampled_from([n for n in range(1, 13) if not any(m % n for m in numbers)]))

    first = Factor(inp, hidden, divisor(inp, hidden), deal=divisor(hidden))
    return Chain((first, Factor(hidden, out, divisor(hidden, out), deal=divisor(out))))


@given(st.one_of(any_product, chains()))
def test_paths_are_what_walking_counts(product):
    walked = np.stack([ways(product, i) for i in range(product.in_channels)], axis=1)
    assert np.array_equal(paths(product), walked)
    assert is_complementary(product) == (walked == 1).all()


@given(st.tuples(*[st.integers(2, 3)] * 3), st.integers(0, 2))
def test_without_a_permutation_between_factors_paths_meet_and_others_are_missing(K, left_out):
    factors = list(IGCV2Spec(math.prod(K), math.prod(K), K).factors)
    factors[left_out] = replace(factors[left_out], deal=1)
    assert is_complementary(Chain(tuple(factors))) == (left_out == 2)  # the last one puts in order


# -- the balance condition -------------------------------------------------------------------


def every_igcv2(inp, out, n, k):
    """All products of n factors between so many channels, by trying all numbers."""
    for K in itertools.product(range(1, out + 1), repeat=n):
        if math.prod(K) == out and inp % (out // K[0]) == 0:
            yield IGCV2Spec(inp, out, K, k)


SIZES = [(4, 4), (6, 6), (8, 16), (9, 9), (12, 12), (12, 24), (16, 8), (18, 18), (30, 30), (36, 36)]


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("inp", "out"), SIZES)
def test_the_fewest_parameters_belong_to_the_balanced_product(inp, out, n, k):
    all_of_them = list(every_igcv2(inp, out, n, k))
    best, bound = IGCV2Spec.balanced(inp, out, n, k), least_parameters(inp, out, n, k)
    assert best in all_of_them
    assert best.parameters == min(spec.parameters for spec in all_of_them)
    for spec in all_of_them:
        assert spec.parameters == out * sum(spec.weights_per_output)
        assert math.prod(spec.weights_per_output) == k * k * inp
        assert spec.parameters >= bound * (1 - 1e-12)
        assert spec.is_balanced == (spec.parameters <= bound * (1 + 1e-12))


def test_there_are_balanced_products_to_speak_of():
    balanced = [
        spec
        for (inp, out), n, k in itertools.product(SIZES, (2, 3), (1, 2, 3))
        for spec in every_igcv2(inp, out, n, k)
        if spec.is_balanced
    ]
    assert {len(spec.K) for spec in balanced} == {2, 3}
    assert {spec.kernel_size for spec in balanced} == {1, 2, 3}
    assert any(spec.in_channels != spec.out_channels for spec in balanced)


@pytest.mark.parametrize(("C", "K"), [(64, 8), (144, 12), (256, 16)])
def test_after_a_depthwise_factor_equal_blocks_are_the_cheapest(C, K):
    rest = [IGCV2Spec(C, C, (1, a, C // a)) for a in range(1, C + 1) if C % a == 0]
    assert min(rest, key=lambda spec: spec.parameters).K == (1, K, K)
    assert IGCV2Spec(C, C, (1, K, K)).parameters == C * (9 + 2 * K)


# -- IGCV3: the loose complementary condition ------------------------------------------------


def super_channels(product):
    """Hidden channels by the group of the first and the group of the last factor they lie in."""
    first, *_, last = product.factors
    size = first.out_channels // first.deal
    found = {}
    for c in range(first.out_channels):
        place = c % size * first.deal + c // size
        groups = (
            c // (first.out_channels // first.groups),
            place // (last.in_channels // last.groups),
        )
        found.setdefault(groups, []).append(c)
    return found


@given(igcv3_specs())
def test_igcv3_has_one_super_channel_between_any_two_groups_and_as_many_paths_as_it_has(product):
    found, (first, last) = super_channels(product), product.groups
    assert set(found) == set(itertools.product(range(first), range(last)))
    size = product.hidden // (first * last)
    assert {len(channels) for channels in found.values()} == {size}
    assert (paths(product) == size).all()
    assert is_loosely_complementary(product)


@given(chains())
def test_equally_many_paths_mean_one_super_channel_of_one_size_between_any_two_groups(product):
    found, (first, last) = super_channels(product), product.factors
    pairs = set(itertools.product(range(first.groups), range(last.groups)))
    condition = set(found) == pairs and len({len(c) for c in found.values()}) == 1
    assert is_loosely_complementary(product) == condition


@given(igcv2_specs())
def test_the_complementary_condition_is_the_strictest_loose_one(product):
    assert is_loosely_complementary(product)


def test_without_its_shuffle_an_igcv3_block_never_leaves_its_group():
    first, middle, last = IGCV3Spec(8, 8).factors
    assert not is_loosely_complementary(Chain((replace(first, deal=1), middle, last)))


def test_super_channels_of_unequal_size_are_no_loose_complementary_condition():
    uneven = Chain((Factor(2, 6, 2, deal=2), Factor(6, 2, 2)))  # 6 hidden channels for 4
    assert sorted(np.unique(paths(uneven))) == [1, 2]
    assert not is_loosely_complementary(uneven)


@given(igcv3_specs(), seeds)
def test_the_composed_kernel_of_igcv3_has_the_rank_of_its_bottlenecks(product, seed):
    """At a single tap it is W_3 D W_1 with D diagonal: no rank above in, hidden and out."""
    kernel = products.composed_kernel(
        product_weights(np.random.default_rng(seed), product), product
    )
    channels = product.in_channels, product.out_channels, product.hidden
    assert np.linalg.matrix_rank(kernel[:, :, 0, 0]) == min(channels)


# -- bad input -------------------------------------------------------------------------------

SMALL, X = IGCV2Spec(4, 4, (2, 2)), np.ones((1, 4, 5, 5))
ONES = [np.ones(factor.weight_shape) for factor in SMALL.factors]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: IGCV2Spec(8, 8, (2, 2)), r"the product of K=\(2, 2\) is not out_channels=8"),
        (lambda: IGCV2Spec(8, 1, ()), r"the product of K=\(\) is not out_channels=1"),
        (lambda: IGCV2Spec(8, 8, (2, 0)), "K_2=0 is not an integer"),
        (lambda: IGCV2Spec(6, 8, (2, 4)), r"in_channels=6 is not divisible by K_2\*...\*K_n=4"),
        (lambda: IGCV2Spec(8, 8, (2, 4), 3.0), r"kernel_size=3\.0 is not an integer"),
        (lambda: IGCV2Spec.balanced(8, 8, 0), "factors=0 is not an integer"),
        (lambda: IGCV2Spec.balanced(8, -8), "out_channels=-8 is not an integer"),
        (lambda: least_parameters(8, 8, 2.0), r"factors=2\.0 is not an integer"),
        (lambda: IGCV3Spec(7, 8), "in_channels=7 is not divisible by G_1=2"),
        (lambda: IGCV3Spec(8, 7), "out_channels=7 is not divisible by G_2=2"),
        (lambda: IGCV3Spec(6, 8, 3), r"expansion\*in_channels=18 is not divisible by G_1\*G_2=4"),
        (lambda: IGCV3Spec(8, 8, groups=(2, 2, 2)), r"groups=\(2, 2, 2\) is not allowed"),
        (lambda: IGCV3Spec(8, 8, groups=(2, 0)), "G_2=0 is not an integer"),
        (lambda: IGCV3Spec(8, 8, True), "expansion=True is not an integer"),
        (lambda: Factor(6, 8, 3), "out_channels=8 is not divisible by groups=3"),
        (lambda: Factor(6, 6, 3, deal=4), "out_channels=6 is not divisible by deal=4"),
        (lambda: Chain(()), "at least one factor"),
        (lambda: Chain((Factor(4, 6, 2), Factor(4, 4, 2))), "1 gives 6 channels; factor 2 takes 4"),
        (lambda: Chain((Factor(4, 4, 2, 3), Factor(4, 4, 2, 5))).composed_shape, "only one may be"),
        (lambda: Chain((Factor(4, 4, 2, (1, 3)), Factor(4, 4, 2, (3, 1)))).kernel_size, "only one"),
        (lambda: Chain((Factor(4, 4, 2, 1, 2), Factor(4, 4, 2, 3))).kernel_size, "no stride bef"),
        (lambda: IGCV3Spec(8, 8).output_size(0, 3), "height=0 is not an integer"),
        (lambda: products.forward(X[:, :3], ONES, SMALL),
         r"x has shape \(1, 3, 5, 5\); \(N, 4, H, W\)"),
        (lambda: products.backward(X[..., :4], X, ONES, SMALL),
         r"d has shape \(1, 4, 5, 4\); \(1, 4, 5, 5\)"),
        (
            lambda: products.matrices([np.ones((4, 1, 3, 3))], SMALL),
            r"weights have shapes \[\(4, 1, 3, 3\)\]; igcv2 3x3 4-4 K2x2 needs \[\(4, 2, 3, 3\),",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "refused",
)  # fmt: skip
def test_what_cannot_exist_is_refused_with_its_numbers(call, message):
    with pytest.raises(SpecError, match=message):
        call()
