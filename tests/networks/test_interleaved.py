"""IGCV2 and IGCV3 layers against matrices and loops; networks made of them; their counts."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from igc_ref.backends import get_backend
from igc_ref.backends.operators.library import Sampling, TrainingData
from igc_ref.errors import SpecError
from igc_ref.networks import IGCV2, IGCV3, BatchNorm, Conv2d, GlobalAveragePool, Linear, Shuffle
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import igcv3, igcv3_blocks
from igc_ref.networks.layer import Sequential
from igc_ref.networks.model import Model
from igc_ref.reference import products
from igc_ref.spec.products import IGCV2Spec, IGCV3Spec
from igc_ref.testing import assert_close, check_grads, dot_test
from igc_ref.training.optim import SGD
from tests.backends.cuda import emulator
from tests.support import oracles
from tests.support.strategies import igcv2_specs, igcv3_specs, normal, pictures, seeds

EPS = 2e-5  # of batch norm


def public(backend, x):
    return backend.to_numpy(backend.from_layout(x))


def internal(backend, x):
    return backend.to_layout(backend.asarray(x))


def made(layer, backend, spec, seed, dtype="float64"):
    return layer(backend, spec, rng=np.random.default_rng(seed), dtype=dtype)


def convolutions(layer):
    return [part for _, part in layer.named_layers() if isinstance(part, Conv2d)]


def weights_of(layer):
    return [c.backend.to_numpy(c.parameters["weight"]) for c in convolutions(layer)]


def gradients_of(layer):
    return [c.backend.to_numpy(c.gradients["weight"]) for c in convolutions(layer)]


# -- layers ----------------------------------------------------------------------------------


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


@settings(max_examples=20)
@given(spec=igcv2_specs(), seed=seeds)
def test_backward_of_an_igcv2_layer_is_the_adjoint_of_forward(backend, spec, seed):
    layer, shape = made(IGCV2, backend, spec, seed), (2, spec.in_channels, 5, 4)
    x = np.zeros(shape)

    def adjoint(d):
        layer.forward(internal(backend, x))
        return public(backend, layer.backward(internal(backend, d)))

    dot_test(
        lambda u: public(backend, layer.forward(internal(backend, u))),
        adjoint,
        shape,
        np.random.default_rng(seed),
        length=spec.parameters,
    )


@pytest.mark.parametrize(
    ("layer", "spec", "words"),
    [
        (IGCV2, IGCV2Spec(8, 16, (2, 4, 2), stride=2), "igcv2 3x3 /2 8-16 K2x4x2"),
        (IGCV2, IGCV2Spec(6, 6, (6,), kernel_size=1), "igcv2 1x1 6-6 K6"),
        (IGCV3, IGCV3Spec(8, 8), "igcv3 3x3 8-48-8 G2x2 + x"),
        (IGCV3, IGCV3Spec(8, 12, 4, (4, 2), 5, 2), "igcv3 5x5 /2 8-32-12 G4x2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_layer_says_what_it_is_and_counts_what_its_spec_counts(layer, spec, words):
    block = made(layer, get_backend("numpy"), spec, 0)
    assert block.describe() == words
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


def test_backward_without_forward_is_refused_by_name():
    with pytest.raises(RuntimeError, match="shuffle 3: backward needs a forward pass"):
        Shuffle(get_backend("numpy"), 3).backward(np.zeros((6, 1, 2, 2)))


def test_a_shuffle_of_channels_that_its_groups_do_not_divide_is_refused():
    with pytest.raises(SpecError, match="channels=6 is not divisible by groups=4"):
        Shuffle(get_backend("numpy"), 4).forward(np.zeros((6, 1, 2, 2)))


# -- networks --------------------------------------------------------------------------------


def plain_igcv2(backend, width, blocks, dtype, num_classes=10):
    """The plain network with balanced IGCV2 blocks: what ``plain_igcv2`` is to be."""
    rng, channels = np.random.default_rng(0), width
    draw = {"rng": rng, "dtype": dtype}

    def norm(out):
        return BatchNorm(backend, out, momentum=0.99, relu=True, dtype=dtype)

    parts = {"stem": Sequential({"conv": Conv2d(backend, 3, width, **draw), "bn": norm(width)})}
    for stage in range(3):
        out = width * 2**stage
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            unit = IGCV2(backend, IGCV2Spec.balanced(channels, out, stride=stride), **draw)
            parts[f"stage{stage + 1}.block{block + 1}"] = Sequential(
                {"igcv2": unit, "bn": norm(out)}
            )
            channels = out
    parts["pool"] = GlobalAveragePool(backend)
    parts["linear"] = Linear(backend, channels, num_classes, **draw)
    return Sequential(parts)


def small_igcv3(backend, dtype):
    """A stem, a strided block, a residual one, and the head.

    The residual block is the last: an expansion's batch norm takes away what the one before its
    block adds, whose beta then has no gradient.
    """
    rng = np.random.default_rng(0)
    draw = {"rng": rng, "dtype": dtype}
    norm = BatchNorm(backend, 8, relu=True, dtype=dtype)
    return Sequential(
        {
            "stem": Sequential({"conv": Conv2d(backend, 3, 8, **draw), "bn": norm}),
            "block1": IGCV3(backend, IGCV3Spec(8, 12, 2, stride=2), **draw),
            "block2": IGCV3(backend, IGCV3Spec(12, 12, 2), **draw),
            "pool": GlobalAveragePool(backend),
            "linear": Linear(backend, 12, 10, **draw),
        }
    )


NETWORKS = {
    "igcv2": lambda backend, dtype: plain_igcv2(backend, 8, 1, dtype),
    "igcv3": small_igcv3,
}
each_network = pytest.mark.parametrize("name", NETWORKS)


def model_of(name, backend, dtype="float64"):
    """A network as a model; of the architecture only the shape of its pictures is asked."""
    return Model(Architecture("plain", 5, width=8), NETWORKS[name](backend, dtype), backend, dtype)


@each_network
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_a_network_s_gradients_are_its_derivatives(name, train):
    rng, model = np.random.default_rng(5), model_of(name, get_backend("numpy"))
    x, names = rng.normal(size=(4, 3, 8, 10)), list(model.parameters())
    for key, array in model.parameters().items():  # zero betas would sit on the kinks of ReLU
        if key.endswith("beta"):
            array[...] = rng.normal(size=array.shape)

    def f(x, *arrays):
        for key, array in zip(names, arrays, strict=True):
            model.parameters()[key][...] = array
        return model.forward(x, train=train)

    arguments = (x, *(model.parameters()[key].copy() for key in names))

    def vjp(c):
        f(*arguments)
        return [model.backward(c), *(model.gradients()[key].copy() for key in names)]

    check_grads(f, vjp, arguments, rng, directions=1, eps=1e-7, rtol=1e-5)


def test_the_names_of_a_state_follow_the_data():
    names = list(model_of("igcv3", get_backend("numpy")).state_dict())
    block = [key.removeprefix("block1.") for key in names if key.startswith("block1.")]
    norm = ["gamma", "beta", "running_mean", "running_var"]
    assert block == [
        name
        for conv in ("expand", "depthwise", "project")
        for name in (f"{conv}.weight", *(f"{conv}_bn.{key}" for key in norm))
    ]
    names = list(model_of("igcv2", get_backend("numpy")).state_dict())
    block = [key for key in names if key.startswith("stage2.block1.")]
    assert block[:3] == [f"stage2.block1.igcv2.conv{i}.weight" for i in (1, 2, 3)]


def step(model, x, labels, train=True):
    """One training step: everything there is."""
    backend, optimiser = model.backend, SGD(model)
    logits = model.forward(backend.asarray(x, model.dtype), train)
    _, _, dlogits = backend.loss(logits, backend.asarray(labels))
    dx = model.backward(dlogits)
    found = {"logits": backend.to_numpy(logits), "dx": backend.to_numpy(dx)}
    found |= {f"d {key}": backend.to_numpy(g) for key, g in model.gradients().items()}
    optimiser.step(0.1)
    return found | model.state_dict()


@each_network
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_a_training_step_equals_numpy_s(backend, name, train):
    rng = np.random.default_rng(2)
    x, labels = rng.normal(size=(17, 3, 12, 10)), rng.integers(0, 10, 17)
    expected = step(model_of(name, get_backend("numpy")), x, labels, train)
    for key, array in step(model_of(name, backend), x, labels, train).items():
        assert_close(1 + array, 1 + expected[key], 10_000)


# -- whole steps on the emulated cupy backend ------------------------------------------------

emulated = pytest.mark.skipif(bool(emulator.problem()), reason=str(emulator.problem()))


def epochs(name, backend, dtype="float32", count=3):
    """Losses of a few epochs of steps of 4, 4 and 3 pictures, the model, and what runs them."""
    model, lines = model_of(name, backend, dtype), []
    optimiser, rng = SGD(model), np.random.default_rng(0)

    def learn(x, labels, lr):
        loss, hits, dlogits = backend.loss(model.forward_inside(x, train=True), labels)
        model.backward(dlogits, input_gradient=False)
        optimiser.step(lr)
        return loss, hits

    images = rng.integers(0, 256, (11, 3, 16, 16), dtype=np.uint8)
    pool = TrainingData(images, rng.integers(0, 10, 11), (125, 123, 114), (63, 62, 67))
    steps = backend.steps(learn, pool, 4, 4, lines.append)
    if steps:
        order, rates = Sampling(np.arange(11), None), np.full(3, 0.05)
        losses = [loss for _ in range(count) for loss, _ in steps.epoch(order, rates)]
        return losses, model, steps, lines
    x = backend.normalise(backend.asarray(images), pool.mean, pool.std, dtype)
    parts = [slice(0, 4), slice(4, 8), slice(8, 11)] * count
    labels = pool.labels
    losses = [
        float(learn(backend.to_layout(x[p]), backend.asarray(labels[p]), 0.05)[0]) for p in parts
    ]
    return losses, model, steps, lines


@emulated
@each_network
def test_steps_on_the_kernels_are_captured_and_are_numpy_s_to_rounding(name):
    from tests.backends.cuda.emulator.backend import EmulatedBackend

    losses, model, steps, lines = epochs(name, EmulatedBackend())
    assert set(steps._graphs) == {4, 3}
    assert model.backend.generic == ""
    assert not any("not captured" in line for line in lines)
    assert "shuffle" in model.backend.device.launches
    expected, exact, *_ = epochs(name, get_backend("numpy"), "float64")
    assert losses == pytest.approx(expected, rel=1e-4)
    for key, array in exact.state_dict().items():
        assert np.abs(model.state_dict()[key] - array).max() <= 2e-3 * (0.1 + np.abs(array).max())


@emulated
@each_network
def test_a_replayed_step_gives_the_bits_of_a_step_kernel_by_kernel(name):
    from tests.backends.cuda.emulator.backend import EmulatedBackend

    losses, model, *_ = epochs(name, EmulatedBackend())
    others, other, steps, _ = epochs(name, EmulatedBackend(capture=False))
    assert not steps._graphs
    assert losses == others
    for key, array in model.state_dict().items():
        assert np.array_equal(array, other.state_dict()[key]), key


# -- counts ----------------------------------------------------------------------------------


def least_igcv2_parameters(inp, out):
    """Of all products of three factors, by trying all: an output channel has 9*a + K_2 + K_3."""
    return out * min(
        9 * a + K_2 + inp // a // K_2
        for a in range(1, inp + 1)
        if inp % a == 0 and out % (inp // a) == 0
        for K_2 in range(1, inp + 1)
        if inp // a % K_2 == 0
    )


@pytest.mark.parametrize(
    ("width", "depth", "parameters"),
    [
        (16, 8, 6_266),
        (48, 8, 24_538),
        (48, 20, 71_194),
        (64, 20, 104_650),
        (96, 20, 175_018),
        (144, 20, 294_490),
    ],
)
def test_plain_igcv2_has_as_many_parameters_as_trying_all_block_sizes_finds(
    width, depth, parameters
):
    blocks = (depth - 2) // 3
    widths = [width] * (blocks + 1) + [2 * width] * blocks + [4 * width] * blocks
    total = sum(widths) * 2 + 27 * width + 40 * width + 10  # norms, stem, linear
    total += sum(least_igcv2_parameters(inp, out) for inp, out in pairwise(widths))
    rows = list(plain_igcv2(get_backend("numpy"), width, blocks, "float32").rows((3, 32, 32)))
    assert sum(row.parameters for row in rows) == total == parameters


# Expansion, channels, blocks of every stage, as in the authors' definition (symbols/igcv3.py).
IGCV3_D = ((1, 16, 1), (6, 24, 4), (6, 32, 6), (6, 64, 8), (6, 96, 6), (6, 160, 6), (6, 320, 1))


@pytest.mark.parametrize(
    ("num_classes", "parameters"), [(10, 2_223_498), (100, 2_338_788), (1000, 3_491_688)]
)
def test_igcv3_has_the_parameters_of_the_published_definition(num_classes, parameters):
    total, inp = 27 * 32 + 2 * 32, 32  # stem
    for t, out, blocks in IGCV3_D:
        for _ in range(blocks):
            total += t * inp * inp // 2 + 9 * t * inp + t * inp * out // 2  # convolutions
            total += 2 * (t * inp + t * inp + out)  # norms
            inp = out
    total += 320 * 1280 + 2 * 1280 + 1280 * num_classes + num_classes  # head, linear
    rng = np.random.default_rng(0)
    network = igcv3(get_backend("numpy"), num_classes=num_classes, rng=rng)
    assert sum(row.parameters for row in network.rows((3, 32, 32))) == total == parameters


@pytest.mark.parametrize(("depth", "blocks"), [(54, 17), (99, 32), (144, 47)])
@pytest.mark.parametrize("width", [4, 12, 32])
def test_every_igcv3_network_is_loosely_complementary(depth, blocks, width):
    specs = list(igcv3_blocks(depth, width))
    assert len(specs) == blocks
    assert 3 * blocks + 3 == depth
    for spec in {*specs}:
        assert products.is_loosely_complementary(spec)
    assert [s.stride for s in specs].count(2) == 3
    size = 32, 32
    for spec in specs:
        size = spec.output_size(*size)
    assert size == (4, 4)


def test_a_small_igcv3_network_computes_logits_and_all_gradients():
    backend, rng = get_backend("numpy"), np.random.default_rng(0)
    network = igcv3(backend, depth=54, width=4, num_classes=7, rng=rng, dtype="float64")
    y = network.forward(internal(backend, rng.normal(size=(2, 3, 32, 32))), train=True)
    assert y.shape == (2, 7)
    dx = public(backend, network.backward(rng.normal(size=(2, 7))))
    assert dx.shape == (2, 3, 32, 32)
    for name, layer in network.named_layers():
        assert layer.gradients.keys() == layer.parameters.keys(), name
        assert all(np.isfinite(array).all() for array in layer.gradients.values()), name


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"depth": 50}, "depth=50 is not allowed: an IGCV3 network has 54, 99, 144"),
        ({"depth": 9}, "depth=9 is not allowed"),
        ({"depth": 54.0}, r"depth=54\.0 is not an integer"),
        ({"width": 30}, "width=30 is not allowed: it must be divisible by 4"),
        ({"width": 0}, "width=0 is not an integer"),
    ],
    ids=str,
)
def test_an_igcv3_network_that_cannot_exist_is_refused_with_its_number(numbers, message):
    with pytest.raises(SpecError, match=message):
        igcv3(get_backend("numpy"), rng=np.random.default_rng(0), **numbers)
