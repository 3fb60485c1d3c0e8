"""Networks: counts, values against their definition, names, states, errors.

`tests/backends/test_derivatives.py` checks the derivatives of whole networks.
"""

import copy
import hashlib
import pickle
import struct
from functools import cache, partial
from itertools import pairwise

import numpy as np
import pytest

from igc_ref import build_model, reference
from igc_ref.errors import CheckpointError, SpecError
from igc_ref.networks import BatchNorm
from igc_ref.networks.architecture import ARCHITECTURES, Architecture, numbers_of
from igc_ref.networks.builder import cost, igcv3_blocks
from igc_ref.networks.model import build, sha256
from igc_ref.reference.products import is_loosely_complementary
from igc_ref.reference.special_cases import mixed
from igc_ref.spec import IGCSpec, MixedSpec
from igc_ref.testing import assert_close
from igc_ref.training.config import TrainConfig
from tests.support import oracles

PUBLISHED = [  # parameters by depth, counted from the authors' definitions
    ("plain", {"width": 16}, {8: 75_290, 20: 269_722, 38: 561_370, 62: 950_234}),
    ("plain", {"width": 18}, {8: 95_068, 20: 341_020, 38: 709_948, 62: 1_201_852}),
    ("plain_igc", {"L": 4, "M": 8}, {8: 78_634, 20: 277_546, 38: 575_914, 62: 973_738}),
    ("plain_igc", {"L": 24, "M": 2}, {8: 48_442, 20: 155_962, 38: 317_242, 62: 532_282}),
    ("resnet", {"width": 16}, {50: 758_554, 74: 1_147_418, 98: 1_536_282}),
    ("resnet", {"width": 18}, {50: 959_356, 74: 1_451_260, 98: 1_943_164}),
    ("resnet_igc", {"L": 4, "M": 8}, {50: 778_538, 74: 1_176_362, 98: 1_574_186}),
    ("resnet_igc", {"L": 24, "M": 2}, {50: 433_210, 74: 648_250, 98: 863_290}),
]
IMAGENET = [  # convolutions and linear layer; with gamma and beta: counted from their definitions
    ("imagenet_igc", {"L": 100, "M": 2, "doubling": "L"}, 8_607_700, 8_637_900),
    ("imagenet_igc", {"L": 16, "M": 16}, 13_489_896, 13_528_296),
    ("imagenet_igc", {"L": 4, "M": 32}, 12_232_040, 12_251_240),
    ("imagenet", {"width": 64}, 11_679_912, 11_689_512),
    ("imagenet", {"width": 69}, 13_532_107, 13_542_457),
]


@pytest.mark.parametrize(
    ("arch", "numbers", "depth", "parameters"),
    [(arch, n, depth, p) for arch, n, table in PUBLISHED for depth, p in table.items()],
)
def test_a_published_network_has_its_published_number_of_parameters(
    arch, numbers, depth, parameters
):
    model = build_model(arch, depth, **numbers, backend="numpy")
    assert model.num_parameters == parameters
    assert sum(row.parameters for row in model.rows()) == parameters


@pytest.mark.parametrize(("arch", "numbers", "weights", "parameters"), IMAGENET, ids=str)
def test_an_imagenet_network_has_the_number_of_parameters_of_its_definition(
    arch, numbers, weights, parameters
):
    model = build_model(arch, 18, **numbers, num_classes=1000, backend="numpy")
    assert model.num_parameters == parameters
    norms = [row.parameters for row in model.rows() if row.name.endswith("bn")]
    assert parameters - sum(norms) == weights
    assert model.rows()[-3].output[1:] == (7, 7)  # before the pool, from 224 x 224


def test_an_imagenet_network_runs_both_ways_at_its_own_size():
    numbers = {"L": 100, "M": 2, "doubling": "L", "num_classes": 1000}
    model = build_model("imagenet_igc", 18, **numbers, backend="numpy")
    x = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype("float32")
    logits = model.forward(x, train=True)
    assert logits.shape == (1, 1000)
    dx = model.backward(logits / 1000)
    assert dx.shape == x.shape
    assert 0 < np.abs(dx).max() < np.inf
    assert all(np.isfinite(g).all() for g in model.gradients().values())


class ByDefinition:
    """The networks written out once more, with loops and explicit matrices, from a state."""

    def __init__(self, state, architecture, train):
        self.state, self.a, self.train = state, architecture, train
        self.running = {}

    def norm(self, z, name):
        g, b, m, v = (
            self.state[f"{name}.{key}"] for key in ("gamma", "beta", "running_mean", "running_var")
        )
        if self.train:
            past = 0.99 if self.a.arch.startswith("plain") else 0.9
            mean, var = z.mean(axis=(0, 2, 3)), z.var(axis=(0, 2, 3))
            self.running[f"{name}.running_mean"] = past * m + (1 - past) * mean
            self.running[f"{name}.running_var"] = past * v + (1 - past) * var
            m, v = mean, var
        g, b, m, v = (array.reshape(1, -1, 1, 1) for array in (g, b, m, v))
        return g * (z - m) / np.sqrt(v + 2e-5) + b

    def kernel(self, k):
        return (1, k) if self.a.dims == "1" else (k, k)

    def unit(self, z, name, out, stride, L, M_channels):
        kind, kernel = self.a.arch.partition("_")[2], self.kernel(self.a.kernel_sizes[0])
        first = next(array for key, array in self.state.items() if key.startswith(f"{name}."))
        assert first.shape[2:] == kernel
        if kind == "igc":
            spec = IGCSpec(z.shape[1], out, L, M_channels // L, kernel, stride)
            *kernels, secondary = (w for n, w in self.state.items() if n.startswith(f"{name}.igc."))
            if len(sizes := self.a.kernel_sizes) > 1:
                several = MixedSpec(z.shape[1], out, L, spec.M, sizes, stride)
                weights = mixed(kernels, secondary, several)
            else:
                weights = kernels[0], secondary, spec
            y = reference.forward(z, *weights)
        elif kind == "fusion":
            y = oracles.convolve(z, self.state[f"{name}.fusion.primary"], stride, groups=L)
            partitions = y.reshape(len(y), L, out // L, *y.shape[2:])
            y = np.concatenate([partitions.sum(axis=1)] * L, axis=1)
        elif kind == "xception":
            y = oracles.convolve(z, self.state[f"{name}.igc.primary"], stride, groups=z.shape[1])
            order = np.arange(out).reshape(z.shape[1], -1).T.ravel()  # M = 1: dealt, then dense
            pointwise = self.state[f"{name}.igc.secondary"]
            y = np.einsum("oi,nihw->nohw", pointwise, y[:, order])
        else:
            y = oracles.convolve(z, self.state[f"{name}.conv.weight"], stride)
        return self.norm(y, f"{name}.bn")

    def plain_block(self, z, name, out, stride, L):
        return np.maximum(self.unit(z, name, out, stride, L, out), 0)

    def residual_block(self, z, name, out, stride, L):
        shortcut = z
        if z.shape[1] != out:
            weight = self.state[f"{name}.shortcut.conv.weight"]
            shortcut = oracles.convolve(z, weight, stride, groups=L)
            shortcut = self.norm(shortcut, f"{name}.shortcut.bn")
        before = z.shape[1] if self.a.arch.startswith("resnet") else out
        y = np.maximum(self.unit(z, f"{name}.branch.unit1", out, stride, L, before), 0)
        return np.maximum(self.unit(y, f"{name}.branch.unit2", out, 1, L, out) + shortcut, 0)

    def stem(self, x):
        imagenet = self.a.arch.startswith("imagenet")
        assert self.state["stem.conv.weight"].shape[2:] == self.kernel(7 if imagenet else 3)
        z = oracles.convolve(x, self.state["stem.conv.weight"], 2 if imagenet else 1)
        z = np.maximum(self.norm(z, "stem.bn"), 0)
        if not imagenet:
            return z
        padded = np.pad(z, ((0, 0), (0, 0), (1, 1), (1, 1)))  # zeros never win after a ReLU
        rows, columns = ((size - 1) // 2 + 1 for size in z.shape[2:])
        windows = [
            padded[:, :, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3].max(axis=(2, 3))
            for r in range(rows)
            for c in range(columns)
        ]
        return np.stack(windows, axis=2).reshape(*z.shape[:2], rows, columns)

    def __call__(self, x, blocks):
        z = self.stem(x)
        width = self.a.width or self.a.L * self.a.M
        block = self.plain_block if self.a.arch.startswith("plain") else self.residual_block
        for stage, count in enumerate(blocks, start=1):
            L = (self.a.L or 1) * (2 ** (stage - 1) if self.a.doubling == "L" else 1)
            for i in range(1, count + 1):
                stride = 2 if stage > 1 and i == 1 else 1
                z = block(z, f"stage{stage}.block{i}", width * 2 ** (stage - 1), stride, L)
        return z.mean(axis=(2, 3)) @ self.state["linear.weight"].T + self.state["linear.bias"]


@pytest.mark.parametrize(
    ("arch", "depth", "numbers", "blocks"),
    [
        ("plain", 8, {"width": 3}, (2, 2, 2)),
        ("plain_igc", 8, {"L": 2, "M": 2}, (2, 2, 2)),
        ("resnet", 10, {"width": 2}, (1, 1, 2)),
        ("resnet_igc", 12, {"L": 2, "M": 2}, (1, 2, 2)),
        ("plain_fusion", 5, {"L": 2, "M": 3}, (1, 1, 1)),
        ("plain_xception", 5, {"width": 3}, (1, 1, 1)),
        ("plain_igc", 5, {"L": 2, "M": 4, "doubling": "L"}, (1, 1, 1)),
        ("resnet_fusion", 8, {"L": 2, "M": 2}, (1, 1, 1)),
        ("resnet_xception", 8, {"width": 2}, (1, 1, 1)),
        ("resnet_igc", 8, {"L": 2, "M": 2, "kernel_sizes": (5, 3)}, (1, 1, 1)),
        ("plain_igc", 5, {"L": 2, "M": 2, "dims": "1", "kernel_sizes": (5,)}, (1, 1, 1)),
        ("resnet", 8, {"width": 2, "dims": "1"}, (1, 1, 1)),
        ("resnet_xception", 8, {"width": 2, "kernel_sizes": (5,)}, (1, 1, 1)),
        ("imagenet", 18, {"width": 2}, (2, 2, 2, 2)),
        ("imagenet_igc", 18, {"L": 2, "M": 2}, (2, 2, 2, 2)),
        ("imagenet_igc", 18, {"L": 2, "M": 2, "doubling": "L"}, (2, 2, 2, 2)),
    ],
    ids=lambda v: str(v),
)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_a_network_computes_what_its_definition_says(backend, arch, depth, numbers, blocks, train):
    model = build(Architecture(arch, depth, **numbers), backend, dtype="float64", seed=3)
    state, rng = model.state_dict(), np.random.default_rng(0)
    for name in state:  # running statistics and affine numbers that matter
        if ".bn." in name:
            state[name] = rng.uniform(0.5, 1.5, state[name].shape)
    model.load_state_dict(state)
    x = rng.normal(size=(2, 3, 8, 8))
    definition = ByDefinition(state, model.architecture, train)
    expected = definition(x, blocks)
    logits = model.forward(backend.asarray(x), train=train)
    assert_close(backend.to_numpy(logits), expected, 1000)
    after = model.state_dict()
    for name, value in state.items():
        assert_close(after[name], definition.running.get(name, value), 1000)
    assert bool(definition.running) == train


NORM = ["gamma", "beta", "running_mean", "running_var"]


def test_a_state_s_hash_is_of_names_dtypes_shapes_and_little_endian_numbers_in_order():
    state = {"b": np.array([[1.5, -0.0], [3, 4]], "f4"), "a": np.array([2.5])}
    written = struct.pack("<11sd13s4f", b"a <f8 (1,)\n", 2.5, b"b <f4 (2, 2)\n", 1.5, -0.0, 3, 4)
    swapped = {"a": state["a"].astype(">f8"), "b": np.asfortranarray(state["b"])}
    assert sha256(state) == sha256(swapped) == hashlib.sha256(written).hexdigest()


def test_the_state_is_in_the_order_in_which_data_flows():
    names = list(build_model("resnet_igc", 8, L=2, M=2, backend="numpy").state_dict())
    expected = ["stem.conv.weight", *(f"stem.bn.{n}" for n in NORM)]
    for stage in (1, 2, 3):
        block = f"stage{stage}.block1"
        if stage > 1:
            expected += [f"{block}.shortcut.conv.weight"]
            expected += [f"{block}.shortcut.bn.{n}" for n in NORM]
        for unit in (1, 2):
            igc = f"{block}.branch.unit{unit}"
            expected += [f"{igc}.igc.primary", f"{igc}.igc.secondary"]
            expected += [f"{igc}.bn.{n}" for n in NORM]
    assert names == [*expected, "linear.weight", "linear.bias"]


def test_the_state_of_igcv2_and_igcv3_networks_follows_their_factors():
    names = list(build_model("igcv3", 54, width=4, backend="numpy").state_dict())
    assert [name.removeprefix("block1.") for name in names if name.startswith("block1.")] == [
        name
        for conv in ("expand", "depthwise", "project")
        for name in (f"{conv}.weight", *(f"{conv}_bn.{key}" for key in NORM))
    ]
    names = list(build_model("plain_igcv2", 5, width=8, backend="numpy").state_dict())
    block = [key for key in names if key.startswith("stage2.block1.")]
    assert block[:3] == [f"stage2.block1.igcv2.conv{i}.weight" for i in (1, 2, 3)]


def test_weights_depend_on_the_seed_alone():
    same, other = (build_model("plain_igc", 8, L=3, M=2, seed=s, backend="numpy") for s in (1, 2))
    again = build_model("plain_igc", 8, L=3, M=2, seed=1, backend="numpy").state_dict()
    assert all(np.array_equal(a, again[name]) for name, a in same.state_dict().items())
    assert not np.array_equal(
        same.state_dict()["stem.conv.weight"], other.state_dict()["stem.conv.weight"]
    )


@pytest.mark.parametrize(
    ("arch", "depth", "numbers", "authors"),
    [
        ("plain_igc", 8, {"L": 2, "M": 2}, 0.99),
        ("resnet", 8, {"width": 4}, 0.9),
        ("igcv3", 54, {"width": 4}, 0.9),
        ("densenet_bc", 10, {"width": 4}, 0.9),
    ],
)
def test_batch_norm_s_momentum_is_the_authors_unless_it_is_given(arch, depth, numbers, authors):
    architecture = Architecture(arch, depth, **numbers)
    for given, expected in ((None, authors), (0.5, 0.5)):
        model = build(architecture, "numpy", bn_momentum=given)
        norms = [n for _, n in model.network.named_layers() if isinstance(n, BatchNorm)]
        assert {norm.momentum for norm in norms} == {expected}
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(SpecError, match=rf"bn_momentum={wrong} is not allowed; .*\[0, 1\)"):
            build(architecture, "numpy", bn_momentum=wrong)


def test_batch_norm_starts_as_the_identity():
    state = build_model("resnet_igc", 8, L=2, M=2, backend="numpy").state_dict()
    ends = {".gamma": 1, ".beta": 0, ".running_mean": 0, ".running_var": 1}
    for end, value in ends.items():
        arrays = [array for name, array in state.items() if name.endswith(end)]
        assert len(arrays) == 9
        assert all((array == value).all() for array in arrays)


@pytest.mark.parametrize(
    ("arch", "depth", "blocks"),
    [
        ("plain", 20, (6, 6, 6)),
        ("resnet", 50, (8, 8, 8)),
        ("resnet", 16, (2, 2, 3)),
        ("resnet", 18, (2, 3, 3)),
    ],
)
def test_blocks_that_do_not_divide_evenly_go_to_the_later_stages(arch, depth, blocks):
    assert Architecture(arch, depth, width=16).blocks == blocks


def test_convolutions_start_he_normal_and_the_linear_layer_uniform():
    model = build_model("plain_igc", 8, L=24, M=2, backend="numpy")
    state = model.state_dict()
    primary, secondary = (state[f"stage3.block2.igc.{n}"] for n in ("primary", "secondary"))
    assert primary.std() == pytest.approx(np.sqrt(2 / (8 * 9)), rel=0.05)
    assert secondary.std() == pytest.approx(np.sqrt(2 / 24), rel=0.05)
    assert abs(primary.mean()) < 0.01
    bound = 1 / np.sqrt(192)
    for name in ("linear.weight", "linear.bias"):
        assert np.abs(state[name]).max() <= bound
    assert state["linear.weight"].std() == pytest.approx(bound / np.sqrt(3), rel=0.05)


def test_a_state_moves_to_another_network_exactly():
    one, two = (build_model("resnet", 8, width=4, backend="numpy", seed=s) for s in (0, 1))
    x = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype("float32")
    one.forward(x, train=True)  # moves the running statistics
    two.load_state_dict(one.state_dict())
    assert np.array_equal(one.forward(x), two.forward(x))


def test_a_state_is_a_copy():
    model = build_model("plain", 5, width=4, backend="numpy")
    state = model.state_dict()
    before = {name: array.copy() for name, array in state.items()}
    for parameter in model.parameters().values():
        parameter += 1
    model.forward(np.ones((2, 3, 8, 8), "float32"), train=True)
    assert all(np.array_equal(before[name], array) for name, array in state.items())


def test_a_model_can_be_copied_and_pickled_after_a_forward_pass(backend):
    model = build_model("resnet_igc", 8, L=2, M=2, backend=backend, dtype="float64")
    x = backend.asarray(np.random.default_rng(0).normal(size=(2, 3, 8, 8)))
    logits = backend.to_numpy(model.forward(x))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        with pytest.raises(RuntimeError, match="needs a forward pass"):
            twin.backward(backend.asarray(logits))
        twin.backend.tile_bytes = backend.tile_bytes
        assert np.array_equal(backend.to_numpy(twin.forward(x)), logits)
        for parameter in twin.parameters().values():
            parameter += 1
        assert twin.backend is not backend
    assert np.array_equal(backend.to_numpy(model.forward(x)), logits)


def test_a_foreign_state_is_refused_and_changes_nothing():
    model = build_model("plain", 5, width=4, backend="numpy")
    before = model.state_dict()
    other = build_model("plain_igc", 5, L=2, M=2, backend="numpy").state_dict()
    with pytest.raises(CheckpointError, match=r"stage1\.block1\.conv\.weight"):
        model.load_state_dict(other)
    wider = build_model("plain", 5, width=8, backend="numpy").state_dict()
    with pytest.raises(CheckpointError, match=r"shape \(8, 3, 3, 3\).*needs.*\(4, 3, 3, 3\)"):
        model.load_state_dict(wider)
    with pytest.raises(CheckpointError, match=r"has, but the network has not, 'extra'"):
        model.load_state_dict(before | {"extra": np.zeros(1)})
    wrong_last = dict(before) | {"linear.bias": before["linear.bias"].astype("float64")}
    wrong_last["stem.conv.weight"] = wrong_last["stem.conv.weight"] + 1
    with pytest.raises(CheckpointError, match=r"linear\.bias is float64"):
        model.load_state_dict(wrong_last)
    with pytest.raises(TypeError, match=r"state is builtins\.str; Mapping is needed"):
        model.load_state_dict("checkpoint.npz")
    after = model.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenet", 8), "arch='lenet' is unknown"),
        (("plain_igc", 9, 4, 8), "depth=9 is not allowed"),
        (("plain", 2, None, None, 16), "depth=2 is not allowed"),
        (("resnet", 9, None, None, 16), "depth=9 is not allowed"),
        (("resnet", 6, None, None, 16), "depth=6 is not allowed"),
        (("plain_igc", 8, 4), "M is missing"),
        (("plain", 8), "width is missing"),
        (("plain", 8, 4, None, 16), "takes no L=4"),
        (("plain_igc", 8, 4, 8, 16), "takes no width=16"),
        (("plain_igc", 8, 4, 0), "M=0 is not an integer of at least 1"),
        (("plain", 8.5, None, None, 16), r"depth=8\.5 is not an integer"),
        (
            ("igcv3", 50, None, None, 32),
            "depth=50 is not allowed: an IGCV3 network has 54, 99, 144",
        ),
        (("igcv3", 9, None, None, 32), "depth=9 is not allowed"),
        (("igcv3", 54, None, None, 30), "width=30 is not allowed: it must be divisible by 4"),
        (("igcv3", 54, None, None, 0), "width=0 is not an integer"),
        (("densenet_bc", 20, None, None, 12), "depth=20 is not allowed: a DenseNet-BC has 3 equal"),
        (("densenet_bc", 4, None, None, 12), "depth=4 is not allowed"),
        (("densenet_bc_igc", 10, 4, 2, None, 10, "L"), "doubling='L' is not allowed"),
        (("densenet_bc", 10, None, None, 4, 10, "M", (5,)), r"takes no kernel_sizes=\(5,\)"),
        (("densenet_bc", 10, None, None, 4, 10, "M", (3,), "none", None, "batch", "1"), "no dims"),
    ],
)
def test_a_network_that_does_not_exist_is_refused_with_its_numbers(arguments, message):
    with pytest.raises(SpecError, match=message):
        Architecture(*arguments)


def test_other_libraries_dtypes_and_shapes_are_refused_not_converted():
    model = build_model("plain", 5, width=4, backend="numpy")
    with pytest.raises(TypeError, match=r"x is builtins\.list; the numpy backend takes"):
        model.forward([[1.0]])
    with pytest.raises(TypeError, match="x is float64; float32 is needed"):
        model.forward(np.zeros((1, 3, 32, 32)))
    with pytest.raises(SpecError, match=r"shape \(1, 4, 32, 32\)"):
        model.forward(np.zeros((1, 4, 32, 32), "float32"))
    for shape in ((0, 3, 32, 32), (3, 32, 32), (2, 3, 8), (1, 3, 0, 8)):
        with pytest.raises(SpecError, match=r"; \(N, 3, H, W\), each at least 1, is needed"):
            model.forward(np.zeros(shape, "float32"))
    logits = model.forward(np.zeros((1, 3, 8, 8), "float32"))
    with pytest.raises(TypeError, match="dlogits is float64; float32 is needed"):
        model.backward(logits.astype("float64"))
    with pytest.raises(SpecError, match=r"dlogits has shape \(10,\); \(1, 10\) is needed"):
        model.backward(logits[0])
    with pytest.raises(SpecError, match="dtype='float16' is unknown"):
        build_model("plain", 5, width=4, backend="numpy", dtype="float16")
    with pytest.raises(SpecError, match="seed=-1 is not an integer of at least 0"):
        build_model("plain", 5, width=4, backend="numpy", seed=-1)


def test_backward_needs_a_forward_pass_before_it():
    model = build_model("plain", 5, width=4, backend="numpy")
    d = np.ones((1, 10), "float32")
    with pytest.raises(RuntimeError, match="backward needs a forward pass"):
        model.backward(d)
    model.forward(np.zeros((1, 3, 32, 32), "float32"))
    model.backward(d)
    with pytest.raises(RuntimeError, match="backward needs a forward pass"):
        model.backward(d)


@pytest.mark.parametrize("N", [1, 2])
def test_gradients_do_not_change_when_the_caller_reuses_his_array(N):
    model = build_model("plain", 5, width=4, backend="numpy", dtype="float64")
    x = np.random.default_rng(0).normal(size=(N, 3, 8, 8))
    model.backward(np.ones_like(model.forward(x, train=True)))
    expected = {name: g.copy() for name, g in model.gradients().items()}
    logits = model.forward(x, train=True)
    x.fill(0)
    model.backward(np.ones_like(logits))
    for name, gradient in model.gradients().items():
        assert np.array_equal(gradient, expected[name]), name


def test_the_rows_of_a_network_follow_the_shape_of_the_data_through_it():
    rows = build_model("resnet_igc", 8, L=2, M=2, backend="numpy").rows()
    outputs = {row.name: row.output for row in rows}
    assert outputs["stem.bn"] == outputs["stage1.block1.branch.unit2.bn"] == (4, 32, 32)
    assert outputs["stage2.block1.shortcut.conv"] == (8, 16, 16)
    assert outputs["stage2.block1.branch.unit1.igc"] == (8, 16, 16)
    assert outputs["stage3.block1.branch.unit2.bn"] == (16, 8, 8)
    assert (outputs["pool"], outputs["linear"]) == ((16,), (10,))


@pytest.mark.parametrize("arch", [a for a in ARCHITECTURES if a.startswith(("plain", "resnet"))])
def test_a_network_of_one_dimension_leaves_a_row_a_row(arch):
    numbers = dict.fromkeys(numbers_of(arch), 4) | {"dims": "1", "kernel_sizes": (5,)}
    stem, _, *rest = build_model(arch, 8, **numbers, backend="numpy").network.rows((3, 1, 18))
    assert stem.kind.startswith("conv 1x3 3-")
    convolutions = [row for row in rest if row.kind.startswith(("conv", "igc", "fusion"))]
    assert {row.output[1:] for row in convolutions} == {(1, 18), (1, 9), (1, 5)}
    kernels = {row.kind.split()[1] for row in convolutions}
    assert kernels == {"1x5", *["1x1"] * (arch == "plain_igcv2" or arch.startswith("resnet"))}


# -- IGCV2 and IGCV3 -------------------------------------------------------------------------


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
    [(16, 8, 6_266), (48, 8, 24_538), (48, 20, 71_194), (64, 20, 104_650), (144, 20, 294_490)],
)
def test_plain_igcv2_has_the_fewest_parameters_that_three_factors_allow(width, depth, parameters):
    blocks = (depth - 2) // 3
    widths = [width] * (blocks + 1) + [2 * width] * blocks + [4 * width] * blocks
    total = sum(widths) * 2 + 27 * width + 40 * width + 10  # norms, stem, linear
    total += sum(least_igcv2_parameters(inp, out) for inp, out in pairwise(widths))
    counted = cost(Architecture("plain_igcv2", depth, width=width)).parameters
    assert counted == total == parameters


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
    architecture = Architecture("igcv3", 99, width=32, num_classes=num_classes)
    assert cost(architecture).parameters == total == parameters


loose = cache(is_loosely_complementary)  # networks of one width are made of the same blocks


@pytest.mark.parametrize(("depth", "blocks"), [(54, 17), (99, 32), (144, 47)])
@pytest.mark.parametrize("width", [4, 12, 32])
def test_every_igcv3_network_is_loosely_complementary(depth, blocks, width):
    specs = list(igcv3_blocks(Architecture("igcv3", depth, width=width)))
    assert len(specs) == blocks
    assert 3 * blocks + 3 == depth
    assert all(map(loose, {*specs}))
    assert [s.stride for s in specs].count(2) == 3
    size = 32, 32
    for spec in specs:
        size = spec.output_size(*size)
    assert size == (4, 4)


def test_a_small_igcv3_network_computes_logits_and_all_gradients():
    model = build_model("igcv3", 54, width=4, num_classes=7, backend="numpy", dtype="float64")
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32))
    logits = model.forward(x, train=True)
    assert logits.shape == (2, 7)
    assert model.backward(np.ones_like(logits)).shape == x.shape
    assert model.gradients().keys() == model.parameters().keys()
    assert all(np.isfinite(gradient).all() for gradient in model.gradients().values())


@pytest.mark.parametrize("sizes", [np.int64(5), "5", [5], ("5",), np.array(5), np.array([5])])
def test_kernel_sizes_and_dims_are_read_alike_for_a_network_and_for_a_run(sizes):
    one = build_model("plain_igc", 5, L=2, M=2, kernel_sizes=sizes, dims=1, backend="numpy")
    run = TrainConfig(depth=5, L=2, M=2, kernel_sizes=sizes, dims=np.int64(1))
    assert one.architecture == run.architecture()
    assert (one.architecture.kernel_sizes, one.architecture.dims) == ((5,), "1")


@pytest.mark.parametrize(
    "sizes", [None, True, [True, 5], b"3", {3: 1}, 3.0, "", [[3], 5], 2, 1001, 10**30, float("nan")]
)
def test_other_kernel_sizes_are_refused_alike(sizes):
    for make in (TrainConfig, partial(Architecture, "plain_igc", 5, 2, 2)):
        with pytest.raises(SpecError, match=r"kernel_sizes=.* is not allowed; it must be an odd"):
            make(kernel_sizes=sizes)
