"""What the cupy backend leaves to generic operators; run without a card."""

import numpy as np
import pytest

from igc_ref.backends import NumpyBackend
from igc_ref.testing import assert_close
from tests.backends.cuda import emulator
from tests.backends.cuda.cases import batch_norm
from tests.support.guarded import GuardedBackend, internal, public

pytestmark = pytest.mark.skipif(bool(emulator.problem()), reason=str(emulator.problem()))


@pytest.fixture
def backend():
    return GuardedBackend()


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


STEP = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


@pytest.mark.parametrize("odd", ["float64", "strided"])
def test_parameters_that_the_kernel_does_not_take_make_the_generic_step(backend, odd):
    def parameters():
        rng = np.random.default_rng(0)
        groups = [{n: rng.normal(size=6) for n in "ab"} for _ in range(3)]
        for group in groups:
            group["b"] = group["b"].astype("float64" if odd == "float64" else "float32")
            group["a"] = group["a"].astype("float32")
            if odd == "strided":
                group["b"] = group["b"].repeat(2)[::2]
        return groups

    ours, theirs = parameters(), parameters()
    backend.sgd_steps(*ours, **STEP)
    NumpyBackend().sgd_steps(*theirs, **STEP)
    for name in "ab":
        assert_close(ours[0][name], theirs[0][name], 2)
        assert_close(ours[2][name], theirs[2][name], 2)


def test_a_step_without_parameters_does_nothing(backend):
    backend.sgd_steps({}, {}, {}, **STEP)
    backend.sgd_steps({"a": ones(0)}, {"a": ones(0)}, {"a": ones(0)}, **STEP)
    assert not backend.device.launches


def test_max_pooling_is_generic_and_reads_what_is_pending(backend):
    rng = np.random.default_rng(0)
    x, d = (rng.normal(size=s).astype("float32") for s in ((2, 3, 6, 8), (2, 3, 3, 4)))
    x[0, 0, 0, 0] = np.nan
    normal, _ = batch_norm(backend, internal(backend, x), ones(3), ones(3), train=False)
    y, saved = backend.max_pool(normal, 3, 2, 1)
    plain = NumpyBackend()
    expected, plain_saved = plain.max_pool(public(backend, normal).swapaxes(0, 1), 3, 2, 1)
    assert np.array_equal(public(backend, y), expected.swapaxes(0, 1), equal_nan=True)
    assert np.isnan(public(backend, y)).sum() == 1  # a NaN is not hidden
    dx = public(backend, backend.max_pool_backward(internal(backend, d), saved))
    exact = plain.max_pool_backward(d.swapaxes(0, 1), plain_saved)
    assert np.array_equal(dx, exact.swapaxes(0, 1))
    assert backend.generic == "max_pool(3, 2, 1) of float32 has no kernel in the emulated backend"


def test_group_norm_and_distillation_in_float32_are_those_of_numpy_in_float64(backend):
    rng, plain = np.random.default_rng(0), NumpyBackend()
    x, d = (rng.normal(size=(5, 6, 4, 3)) for _ in range(2))
    gamma, beta = rng.normal(size=(2, 6))

    def normalised(backend, x, d, *weights):
        y, saved = backend.group_norm(backend.to_layout(x), *weights, 2, eps=1e-3, relu=True)
        dx, *gains = backend.group_norm_backward(backend.to_layout(d), saved)
        return [*(backend.from_layout(batch) for batch in (y, dx)), *gains]

    logits, teacher = rng.normal(size=(2, 7, 4))
    labels = rng.integers(0, 4, 7)

    def distilled(backend, *logits):
        loss, _, gradient = backend.distillation_loss(logits[0], labels, logits[1], 4.0, 0.9)
        return [np.asarray(loss), gradient]

    for run, arrays in ((normalised, (x, d, gamma, beta)), (distilled, (logits, teacher))):
        small = [array.astype("float32") for array in arrays]
        exact = run(plain, *(array.astype("float64") for array in small))
        for one, two in zip(run(backend, *small), exact, strict=True):
            assert one.dtype == "float32"
            assert_close(1 + one, 1 + two, 400)
    assert backend.device.launches
