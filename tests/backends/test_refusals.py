"""What must never reach a kernel is refused by name, on the numba backend and the emulated one."""

from copy import deepcopy

import numpy as np
import pytest

from igc_ref import IGCSpec
from igc_ref.errors import SpecError
from tests.backends.cuda.emulator.backend import EmulatedBackend
from tests.support.guarded import GuardedBackend, internal
from tests.support.subjects import MISSING, fresh_backend

SPEC = IGCSpec.square(2, 3)


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


X, TURNED = ones(2, 6, 5, 4), ones(2, 6, 4, 5)
PRIMARY, SECONDARY, LINEAR = ones(6, 3, 3, 3), ones(6, 2), (ones(2, 6), ones(3, 6), ones(3))
NORM = ("gamma", "beta", "running_mean", "running_var")


def on(operator, *arguments, x=X, **options):
    """Call an operator on the batch x."""
    return lambda b: getattr(b, operator)(internal(b, x), *arguments, **options)


def norm(**changes):
    arrays = dict.fromkeys(NORM, ones(6)) | changes
    return on("batch_norm", *arrays.values(), momentum=0.9, eps=1e-5, train=True)


def plain(operator, *arguments, **options):
    """Call an operator on arrays."""
    return lambda b: getattr(b, operator)(*arguments, **options)


def of_convolutions():
    """Name, error, message and call."""
    for message, shape, options in (
        (r"weight has shape \(4, 6, 3, 2\)", (4, 6, 3, 2), {}),
        (r"x has 6 channels and weight shape .*: not 2 groups", (5, 3, 3, 3), {"groups": 2}),
        ("groups=0 is not an integer of at least 1", (4, 6, 3, 3), {"groups": 0}),
        ("stride=0 is not", (4, 6, 3, 3), {"stride": 0}),
        (r"stride=2\.0 is not", (4, 6, 3, 3), {"stride": 2.0}),
    ):
        yield SpecError, message, on("conv2d", ones(*shape), **options)
    yield TypeError, "(weight|primary) is float64", on("conv2d", ones(4, 6, 3, 3, dtype="f8"))
    wrong, double = ones(6, 3, 3, 2), SECONDARY.astype("f8")
    yield SpecError, r"primary weights have .*3, 3, 2\)", on("igc", wrong, SECONDARY, SPEC)
    yield TypeError, "secondary is float64", on("igc", PRIMARY, double, SPEC)


def of_batches():
    yield TypeError, "takes what its to_layout returns", plain("shuffle", X, 1)
    for name in NORM:
        yield SpecError, rf"{name} has shape \(5,\)", norm(**{name: ones(5)})
        yield TypeError, f"{name} is int64", norm(**{name: ones(6, dtype=int)})
    for error, message, other in (
        (SpecError, r"b has shape \(6, 1, 5, 4\)", X[:1]),
        (TypeError, "b is float64", X.astype("f8")),
    ):
        yield error, message, lambda b, other=other: b.add(internal(b, X), internal(b, other))
    yield TypeError, " is numpy.ndarray; the .* backend", on("add_relu", X)
    pooled = plain("global_average_pool_backward", SECONDARY, (6, 2, 5, 4))
    yield SpecError, r"\(6, 2\); \(2, 6\) is needed", pooled


def of_numba():
    for error, message, images in (
        (TypeError, "int64", ones(1, 1, 1, 1, dtype=int)),
        (TypeError, "float16", ones(1, 1, 1, 1, dtype="f2")),
        (SpecError, "each at least 1", X[:0]),
        (SpecError, r"allowed is \(N, C, H, W\)", SECONDARY),
    ):
        yield error, message, on("shuffle", 1, x=images)
    yield SpecError, "padding=3 is more than half", on("max_pool", 3, 1, 3)
    yield SpecError, "kernel_size=0", on("max_pool", 0, 1, 0)
    yield SpecError, "too large for images of 5x4", on("max_pool", 7, 1, 0)
    yield TypeError, "cannot be copied", lambda b: deepcopy(internal(b, X))


def of_cupy():
    empty = ones(1, 6, 0, 4)
    yield SpecError, "too large for images of 0x4", on("conv2d", ones(4, 6, 3, 3), x=empty)
    # The running statistics are written in place: no copy can stand for an array with gaps.
    yield SpecError, "gamma has shape .*contiguous", norm(gamma=ones(12)[::2])
    x, weight, bias = LINEAR
    yield SpecError, r"\(2, 6\), weight \(3, 5\) and bias", plain("linear", x, ones(3, 5), bias)
    yield TypeError, "bias is float64", plain("linear", x, weight, bias.astype("f8"))
    for error, message, dy in (
        (SpecError, r"dy has shape \(2, 4\); \(2, 3\) is needed", ones(2, 4)),
        (TypeError, "dy is float64; float32 is needed", ones(2, 3, dtype="f8")),
    ):
        yield error, message, lambda b, dy=dy: b.linear_backward(dy, b.linear(*LINEAR)[1])
    logits = ones(2, 3)
    yield SpecError, r"labels .*\(3,\); \(2,\) is needed", plain("loss", logits, np.zeros(3, int))
    yield TypeError, "labels are float32; integers are", plain("loss", logits, ones(2))
    step = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    step = plain("sgd_step", ones(3), ones(2), ones(3), **step)
    yield SpecError, r"weight \(3,\) has a gradient \(2,\)", step
    yield TypeError, "takes a numpy.ndarray, not builtins.list", plain("asarray", [1.0])
    yield TypeError, "array is .*Batch; .*backend takes", lambda b: b.to_numpy(internal(b, X))
    yield SpecError, "storage='float8' is unknown", lambda _: EmulatedBackend("float8")


SHARED = [*of_convolutions(), *of_batches()]
CASES = [(name, *case) for name in ("numba", "emulated") for case in SHARED]
CASES += [("numba", *case) for case in of_numba()] + [("emulated", *case) for case in of_cupy()]


def backend_for(name):
    if MISSING[name]:
        pytest.skip(MISSING[name])
    return GuardedBackend() if name == "emulated" else fresh_backend(name)


@pytest.mark.parametrize(
    ("name", "error", "message", "call"), CASES, ids=[f"{n}: {m}" for n, _, m, _ in CASES]
)
def test_what_a_kernel_must_not_see_is_refused(name, error, message, call):
    backend = backend_for(name)
    with pytest.raises(error, match=message):
        call(backend)


FORWARD = {
    "conv2d": on("conv2d", ones(6, 6, 3, 3)),
    "igc": on("igc", PRIMARY, SECONDARY, SPEC),
    "batch_norm": norm(),
    "relu": lambda b: (None, internal(b, X)),
    "max_pool": on("max_pool", 3, 1, 1),
}


DERIVATIVES = [("emulated", operator) for operator in FORWARD if operator != "max_pool"]
DERIVATIVES += [("numba", operator) for operator in FORWARD]


@pytest.mark.parametrize(("name", "operator"), DERIVATIVES)
def test_a_gradient_of_another_shape_or_dtype_is_refused(name, operator):
    backend = backend_for(name)
    derivative, (_, saved) = getattr(backend, f"{operator}_backward"), FORWARD[operator](backend)
    with pytest.raises(SpecError, match=r"has shape \(6, 2, 4, 5\)"):
        derivative(internal(backend, TURNED), saved)
    with pytest.raises(TypeError, match="float64; float32 is needed"):
        derivative(internal(backend, X.astype("f8")), saved)
