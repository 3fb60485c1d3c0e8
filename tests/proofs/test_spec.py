"""IGCSpec: its errors, and every closed form against counting in the explicit matrices."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from igc_ref import IGCSpec
from igc_ref.errors import SpecError
from igc_ref.reference import composed_kernel, first_permutation, forward, matrices
from igc_ref.spec.block import equal_cost_width, maximal_width, optimal_L
from tests.support.strategies import kernel_sizes, pictures, specs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((48, 50, 24, 2), "out_channels=50 is not divisible by L=24"),
        ((50, 48, 24, 2), "in_channels=50 is not divisible by L=24"),
        ((48, 48, 24, 7), "out_channels=48 is not divisible by M=7"),
        ((48, 48, 0, 2), "L=0 is not an integer of at least 1"),
        ((48, 48, 24, -2), "M=-2 is not an integer of at least 1"),
        ((48, 48, 24, 2, 3.0), "kernel_size=3.0 is not an integer of at least 1"),
        ((48, 48, 24, 2, (3, 3, 3)), r"kernel_size=\(3, 3, 3\) is not an integer or a pair"),
        ((48, 48, 24, 2, (0, 3)), r"kernel_size\[0\]=0 is not an integer of at least 1"),
        ((48, 48, 24, 2, "33"), "kernel_size='33' is not an integer of at least 1"),
        ((48, 48, 24, 2, 3, True), "stride=True is not an integer of at least 1"),
        (("48", 48, 24, 2), "in_channels='48' is not an integer of at least 1"),
    ],
)
def test_an_impossible_block_is_refused_with_its_numbers(arguments, message):
    with pytest.raises(SpecError, match=message):
        IGCSpec(*arguments)


def test_numpy_integers_become_plain_integers():
    spec = IGCSpec.square(np.int64(4), np.int64(8))
    assert spec == IGCSpec(32, 32, 4, 8)
    assert type(spec.L) is int


def test_a_pair_of_equal_sides_is_the_square_kernel():
    pair, square = (IGCSpec.square(4, 8, k) for k in ([np.int64(3), 3], 3))
    assert pair == square
    assert hash(pair) == hash(square)
    assert (pair.kernel_size, pair.kernel, pair.padding) == (3, (3, 3), 1)
    row = IGCSpec.square(4, 8, [1, 5], stride=2)
    assert (row.kernel_size, row.kernel, row.padding) == ((1, 5), (1, 5), (0, 2))
    assert (row.primary_shape, row.taps) == ((32, 8, 1, 5), 5)
    assert str(row) == "igc 1x5 /2 32-32 L4 M8"
    assert row.output_size(1, 9) == (1, 5)


@given(specs())
def test_parameters_count_the_cells_on_the_blocks_of_both_matrices(spec):
    W_p, _, W_d = matrices(np.ones(spec.primary_shape), np.ones(spec.secondary_shape), spec)
    assert spec.parameters == np.count_nonzero(W_p) + np.count_nonzero(W_d)


@given(specs(), st.data())
def test_multiply_adds_count_those_cells_once_for_every_output_position(spec, data):
    _, _, H, W = shape = data.draw(pictures(spec))
    out = forward(np.ones(shape), np.ones(spec.primary_shape), np.ones(spec.secondary_shape), spec)
    assert spec.output_size(H, W) == out.shape[2:]
    assert spec.multiply_adds(H, W) == spec.parameters * out.shape[2] * out.shape[3]


@given(specs())
def test_composed_shape_is_the_shape_of_the_composed_kernel(spec):
    kernel = composed_kernel(np.ones(spec.primary_shape), np.ones(spec.secondary_shape), spec)
    assert kernel.shape == spec.composed_shape


@given(specs(square=True))
def test_a_square_block_has_G_times_MS_plus_L_parameters(spec):
    G, S = spec.L * spec.M, spec.taps
    assert spec.is_square
    assert spec.parameters == G * (spec.M * S + spec.L)
    assert spec.parameters == pytest.approx(G**2 * (S / spec.L + 1 / spec.M))


@given(st.integers(1, 40), st.integers(1, 40), kernel_sizes)
def test_width_theorem_G_exceeds_C_if_and_only_if_L_over_L_minus_1_is_below_MS(L, M, k):
    spec = IGCSpec.square(L, M, k)
    # G > C, decided in whole numbers: G²S > C²S = T.
    S = math.prod(spec.kernel)
    wider = (L * M) ** 2 * S > spec.parameters
    assert spec.is_wider_than_regular == wider
    assert wider == (L > 1 and M * S * (L - 1) > L)
    if wider:
        assert equal_cost_width(spec.parameters, k) < L * M


def test_the_width_theorem_refuses_a_rectangular_block():
    with pytest.raises(SpecError, match=r"not 48, 96 and 24\*4"):
        _ = IGCSpec(48, 96, 24, 4).is_wider_than_regular


@given(st.integers(1, 12), kernel_sizes)
def test_the_greatest_width_at_fixed_parameters_is_reached_at_L_equals_MS(M, k):
    L = optimal_L(M, k)
    best = IGCSpec.square(L, M, k)
    assert maximal_width(best.parameters, k) == pytest.approx(L * M, rel=1e-12)


@given(st.integers(1, 60), st.integers(1, 60), kernel_sizes)
def test_no_block_is_wider_than_the_bound_and_only_L_equals_MS_reaches_it(L, M, k):
    spec = IGCSpec.square(L, M, k)
    bound = maximal_width(spec.parameters, k)
    assert bound * (1 + 1e-12) >= L * M
    assert math.isclose(L * M, bound, rel_tol=1e-12) == (optimal_L(M, k) == L)


def test_equal_cost_width_is_that_of_the_regular_convolution_of_as_many_parameters():
    for width, k, S in ((16, 3, 9), (7, 5, 25), (4, 1, 1), (5, (1, 7), 7)):
        assert equal_cost_width(width**2 * S, k) == pytest.approx(width)


def test_a_block_of_equal_widths_is_square_only_if_they_are_L_times_M():
    assert IGCSpec(12, 12, 3, 4).is_square
    assert not IGCSpec(12, 12, 3, 2).is_square
    assert not IGCSpec(24, 12, 3, 4).is_square


def test_the_paper_s_numbers():
    assert optimal_L(M=2) == 18
    assert IGCSpec.square(24, 2).parameters == 48 * (2 * 9 + 24)
    assert IGCSpec.square(24, 2).is_wider_than_regular
    assert not IGCSpec.square(1, 8).is_wider_than_regular


@given(specs())
@example(IGCSpec(48, 96, 24, 2, stride=2))  # the authors' transition block: M = in/L, out = 2*in
def test_the_second_permutation_inverts_the_first_when_M_is_out_over_L(spec):
    _, P, _ = matrices(np.ones(spec.primary_shape), np.ones(spec.secondary_shape), spec)
    Pt = first_permutation(spec)
    inverse = np.array_equal(P @ Pt, np.eye(spec.out_channels))
    if spec.out_channels == spec.L * spec.M:
        assert inverse
        assert np.array_equal(P.T, Pt)
    else:  # otherwise only two identities cancel
        identity = np.eye(spec.out_channels)
        assert inverse == (np.array_equal(P, identity) and np.array_equal(Pt, identity))
