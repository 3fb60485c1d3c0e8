"""What no operator may compute with is refused by name, in the same words on every backend."""

from copy import deepcopy

import numpy as np
import pytest

from igc_ref import IGCSpec
from igc_ref.backends.cupy.steps import CapturedSteps
from igc_ref.backends.operators.library import Crops, Sampling, TrainingData
from igc_ref.errors import SpecError
from tests.backends.cuda.emulator.backend import EmulatedBackend
from tests.support.guarded import GuardedBackend, internal
from tests.support.subjects import MISSING, fresh_backend

SPEC = IGCSpec.square(2, 3)


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


X, TURNED = ones(2, 6, 5, 4), ones(2, 6, 4, 5)
PRIMARY, SECONDARY, LINEAR = ones(6, 3, 3, 3), ones(6, 2), (ones(2, 6), ones(3, 6), ones(3))
MASKED = np.ma.array(PRIMARY)
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


def gradient(dy, forward, *arguments):
    """Call an operator on arrays, and its derivative on dy."""
    return lambda b: getattr(b, f"{forward}_backward")(dy, getattr(b, forward)(*arguments)[1])


def of_convolutions():
    """Error, message and call."""
    for message, shape, options in (
        (r"weight has shape \(4, 6, 3\); \(out, in/groups, kh, kw\), each", (4, 6, 3), {}),
        (r"weight has shape \(4, 3, 3, 3\); \(out, 6, kh, kw\), each", (4, 3, 3, 3), {}),
        ("out_channels=5 is not divisible by groups=2", (5, 3, 3, 3), {"groups": 2}),
        ("in_channels=6 is not divisible by groups=4", (4, 3, 3, 3), {"groups": 4}),
        ("groups=0 is not an integer of at least 1", (4, 6, 3, 3), {"groups": 0}),
        ("stride=0 is not", (4, 6, 3, 3), {"stride": 0}),
        ("stride=-1 is not", (4, 6, 3, 3), {"stride": -1}),
        (r"stride=2\.0 is not", (4, 6, 3, 3), {"stride": 2.0}),
    ):
        yield SpecError, message, on("conv2d", ones(*shape), **options)
    yield TypeError, "weight is float64; float32 is", on("conv2d", ones(4, 6, 3, 3, dtype="f8"))
    wrong, double = ones(6, 3, 3, 2), SECONDARY.astype("f8")
    yield SpecError, r"primary .*3, 3, 2\); \(6, 3, 3, 3\) is", on("igc", wrong, SECONDARY, SPEC)
    yield TypeError, "secondary is float64; float32 is", on("igc", PRIMARY, double, SPEC)
    yield TypeError, "primary is numpy.ma.* backend", on("igc", MASKED, SECONDARY, SPEC)
    yield TypeError, "spec is .*NoneType; IGCSpec is", on("igc", PRIMARY, SECONDARY, None)
    narrow = on("igc", PRIMARY, SECONDARY, SPEC, x=ones(1, 5, 4, 4))
    yield SpecError, r"x has shape \(5, 1, 4, 4\); \(6, N, H, W\)", narrow


def of_batches():
    for operator, *arguments in (
        ("conv2d", PRIMARY), ("igc", PRIMARY, SECONDARY, SPEC), ("shuffle", 2),
        ("batch_norm", *[ones(6)] * 4), ("group_norm", ones(6), ones(6), 2),
        ("global_average_pool",), ("max_pool", 3, 1, 1), ("from_layout",),
    ):  # fmt: skip
        options = {"momentum": 0.9, "eps": 1e-5, "train": True} if "batch" in operator else {}
        options |= {"eps": 1e-5} if "group" in operator else {}
        refused = plain(operator, [1.0], *arguments, **options)
        yield TypeError, r"x is builtins\.list; the .* backend takes", refused
    for name in NORM:
        yield SpecError, rf"{name} has shape \(5,\); \(6,\) is", norm(**{name: ones(5)})
        yield TypeError, f"{name} is int64; float32 is", norm(**{name: ones(6, dtype=int)})
    for operator in ("add", "add_relu"):
        yield TypeError, r"a is builtins\.list", plain(operator, [1.0], [1.0])
        for error, message, other in (
            (SpecError, r"b has shape \(6, 1, 5, 4\); \(6, 2, 5, 4\) is needed", X[:1]),
            (TypeError, "b is float64; float32 is needed", X.astype("f8")),
        ):
            yield (error, message, lambda b, operator=operator, other=other:
                   getattr(b, operator)(internal(b, X), internal(b, other)))  # fmt: skip
    yield TypeError, "y is builtins.list", on("relu_backward", [1.0])
    yield SpecError, "channels=6 is not divisible by groups=4", on("shuffle", 4)
    yield SpecError, "padding=3 is more than half", on("max_pool", 3, 1, 3)
    yield SpecError, "kernel_size=0", on("max_pool", 0, 1, 0)
    yield SpecError, "stride=0", on("max_pool", 3, 0, 1)
    yield SpecError, "too large for images of 5x4", on("max_pool", 7, 1, 0)
    yield SpecError, "kernel_size=5 is too large; at most 4 is", on("average_pool", 5)
    yield SpecError, r"kernel_size\[1\]=0 is not", on("average_pool", (1, 0))
    yield SpecError, r"kernel_size=\(2,\) is not an integer or a pair", on("average_pool", (2,))
    yield TypeError, r"sizes is builtins.int; Sequence is needed", on("split", 6)
    pooled = plain("global_average_pool_backward", SECONDARY, (6, 2, 5, 4))
    yield SpecError, r"the gradient .*\(6, 2\); \(2, 6\) is needed", pooled


def of_images():
    for error, message, images in (
        (TypeError, "images is int64; float32 or float64 is", ones(1, 1, 1, 1, dtype=int)),
        (TypeError, "images is float16", ones(1, 1, 1, 1, dtype="f2")),
        (TypeError, "images is numpy.ma", np.ma.ones((1, 1, 1, 1), "f4")),
        (SpecError, r"images .*; \(N, C, H, W\), each at least 1, is", X[:0]),
        (SpecError, r"images has shape \(6, 2\); \(N, C, H, W\)", SECONDARY),
    ):
        yield error, message, plain("to_layout", images)
    line = (0.5,) * 6
    yield SpecError, "mean=.* are not of 6 channels", plain("normalise", X, line[:1], line, "f4")
    yield TypeError, "images is bool; uint8 or", plain("normalise", X > 0, line, line, "f4")
    corner, mirror = np.zeros(2, int), np.zeros(2, bool)
    for error, message, arrays in (
        (SpecError, r"top has shape \(3,\); \(2,\) is", (np.zeros(3, int), corner, mirror)),
        (TypeError, "left is float32; int64 or", (corner, ones(2), mirror)),
        (TypeError, "mirror is int64; bool is", (corner, corner, corner)),
    ):
        yield error, message, plain("pad_crop_mirror", X, *arrays)
    for padding in (-1, 1.5):
        wrong = plain("pad_crop_mirror", X, corner, corner, mirror, padding)
        yield SpecError, f"padding={padding} is not an integer of at least 0", wrong
    for top, message in (([0, 9], "top have 9; 0 to 8 are"), ([-1, 0], "top have -1; 0 to 8")):
        yield SpecError, message, plain("pad_crop_mirror", X, np.array(top), corner, mirror)


def of_learning():
    x, weight, bias = LINEAR
    four = on("group_norm", ones(6), ones(6), 4, eps=1e-5)
    yield SpecError, "channels=6 is not divisible by groups=4", four
    five = on("group_norm", ones(6), ones(5), 2, eps=1e-5)
    yield SpecError, r"beta has shape \(5,\); \(6,\) is needed", five
    yield SpecError, r"weight .*\(3, 5\); \(out, 6\)", plain("linear", x, ones(3, 5), bias)
    yield SpecError, r"bias has shape \(2,\); \(3,\)", plain("linear", x, weight, ones(2))
    yield TypeError, "bias is float64", plain("linear", x, weight, bias.astype("f8"))
    yield TypeError, r"weight is builtins\.list", plain("linear", x, weight.tolist(), bias)
    for error, message, dy in (
        (SpecError, r"the gradient has shape \(2, 4\); \(2, 3\) is needed", ones(2, 4)),
        (SpecError, r"the gradient has shape \(3, 2\); \(2, 3\) is needed", ones(3, 2)),
        (TypeError, "the gradient is float64; float32 is needed", ones(2, 3, dtype="f8")),
    ):
        yield error, message, gradient(dy, "linear", *LINEAR)
    logits = ones(2, 3)
    yield SpecError, r"labels .*\(3,\); \(2,\) is needed", plain("loss", logits, np.zeros(3, int))
    yield TypeError, "labels is float32; int64 or", plain("loss", logits, ones(2))
    for number in (-0.1, 1.0, float("nan")):
        yield SpecError, f"smoothing={number} is", plain("loss", logits, np.array([0, 1]), number)
    for message, teacher, *numbers in (
        ("temperature=0, alpha=0.5 is not allowed", logits, 0, 0.5),
        ("alpha=1.5 is not allowed: temp", logits, 1, 1.5),
        (r"teacher has shape \(2, 4\); \(2, 3\)", ones(2, 4), 1, 0.5),
    ):
        arguments = logits, np.array([0, 1]), teacher, *numbers
        yield SpecError, message, plain("distillation_loss", *arguments)
    for labels, message in (([0, -1], "-1; 0 to 2 are"), ([3, 0], "3; 0 to 2 are")):
        logits64 = ones(2, 3, dtype="f8")  # in float32 cupy's kernel makes the loss NaN
        yield SpecError, f"labels have {message}", plain("loss", logits64, np.array(labels))
    yield SpecError, r"logits .*\(N, classes\)", plain("loss", ones(2), np.zeros(2, int))
    yield TypeError, "logits is int64; float32", plain("loss", np.eye(2, dtype=int), np.eye(2)[0])
    for error, message, arrays in (
        (SpecError, r"gradient has shape \(2,\); \(3,\) is needed", (ones(2), ones(3))),
        (SpecError, r"velocity has shape \(1,\); \(3,\) is needed", (ones(3), ones(1))),
        (TypeError, "gradient is float64; float32 is needed", (ones(3, dtype="f8"), ones(3))),
    ):
        step = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
        yield error, message, plain("sgd_step", ones(3), *arrays, **step)
    yield TypeError, "weight is .*NoneType", plain("sgd_step", None, ones(3), ones(3), **step)
    yield TypeError, "takes a numpy.ndarray, not builtins.list", plain("asarray", [1.0])
    yield TypeError, "takes a numpy.ndarray, not numpy.ma", plain("asarray", MASKED)


def of_lazy():
    yield TypeError, "x is numpy.ndarray; .* takes what its to_layout", plain("shuffle", X, 1)
    yield TypeError, "a is numpy.ndarray; .* takes what its to_layout", plain("add_relu", X, X)
    yield TypeError, "cannot be copied", lambda b: deepcopy(internal(b, X))


def steps(order=(0, 1), top=(0, 0), padding=4, first=0):
    """Begin an epoch of two images on a device."""
    pool = TrainingData(ones(2, 3, 4, 4, dtype="u1"), np.zeros(2, int), (1, 1, 1), (1, 1, 1))
    crops = Crops(np.array(top), np.zeros(2, int), np.zeros(2, bool))
    sampling = Sampling(np.array(order), crops)
    return lambda b: CapturedSteps(b, None, pool, 1, padding, report=print).begin(
        sampling, np.ones(2), first
    )


def of_cupy():
    yield SpecError, "order have 2; 0 to 1 are allowed", steps(order=(0, 2))
    yield SpecError, "top have -1; 0 to 8 are allowed", steps(top=(0, -1))
    yield SpecError, "padding=128 is too large; at most 127", steps(padding=64)
    yield SpecError, "first=3 is too large; at most 2", steps(first=3)
    # The running statistics are written in place: no copy can stand for an array with gaps.
    yield SpecError, "gamma has gaps; a contiguous", norm(gamma=ones(12)[::2])
    yield TypeError, "array is .*Batch; .*backend takes", lambda b: b.to_numpy(internal(b, X))
    yield SpecError, "storage='float8' is unknown", lambda _: EmulatedBackend("float8")


SHARED = [*of_convolutions(), *of_batches(), *of_images(), *of_learning()]
CASES = [(name, *case) for name in MISSING for case in SHARED]
CASES += [(name, *case) for name in ("numba", "emulated") for case in of_lazy()]
CASES += [("emulated", *case) for case in of_cupy()]


def backend_for(name):
    if MISSING[name]:
        pytest.skip(MISSING[name])
    return GuardedBackend() if name == "emulated" else fresh_backend(name)


IDS = [f"{name} {number}: {case[1]}" for number, (name, *case) in enumerate(CASES)]


@pytest.mark.parametrize(("name", "error", "message", "call"), CASES, ids=IDS)
def test_what_an_operator_must_not_see_is_refused(name, error, message, call):
    backend = backend_for(name)
    with pytest.raises(error, match=message):
        call(backend)


FORWARD = {
    "conv2d": on("conv2d", ones(6, 6, 3, 3)),
    "igc": on("igc", PRIMARY, SECONDARY, SPEC),
    "batch_norm": norm(),
    "relu": lambda b: (None, internal(b, X)),
    "group_norm": on("group_norm", ones(6), ones(6), 2, eps=1e-5),
    "shuffle": on("shuffle", 2),
    "max_pool": on("max_pool", 3, 1, 1),
}


@pytest.mark.parametrize("operator", FORWARD)
@pytest.mark.parametrize("name", MISSING)
def test_a_gradient_of_another_shape_or_dtype_is_refused(name, operator):
    backend = backend_for(name)
    derivative, (_, saved) = getattr(backend, f"{operator}_backward"), FORWARD[operator](backend)
    for wrong in (TURNED, X[:, :, :, ::-1].reshape(5, 6, 2, 4)):  # as many numbers
        with pytest.raises(SpecError, match=r"the gradient .*; \(6, 2, 5, 4\) is needed"):
            derivative(internal(backend, wrong), saved)
    with pytest.raises(TypeError, match="the gradient is float64; float32 is needed"):
        derivative(internal(backend, X.astype("f8")), saved)
    with pytest.raises(TypeError, match=r"the gradient is builtins\.list"):
        derivative([1.0], saved)
