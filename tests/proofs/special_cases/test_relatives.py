"""Relatives of the block against loops, ``numpy.kron`` and ``scipy.signal.lfilter``."""

import numpy as np
from hypothesis import strategies as st
from scipy.signal import lfilter

from igc_ref.reference import backward, composed_kernel, forward, is_igc, special_cases
from igc_ref.reference.products import paths
from igc_ref.spec import IGCSpec
from tests.proofs.special_cases.trials import agree, dtypes, given, numbers, trials
from tests.support.oracles import convolve, shuffle
from tests.support.strategies import normal, ranked_specs, seeds, specs, weights

halves = st.lists(st.tuples(*[st.integers(0, 2)] * 2), min_size=1, max_size=3)


@given(trials, halves, st.tuples(*[st.integers(1, 2)] * 2), numbers)
def test_mixconv_is_an_igc_if_its_kernel_sizes_are_all_odd_or_all_even(t, halves, least, inp):
    sizes = [tuple(np.add(least, 2 * np.array(half)).tolist()) for half in halves]
    kernels, x = [t.matrix(2, inp, *k) for k in sizes], t.images(len(sizes) * inp)
    igc = special_cases.mixconv(kernels, t.stride)
    y = forward(x, *igc)
    d = t.like(y)
    gradients = backward(d, x, *igc)
    for b, k in enumerate(sizes):
        inputs, outputs = slice(b * inp, (b + 1) * inp), slice(2 * b, 2 * b + 2)
        used = [slice((n - side) // 2, (n + side) // 2)
                for n, side in zip(np.max(sizes, axis=0), k, strict=True)]  # fmt: skip
        agree(y[:, outputs], t.loop(x[:, inputs], kernels[b]))
        dx, dkernel = t.loop_gradients(d[:, outputs], x[:, inputs], kernels[b])
        agree(gradients.x[:, inputs], dx)
        agree(gradients.primary[outputs, :, *used], dkernel)


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


def excite(y, W):
    """Squeeze-and-excitation: gates for the channels of every image from all means; y gated."""
    gates = 1 / (1 + np.exp(-np.maximum(np.abs(y).mean(axis=(2, 3)) @ W, 0) @ W.T))
    return gates, gates[:, :, None, None] * y


@given(ranked_specs(), seeds, dtypes, st.booleans())
def test_squeeze_and_excitation_in_or_after_a_block_is_for_one_image_an_igc(s, seed, dtype, after):
    rng = np.random.default_rng(seed)
    igc = special_cases.Weights(*weights(rng, s, dtype), s)
    x, W = normal(rng, (2, s.in_channels, 4, 3), dtype), rng.normal(size=(s.out_channels, 2))
    y = convolve(x, igc.primary, s.stride, s.L)
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
            agree(gradients.primary[l, 0, 0, c - 1 - ago], expected)
    mixed = forward(x, *special_cases.causal_convolution(filters, pointwise))
    agree(mixed, convolve(y, pointwise[:, :, None, None]))
    x[..., T // 2 + 1 :] += 1
    assert np.array_equal(forward(x, *igc)[..., : T // 2 + 1], y[..., : T // 2 + 1])


@given(specs())
def test_one_block_mixes_all_channels_exactly_if_it_has_at_least_l_times_m_outputs(spec):
    q, count = spec.out_channels / (spec.L * spec.M), paths(spec)
    assert set(count.ravel()) == {int(q), np.ceil(q)}
    assert (count > 0).all() == (q >= 1)
