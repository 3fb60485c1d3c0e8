"""Layers against matrices and loops: values, gradients, shapes, costs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igc_ref import reference
from igc_ref.backends import get_backend
from igc_ref.data import Dataset
from igc_ref.networks import (
    IGC,
    IGCV2,
    IGCV3,
    BatchNorm,
    Conv2d,
    GlobalAveragePool,
    Linear,
    MaxPool,
    MixedIGC,
    Shuffle,
    SummationFusion,
)
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.layer import Residual, Sequential
from igc_ref.networks.model import Model
from igc_ref.reference import products
from igc_ref.spec import IGCSpec, IGCV2Spec, IGCV3Spec, MixedSpec
from igc_ref.testing import assert_close
from igc_ref.training.loop import Sampling, steps_of
from igc_ref.training.optim import SGD
from tests.backends.cuda import emulator
from tests.support import oracles
from tests.support.guarded import internal, public
from tests.support.strategies import igcv2_specs, igcv3_specs, normal, pictures, seeds, specs

EPS = 2e-5  # of batch norm


def made(layer, backend, spec, seed, dtype="float64"):
    return layer(backend, spec, rng=np.random.default_rng(seed), dtype=dtype)


def convolutions(layer):
    return [part for _, part in layer.named_layers() if isinstance(part, Conv2d)]


def weights_of(layer):
    return [c.backend.to_numpy(c.parameters["weight"]) for c in convolutions(layer)]


def gradients_of(layer):
    return [c.backend.to_numpy(c.gradients["weight"]) for c in convolutions(layer)]


# -- blocks ----------------------------------------------------------------------------------


@given(spec=specs(), data=st.data(), seed=seeds)
def test_a_summation_fusion_layer_is_an_igc_of_ones_that_are_not_trained(backend, spec, data, seed):
    rng, layer = np.random.default_rng(seed), made(SummationFusion, backend, spec, seed)
    primary = backend.to_numpy(layer.parameters["primary"])
    weights = primary, np.ones(spec.secondary_shape), spec
    x = normal(rng, data.draw(pictures(spec)))
    expected = reference.forward(x, *weights)
    d = normal(rng, expected.shape)
    assert_close(public(backend, layer.forward(internal(backend, x))), expected, spec.parameters)
    dx = public(backend, layer.backward(internal(backend, d)))
    exact = reference.backward(d, x, *weights)
    assert_close(dx, exact.x, spec.parameters)
    dprimary = backend.to_numpy(layer.gradients["primary"])
    assert_close(1 + dprimary, 1 + exact.primary, spec.parameters * d.size)  # a sum may cancel
    assert layer.gradients.keys() == layer.parameters.keys() == {"primary"}


@given(spec=igcv2_specs(), data=st.data(), seed=seeds)
def test_an_igcv2_layer_and_its_gradients_are_the_product_of_its_matrices(
    backend, spec, data, seed
):
    rng, layer = np.random.default_rng(seed), made(IGCV2, backend, spec, seed)
    x, weights = normal(rng, data.draw(pictures(spec))), weights_of(layer)
    expected = products.forward(x, weights, spec)
    d = normal(rng, expected.shape)
    assert_close(public(backend, layer.forward(internal(backend, x))), expected, spec.parameters)
    dx = public(backend, layer.backward(internal(backend, d)))
    exact = products.backward(d, x, weights, spec)
    assert_close(dx, exact.x, spec.parameters)
    for actual, exactly in zip(gradients_of(layer), exact.weights, strict=True):
        assert_close(1 + actual, 1 + exactly, spec.parameters * d.size)  # a sum may cancel


@given(spec=igcv3_specs(), data=st.data(), seed=seeds)
def test_an_igcv3_layer_without_its_norms_is_the_product_of_its_matrices_plus_x(
    backend, spec, data, seed
):
    """Norms that change nothing but open all ReLUs: what is left is an affine map."""
    rng, layer = np.random.default_rng(seed), made(IGCV3, backend, spec, seed)
    shift = np.full(spec.hidden, 1e3)
    for name, norm in layer.children.items():
        if isinstance(norm, BatchNorm):
            norm.buffers["running_var"][...] = 1 - EPS
            if name == "depthwise_bn":
                norm.parameters["beta"][...] = backend.asarray(shift)
    x, weights = normal(rng, data.draw(pictures(spec))), weights_of(layer)
    expected = products.forward(x, weights, spec)
    constant = 1e3 * weights[2].sum(axis=(1, 2, 3))[None]
    constant = oracles.shuffle(constant, spec.factors[2].deal)
    d = normal(rng, expected.shape)
    y = public(backend, layer.forward(internal(backend, x)))
    shortcut = (x, d) if spec.is_residual else (0, 0)
    assert_close(y, expected + constant[0, :, None, None] + shortcut[0], spec.parameters)
    dx = public(backend, layer.backward(internal(backend, d)))
    exact = products.backward(d, x, weights, spec)
    assert_close(dx, exact.x + shortcut[1], spec.parameters)
    for i in (0, 1):  # the last weight's gradient sees the shift
        assert_close(1 + gradients_of(layer)[i], 1 + exact.weights[i], spec.parameters * d.size)


def normalised(z, norm, train):
    """Batch norm by its definition, and the running statistics after it."""
    g, b = (norm.parameters[name] for name in ("gamma", "beta"))
    m, v = (norm.buffers[name].copy() for name in ("running_mean", "running_var"))
    running = m, v
    if train:
        m, v = z.mean(axis=(0, 2, 3)), z.var(axis=(0, 2, 3))
        past = norm.momentum
        running = tuple(
            past * old + (1 - past) * new for old, new in zip(running, (m, v), strict=True)
        )
    g, b, m, v = (array[:, None, None] for array in (g, b, m, v))
    return g * (z - m) / np.sqrt(v + EPS) + b, running


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    "spec",
    [IGCV3Spec(4, 4, 3), IGCV3Spec(6, 8, 2, (3, 2), stride=2), IGCV3Spec(4, 4, 3, kernel_size=2)],
    ids=str,
)
def test_an_igcv3_layer_is_expand_shuffle_depthwise_relu_project_shuffle(spec, train):
    backend, rng = get_backend("numpy"), np.random.default_rng(3)
    layer = made(IGCV3, backend, spec, 1)
    for part in layer.children.values():
        if isinstance(part, BatchNorm):
            for array in (*part.parameters.values(), *part.buffers.values()):
                array[...] = rng.uniform(0.5, 1.5, array.shape)
    w1, w2, w3 = weights_of(layer)
    x, norms = rng.normal(size=(3, spec.in_channels, 7, 6)), dict(layer.children)
    z, expand = normalised(oracles.convolve(x, w1, 1, spec.groups[0]), norms["expand_bn"], train)
    z = oracles.convolve(oracles.shuffle(z, spec.groups[0]), w2, spec.stride, spec.hidden)
    z, depthwise = normalised(z, norms["depthwise_bn"], train)
    z = oracles.convolve(np.maximum(z, 0), w3, 1, spec.groups[1])
    z, project = normalised(z, norms["project_bn"], train)
    z = oracles.shuffle(z, spec.out_channels // spec.groups[1])
    residual = spec.stride == 1 and spec.kernel_size == 3
    assert (z.shape == x.shape) == residual
    actual = public(backend, layer.forward(internal(backend, x), train))
    assert_close(actual, z + x if residual else z, 1000)
    for name, running in zip(
        ("expand_bn", "depthwise_bn", "project_bn"), (expand, depthwise, project), strict=True
    ):
        for buffer, value in zip(norms[name].buffers.values(), running, strict=True):
            assert_close(buffer, value, 1000)


# -- what a layer says about itself ----------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "spec", "words"),
    [
        (IGC, IGCSpec(4, 8, 2, 4, stride=2), "igc 3x3 /2 4-8 L2 M4"),
        (MixedIGC, MixedSpec(6, 12, 3, 4, (5, 3), stride=2), "igc 5x5+3x3 /2 6-12 L3 M4"),
        (IGCV2, IGCV2Spec(8, 16, (2, 4, 2), stride=2), "igcv2 3x3 /2 8-16 K2x4x2"),
        (IGCV2, IGCV2Spec(6, 6, (6,), kernel_size=1), "igcv2 1x1 6-6 K6"),
        (IGCV3, IGCV3Spec(8, 8), "igcv3 3x3 8-48-8 G2x2 + x"),
        (IGCV3, IGCV3Spec(8, 12, 4, (4, 2), 5, 2), "igcv3 5x5 /2 8-32-12 G4x2"),
    ],
    ids=str,
)
def test_a_block_says_what_it_is_and_counts_what_its_spec_counts(layer, spec, words):
    block = made(layer, get_backend("numpy"), spec, 0)
    assert block.describe() == str(spec) == words
    rows = list(block.rows((spec.in_channels, 9, 6)))
    of_norms = sum(row.parameters for row in rows if row.kind.startswith("batch norm"))
    assert of_norms == (2 * (2 * spec.hidden + spec.out_channels) if layer is IGCV3 else 0)
    assert sum(row.parameters for row in rows) == spec.parameters + of_norms
    assert sum(row.multiply_adds for row in rows) == spec.multiply_adds(9, 6)
    assert block.output_shape((spec.in_channels, 9, 6)) == (
        spec.out_channels,
        *spec.output_size(9, 6),
    )
    assert rows[-1].output == block.output_shape((spec.in_channels, 9, 6))


def test_every_layer_says_the_shape_it_gives_and_the_multiply_adds_it_takes():
    backend, rng = get_backend("numpy"), np.random.default_rng(0)
    options = {"rng": rng, "dtype": "float64"}
    conv = Conv2d(backend, 4, 6, kernel_size=5, stride=2, groups=2, **options)
    branch, spec = Conv2d(backend, 4, 4, **options), IGCSpec(4, 8, 2, 4, stride=2)
    cases = [
        (conv, 6 * 2 * 25 * 4 * 5),
        (IGC(backend, spec, **options), (8 * 2 * 9 + 8 * 2) * 4 * 5),
        (SummationFusion(backend, spec, **options), 8 * 2 * 9 * 4 * 5),  # the sums only add
        (BatchNorm(backend, 4, dtype="float64"), 0),
        (Shuffle(backend, 2), 0),
        (MaxPool(backend), 0),
        (GlobalAveragePool(backend), 0),
        (Residual(backend, branch, None), 4 * 4 * 9 * 7 * 9),
        (Sequential({"a": Shuffle(backend, 2), "b": conv}), 6 * 2 * 25 * 4 * 5),
    ]
    x = rng.normal(size=(4, 2, 7, 9))
    assert Conv2d(backend, 4, 6, kernel_size=2, **options).output_shape((4, 7, 9)) == (6, 8, 10)
    assert MaxPool(backend).output_shape((4, 8, 6)) == (4, 4, 3)
    assert MaxPool(backend, 2, 2, 0).output_shape((4, 7, 9)) == (4, 3, 4)
    for layer, cost in cases:
        with pytest.raises(RuntimeError, match=": backward needs a forward pass before") as caught:
            layer.backward(x)
        names = [part.describe() for _, part in layer.named_layers()]
        assert str(caught.value).partition(":")[0] in names
        y = layer.forward(x, train=True)
        shape = (y.shape[1],) if y.ndim == 2 else (y.shape[0], *y.shape[2:])
        assert layer.output_shape((4, 7, 9)) == shape, layer.describe()
        assert sum(row.multiply_adds for row in layer.rows((4, 7, 9))) == cost, layer.describe()
        assert layer.backward(np.ones_like(y)).shape == x.shape, layer.describe()
    linear = Linear(backend, 4, 3, **options)
    assert (linear.output_shape((4,)), linear.multiply_adds((4,))) == ((3,), 12)


# -- whole steps through IGCV2 and IGCV3 blocks ----------------------------------------------


def network(backend, dtype):
    """A stem, an IGCV2 block, a strided IGCV3 block, a residual one, and the head.

    The residual block is the last: an expansion's batch norm takes away what the one before its
    block adds, whose beta then has no gradient.
    """
    draw = {"rng": np.random.default_rng(0), "dtype": dtype}

    def norm():
        return BatchNorm(backend, 8, relu=True, dtype=dtype)

    layers = {
        "stem": Sequential({"conv": Conv2d(backend, 3, 8, **draw), "bn": norm()}),
        "block0": Sequential(
            {"igcv2": IGCV2(backend, IGCV2Spec(8, 8, (2, 2, 2)), **draw), "bn": norm()}
        ),
        "block1": IGCV3(backend, IGCV3Spec(8, 12, 2, stride=2), **draw),
        "block2": IGCV3(backend, IGCV3Spec(12, 12, 2), **draw),
        "pool": GlobalAveragePool(backend),
        "linear": Linear(backend, 12, 10, **draw),
    }
    return Model(Architecture("plain", 5, width=8), Sequential(layers), backend, dtype)


def step(model, x, labels, train=True):
    """One training step: logits, gradients, and the state after it."""
    backend, optimiser = model.backend, SGD(model)
    logits = model.forward(backend.asarray(x, model.dtype), train)
    _, _, dlogits = backend.loss(logits, backend.asarray(labels))
    dx = model.backward(dlogits)
    found = {"logits": backend.to_numpy(logits), "dx": backend.to_numpy(dx)}
    found |= {f"d {key}": backend.to_numpy(g) for key, g in model.gradients().items()}
    optimiser.step(0.1)
    return found | model.state_dict()


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_a_training_step_equals_numpy_s(backend, train):
    rng = np.random.default_rng(2)
    x, labels = rng.normal(size=(17, 3, 12, 10)), rng.integers(0, 10, 17)
    expected = step(network(get_backend("numpy"), "float64"), x, labels, train)
    for key, array in step(network(backend, "float64"), x, labels, train).items():
        assert_close(1 + array, 1 + expected[key], 10_000)


def epochs(backend, dtype="float32"):
    """Losses of two epochs of steps of 4, 4 and 3 images, the model, and the lines reported."""
    model, lines, rng = network(backend, dtype), [], np.random.default_rng(0)
    images = rng.integers(0, 256, (11, 3, 16, 16), dtype=np.uint8)
    labels, classes = rng.integers(0, 10, 11), tuple("abcdefghij")
    few = Dataset("few", images, labels, classes, (125, 123, 114), (63, 62, 67))
    runner = steps_of(model, SGD(model), few, 4, lines.append)
    sampling, rates = Sampling(np.arange(11), None), np.full(3, 0.05)
    losses = [loss for _ in range(2) for loss, _ in runner.epoch(sampling, rates)]
    return losses, model, lines


@pytest.mark.slow
@pytest.mark.skipif(bool(emulator.problem()), reason=str(emulator.problem()))
def test_steps_on_the_kernels_are_captured_and_are_numpy_s_to_rounding():
    from tests.backends.cuda.emulator.backend import EmulatedBackend

    losses, model, lines = epochs(EmulatedBackend())
    assert not any("not captured" in line for line in lines)
    assert "shuffle" in model.backend.device.launches
    expected, exact, _ = epochs(get_backend("numpy"), "float64")
    assert losses == pytest.approx(expected, rel=1e-4)
    for key, array in exact.state_dict().items():
        assert np.abs(model.state_dict()[key] - array).max() <= 2e-3 * (0.1 + np.abs(array).max())
    others, plain, _ = epochs(EmulatedBackend(capture=False))  # kernel by kernel: the same bits
    assert losses == others
    for key, array in model.state_dict().items():
        assert np.array_equal(array, plain.state_dict()[key]), key
