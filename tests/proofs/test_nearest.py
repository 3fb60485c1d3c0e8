"""The nearest IGC against alternating least squares; what is refused. More: special_cases/."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igc_ref import IGCSpec
from igc_ref.errors import SpecError
from igc_ref.reference import (
    composed_kernel,
    is_igc,
    nearest_block,
    nearest_groups,
    nearest_product,
    project,
)
from igc_ref.spec import Chain, IGCV2Spec
from tests.support.strategies import normal, seeds, specs, weights

dtypes = st.sampled_from([np.float64, np.complex128])


SPECS = [
    IGCSpec.square(3, 2), IGCSpec.square(1, 4, 2), IGCSpec.square(4, 1, 2),
    IGCSpec(6, 12, 3, 4, 2, 2), IGCSpec(6, 12, 3, 2, 1), IGCSpec(8, 16, 2, 2, 1),
    IGCSpec(2, 4, 2, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_alternating_least_squares_from_a_random_start_ends_no_nearer(spec):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=spec.composed_shape)
    error = nearest_block(kernel, spec).error
    p, s = weights(rng, spec)
    for _ in range(15):
        s = least_squares(lambda w, p=p: composed_kernel(p, w, spec), s.shape, kernel)
        p = least_squares(lambda w, s=s: composed_kernel(w, s, spec), p.shape, kernel)
    found = np.linalg.norm(composed_kernel(p, s, spec) - kernel) / np.linalg.norm(kernel)
    assert error - 1e-9 <= found <= error + 0.1  # it is a rival: it comes close


def least_squares(linear, shape, target):
    """Minimise |linear(w) - target| over w of a shape."""
    basis = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    A = np.stack([linear(w).ravel() for w in basis], axis=1)
    return np.linalg.lstsq(A, target.ravel(), rcond=None)[0].reshape(shape)


@given(specs(square=True), st.integers(1, 3), st.integers(1, 3), seeds, dtypes)
def test_project_is_the_nearest_block_or_sum_of_blocks_with_q_1(square, n, rank, seed, dtype):
    L, M, k = square.L, square.M, square.kernel_size
    spec = IGCSpec(L * n, L * M, L, M, k)
    kernel = normal(np.random.default_rng(seed), spec.composed_shape, dtype)
    primary, secondary = project(kernel, L, M, rank)
    nearest = nearest_block(kernel, spec, rank)
    assert np.array_equal(primary, nearest.primary)
    assert np.array_equal(secondary, nearest.secondary)
    for m, b in np.ndindex(M, L):  # the size of a slice is shared evenly by both weights
        column = secondary[m * L : (m + 1) * L, b]
        assert np.linalg.norm(column) == pytest.approx(np.linalg.norm(primary[(b * M + m) * rank]))


def test_being_an_igc_is_judged_by_every_discarded_singular_value_relative_to_the_greatest():
    rng = np.random.default_rng(0)
    spec = IGCSpec.square(4, 2)
    exact = composed_kernel(*weights(rng, spec), spec)
    for scale in (1e-12, 1.0, 1e12):
        assert is_igc(scale * exact, 4, 2)
        assert not is_igc(scale * (exact + 1e-7 * normal(rng, exact.shape)), 4, 2)
        assert is_igc(scale * (exact + 1e-7 * normal(rng, exact.shape)), 4, 2, rtol=1e-5)
    assert is_igc(np.zeros(spec.composed_shape), 4, 2)
    assert is_igc(exact.astype("float32"), 4, 2)


def test_a_kernel_of_whole_numbers_is_not_rounded_to_them():
    kernel = np.arange(36).reshape(6, 6, 1, 1)
    for whole, real in zip(project(kernel, 3, 2), project(1.0 * kernel, 3, 2), strict=True):
        assert np.array_equal(whole, real)


def test_the_nearest_group_convolution_keeps_the_diagonal_blocks():
    kernel = normal(np.random.default_rng(2), (6, 4, 1, 1), np.complex128)
    weight, error = nearest_groups(kernel, 2)
    dense = np.zeros_like(kernel)
    dense[:3, :2], dense[3:, 2:] = weight[:3], weight[3:]
    kept = [[1, 1, 0, 0]] * 3 + [[0, 0, 1, 1]] * 3
    assert np.array_equal(dense, kernel * np.array(kept)[:, :, None, None])
    assert error == pytest.approx(np.linalg.norm(dense - kernel) / np.linalg.norm(kernel))


@pytest.mark.parametrize("scale", [1, 1e-160, 1e200])
def test_errors_are_the_same_in_small_integers_and_at_any_scale(scale):
    kernel = np.random.default_rng(0).integers(-128, 128, (6, 6, 3, 3), np.int8)
    found, wanted = ((nearest_block(k, IGCSpec.square(2, 3)).error, nearest_groups(k, 3)[1],
                      nearest_product(k, IGCV2Spec(6, 6, (3, 2))).error)
                     for k in (kernel * scale, kernel * 1.0))  # fmt: skip
    assert found == pytest.approx(wanted)


def test_a_kernel_of_zeros_has_no_error():
    assert nearest_block(np.zeros((4, 4, 3, 3)), IGCSpec.square(2, 2)).error == 0
    assert nearest_groups(np.zeros((4, 4, 1, 1)), 2)[1] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k: project(k[..., 0], 2, 3), r"\(out, in, kh, kw\) is needed"),
        (lambda k: project(k, -2, -3), "L=-2 is not an integer"),
        (lambda k: project(k, 2, 2), r"\(6, 6, 3, 3\); \(4, 6, 3, 3\) is needed"),
        (lambda k: project(k, 3, 1), r"\(6, 6, 3, 3\); \(3, 6, 3, 3\) is needed"),
        (lambda k: project(k[:, :5], 2, 3), "in_channels=5 is not divisible by L=2"),
        (lambda k: project(k * np.nan, 2, 3), "that are not finite"),
        (lambda k: nearest_block(k[:4], IGCSpec.square(2, 3)),
         r"kernel has shape \(4, 6, 3, 3\); \(6, 6, 3, 3\) is needed"),
        (lambda k: nearest_block(k, IGCSpec(6, 6, 3, 3)), r"divisible by L\*M=9"),
        (lambda k: project(k, 2, 3, rank=0), "rank=0 is not an integer of at least 1"),
        (lambda k: Chain.sum_of(IGCSpec.square(3, 2), -1), "rank=-1 is not an integer"),
        (lambda k: Chain.sum_of(IGCSpec(6, 6, 3, 3), 2), r"out_channels=6 is not .* by L\*M=9"),
        (lambda k: nearest_product(k, IGCV2Spec(6, 6, (6,), 1)), r"\(6, 6, 1, 1\) is needed"),
        (lambda k: nearest_product(k * np.nan, IGCV2Spec(6, 6, (6,))), "holds numbers"),
        (lambda k: nearest_groups(k, 4), "out_channels=6 is not divisible by groups=4"),
        (lambda k: project(k[:, :0], 3, 2), r"kernel has shape \(6, 0, 3, 3\)"),
        (lambda k: nearest_groups(k[:0], 2), r"\(0, 6, 3, 3\)"),
        (lambda k: nearest_groups(k, 0), "groups=0 is not"),
        (lambda k: nearest_groups(k * np.nan, 2), "kernel holds numbers .* below 1e300: nan"),
        (lambda k: is_igc(k, 3, 2, "1e-3"), "rtol='1e-3' is not a number of at least 0 and below"),
        (lambda k: is_igc(k, 3, 2, 1), "rtol=1 is not a number of at least 0 and below 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_kernel_that_does_not_fit_is_refused_with_its_numbers(call, message):
    with pytest.raises(SpecError, match=message):
        call(np.ones((6, 6, 3, 3)))
