"""What a network says of images: probabilities against a naive softmax, names, what is refused."""

import math

import numpy as np
import pytest

from igc_ref import build_model
from igc_ref.errors import SpecError, TrainingError
from igc_ref.networks.metadata import Metadata
from igc_ref.testing import assert_close
from tests.support.subjects import MISSING, fresh_backend

ABOUT = Metadata("pets", ["cat", "dog", "owl"], [120, 130, 140], [50, 60, 70], [32, 32])
rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (5, 3, 6, 5), dtype=np.uint8)  # of another size than the metadata's


def network(backend="numpy", dtype="float64", about=ABOUT):
    model = build_model("plain_igc", 5, L=2, M=2, num_classes=3, backend=backend, dtype=dtype)
    model.metadata = about
    return model


def with_logits(*logits):
    """A network that says this of every image."""
    model = network()
    weight = np.zeros_like(model.state_dict()["linear.weight"])
    state = {"linear.weight": weight, "linear.bias": np.array(logits, float)}
    model.load_state_dict(model.state_dict() | state)
    return model


def test_probabilities_are_the_softmax_of_the_logits_whatever_the_batches(backend):
    model = network(backend)
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (ABOUT.mean, ABOUT.std))
    normalised = (IMAGES - mean) / std
    logits = backend.to_numpy(model.forward(backend.asarray(normalised)))
    exps = [[math.exp(a) for a in row] for row in logits]
    expected = np.array([[e / sum(row) for e in row] for row in exps])
    for images in (IMAGES, normalised):
        for batch_size in (2, 256):
            got = model.predict(images, batch_size)
            assert_close(got.probabilities, expected, 10_000)
            assert got.labels.tolist() == expected.argmax(axis=1).tolist()
            assert got.labels.dtype == np.int64
    with pytest.raises(RuntimeError, match="needs a forward pass"):  # nothing is kept for it
        model.backward(backend.asarray(logits))


def test_great_logits_give_probabilities():
    got = with_logits(-1000, -1000 + math.log(3), -1744.7)  # exp(-744.7) is subnormal
    with np.errstate(all="raise"):
        assert got.predict(IMAGES).probabilities[0] == pytest.approx([0.25, 0.75, 0], abs=1e-12)


def test_the_best_classes_come_first_with_their_names_and_of_equals_the_first():
    model = with_logits(0, math.log(2), 0)
    got = model.predict(IMAGES[:2])
    assert [[name for name, _ in best] for best in got.top(3)] == [["dog", "cat", "owl"]] * 2
    assert [p for _, p in got.top(2)[0]] == pytest.approx([0.5, 0.25])
    with pytest.raises(SpecError, match="k=4 is too large; at most 3"):
        got.top(4)
    model.metadata = None
    assert model.predict(np.zeros((1, 3, 8, 8))).top(1)[0][0][0] == "1"
    assert with_logits(1, 1, 0).predict(IMAGES).labels.tolist() == [0] * 5


OTHER = Metadata("pets", ["cat", "dog"], [9] * 3, [9] * 3, [8, 8])
NAN = np.zeros((5, 3, 8, 8), "float32")
NAN[3] = np.nan


@pytest.mark.parametrize(
    ("images", "about", "error", "message"),
    [
        (IMAGES, OTHER, SpecError, "the metadata has 2 classes, the network 3"),
        (IMAGES, None, SpecError, "without metadata, images must be normalised float32"),
        (IMAGES / 255, ABOUT, TypeError, "images is float64; uint8 or float32 is needed"),
        (IMAGES.astype(int), ABOUT, TypeError, "images is int64"),
        (IMAGES[:, :1], ABOUT, SpecError, r"\(5, 1, 6, 5\); \(N, 3, H, W\), each at least 1, is"),
        (IMAGES[0], ABOUT, SpecError, r"has shape \(3, 6, 5\)"),
        (IMAGES[:0], ABOUT, SpecError, r"has shape \(0, 3, 6, 5\)"),
        (IMAGES.tolist(), ABOUT, TypeError, r"takes a numpy\.ndarray, not builtins\.list"),
        (np.ma.array(IMAGES), ABOUT, TypeError, r"takes a numpy\.ndarray, not numpy\.ma"),
        (NAN, ABOUT, TrainingError, "image 3 has logits that are not finite"),
    ],
)
def test_images_that_mean_nothing_to_the_network_are_refused(images, about, error, message):
    with np.errstate(invalid="ignore"), pytest.raises(error, match=message):
        network("numpy", "float32", about).predict(images, batch_size=8)


# -- arrays of other libraries ---------------------------------------------------------------------


class Foreign:
    """An array of another library: numbers and a device by DLPack's number."""

    def __init__(self, numbers, device=1):
        self.numbers, self.device = numbers, device

    def __dlpack__(self, **options):
        if self.device == 0:
            raise BufferError("it cannot be\nexported")
        return self.numbers.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device, 0


def test_an_array_of_another_library_is_copied_from_where_it_lies(backend):
    numbers = np.arange(12.0).reshape(3, 4).T[::2]
    for dtype in (None, "float32"):
        got = backend.asarray(Foreign(numbers), dtype)
        assert isinstance(got, backend.xp.ndarray)
        assert got.dtype == (dtype or "float64")
        got += 1
        assert np.array_equal(backend.to_numpy(got), numbers + 1)
    assert numbers[0, 1] == 4
    with pytest.raises(TypeError, match="Foreign where it lies: BufferError: it cannot be"):
        backend.asarray(Foreign(numbers, device=0))


@pytest.mark.skipif(bool(MISSING["emulated"]), reason=str(MISSING["emulated"]))
def test_the_cupy_backend_reads_a_card_by_its_own_library_and_uploads_nothing(monkeypatch):
    backend = fresh_backend("emulated")
    monkeypatch.setattr(backend.xp, "from_dlpack", lambda a: a.numbers.tolist(), raising=False)
    for device, crossings in ((2, []), (13, []), (1, ["upload"])):
        assert backend.asarray(Foreign(np.ones(2), device), "float32").tolist() == [1, 1]
        assert backend.device.crossings == crossings


@pytest.mark.slow
def test_tensors_are_predicted_and_what_cannot_be_read_is_one_line():
    torch = pytest.importorskip("torch")
    model, x = network(), torch.from_numpy(IMAGES).to(memory_format=torch.channels_last)
    expected = model.predict(IMAGES, 2).probabilities
    assert np.array_equal(model.predict(x, 2).probabilities, expected)
    with pytest.raises(TypeError, match=r"torch\.Tensor where it lies: BufferError: .*detach"):
        model.predict(x.double().requires_grad_())
