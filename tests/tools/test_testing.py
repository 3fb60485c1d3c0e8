"""The tester tested: planted wrong derivatives and wrong adjoints must be caught."""

import numpy as np
import pytest

from igc_ref import IGCSpec, reference
from igc_ref.testing import assert_close, check_grads, dot_test, tolerance
from tests.support.strategies import normal, weights

SPEC = IGCSpec(4, 8, 2, 2, stride=2)


@pytest.fixture
def block():
    rng = np.random.default_rng(0)
    x = normal(rng, (2, 4, 5, 6))
    return rng, (x, *weights(rng, SPEC))


def vjp_of(arguments, fault=lambda gradients: gradients):
    return lambda d: fault(list(reference.backward(d, *arguments, SPEC)))


def f(*arguments):
    return reference.forward(*arguments, SPEC)


def test_the_right_derivative_passes(block):
    rng, arguments = block
    check_grads(f, vjp_of(arguments), arguments, rng)


@pytest.mark.parametrize("argument", [0, 1, 2])
@pytest.mark.parametrize(
    "fault",
    [
        lambda g: g * (1 + 1e-4),
        lambda g: -g,
        lambda g: np.zeros_like(g),
        lambda g: g[::-1],
        lambda g: np.where(np.arange(g.size).reshape(g.shape) == 0, 0, g),
    ],
    ids=["scaled", "negated", "zero", "reversed", "one entry dropped"],
)
def test_a_planted_wrong_derivative_is_caught_and_its_argument_named(block, argument, fault):
    rng, arguments = block

    def planted(gradients):
        gradients[argument] = fault(gradients[argument])
        return gradients

    with pytest.raises(AssertionError, match=f"argument {argument}: the written derivative"):
        check_grads(f, vjp_of(arguments, planted), arguments, rng)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("nan", lambda g: [g[0] * np.nan, *g[1:]]),
        ("gradient 0 has shape", lambda g: [g[0][:1], *g[1:]]),
        ("2 gradients for 3 arguments", lambda g: g[:2]),
    ],
)
def test_a_derivative_that_is_nan_or_of_another_shape_or_missing_is_caught(block, message, fault):
    rng, arguments = block
    with pytest.raises(AssertionError, match=message):
        check_grads(f, vjp_of(arguments, fault), arguments, rng)


def test_float32_arguments_are_refused(block):
    rng, (x, *rest) = block
    with pytest.raises(TypeError, match="argument 0 is float32"):
        check_grads(f, vjp_of((x, *rest)), (x.astype("float32"), *rest), rng)


A = np.random.default_rng(3).normal(size=(4, 6))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_the_right_adjoint_passes(dtype):
    a = A.astype(dtype)
    dot_test(lambda u: a @ u, lambda v: a.T @ v, (6,), np.random.default_rng(0), dtype=dtype)


@pytest.mark.parametrize(
    "adjoint",
    [
        lambda v: A.T @ v * (1 + 1e-9),
        lambda v: A.T @ v[::-1],
        lambda v: (A.T @ v)[::-1],
        lambda v: np.zeros(6),
        lambda v: (A.T @ v)[:3],
        lambda v: A.T @ v + np.nan,
    ],
    ids=["scaled", "reversed rows", "reversed columns", "zero", "short", "nan"],
)
def test_a_planted_wrong_adjoint_is_caught(adjoint):
    with pytest.raises(AssertionError):
        dot_test(lambda u: A @ u, adjoint, (6,), np.random.default_rng(0))


def test_a_conjugated_adjoint_is_caught():
    a = A + 1j * A[::-1]
    with pytest.raises(AssertionError):
        dot_test(
            lambda u: a @ u, lambda v: a.conj().T @ v, (6,), np.random.default_rng(0),
            dtype="complex128",
        )  # fmt: skip


def test_tolerance_grows_like_the_square_root_of_the_length_and_with_the_dtype():
    assert tolerance("float64", 1) == 10 * 2**-52
    assert tolerance("float64", 400) == pytest.approx(2 * tolerance("float64", 100))
    assert tolerance("float32", 100) == pytest.approx(tolerance("float64", 100) * 2**29)


@pytest.mark.parametrize(
    "wrong", [np.ones(3) * (1 + 1e-10), np.array([1, 1, np.nan]), np.ones(4), np.ones(3) + 0j]
)
def test_assert_close_sees_errors_nan_and_shapes(wrong):
    with pytest.raises(AssertionError):
        assert_close(wrong, np.ones(3), 10)


def test_nothing_is_close_to_infinity_and_integers_are_not_compared():
    with pytest.raises(AssertionError, match="not finite"):
        assert_close(np.array([1.0, 5.0]), np.array([np.inf, 5.0]), 1)
    with pytest.raises(AssertionError, match="not both inexact"):
        assert_close(np.ones(2), np.ones(2, int), 1)


def test_assert_close_allows_the_rounding_of_the_coarser_dtype():
    assert_close(np.ones(3, "float32") * np.float32(1 + 1e-7), np.ones(3), 10)
