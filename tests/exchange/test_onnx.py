"""Networks as ONNX files: onnxruntime and onnx's own evaluator compute what they are."""

import json
from collections import Counter
from importlib import import_module

import numpy as np
import pytest

from igc_ref.errors import CheckpointError, SpecError
from igc_ref.networks.architecture import ARCHITECTURES, PARTITIONED, Architecture
from igc_ref.networks.metadata import Metadata
from igc_ref.networks.model import build

pytestmark = pytest.mark.slow
onnx = pytest.importorskip("onnx")
exchange = import_module("igc_ref.exchange.onnx")

DEPTHS = {"plain": 8, "resnet": 8, "imagenet": 18, "igcv3": 54, "densenet": 10}
ABOUT = Metadata("pets", ["cat", "d\xf6g,\n", "cow"], [120, 121.5, 0.1], [60, 61, 62.5], [31, 33])
WIDE, CUT = {"width": 8, "num_classes": 3}, {"L": 2, "M": 4, "num_classes": 3}
NETWORKS = [
    Architecture(arch, DEPTHS[family], **(CUT if unit in PARTITIONED else WIDE))
    for arch, (family, unit) in ARCHITECTURES.items()
]
NETWORKS.append(Architecture("resnet_igc", 10, L=3, M=2, num_classes=3, doubling="L"))
NETWORKS.append(Architecture("resnet_igc", 8, L=3, M=2, num_classes=3, kernel_sizes=(5, 3)))
ROW = {"kernel_sizes": (5,), "dims": "1"}
NETWORKS.append(Architecture("resnet_igc", 8, L=3, M=2, num_classes=3, **ROW))
NETWORKS.append(Architecture("plain_igc", 5, L=2, M=4, num_classes=3, gate="channels"))
GATE = {"gate": "partitions", "keep": 2}
NETWORKS.append(Architecture("resnet_igc", 8, L=4, M=2, num_classes=3, **GATE))
NETWORKS.append(Architecture("resnet_igc", 8, L=2, M=6, num_classes=3, norm="group"))
NETWORKS.append(Architecture("plain", 5, width=6, num_classes=3, norm="layer"))
SMALL = Architecture("plain", 5, width=4, num_classes=3)


def trained(architecture, dtype="float32"):
    """A network whose batch norms are as after training: no gamma is 1, some are negative."""
    model, rng = build(architecture, "numpy", dtype), np.random.default_rng(7)
    state = model.state_dict()
    for name, array in state.items():
        own = name.rpartition(".")[2]
        if own == "gamma":
            array[...] = rng.choice([-1, 1], array.shape) * rng.uniform(0.5, 1.5, array.shape)
        if own in ("beta", "running_mean"):
            array[...] = rng.normal(0, 0.3, array.shape)
        if own == "running_var":
            array[...] = rng.uniform(0.5, 2, array.shape)
    model.load_state_dict(state)
    model.metadata = ABOUT
    return model


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("fold_bn", [False, True], ids=["", "folded"])
@pytest.mark.parametrize("shuffle", ["reshape", "gather", "composed"])
@pytest.mark.parametrize("architecture", NETWORKS, ids=str)
def test_others_compute_the_same_logits(architecture, shuffle, fold_bn, path):
    """In float64 by onnx's evaluator: onnxruntime has no such convolution on a CPU."""
    runtime = pytest.importorskip("onnxruntime")
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    fold_bn = fold_bn and architecture.family != "densenet"  # whose batch norms come first
    if fold_bn and architecture.norm != "batch":
        with pytest.raises(SpecError, match=r"fold_bn: .* norm has no batch norm to fold"):
            exchange.save(trained(architecture), path, fold_bn=True)
        return
    model, exact = trained(architecture), build(architecture, "numpy", "float64")
    exact.load_state_dict({n: a.astype("float64") for n, a in model.state_dict().items()})
    x = np.random.default_rng(1).normal(size=(3, 3, 31, 33)).astype("float32")
    exchange.save(model, path, shuffle=shuffle, fold_bn=fold_bn)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for images in (x, x[:1, :, 2:, 7:]):
        logits = exact.forward(images.astype("float64"))
        (found,) = session.run(["logits"], {"images": images})
        assert (found.dtype, found.shape) == ("float32", logits.shape)
        assert abs(found - logits).max() < 1e-5 * abs(logits).max()
    exchange.save(exact, path, shuffle=shuffle, fold_bn=fold_bn)
    (found,) = evaluator(onnx.load(path)).run(None, {"images": images.astype("float64")})
    # Unless it is folded, epsilon is a float32 in the file.
    assert abs(found - logits).max() < (1e-13 if fold_bn else 1e-10) * abs(logits).max()


def test_batch_norms_that_follow_no_convolution_are_not_folded(path):
    model = trained(Architecture("densenet_bc", 10, width=4))
    with pytest.raises(SpecError, match="fold_bn: the batch norms of a DenseNet follow no"):
        exchange.save(model, path, fold_bn=True)
    assert not path.exists()
    exchange.save(model, path)
    found = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert (found["Concat"], found["AveragePool"], found["BatchNormalization"]) == (3, 2, 9)


SHUFFLES = {"reshape": {"Shape": 6, "Reshape": 12, "Transpose": 6}, "gather": {"Gather": 6}}
SHUFFLES["composed"] = {}  # nodes of the six shuffles of three blocks


@pytest.mark.parametrize("fold_bn", [False, True], ids=["", "folded"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_the_graph_has_exactly_these_nodes(shuffle, fold_bn, path):
    model = trained(Architecture("plain_igc", 5, L=4, M=8, num_classes=3))
    exchange.save(model, path, shuffle=shuffle, fold_bn=fold_bn)
    graph, end = onnx.load(path).graph, {"GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
    convolutions = {"Conv": 4 if shuffle == "composed" else 7, "Relu": 4}
    norms = {} if fold_bn else {"BatchNormalization": 4}
    assert Counter(n.op_type for n in graph.node) == convolutions | norms | end | SHUFFLES[shuffle]
    if shuffle != "composed" and not fold_bn:
        weights = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
        assert weights == set(model.state_dict())
    exchange.save(trained(NETWORKS[3]), path, shuffle="gather")  # Xception: M = 1, L = in
    assert Counter(n.op_type for n in onnx.load(path).graph.node)["Gather"] == 2  # where it widens


@pytest.mark.parametrize("batch", [None, 5])
def test_a_file_says_how_to_use_it_without_us(batch, path):
    exchange.save(trained(SMALL), path, batch=batch)
    proto = onnx.load(path)
    for value, shape in (proto.graph.input, ["N", 3, "H", "W"]), (proto.graph.output, ["N", 3]):
        axes = value[0].type.tensor_type.shape.dim
        assert [a.dim_param or a.dim_value for a in axes] == [batch or "N", *shape[1:]]
    assert [proto.ir_version, *((o.domain, o.version) for o in proto.opset_import)] == [8, ("", 17)]
    told = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    assert told.pop("igc_ref")["shuffle"] == "reshape"
    assert told == {name: list(getattr(ABOUT, name)) for name in ("classes", "mean", "std")}


@pytest.mark.parametrize(("shuffle", "dtype"), [("reshape", "float64"), ("gather", "float32")])
@pytest.mark.parametrize("architecture", NETWORKS, ids=str)
def test_weights_come_back_to_the_last_bit(architecture, shuffle, dtype, path):
    model = trained(architecture, dtype)
    model.metadata = ABOUT if dtype == "float32" else None
    model.parameters()["linear.bias"][:2] = -0.0, np.finfo(dtype).smallest_subnormal
    exchange.save(model, path, shuffle=shuffle)
    found = exchange.load(path, "numpy")
    assert (found.architecture, found.metadata, found.dtype) == (
        architecture,
        model.metadata,
        dtype,
    )
    own, back = model.state_dict(), found.state_dict()
    assert all(array.tobytes() == back[name].tobytes() for name, array in own.items())


def edited(edit, **more):
    """Damage to a file: `edit` changes it, given its constants by name."""

    def damage(path):
        proto = onnx.load(path)
        edit(proto, {tensor.name: tensor for tensor in proto.graph.initializer}, **more)
        path.write_bytes(proto.SerializeToString())

    return damage


def variances(proto, tensors, change):
    tensor = tensors["stem.bn.running_var"]
    array = change(onnx.numpy_helper.to_array(tensor))
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def header(proto, _, **changes):
    told = {entry.key: entry.value for entry in proto.metadata_props}
    told["igc_ref"] = json.loads(told["igc_ref"])
    told["igc_ref"]["architecture"] |= changes
    onnx.helper.set_model_props(proto, told | {"igc_ref": json.dumps(told["igc_ref"])})


def external(_, tensors):
    onnx.external_data_helper.set_external_data(tensors["stem.conv.weight"], "/etc/hostname")


DAMAGE = {
    "there is no file": lambda path: path.unlink(),
    "was not exported": edited(lambda p, t: (external(p, t), p.ClearField("metadata_props"))),
    "no ONNX file to read: DecodeError: ": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "'stem.conv.weight' is in another file": edited(external),
    "to read: ValueError: cannot reshape": edited(lambda _, t: t["linear.bias"].dims.append(10**9)),
    "plain-1999999997 W4, 3 classes, is not in": edited(header, depth=1999999997),
    "3 names of 2000000000 classes": edited(header, num_classes=2000000000),
    "running_var has a negative number": edited(variances, change=np.negative),
    "running_var is float16": edited(variances, change=lambda array: array.astype("float16")),
    "bn.beta': it was written with shuffle='gather', fold_bn=True": lambda path: exchange.save(
        trained(SMALL), path, shuffle="gather", fold_bn=True
    ),
    "igc.primary': it was written with shuffle='composed', fold_bn=False": lambda path: (
        exchange.save(trained(NETWORKS[1]), path, shuffle="composed")
    ),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_what_is_no_file_of_ours_is_refused_in_one_line(message, path):
    exchange.save(trained(SMALL), path)
    DAMAGE[message](path)
    with pytest.raises(CheckpointError) as caught:
        exchange.load(path, "numpy")
    assert message in str(caught.value)


def test_bad_options_write_nothing(path, monkeypatch):
    model = trained(SMALL)
    path.write_bytes(b"before")
    for options in ({"shuffle": "conv"}, {"batch": 0}, {"batch": "dynamic"}):
        with pytest.raises(SpecError, match=f"{next(iter(options))}=.* is "):
            exchange.save(model, path, **options)
    with pytest.raises(TypeError, match=r"fold_bn is builtins\.str"):
        exchange.save(model, path, fold_bn="no")
    monkeypatch.setattr(exchange, "MAX_BYTES", 1000)
    with pytest.raises(SpecError, match="network has over 2 GB"):
        exchange.save(model, path)
    assert path.read_bytes() == b"before"
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
