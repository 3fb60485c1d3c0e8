"""A block with several kernel sizes is an IGC whose outer taps are zero: loops and matrices."""

import math

import numpy as np
import pytest
from hypothesis import strategies as st

from igc_ref.errors import SpecError, kernel_pair
from igc_ref.reference import backward, composed_kernel, forward, is_igc, matrices
from igc_ref.reference.special_cases import mixconv, mixed, unmixed
from igc_ref.spec import MixedSpec
from tests.proofs.special_cases.trials import agree, dtypes, given
from tests.support.oracles import convolve, convolve_gradients, shuffle
from tests.support.strategies import mixed_specs, normal, pictures, seeds


def partitions_of(spec):
    """Kernel size, inputs and outputs of every primary partition, one after another."""
    runs = np.array_split(np.arange(spec.L), len(spec.kernel_sizes))
    sizes = [k for k, run in zip(spec.kernel_sizes, runs, strict=True) for _ in run]
    inp, out = spec.in_channels // spec.L, spec.out_channels // spec.L
    return [
        (k, slice(b * inp, (b + 1) * inp), slice(b * out, (b + 1) * out))
        for b, k in enumerate(sizes)
    ]


def drawn(rng, spec, dtype=np.float64):
    """Weights of every partition, and the same in runs; secondary weights."""
    inp, out = spec.in_channels // spec.L, spec.out_channels // spec.L
    each = [normal(rng, (out, inp, *kernel_pair(k)), dtype) for k, _, _ in partitions_of(spec)]
    runs = np.array_split(np.arange(spec.L), len(spec.kernel_sizes))
    kernels = [np.concatenate([each[b] for b in run]) for run in runs]
    return each, kernels, normal(rng, spec.igc.secondary_shape, dtype)


@given(mixed_specs(), st.data(), seeds, dtypes)
def test_a_block_with_several_kernel_sizes_is_an_igc_whose_outer_taps_are_zero(s, data, seed, dt):
    rng = np.random.default_rng(seed)
    x, (each, kernels, secondary) = normal(rng, data.draw(pictures(s)), dt), drawn(rng, s, dt)
    igc, parts, mix = mixed(kernels, secondary, s), partitions_of(s), secondary[:, :, None, None]
    partial = [convolve(x[:, i], w, s.stride) for (_, i, _), w in zip(parts, each, strict=True)]
    y_bar = shuffle(np.concatenate(partial, axis=1), s.L)
    y = shuffle(convolve(y_bar, mix, groups=s.M), s.M)
    agree(forward(x, *igc), y)
    if s.out_channels % (s.L * s.M) == 0:
        assert is_igc(composed_kernel(*igc), s.L, s.M)

    d = normal(rng, y.shape, dt)
    dy_bar, dmix = convolve_gradients(shuffle(d, s.out_channels // s.M), y_bar, mix, 1, s.M)
    dy, gradients = shuffle(dy_bar, s.out_channels // s.L), backward(d, x, *igc)
    agree(gradients.secondary, dmix[:, :, 0, 0])
    found = np.concatenate([w.ravel() for w in unmixed(gradients.primary, s)])
    expected = []
    for (_, inputs, outputs), w in zip(parts, each, strict=True):
        dx, dw = convolve_gradients(dy[:, outputs], x[:, inputs], w, s.stride)
        agree(gradients.x[:, inputs], dx)
        expected.append(dw.ravel())
    agree(found, np.concatenate(expected))


@given(mixed_specs(), seeds)
def test_taking_the_taps_out_is_the_adjoint_of_putting_them_in_and_takes_out_what_was_put(s, seed):
    rng = np.random.default_rng(seed)
    kernels = [rng.integers(-9, 10, run.weight_shape) for run in s.runs]
    V = rng.integers(-9, 10, s.igc.primary_shape)
    igc = mixed(kernels, np.ones(s.igc.secondary_shape), s)
    assert all(map(np.array_equal, unmixed(igc.primary, s), kernels))
    inner = sum((a * b).sum() for a, b in zip(kernels, unmixed(V, s), strict=True))
    assert (igc.primary * V).sum() == inner
    assert abs(igc.primary).sum() == sum(abs(kernel).sum() for kernel in kernels)


@given(mixed_specs(), st.data())
def test_costs_count_the_real_taps_alone(s, data):
    ones = [np.ones(run.weight_shape) for run in s.runs]
    W_p, _, W_d = matrices(*mixed(ones, np.ones(s.igc.secondary_shape), s))
    each = s.in_channels // s.L * (s.out_channels // s.L)
    taps = sum(math.prod(kernel_pair(k)) for k, _, _ in partitions_of(s))
    assert s.parameters == np.count_nonzero(W_p) + np.count_nonzero(W_d)
    assert s.parameters == each * taps + s.out_channels**2 // s.M
    assert (s.igc.parameters == s.parameters) == (len(s.kernel_sizes) == 1)
    _, _, H, W = data.draw(pictures(s))
    positions = len(range(0, H, s.stride)) * len(range(0, W, s.stride))
    assert s.multiply_adds(H, W) == s.parameters * positions


@given(mixed_specs(), st.data(), seeds)
def test_without_mixing_it_is_mixconv(s, data, seed):
    rng = np.random.default_rng(seed)
    x, (each, kernels, _) = normal(rng, data.draw(pictures(s))), drawn(rng, s)
    size = s.out_channels // s.M
    identity = np.tile(np.eye(size), (s.M, 1))
    y = forward(x, *mixed(kernels, identity, s))
    undone = shuffle(shuffle(y, size), s.out_channels // s.L)  # P and Pᵀ are left over
    agree(undone, forward(x, *mixconv(each, s.stride)))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((8, 8, 2, 4, (3, 5, 7)), r"L=2 is fewer partitions than kernel_sizes=\(3, 5, 7\) has"),
        ((8, 8, 4, 2, (3, 4)), r"kernel_sizes=\(3, 4\) must be different odd numbers"),
        ((8, 8, 4, 2, (3, 3)), r"kernel_sizes=\(3, 3\) must be"),
        ((8, 8, 4, 2, ()), r"kernel_sizes=\(\) must be"),
        ((8, 8, 3, 2, (3, 5)), "in_channels=8 is not divisible by L=3"),
    ],
)
def test_an_impossible_block_is_refused_with_its_numbers(numbers, message):
    with pytest.raises(SpecError, match=message):
        MixedSpec(*numbers)


def test_one_kernel_size_must_be_in_a_sequence_too():
    with pytest.raises(TypeError, match=r"kernel_sizes is builtins\.int; Sequence is needed"):
        MixedSpec(6, 6, 3, 2, 3)


def test_weights_of_another_block_are_refused():
    spec = MixedSpec(4, 4, 2, 2, [3, 5])
    kernels = [np.ones(run.weight_shape) for run in spec.runs]
    with pytest.raises(SpecError, match="1 kernels are given; igc 3x3\\+5x5 4-4 L2 M2 has 2 runs"):
        mixed(kernels[:1], np.ones((4, 2)), spec)
    with pytest.raises(SpecError, match="kernel has shape"):
        mixed(kernels[::-1], np.ones((4, 2)), spec)
    with pytest.raises(SpecError, match="primary has shape"):
        unmixed(kernels[0], spec)
