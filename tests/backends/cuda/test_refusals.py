"""What the cupy backend refuses, and what it leaves to generic operators; run without a card."""

from copy import copy

import numpy as np
import pytest

from igc_ref import IGCSpec
from igc_ref.backends import NumpyBackend
from igc_ref.errors import SpecError
from igc_ref.testing import assert_close
from tests.backends.cuda import emulator
from tests.backends.cuda.cases import batch_norm
from tests.backends.cuda.emulator.backend import EmulatedBackend
from tests.support.guarded import GuardedBackend, internal, public

pytestmark = pytest.mark.skipif(bool(emulator.problem()), reason=str(emulator.problem()))
SPEC = IGCSpec.square(2, 3)


@pytest.fixture
def backend():
    return GuardedBackend()


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


def images(backend, *shape, dtype="float32"):
    return internal(backend, ones(*shape, dtype=dtype))


X = (2, 6, 5, 4)
REFUSED = {  # id: (call, error, message)
    "a block of an array": (
        lambda b: b.igc(ones(6, 2, 5, 4), ones(6, 3, 3, 3), ones(6, 2), SPEC),
        TypeError, "x is numpy.ndarray; the emulated backend takes what its to_layout returns",
    ),
    "primary weights of another block": (
        lambda b: b.igc(images(b, *X), ones(6, 3, 3, 2), ones(6, 2), SPEC),
        SpecError, r"primary weights have shape \(6, 3, 3, 2\)",
    ),
    "images of too few channels": (
        lambda b: b.igc(images(b, 2, 5, 5, 4), ones(6, 3, 3, 3), ones(6, 2), SPEC),
        SpecError, r"x has 5 channels .*: not 2 groups",
    ),
    "a float64 secondary weight": (
        lambda b: b.igc(images(b, *X), ones(6, 3, 3, 3), ones(6, 2, dtype="f8"), SPEC),
        TypeError, "secondary is float64; float32 is needed",
    ),
    "a float64 convolution weight": (
        lambda b: b.conv2d(images(b, *X), ones(4, 6, 3, 3, dtype="f8")),
        TypeError, "weight is float64; float32 is needed",
    ),
    "a weight that is not square": (
        lambda b: b.conv2d(images(b, *X), ones(4, 6, 3, 2)),
        SpecError, r"weight has shape \(4, 6, 3, 2\); allowed is \(out, in/groups, k, k\)",
    ),
    "groups that do not divide": (
        lambda b: b.conv2d(images(b, *X), ones(4, 2, 3, 3), groups=4),
        SpecError, "x has 6 channels and weight shape .*: not 4 groups",
    ),
    "no groups": (
        lambda b: b.conv2d(images(b, *X), ones(4, 6, 3, 3), groups=0),
        SpecError, "groups=0 is not an integer of at least 1",
    ),
    "a kernel larger than the image": (
        lambda b: b.conv2d(images(b, 1, 6, 0, 4), ones(4, 6, 3, 3)),
        SpecError, "a kernel of 3 pixels is too large for images of 0x4",
    ),
    "a gradient of another shape": (
        lambda b: b.conv2d_backward(
            images(b, 2, 4, 5, 5), b.conv2d(images(b, *X), ones(4, 6, 3, 3))[1]
        ),
        SpecError, r"d has shape \(4, 2, 5, 5\); \(4, 2, 5, 4\) is needed",
    ),
    "gamma of another length": (
        lambda b: batch_norm(b, images(b, *X), ones(5), ones(6)),
        SpecError, r"gamma has shape \(5,\); \(6,\), contiguous, is needed",
    ),
    "a gradient of other images": (
        lambda b: b.batch_norm_backward(
            images(b, 2, 6, 4, 5), batch_norm(b, images(b, *X), ones(6), ones(6))[1]
        ),
        SpecError, r"dy has shape \(6, 2, 4, 5\); \(6, 2, 5, 4\) is needed",
    ),
    "a sum of different shapes": (
        lambda b: b.add(images(b, *X), images(b, 1, 6, 5, 4)),
        SpecError, r"b has shape \(6, 1, 5, 4\); \(6, 2, 5, 4\) is needed",
    ),
    "a sum with an array": (
        lambda b: b.add_relu(images(b, *X), ones(*X)), TypeError, "b is numpy.ndarray",
    ),
    "the gradient of another pooling": (
        lambda b: b.global_average_pool_backward(ones(6, 2), (6, 2, 5, 4)),
        SpecError, r"dy has shape \(6, 2\); \(2, 6\) is needed",
    ),
    "a linear layer of other features": (
        lambda b: b.linear(ones(2, 6), ones(3, 5), ones(3)),
        SpecError, r"x \(2, 6\), weight \(3, 5\) and bias \(3,\) do not fit together",
    ),
    "labels of another length": (
        lambda b: b.loss(ones(2, 3), np.zeros(3, int)),
        SpecError, r"labels have shape \(3,\); \(2,\) is needed",
    ),
    "labels that are not integers": (
        lambda b: b.loss(ones(2, 3), ones(2)), TypeError, "labels are float32; integers are needed",
    ),
    "gamma with gaps": (  # the running statistics are written in place: no copy can stand for them
        lambda b: batch_norm(b, images(b, *X), ones(12)[::2], ones(6)),
        SpecError, "gamma has shape .*contiguous",
    ),
    "a sum of two dtypes": (
        lambda b: b.add(images(b, *X), images(b, *X, dtype="f8")), TypeError, "b is float64",
    ),
    "a gradient of another parameter": (
        lambda b: b.sgd_step(ones(3), ones(2), ones(3), lr=0.1, momentum=0.9, weight_decay=0.0),
        SpecError, r"weight \(3,\) has a gradient \(2,\)",
    ),
    "a list for an array": (
        lambda b: b.asarray([1.0]), TypeError, "asarray takes a numpy.ndarray, not builtins.list",
    ),
    "images for an array": (
        lambda b: b.to_numpy(images(b, *X)), TypeError, "array is .*Batch; .*backend takes",
    ),
    "storage in 8 bits": (
        lambda b: EmulatedBackend("float8"), SpecError, "storage='float8' is unknown",
    ),
    "a copy of the backend": (copy, TypeError, "cannot be copied or pickled"),
    "float64 bias": (
        lambda b: b.linear(ones(2, 6), ones(3, 6), ones(3, dtype="f8")),
        TypeError, "bias is float64; float32 is needed",
    ),
    "float64 logits' gradient": (
        lambda b: b.linear_backward(
            ones(2, 3, dtype="f8"), b.linear(ones(2, 6), ones(3, 6), ones(3))[1]
        ),
        TypeError, "dy is float64; float32 is needed",
    ),
    "a gradient of more logits": (
        lambda b: b.linear_backward(ones(2, 4), b.linear(ones(2, 6), ones(3, 6), ones(3))[1]),
        SpecError, r"dy has shape \(2, 4\); \(2, 3\) is needed",
    ),
    "the gradient of another ReLU": (
        lambda b: b.relu_backward(images(b, *X), images(b, 1, 6, 5, 4)),
        SpecError, r"dy has shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_does_not_fit_is_refused_by_name(backend, call, error, message):
    with pytest.raises(error, match=message):
        call(backend)


SAVED = {  # id: backward pass of float32 images with a float64 gradient
    "a block": lambda b, x, d: b.igc_backward(d, b.igc(x, ones(6, 3, 3, 3), ones(6, 2), SPEC)[1]),
    "a convolution": lambda b, x, d: b.conv2d_backward(d, b.conv2d(x, ones(6, 6, 3, 3))[1]),
    "batch norm": lambda b, x, d: b.batch_norm_backward(d, batch_norm(b, x, ones(6), ones(6))[1]),
    "ReLU": lambda b, x, d: b.relu_backward(d, x),
}


@pytest.mark.parametrize("backward", SAVED.values(), ids=list(SAVED))
def test_a_float64_gradient_never_reaches_a_kernel_for_float32(backend, backward):
    with pytest.raises(TypeError, match=r"float64; float32 is needed"):
        backward(backend, images(backend, *X), images(backend, *X, dtype="float64"))


STRIDED = {  # a kernel gets an address: it would read what lies between
    "bias": lambda b, v: b.linear(ones(2, 3), ones(6, 3), v)[0],
    "weights": lambda b, v: b.linear(ones(2, 6), v[None] * ones(1, 1), ones(1))[0],
}


@pytest.mark.parametrize("call", STRIDED.values(), ids=list(STRIDED))
def test_strided_parameters_count_as_their_numbers(backend, call):
    values = np.arange(12, dtype="float32")
    assert np.array_equal(call(backend, values[::2]), call(backend, values[::2].copy()))


STEP = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


@pytest.mark.parametrize("odd", ["weight", "gradient", "velocity", "strided"])
def test_parameters_that_the_kernel_does_not_take_make_the_generic_step(backend, odd):
    def parameters():
        rng = np.random.default_rng(0)
        groups = [{n: rng.normal(size=6) for n in "ab"} for _ in range(3)]
        for name, group in zip(("weight", "gradient", "velocity"), groups, strict=True):
            group["b"] = group["b"].astype("float64" if name == odd else "float32")
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
