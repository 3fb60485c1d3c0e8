"""A block turned round, and which inputs an output depends on: each test name is a theorem."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
from hypothesis import strategies as st

from igc_ref import IGCSpec
from igc_ref.errors import SpecError
from igc_ref.reference import duality, forward, is_igc, products
from igc_ref.reference.special_cases import Weights, composed_matrix, monarch
from igc_ref.spec import Chain, Factor, mixing_time, share_met_by_other_deal
from tests.proofs.special_cases.trials import agree, dtypes, given, numbers, partitions, trials
from tests.support import oracles
from tests.support.strategies import normal, seeds, specs, weights


def deal(a, b):
    """The order of the channels after interleave(a, b), moved one by one."""
    return oracles.shuffle(np.arange(a * b)[None], a)[0]


def drawn(L, M, seed, dtype=np.float64):
    """Well-conditioned blocks of a square block, and its matrix by the formula of its entries."""
    rng = np.random.default_rng(seed)
    W_p = normal(rng, (L, M, M), dtype) + 9 * np.eye(M)
    W_d = normal(rng, (M, L, L), dtype) + 9 * np.eye(L)
    return W_p, W_d, np.einsum("mab,bmi->ambi", W_d, W_p).reshape(L * M, L * M)


@given(partitions, partitions, seeds, dtypes)
def test_the_transpose_and_the_inverse_of_an_igc_are_igcs_with_exchanged_roles(L, M, seed, dtype):
    W_p, W_d, K = drawn(L, M, seed, dtype)
    A = np.ix_(deal(L, M), deal(L, M))
    for turn, expected in ((duality.transpose, K.T), (duality.inverse, np.linalg.inv(K))):
        turned = turn(monarch(W_p, W_d))
        assert turned.spec == IGCSpec.square(M, L, kernel_size=1)
        agree(composed_matrix(turned), expected[A])
        agree(turn(turned).primary, W_p.reshape(L * M, M, 1, 1))


@given(partitions, partitions, seeds, st.sampled_from([0, 1]))
def test_an_igc_has_an_inverse_only_if_all_its_blocks_have(L, M, seed, which):
    *both, _ = drawn(L, M, seed)
    i = seed % len(both[which])
    both[which][i, 0] = both[which][i, 1:].sum(axis=0)  # zero for a block of one number
    assert np.linalg.matrix_rank(composed_matrix(monarch(*both))) < L * M
    with pytest.raises(SpecError, match=rf"^{('W_p', 'W_d')[which]}\^{i} is singular"):
        duality.inverse(monarch(*both))


@given(partitions, partitions, numbers, seeds, dtypes)
def test_the_determinant_of_an_igc_is_that_of_its_blocks_and_permutations(L, M, n, seed, dtype):
    C = math.lcm(L, M) * n
    igc = Weights(*weights(np.random.default_rng(seed), s := IGCSpec(C, C, L, M, 1), dtype), s)
    W_p, W_d = (scipy.linalg.block_diag(*np.split(w.reshape(C, -1), parts))
                for w, parts in ((igc.primary, L), (igc.secondary, M)))  # fmt: skip
    expected = np.linalg.slogdet((W_d @ W_p[deal(L, C // L)])[deal(M, C // M)])
    assert duality.slogdet(igc) == pytest.approx(tuple(expected), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("L", range(1, 7))
def test_no_other_deal_makes_the_transpose_or_the_inverse_an_igc_unless_L_or_M_is_1(L):
    for M in range(1, 7):
        K, G = drawn(L, M, 0)[2], L * M
        for a in (a for a in range(1, G + 1) if G % a == 0):
            for turned in (K.T, np.linalg.inv(K)):
                moved = turned[np.ix_(deal(a, G // a), deal(a, G // a))]
                assert is_igc(moved[:, :, None, None], M, L) == (a == L or 1 in (L, M))


@given(specs(), trials)
def test_backward_data_is_an_igc_with_exchanged_roles(spec, t):
    L, M, out, (down, right) = spec.L, spec.M, spec.out_channels, (1 - k % 2 for k in spec.kernel)
    x, (first, second) = t.images(spec.in_channels), weights(t.rng, spec, t.dtype)
    d = t.matrix(t.N, out, *spec.output_size(t.H, t.W))
    full = np.zeros((t.N, out, t.H + down, t.W + right), t.dtype)
    full[:, :, :: spec.stride, :: spec.stride] = d
    dx = products.forward(full, *duality.adjoint(Weights(first, second, spec)))
    dx = dx[:, :, down : down + t.H, right : right + t.W]
    dz = oracles.shuffle(d, out // M)  # middle images matter to no gradient of x: any will do
    dy, _ = oracles.convolve_gradients(dz, 0 * dz, second[:, :, None, None], groups=M)
    dy = oracles.shuffle(dy, out // L)
    agree(dx, oracles.convolve_gradients(dy, x, first, spec.stride, L)[0])


@pytest.mark.parametrize("L", range(1, 9))
def test_with_the_other_deal_only_a_share_of_the_channel_pairs_meet_unless_L_is_M(L):
    for M in range(1, 9):
        channels, met, (a, b) = np.arange(G := L * M), np.zeros((L, M), bool), sorted((L, M))
        met[deal(M, L) // M, channels // L] = True  # dealt by M, not by L
        assert share_met_by_other_deal(L, M) == met.mean()
        assert met.all() == (L == M or a == 1)
        assert max(a * a, b) <= met.sum() <= a * a + b - math.gcd(a, b)
        if b % a == 0:
            assert met.sum() == a * a + b - a * math.gcd(a, b // a)
        if b == a + 1:
            assert met.sum() == a * a + a % 2
        chain = Chain((Factor(G, G, L, deal=M), Factor(G, G, M, deal=M)))
        kernel = products.composed_kernel([np.ones((G, M, 1, 1)), np.ones((G, L, 1, 1))], chain)
        for found in (kernel[:, :, 0, 0], products.paths(chain)):  # output a*M + m of partition m
            assert np.array_equal(found > 0, met.T[channels % M][:, channels // M])


@given(trials, partitions, numbers)
def test_a_shuffle_commutes_with_a_depthwise_convolution_of_shuffled_filters(t, g, n):
    C = g * n
    x, filters = t.images(C), t.kernel(C, 1)
    moved = oracles.shuffle(filters[None, :, 0], g)[0][:, None]
    before = Chain((Factor(C, C, C, t.k, t.stride, deal=g),))
    after = Chain((Factor(C, C, C, deal=g), Factor(C, C, C, t.k, t.stride)))
    assert before.composed_shape == after.composed_shape == (C, C, *t.sides)
    y = oracles.shuffle(t.loop(x, filters, C), g)
    agree(products.forward(x, [filters], before), y)
    agree(products.forward(x, [np.ones((C, 1, 1, 1)), moved], after), y)


@given(st.lists(st.sampled_from([1, 2, 4, 6]), min_size=2, max_size=5), st.data())
def test_blocks_have_mixed_exactly_if_their_channels_and_their_pixels_have(widths, data):
    blocks, (height, width) = [], data.draw(st.tuples(*[st.integers(1, 4)] * 2))
    for inp, out in itertools.pairwise(widths):  # all allowed strides
        L, M = (data.draw(st.sampled_from([n for n in range(1, 7) if channels % n == 0]))
                for channels in (math.gcd(inp, out), out))  # fmt: skip
        k = data.draw(st.tuples(*[st.integers(1, 5)] * 2))
        most = min([k[i] // 2 + 1 for i, n in enumerate((height, width)) if n > 1], default=3)
        blocks.append(IGCSpec(inp, out, L, M, k, data.draw(st.integers(1, most))))
    alike = widths[0] == widths[1] and data.draw(st.booleans())
    blocks = blocks[:1] * 4 if alike else blocks
    x, times = np.eye(n := widths[0] * height * width).reshape(n, -1, height, width), [math.inf]
    for n, spec in enumerate(blocks, start=1):  # images of one pixel, positive weights
        ones = np.ones(spec.primary_shape), np.ones(spec.secondary_shape)
        x = np.sign(forward(x, *ones, spec, sparse=True))
        times += [n] * bool(x.all())
    assert mixing_time(blocks[0] if alike else blocks, height, width) == min(times)
    assert mixing_time(IGCSpec(64, 64, L=16, M=32), 1, 1) == 2  # 64 * 64 / (16 * 32) = 8 channels
    shrinking = [IGCSpec.square(2, 2, stride=s) for s in (2, 2, *[1] * 9)]
    assert mixing_time(shrinking, 32, 32) == 9  # 1 + 2 + 7 * 4 = 31 pixels
