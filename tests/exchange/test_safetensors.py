"""Networks as safetensors files: read by a parser of our own, and what a hostile file may do."""

import json
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igc_ref import build_model
from igc_ref.errors import CheckpointError
from igc_ref.exchange.header import KEY
from igc_ref.networks.architecture import ARCHITECTURES
from igc_ref.networks.metadata import Metadata

library = pytest.importorskip("safetensors.numpy")
from igc_ref.exchange.safetensors import load, save  # noqa: E402

PETS = Metadata("pets", ("cat", "dog"), (1, 2, 3), (4, 5, 6), (32, 32))
NARROW = {"plain": 5, "resnet": 8, "imagenet": 18, "igcv3": 54}
DTYPES = {"F32": np.float32, "F64": np.float64}


def narrow(arch, dtype="float32"):
    """The narrowest network of its kind, every number of it drawn."""
    family, unit = ARCHITECTURES[arch]
    sizes = {"L": 1, "M": 1} if unit in ("igc", "fusion") else {"width": 4}
    model = build_model(arch, NARROW[family], **sizes, num_classes=2, backend="numpy", dtype=dtype)
    rng, state = np.random.default_rng(0), model.state_dict()
    model.load_state_dict({n: rng.random(a.shape).astype(dtype) for n, a in state.items()})
    model.metadata = PETS
    return model


def parsed(path):
    """The arrays and the metadata of a file, by the description of the format."""
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    table, arrays = json.loads(content[8:begin]), {}
    about = table.pop("__metadata__")
    for name, of in table.items():
        first, last = (begin + offset for offset in of["data_offsets"])
        arrays[name] = np.frombuffer(content[first:last], DTYPES[of["dtype"]]).reshape(of["shape"])
    return arrays, about


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.safetensors"


def rewritten(path, edit=lambda arrays, header: None):
    """Save a small network; let `edit` change what the file holds."""
    save(narrow("plain_igc"), path)
    arrays, about = parsed(path)
    arrays, header = {name: a.copy() for name, a in arrays.items()}, json.loads(about[KEY])
    edit(arrays, header)
    library.save_file(arrays, path, {KEY: json.dumps(header)})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_network_comes_back_to_the_last_bit(arch, dtype, path):
    model = narrow(arch, dtype)
    save(model, path)
    back = load(path, "numpy")
    assert (back.architecture, back.dtype, back.metadata) == (model.architecture, dtype, PETS)
    found, state = back.state_dict(), model.state_dict()
    assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in state.items()}


def test_arrays_that_are_not_c_contiguous_are_written_in_their_order(path):
    model = build_model("plain_igc", 5, L=2, M=4, backend="numpy")
    for _, layer in model.network.named_layers():
        layer.parameters |= {name: np.asfortranarray(a) for name, a in layer.parameters.items()}
    state, prefix = model.state_dict(), "stage1.block1.igc"
    assert not state[f"{prefix}.primary"].flags.c_contiguous
    save(model, path)
    arrays, about = parsed(path)
    assert about["format"] == "pt"
    assert np.array_equal(arrays[f"{prefix}.primary.weight"], state[f"{prefix}.primary"])
    of_conv2d = arrays[f"{prefix}.secondary.weight"]
    assert of_conv2d.shape == (8, 2, 1, 1)
    assert np.array_equal(of_conv2d[:, :, 0, 0], state[f"{prefix}.secondary"])


def test_what_was_fine_tuned_in_pytorch_comes_back_also_without_its_metadata(path):
    save(model := narrow("resnet_igc"), path)
    arrays, about = parsed(path)
    arrays["linear.bias"] = arrays["linear.bias"] + 1
    arrays["stem.bn.num_batches_tracked"] = np.array(7)
    library.save_file(arrays, path, about)
    assert np.array_equal(load(path, "numpy").state_dict()["linear.bias"], arrays["linear.bias"])
    library.save_file(arrays, path)
    with pytest.raises(CheckpointError, match=r"of which network: give save_file metadata="):
        load(path, "numpy")
    again = load(path, "numpy", like=model)
    assert np.array_equal(again.state_dict()["linear.bias"], arrays["linear.bias"])
    assert again.metadata == PETS


@pytest.mark.slow
def test_pytorch_reads_a_file_and_one_of_its_half_precisions_is_refused(path):
    safe = pytest.importorskip("safetensors.torch")
    save(model := narrow("plain"), path)
    state, about = safe.load_file(path), parsed(path)[1]
    assert np.array_equal(state["stem.bn.weight"].numpy(), model.state_dict()["stem.bn.gamma"])
    safe.save_file({name: array.bfloat16() for name, array in state.items()}, path, about)
    with pytest.raises(CheckpointError, match=r" is BF16; F32 or F64 is needed"):
        load(path, "numpy")


def put(name, value):
    return lambda arrays, header: arrays[name].flat.__setitem__(0, value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put("linear.weight", np.nan), r"linear\.weight has a number that is not finite"),
        (put("stem.bn.running_var", -1), r"stem\.bn\.running_var has a negative number"),
        (lambda a, _: a.pop("linear.bias"), r"the state lacks 'linear\.bias'"),
        (lambda a, _: a.update(more=np.ones(2)), "has, but the network has not, 'more'"),
        (lambda a, _: a.update({"linear.bias": np.ones(3, "f4")}), r"bias is float32 of shape \(3"),
        (lambda a, _: a.update({"linear.bias": np.ones(2)}), "linear.bias is float64 of shape"),
        (lambda a, _: a.update({"linear.bias": np.ones(2, "f2")}), "bias is F16; F32 or F64"),
        (lambda _, header: header.update(dtype="int8"), "dtype='int8' is unknown"),
        (lambda _, header: header["metadata"].update(classes=["cat"]), "1 names of 2 classes"),
        (lambda _, header: header.pop("architecture"), "damaged: KeyError"),
    ],
)
def test_a_file_of_another_content_is_refused_by_name(edit, message, path):
    rewritten(path, edit)
    with pytest.raises(CheckpointError, match=message):
        load(path, "numpy")


@pytest.mark.parametrize(
    "hostile",
    [
        {"depth": 1_999_999_997}, {"depth": 30_002}, {"L": 2**30}, {"num_classes": 2**31 - 1},
        {"M": 1000}, {"arch": "igcv3", "depth": 54, "L": None, "M": None, "width": 200},
    ],
)  # fmt: skip
def test_a_header_larger_than_its_file_builds_no_network(hostile, path):
    def edit(arrays, header):
        arrays["more"] = np.zeros(1_000_000, "f4")
        header["architecture"].update(hostile)
        header["metadata"] = None

    rewritten(path, edit)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="classes, is not in 1,000,"):
            load(path, "numpy")
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size
    finally:
        tracemalloc.stop()


@given(data=st.data())
def test_a_damaged_file_is_refused_or_read(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "m.safetensors"
    rewritten(path)
    content = bytearray(path.read_bytes())
    at, byte = data.draw(st.integers(0, len(content) - 1)), data.draw(st.binary(max_size=1))
    content[at:] = byte + content[at + 1 :] if byte else b""
    path.write_bytes(content)
    with suppress(CheckpointError):
        load(path, "numpy")
