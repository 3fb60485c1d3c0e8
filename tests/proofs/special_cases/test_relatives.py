"""Relatives of the block against loops, ``numpy.kron``, ``scipy.signal.lfilter`` and counts."""

import numpy as np
import pytest
from hypothesis import strategies as st
from scipy.signal import lfilter

from igc_ref.reference import backward, composed_kernel, forward, interleave, is_igc, special_cases
from igc_ref.reference.products import paths
from igc_ref.spec import IGCSpec
from tests.proofs.special_cases.trials import agree, dtypes, given, mix, numbers, trials
from tests.support.oracles import convolve, shuffle
from tests.support.strategies import normal, ranked_specs, seeds, specs, weights


@given(trials, st.lists(st.integers(0, 2), min_size=1, max_size=3), st.integers(1, 2), numbers)
def test_mixconv_is_an_igc_if_its_kernel_sizes_are_all_odd_or_all_even(t, halves, least, inp):
    sizes = [least + 2 * half for half in halves]
    kernels, x = [t.matrix(2, inp, k, k) for k in sizes], t.images(len(sizes) * inp)
    igc = special_cases.mixconv(kernels, t.stride)
    y = forward(x, *igc)
    d = t.like(y)
    gradients = backward(d, x, *igc)
    for b, k in enumerate(sizes):
        inputs, outputs = slice(b * inp, (b + 1) * inp), slice(2 * b, 2 * b + 2)
        used = slice((max(sizes) - k) // 2, (max(sizes) + k) // 2)
        agree(y[:, outputs], t.loop(x[:, inputs], kernels[b]))
        dx, dkernel = t.loop_gradients(d[:, outputs], x[:, inputs], kernels[b])
        agree(gradients.x[:, inputs], dx)
        agree(gradients.primary[outputs, :, used, used], dkernel)


@given(trials, st.lists(st.integers(0, 1), max_size=3), numbers, numbers)
def test_dgconv_is_a_group_convolution_between_permutations_for_every_gate_vector(t, g, inp, out):
    mask = np.ones((out, inp))
    for gate in g[::-1]:
        mask = np.kron(np.ones((2, 2)) if gate else np.eye(2), mask)
    x, kernel = t.images(mask.shape[1]), t.kernel(*mask.shape)
    igc, outputs, inputs = special_cases.dgconv(kernel, g, t.stride)
    assert igc.spec.L == 2 ** g.count(0)
    masked = mask[:, :, None, None] * kernel
    y = t.loop(x, masked)
    agree(forward(x[:, inputs], *igc), y[:, outputs])
    d = t.like(y)
    dx, dkernel = t.loop_gradients(d, x, masked)
    gradients = backward(d[:, outputs], x[:, inputs], *igc)
    agree(gradients.x, dx[:, inputs])
    agree(gradients.primary, [dkernel[o, inputs][mask[o, inputs] == 1] for o in outputs])


def test_dgconv_s_permutation_is_an_interleave_exactly_if_all_ones_precede_all_zeros():
    deals = [list(interleave(2**a, 2 ** (4 - a)) @ np.arange(16)) for a in (1, 2, 3)]
    for g in np.ndindex(2, 2, 2, 2):
        _, outputs, inputs = special_cases.dgconv(np.ones((16, 16, 1, 1)), g)
        assert np.array_equal(outputs, inputs)
        assert (list(outputs) in deals) == (0 < sum(g) < 4 and list(g) == sorted(g)[::-1])
        assert (list(outputs) == list(range(16))) == (list(g) == sorted(g))


def excite(y, W):
    """Squeeze-and-excitation: gates for the channels of every image from all means; y gated."""
    gates = 1 / (1 + np.exp(-np.maximum(y.mean(axis=(2, 3)) @ W, 0) @ W.T))
    return gates, gates[:, :, None, None] * y


@given(ranked_specs(), seeds, st.booleans())
def test_a_block_with_squeeze_and_excitation_in_or_after_it_is_for_one_image_an_igc(s, seed, after):
    rng = np.random.default_rng(seed)
    igc = special_cases.Weights(*weights(rng, s), s)
    x, W = rng.normal(size=(2, s.in_channels, 4, 3)), rng.normal(size=(s.out_channels, 2))
    y = convolve(x, igc.primary, groups=s.L)
    if not after:
        gates, y = excite(y, W)
    y = shuffle(convolve(shuffle(y, s.L), igc.secondary[:, :, None, None], groups=s.M), s.M)
    if after:
        gates, y = excite(y, W)
    for n in range(2):
        block = special_cases.gated(igc, gates[n], after)
        agree(forward(x[n : n + 1], *block), y[n : n + 1])
        assert is_igc(composed_kernel(*block), s.L, s.M)


@given(numbers, numbers, numbers, numbers, seeds, dtypes)
def test_blast_with_one_hot_left_factors_is_exactly_an_igc_of_one_tap(q, L, M, n, seed, dtype):
    rng = np.random.default_rng(seed)
    s, V = normal(rng, (q * L, L, q * M), dtype), normal(rng, (L, n, q * M), dtype)
    igc, U = special_cases.blast(s, V), np.kron(np.eye(M), np.ones((1, q)))
    blocks = [[U @ np.diag(s[a, b]) @ V[b].T for b in range(L)] for a in range(q * L)]
    agree(special_cases.composed_matrix(igc), np.block(blocks))
    assert igc.spec == IGCSpec(L * n, q * L * M, L, M, kernel_size=1)
    for ours, theirs in [(igc.primary, V), (igc.secondary, s)]:  # weights of any IGC: none is lost
        assert np.array_equal(np.sort(ours, axis=None), np.sort(theirs, axis=None))


@given(numbers, numbers, st.integers(1, 4), st.integers(1, 9), seeds, dtypes)
def test_a_depthwise_causal_convolution_is_an_igc_blind_to_the_future(N, C, c, T, seed, dtype):
    rng = np.random.default_rng(seed)
    x, d = normal(rng, (2, N, C, 1, T), dtype)
    filters, pointwise = normal(rng, (C, c), dtype), normal(rng, (2 * C, C), dtype)
    igc = special_cases.causal_convolution(filters)
    y, gradients = forward(x, *igc), backward(d, x, *igc)
    for l, f in enumerate(filters):
        agree(y[:, l], lfilter(f[::-1], [1.0], x[:, l]))
        agree(gradients.x[:, l], lfilter(f[::-1], [1.0], d[:, l, :, ::-1])[..., ::-1])
        for ago in range(c):
            expected = (d[:, l, 0, ago:] * x[:, l, 0, : max(T - ago, 0)]).sum()
            agree(gradients.primary[l, 0, c - 1, c - 1 - ago], expected)
    agree(forward(x, *special_cases.causal_convolution(filters, pointwise)), mix(pointwise, y))
    x[..., T // 2 + 1 :] += 1
    assert np.array_equal(forward(x, *igc)[..., : T // 2 + 1], y[..., : T // 2 + 1])


@given(specs())
def test_one_block_mixes_all_channels_exactly_if_it_has_at_least_l_times_m_outputs(spec):
    q, count = spec.out_channels / (spec.L * spec.M), paths(spec)
    assert set(count.ravel()) == {int(q), np.ceil(q)}
    assert (count > 0).all() == (q >= 1)


@pytest.mark.parametrize("D", [2, 3, 4, 5, 8])
def test_two_random_expanders_miss_a_third_of_the_pairs_where_a_block_of_their_cost_misses_none(D):
    G, drawn = D * D, np.tile(1 * (np.arange(D * D) < D), (2, 200, D * D, 1))
    assert IGCSpec.square(D, D, 1).parameters == 2 * G * D
    # X-Conv (arXiv:1711.08757): each output reads D inputs drawn at random; 200 pairs of layers.
    first, second = np.random.default_rng(0).permuted(drawn, axis=3)
    count = second @ first
    assert (count.sum(axis=2) == G).all()  # so no pair is missed only if each has one path
    assert (count == 0).mean() == pytest.approx((1 - 1 / D) ** D, abs=0.02)


K, s, V = np.ones((4, 4, 3, 3)), np.ones((3, 2, 2)), np.ones((2, 2, 2))
REFUSED = [
    ("mixconv", [[K, K[..., 1:, 1:]]], r"kernel sizes \[3, 2\] are not all odd or all even"),
    ("mixconv", [[K, K[1:]]], r"s\[1\] has .*; \(4, 4, k, k\)"), ("mixconv", [[]], "sizes .. "),
    ("dgconv", [K[:, 1:], (1, 0)], r"in_channels=3 is not divisible by 2\^n=4"),
    ("dgconv", [K, (1, 2)], "gates.1.=2 is too large"), ("dgconv", [K, 1], "gates is .*int;"),
    ("gated", [special_cases.regular_convolution(K), s[0, 0]], r"gates has shape .*; \(4,\)"),
    ("gated", [special_cases.regular_convolution(K)._replace(primary=V), s], "primary has shape"),
    ("mixconv", [[K, 3]], r"kernels\[1\] is builtins.int"),
    ("blast", [s, V], "q.L=3 is .* by L=2"), ("blast", [s[1:, 1:], V], "s has .*, 2, 2. is"),
    ("causal_convolution", [s], "filters has"), ("causal_convolution", [s[0, :, :0]], "c=0 is"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "message"), REFUSED)
def test_what_is_no_such_relative_is_refused_with_its_numbers(name, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(special_cases, name)(*arguments)
