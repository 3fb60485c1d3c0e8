"""Relatives of the block against loops, ``numpy.kron``, ``scipy.signal.lfilter`` and counts."""

import math

import numpy as np
import pytest
import scipy.signal
from hypothesis import strategies as st

from igc_ref.errors import SpecError
from igc_ref.reference import backward, composed_kernel, forward, interleave, is_igc, special_cases
from igc_ref.reference.products import paths
from igc_ref.spec import IGCSpec
from tests.proofs.special_cases.trials import agree, dtypes, given, mix, numbers, trials
from tests.support.oracles import convolve, shuffle
from tests.support.strategies import normal, ranked_specs, seeds, specs, weights


@given(trials, st.lists(st.integers(0, 2), min_size=1, max_size=3), st.integers(1, 2), numbers)
def test_mixconv_is_an_igc_if_its_kernel_sizes_are_all_odd_or_all_even(t, halves, least, inp):
    sizes, L = [least + 2 * half for half in halves], len(halves)
    kernels = [t.matrix(2, inp, k, k) for k in sizes]
    x, igc = t.images(L * inp), special_cases.mixconv(kernels, t.stride)
    y = forward(x, *igc)
    d = t.like(y)
    dx, primary, _ = backward(d, x, *igc)
    in_parts = [np.split(array, L, axis=1) for array in (x, y, d, dx)]
    for k, kernel, dkernel, x_b, y_b, d_b, dx_b in zip(
        sizes, kernels, np.split(primary, L), *in_parts, strict=True
    ):
        used = slice((max(sizes) - k) // 2, (max(sizes) + k) // 2)
        agree(y_b, t.loop(x_b, kernel))
        expected = t.loop_gradients(d_b, x_b, kernel)
        agree(dx_b, expected[0])
        agree(dkernel[:, :, used, used], expected[1])


@given(trials, st.lists(st.integers(0, 1), max_size=3), numbers, numbers)
def test_dgconv_is_a_group_convolution_between_permutations_for_every_gate_vector(t, g, inp, out):
    mask = np.ones((1, 1))
    for factor in [*(np.ones((2, 2)) if gate else np.eye(2) for gate in g), np.ones((out, inp))]:
        mask = np.kron(mask, factor)
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


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_dgconv_s_permutation_is_an_interleave_exactly_if_all_ones_precede_all_zeros(n):
    deals = [list(interleave(2**a, 2 ** (n - a)) @ np.arange(2**n)) for a in range(1, n)]
    for g in np.ndindex(*[2] * n):
        _, outputs, inputs = special_cases.dgconv(np.ones((2**n, 2**n, 1, 1)), g)
        assert np.array_equal(outputs, inputs)
        falling = 0 < sum(g) < n and list(g) == sorted(g, reverse=True)
        assert (list(outputs) in deals) == falling
        assert np.array_equal(outputs, np.arange(2**n)) == (list(g) == sorted(g))


def excite(y, reduce, expand):
    """Squeeze-and-excitation: a gate for each image and channel, from the means of the channels."""
    hidden = np.maximum(y.mean(axis=(2, 3)) @ reduce, 0)
    return 1 / (1 + np.exp(-hidden @ expand))


@given(ranked_specs(), seeds, st.booleans())
def test_a_block_with_squeeze_and_excitation_in_or_after_it_is_for_one_image_an_igc(s, seed, after):
    rng = np.random.default_rng(seed)
    igc = special_cases.Weights(*weights(rng, s), s)
    x, reduce = rng.normal(size=(2, s.in_channels, 4, 3)), rng.normal(size=(s.out_channels, 2))
    y = convolve(x, igc.primary, groups=s.L)
    gates = excite(y, reduce, reduce.T)
    y = shuffle(y if after else gates[:, :, None, None] * y, s.L)
    y = shuffle(convolve(y, igc.secondary[:, :, None, None], groups=s.M), s.M)
    if after:
        gates = excite(y, reduce, reduce.T)
        y = gates[:, :, None, None] * y
    for n in range(2):
        block = special_cases.gated(igc, gates[n], after)
        agree(forward(x[n : n + 1], *block), y[n : n + 1])
        assert is_igc(composed_kernel(*block), s.L, s.M)


@given(ranked_specs(), seeds, dtypes)
def test_the_igcs_with_one_tap_are_the_blast_matrices_with_one_hot_left_factors(s, seed, dtype):
    spec = IGCSpec(s.in_channels, s.out_channels, s.L, s.M, kernel_size=1)
    L, M, q = s.L, s.M, s.out_channels // (s.L * s.M)
    primary, secondary = weights(np.random.default_rng(seed), spec, dtype)
    V = np.stack([block[:, :, 0, 0].T for block in np.split(primary, L)])
    S, U = np.zeros((q * L, L, q * M), dtype), np.zeros((M, q * M))
    for m, j in np.ndindex(M, q):
        U[m, m * q + j] = 1  # one-hot columns; the identity if q = 1
        for a, b in np.ndindex(q * L, L):
            S[a, b, m * q + j] = secondary[m * q * L + a, j * L + b]
    blocks = [[U @ np.diag(S[a, b]) @ V[b].T for b in range(L)] for a in range(q * L)]
    agree(composed_kernel(primary, secondary, spec)[:, :, 0, 0], np.block(blocks))
    again = special_cases.blast(S, V)
    assert again.spec == spec
    assert np.array_equal(again.primary, primary)
    assert np.array_equal(again.secondary, secondary)


@given(numbers, numbers, st.integers(1, 4), st.integers(1, 9), seeds, dtypes)
def test_a_depthwise_causal_convolution_is_an_igc_blind_to_the_future(N, C, c, T, seed, dtype):
    rng = np.random.default_rng(seed)
    x, filters = normal(rng, (N, C, 1, T), dtype), normal(rng, (C, c), dtype)
    igc, pointwise = special_cases.causal_convolution(filters), normal(rng, (2 * C, C), dtype)
    y, d = forward(x, *igc), normal(rng, x.shape, dtype)
    for l in range(C):
        agree(y[:, l], scipy.signal.lfilter(filters[l, ::-1], [1.0], x[:, l]))
    agree(forward(x, *special_cases.causal_convolution(filters, pointwise)), mix(pointwise, y))
    dx, dfilters = np.zeros_like(x), np.zeros_like(filters)
    for t, j in np.ndindex(T, c):
        if (source := t - (c - 1) + j) >= 0:
            dx[..., source] += filters[:, j, None] * d[..., t]
            dfilters[:, j] += (d[..., t] * x[..., source]).sum(axis=(0, 2))
    gradients = backward(d, x, *igc)
    agree(gradients.x, dx)
    agree(gradients.primary[:, 0, c - 1, :c], dfilters)
    x[..., T // 2 + 1 :] += 1
    assert np.array_equal(forward(x, *igc)[..., : T // 2 + 1], y[..., : T // 2 + 1])
    assert (igc.spec.L, igc.spec.M) == (C, 1)


@given(specs())
def test_one_block_mixes_all_channels_exactly_if_it_has_at_least_l_times_m_outputs(spec):
    q, count = spec.out_channels / (spec.L * spec.M), paths(spec)
    assert set(count.ravel()) == {math.floor(q), math.ceil(q)}
    assert (count > 0).all() == (q >= 1)
    assert (count == 1).all() == (q == 1)  # the square block


@pytest.mark.parametrize("D", [2, 3, 4, 5, 8])
def test_two_random_expanders_miss_a_third_of_the_pairs_where_a_block_of_their_cost_misses_none(D):
    rng, G = np.random.default_rng(0), D * D
    assert IGCSpec.square(D, D, 1).parameters == 2 * G * D
    shares = []
    for _ in range(200):  # X-Conv (arXiv:1711.08757): each output reads D inputs drawn at random
        first, second = rng.permuted(np.tile(1 * (np.arange(G) < D), (2, G, 1)), axis=2)
        count = second @ first
        assert (count.sum(axis=1) == G).all()  # so no pair is missed only if each has one path
        shares.append((count == 0).mean())
    assert np.mean(shares) == pytest.approx((1 - 1 / D) ** D, abs=0.02)


K, IGC = np.ones((4, 4, 3, 3)), special_cases.group_convolution(np.ones((4, 2, 3, 3)), 2)
s_322, V_222 = np.ones((3, 2, 2)), np.ones((2, 2, 2))
REFUSED = [
    ("mixconv", ([],), r"kernel sizes \[\] are"), ("mixconv", (None,), "Sequence is needed"),
    ("mixconv", ([K, K[..., 1:, 1:]],), r"kernel sizes \[3, 2\] are not all odd or all even"),
    ("mixconv", ([K, K[1:]],), r"kernels\[1\] has shape .*; \(4, 4, k, k\) is needed"),
    ("dgconv", (K, (1, 2)), r"gates\[1\]=2 is too large"), ("dgconv", (K, 1), "gates is .*int;"),
    ("dgconv", (K[:, 1:], (1, 0)), r"in_channels=3 is not divisible by 2\^n=4"),
    ("gated", (IGC, np.ones(3)), r"gates has shape \(3,\); \(4,\)"),
    ("gated", (tuple(IGC), np.ones(4)), "Weights is needed"),
    ("blast", (s_322, V_222), "q.L=3 is not divisible by L=2"),
    ("blast", (s_322[:, :1], V_222), r"s has shape \(3, 1, 2\); \(q\*L, 2, 2\) is needed"),
    ("blast", (np.ones((4, 2, 3)), np.ones((2, 2, 3))), "q.M=3 is not divisible by q=2"),
    ("causal_convolution", (V_222,), r"filters has shape \(2, 2, 2\)"),
    ("causal_convolution", (np.ones((4, 0)),), "c=0 is not an integer of at least 1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "message"), REFUSED)
def test_what_is_no_such_relative_is_refused_with_its_numbers(name, arguments, message):
    with pytest.raises((SpecError, TypeError), match=message):
        getattr(special_cases, name)(*arguments)
