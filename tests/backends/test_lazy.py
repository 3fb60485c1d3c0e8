"""Operators on what is pending, with their kernels and without: both are the generic operator."""

import warnings

import numpy as np
import pytest

from igc_ref import IGCSpec
from igc_ref.backends import NumpyBackend, numba_problem
from igc_ref.backends.operators.lazy import LazyBackend
from igc_ref.testing import assert_close
from tests.backends.cuda.emulator.backend import EmulatedBackend
from tests.support.strategies import normal
from tests.support.subjects import fresh_backend

pytestmark = pytest.mark.skipif(bool(numba_problem()), reason=str(numba_problem()))

SHAPE = (5, 4, 6, 7)
NORM = {"momentum": 0.75, "eps": 1e-3}
SPEC = IGCSpec(4, 6, 2, 3, stride=2)


def norm_arrays(C, seed=0):
    rng = np.random.default_rng(seed)
    return *rng.normal(size=(3, C)), rng.uniform(0.5, 2, C)


def pending(backend, kind, relu, train):
    """A batch with a rule or a derivative pending."""
    rng = np.random.default_rng(0)
    x, d = (backend.to_layout(normal(rng, SHAPE)) for _ in range(2))
    y, saved = backend.batch_norm(x, *norm_arrays(4), **NORM, train=train, relu=relu)
    return y if kind == "rule" else backend.batch_norm_backward(d, saved)[0]


# Forward operators by name, with what they get beside the batch.
rng = np.random.default_rng(1)
OPERATORS = {
    "batch_norm": (*norm_arrays(4, 1),),
    "group_norm": (*norm_arrays(4, 1)[:2], 2),
    "shuffle": (2,),
    "scale_channels": (normal(rng, (5, 2)),),
    "global_average_pool": (),
    "max_pool": (3, 2, 1),
    "average_pool": ((2, 3),),
    "conv2d": (normal(rng, (6, 2, 3, 3)), 2, 2),
    "igc": (normal(rng, SPEC.primary_shape), normal(rng, SPEC.secondary_shape), SPEC),
}


def arrays(backend, results):
    """What an operator returned, as public arrays."""
    results = results if isinstance(results, tuple) else (results,)
    return [r if isinstance(r, np.ndarray) else backend.from_layout(r) for r in results]


@pytest.mark.parametrize(("relu", "train"), [(True, True), (False, False)], ids=["relu", "eval"])
@pytest.mark.parametrize("kind", ["rule", "derivative"])
@pytest.mark.parametrize("name", [*OPERATORS, "add", "add_relu"])
@pytest.mark.filterwarnings("ignore:.* has no kernel")
def test_with_and_without_a_kernel_an_operator_reads_what_is_pending(name, kind, relu, train):
    B = fresh_backend("numba")
    x, options = pending(B, kind, relu, train), {"eps": 1e-5} if "norm" in name else {}
    options |= NORM | {"train": True} if "batch" in name else {}
    others = OPERATORS.get(name, (pending(B, "rule", True, True),))
    assert x.pending is not None

    def run(backend):
        copies = [a.copy() if isinstance(a, np.ndarray) else a for a in others]
        results = getattr(backend, name)(B, x, *copies, **options)
        if name == "add":
            return arrays(B, results)
        y, saved = results
        # The gradient comes with something pending, too.
        (y_out,) = arrays(B, y)
        if y_out.ndim == 2:
            dy = normal(np.random.default_rng(2), y_out.shape)
        else:
            d = B.to_layout(normal(np.random.default_rng(2), y_out.shape))
            _, again = B.batch_norm(d, *norm_arrays(d.shape[0], 2), **NORM, train=True, relu=True)
            dy = B.batch_norm_backward(d, again)[0]
        backward = getattr(backend, f"{name.replace('add_', '')}_backward")
        return [y_out, *arrays(B, backward(B, dy, saved))]

    with_kernel, without = run(type(B)), run(LazyBackend)
    assert len(with_kernel) == len(without)
    for one, two in zip(with_kernel, without, strict=True):
        assert_close(1 + one, 1 + two, 5000)


@pytest.mark.parametrize("operator", ["conv2d", "igc"])
@pytest.mark.parametrize("backend", ["numba", "emulated"])
def test_sums_serve_only_the_batch_norm_they_were_taken_for(backend, operator):
    """Gradients that pass a second batch norm, of other images, need sums of its own."""
    B, rng = fresh_backend(backend), np.random.default_rng(0)
    shapes = SHAPE, (4, 2, 3, 3), (4, 2)
    x, primary, secondary = (normal(rng, shape, "float32") for shape in shapes)
    layer = {"conv2d": (primary, 2), "igc": (primary, secondary, IGCSpec.square(2, 2))}[operator]

    def norm(images):
        lines = (line.astype("float32") for line in norm_arrays(4))
        return B.batch_norm(B.to_layout(images), *lines, **NORM, train=True, relu=True)

    (z, _), (_, other) = norm(x), norm(-x)
    _, saved = getattr(B, operator)(z, *layer)
    dz, *_ = getattr(B, f"{operator}_backward")(B.to_layout(x), saved)
    assert dz.sums is not None
    expected = B.batch_norm_backward(B.to_layout(B.from_layout(dz)), other)
    for one, two in zip(B.batch_norm_backward(dz, other)[1:], expected[1:], strict=True):
        assert_close(one, two, x.size)


def test_a_generic_operator_is_announced_once_with_its_name_and_numbers():
    B = fresh_backend("numba")
    x = B.to_layout(np.ones((1, 2, 4, 4)))
    with pytest.warns(UserWarning, match=r"max_pool\(2, 2, 0\) of float64 has no kernel in the"):
        LazyBackend.max_pool(B, x, 2, 2, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LazyBackend.max_pool(B, x, 2, 2, 0)
        B.max_pool(x, 2, 2, 0)
    assert B.generic == "max_pool(2, 2, 0) of float64 has no kernel in the numba backend"


def test_a_plain_array_where_a_batch_belongs_is_refused_also_without_a_kernel():
    with pytest.raises(TypeError, match=r"x is numpy\.ndarray; the numba backend takes what its"):
        LazyBackend.shuffle(fresh_backend("numba"), np.ones(SHAPE), 2)


def test_without_a_kernel_float16_storage_scales_the_gradients_of_a_batch_only():
    B, rng = EmulatedBackend("float16"), np.random.default_rng(0)
    x, w, d = (rng.integers(-3, 4, s).astype("float32") for s in (SHAPE, (4, 4, 3, 3), SHAPE))
    y, saved = LazyBackend.conv2d(B, B.to_layout(x), w)
    dx, dw = LazyBackend.conv2d_backward(B, B.to_layout(d / 2 * B.scale / 4096), saved)
    assert y.data.dtype == dx.data.dtype == np.float16
    N = NumpyBackend()
    expected, saved = N.conv2d(N.to_layout(x), w)
    dx_exact, dw_exact = N.conv2d_backward(N.to_layout(d / 2 / 4096), saved)
    assert np.array_equal(B.from_layout(y), N.from_layout(expected))
    assert np.array_equal(B.from_layout(dx, gradient=True), N.from_layout(dx_exact))
    assert np.array_equal(dw, dw_exact)
