"""Which inputs an output depends on: the other shuffle, and how many blocks mix everything."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import strategies as st

from igc_ref import IGCSpec
from igc_ref.errors import SpecError
from igc_ref.reference import composed_kernel, forward, products
from igc_ref.spec import Chain, Factor, mixing_time, share_met_by_other_deal
from tests.proofs.special_cases.trials import agree, given, numbers, partitions, trials
from tests.support import oracles
from tests.support.strategies import specs

small = [(L, M) for L, M in itertools.product(range(1, 10), repeat=2) if L * M <= 42]


def pairs_met(L, M):
    """Pairs of a primary and a secondary partition, output after output of W_p."""
    places = oracles.shuffle(np.arange(L * M)[None], M)[0]  # the other deal: by M, not by L
    return {(channel // M, place // L) for place, channel in enumerate(places.tolist())}


@pytest.mark.parametrize(("L", "M"), small)
def test_with_the_other_deal_only_a_share_of_the_channel_pairs_meet_unless_L_is_M(L, M):
    G, met = L * M, pairs_met(L, M)
    share = share_met_by_other_deal(L, M)
    assert share == len(met) / G
    assert (share == 1) == (L == M or 1 in (L, M))
    chain = Chain((Factor(G, G, L, 2, deal=M), Factor(G, G, M, deal=M)))
    weights = [np.full(factor.weight_shape, 0.5) for factor in chain.factors]
    kernel = products.composed_kernel(weights, chain)
    assert np.mean(products.paths(chain) > 0) == pytest.approx(share)
    for o, c in np.ndindex(G, G):  # output a*M + m of partition m, input of partition c // M
        assert np.all((kernel[o, c] != 0) == ((c // M, o % M) in met))


def test_the_share_is_bounded_symmetric_and_simple_in_some_families():
    for L, M in itertools.combinations_with_replacement(range(1, 31), 2):
        pairs = len(pairs_met(L, M))
        assert share_met_by_other_deal(L, M) == share_met_by_other_deal(M, L) == pairs / (L * M)
        assert max(L**2, M) <= pairs <= L**2 + M - math.gcd(L, M)
        if M % L == 0:
            assert pairs == L**2 + M - L * math.gcd(L, M // L)
        if M == L + 1:
            assert pairs == L**2 + L % 2
        if M == L**2:
            assert pairs == L**2


@given(trials, partitions, numbers)
def test_a_shuffle_commutes_with_a_depthwise_convolution_of_shuffled_filters(t, g, n):
    C = g * n
    x, filters, ones = t.images(C), t.kernel(C, 1), np.ones((C, 1, 1, 1))
    moved = oracles.shuffle(filters[None, :, 0], g)[0][:, None]
    before = Chain((Factor(C, C, C, t.k, t.stride, deal=g),))
    after = Chain((Factor(C, C, C, deal=g), Factor(C, C, C, t.k, t.stride)))
    y = oracles.shuffle(t.loop(x, filters, C), g)
    agree(products.forward(x, [filters], before), y)
    agree(products.forward(x, [ones, moved], after), y)


@given(specs())
def test_input_c_meets_output_o_if_c_minus_r_o_modulo_in_is_below_r(spec):
    r = (spec.in_channels // spec.L) * (spec.out_channels // spec.M)  # weights that o reads, S = 1
    kernel = composed_kernel(np.ones(spec.primary_shape), np.ones(spec.secondary_shape), spec)
    for o, c in np.ndindex(kernel.shape[:2]):
        assert np.all((kernel[o, c] != 0) == ((c - r * o) % spec.in_channels < r))


@st.composite
def networks(draw):
    """Up to five blocks one after another, with all allowed strides; few channels."""
    blocks, inp = [], draw(st.sampled_from([1, 2, 3, 4, 6]))
    for _ in range(draw(st.integers(1, 5))):
        out = draw(st.sampled_from([inp, inp, 2, 4, 6]))
        L = draw(st.sampled_from([n for n in (1, 2, 3, 4, 6) if inp % n == out % n == 0]))
        M = draw(st.sampled_from([n for n in (1, 2, 3, 4, 6) if out % n == 0]))
        k = draw(st.integers(1, 5))
        blocks.append(IGCSpec(inp, out, L, M, k, draw(st.integers(1, k // 2 + 1))))
        inp = out
    return blocks


def time_until_dense(blocks, height, width):
    """Feed images of one pixel to positive weights until no output is zero."""
    shape = (blocks[0].in_channels, height, width)
    x = np.eye(math.prod(shape)).reshape(-1, *shape)
    for n, spec in enumerate(blocks, start=1):
        x = forward(x, np.ones(spec.primary_shape), np.ones(spec.secondary_shape), spec, True)
        x = np.sign(x)
        if x.all():
            return n
    return math.inf


@given(networks(), st.integers(1, 4), st.integers(1, 4))
def test_a_network_mixes_exactly_if_its_channels_and_its_pixels_do(blocks, height, width):
    assert mixing_time(blocks, height, width) == time_until_dense(blocks, height, width)


@pytest.mark.parametrize(("spec", "size", "time"), [
    (IGCSpec.square(3, 2), (7, 5), 6), (IGCSpec.square(2, 2, 5), (2, 6), 3),
    (IGCSpec.square(2, 3, 4), (4, 4), 3), (IGCSpec.square(2, 2, 3, 2), (8, 8), 3),
    (IGCSpec(8, 8, 4, 8, 3), (2, 2), 3), (IGCSpec(8, 8, 8, 4, 1), (1, 1), 3),
    (IGCSpec.square(3, 2, 1), (1, 1), 1), (IGCSpec.square(3, 2, 1), (1, 2), math.inf),
    (IGCSpec.square(3, 2, 2), (2, 1), math.inf), (IGCSpec(4, 4, 4, 4, 3), (2, 2), math.inf),
])  # fmt: skip
def test_equal_blocks_mix_after_a_time_that_channels_or_pixels_decide(spec, size, time):
    assert mixing_time(spec, *size) == time == time_until_dense([spec] * 9, *size)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: share_met_by_other_deal(0, 2), SpecError, "L=0 is not an integer of at least 1"),
    (lambda: mixing_time(IGCSpec.square(2, 2), 0, 3), SpecError, "height=0 is not an integer"),
    (lambda: mixing_time([3], 1, 1), TypeError, "block is builtins.int; IGCSpec is needed"),
    (lambda: mixing_time(IGCSpec(2, 4, 1, 1), 9, 9), SpecError, "takes 2 channels; it is given 4"),
    (lambda: mixing_time(IGCSpec.square(2, 2, 3, 3), 9, 9), SpecError, "a stride above k//2 [+] 1"),
])  # fmt: skip
def test_what_has_no_mixing_time_is_refused_in_one_line(call, error, message):
    with pytest.raises(error, match=message):
        call()
