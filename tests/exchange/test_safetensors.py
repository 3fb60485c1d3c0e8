"""Networks as safetensors files, and what a hostile file may do."""

import json
import tracemalloc
from contextlib import suppress
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igc_ref import build_model
from igc_ref.errors import CheckpointError, SpecError
from igc_ref.exchange import header
from igc_ref.networks.architecture import ARCHITECTURES, DEPTHS, Architecture, numbers_of
from igc_ref.networks.metadata import Metadata

library = pytest.importorskip("safetensors.numpy")
from safetensors import safe_open  # noqa: E402

from igc_ref.exchange.safetensors import load, save  # noqa: E402

GATED = "plain_igc", {"L": 2, "M": 2, "gate": "partitions", "keep": 1}
PETS = Metadata("pets", ("cat", "dog"), (1, 2, 3), (4, 5, 6), (32, 32))


def narrow(arch, dtype="float32", **sizes):
    """A narrow network, every number of it drawn, in arrays that are not C-contiguous."""
    depths, _ = DEPTHS[ARCHITECTURES[arch][0]]
    sizes = sizes or ({"width": 4} if "width" in numbers_of(arch) else {"L": 1, "M": 1})
    model = build_model(arch, depths[0], **sizes, num_classes=2, backend="numpy", dtype=dtype)
    rng, model.metadata = np.random.default_rng(0), PETS
    for _, layer in model.network.named_layers():
        for own in (layer.parameters, layer.buffers):
            own |= {n: np.asfortranarray(rng.random(a.shape).astype(dtype)) for n, a in own.items()}
    return model


def content(path):
    """The arrays and the metadata of a file."""
    with safe_open(path, "np") as file:
        return library.load_file(path), file.metadata()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.safetensors"


def rewritten(path, edit=lambda arrays, told: None):
    """Save a small network; let `edit` change what the file holds."""
    save(narrow("plain_igc"), path)
    arrays, about = content(path)
    edit(arrays, told := json.loads(about[header.KEY]))
    library.save_file(arrays, path, {header.KEY: json.dumps(told)})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("arch", "sizes"), [*((arch, {}) for arch in ARCHITECTURES), GATED])
def test_a_network_comes_back_to_the_last_bit(arch, sizes, dtype, path):
    model = narrow(arch, dtype, **sizes)
    save(model, path)
    back = load(path, "numpy")
    assert (back.architecture, back.dtype, back.metadata) == (model.architecture, dtype, PETS)
    found, state = back.state_dict(), model.state_dict()
    assert {n: a.tobytes() for n, a in found.items()} == {n: a.tobytes() for n, a in state.items()}


def test_a_file_has_the_names_and_layouts_of_pytorch_which_may_have_changed_its_numbers(path):
    save(model := narrow("plain_igc", L=2, M=4), path)
    (arrays, about), state, block = content(path), model.state_dict(), "stage1.block1.igc"
    assert not state[f"{block}.primary"].flags.c_contiguous
    assert np.array_equal(arrays["stem.bn.weight"], state["stem.bn.gamma"])
    assert np.array_equal(arrays[f"{block}.primary.weight"], state[f"{block}.primary"])
    secondary = arrays[f"{block}.secondary.weight"]
    assert np.array_equal(secondary, state[f"{block}.secondary"].reshape(8, 2, 1, 1))
    arrays |= {"linear.bias": arrays["linear.bias"] + 1, "bn.num_batches_tracked": np.array(7)}
    assert about["format"] == "pt"
    library.save_file(arrays, path, about)
    assert np.array_equal(load(path, "numpy").state_dict()["linear.bias"], arrays["linear.bias"])
    library.save_file(arrays, path)
    with pytest.raises(
        CheckpointError, match=r"of which network: save it with metadata=.*from_tor"
    ):
        load(path, "numpy")


def test_a_dtype_that_numpy_does_not_have_is_named(path):
    rewritten(path, lambda arrays, _: arrays.update({"linear.bias": np.ones(2, "f2")}))
    file = path.read_bytes()
    size = int.from_bytes(file[:8], "little") + 1
    path.write_bytes(size.to_bytes(8, "little") + file[8:].replace(b'"F16"', b'"BF16"'))
    with pytest.raises(CheckpointError, match="bfloat16"):
        load(path, "numpy")


def put(name, value):
    return lambda arrays, told: arrays[name].flat.__setitem__(0, value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put("linear.weight", np.nan), r"linear\.weight has a number that is not finite"),
        (put("stem.bn.running_var", -1), r"stem\.bn\.running_var has a negative number"),
        (lambda a, _: a.pop("linear.bias"), r"the state lacks 'linear\.bias'"),
        (lambda a, _: a.update(more=np.ones(2)), "has, but the network has not, 'more'"),
        (lambda a, _: a.update({"linear.bias": np.ones(3, "f4")}), r"bias is float32 of shape \(3"),
        (lambda a, _: a.update({"linear.bias": np.ones(2, "f2")}), "bias is float16 of shape"),
        (lambda _, told: told.update(dtype="int8"), "dtype='int8' is unknown"),
        (lambda _, told: told.update(metadata=0), "damaged: 0 is no metadata"),
        (lambda _, told: told["metadata"].update(classes=["cat"]), "1 names of 2 classes"),
        (lambda _, told: told.pop("architecture"), "damaged: KeyError"),
        (lambda _, told: told["architecture"].update(M=1000), "M1000, 2 classes, is not in "),
    ],
)
def test_a_file_of_another_content_is_refused_by_name(edit, message, path):
    rewritten(path, edit)
    with pytest.raises(CheckpointError, match=f"{path.name}.*{message}"):
        load(path, "numpy")


HUGE = [
    {name: size} for name in ("L", "M", "width", "num_classes") for size in (50_000, 2**31 - 4)
] + [{"L": 2000, "M": 1}, {"depth": 302}, {"depth": 30_002}, {"depth": 1_999_999_997 // 9 * 9}]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_header_larger_than_its_file_builds_no_network(arch):
    needed, (depths, _) = numbers_of(arch), DEPTHS[ARCHITECTURES[arch][0]]
    small = {"depth": depths[0], **dict.fromkeys(needed, 4)}
    for numbers in HUGE:
        with suppress(SpecError):  # there is no such network
            about = {"architecture": asdict(Architecture(arch, **small | numbers))}
            text = json.dumps(about | {"dtype": "float32", "metadata": None})
            tracemalloc.start()
            with pytest.raises(CheckpointError, match="classes, is not in 200,099 numbers"):
                header.read(text, "file", "numpy", [(200_000,), *[()] * 99])
            assert tracemalloc.get_traced_memory()[1] < 800_000
            tracemalloc.stop()


@given(data=st.data())
def test_a_damaged_file_is_refused_or_read(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "m.safetensors"
    rewritten(path)
    file = path.read_bytes()
    at, byte = data.draw(st.integers(0, len(file) - 1)), data.draw(st.binary(max_size=1))
    path.write_bytes(file[:at] + byte + (file[at + 1 :] if byte else b""))
    with suppress(CheckpointError):
        load(path, "numpy")
