"""Training on the emulated cupy backend: whole runs, captured steps, what crosses the border."""

import sys
import weakref
from contextlib import nullcontext
from functools import partial
from types import ModuleType

import numpy as np
import pytest

from igc_ref import TrainConfig, backends, build_model, data, train
from igc_ref.backends.cupy import base
from igc_ref.data import Dataset
from igc_ref.errors import TrainingError
from igc_ref.networks.architecture import Architecture
from igc_ref.training import checkpoint
from igc_ref.training.evaluation import evaluate
from tests.backends.cuda import emulator
from tests.backends.cuda.epochs import Epochs
from tests.support.runs import outcome

if emulator.problem():
    pytest.skip(emulator.problem(), allow_module_level=True)

from tests.backends.cuda.emulator.backend import EmulatedBackend

SIZE, BATCH, SIDE = 11, 4, 12  # steps of 4, 4 and 3 images
NETWORK = {"arch": "plain_igc", "depth": 5, "L": 2, "M": 2}


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """Draw a handful of random images for the built-in data set."""
    rng, classes = np.random.default_rng(0), tuple("abcdefghij")
    images = rng.integers(0, 256, (SIZE, 3, SIDE, SIDE), dtype=np.uint8)
    statistics = (120.0, 121.0, 122.0), (60.0, 61.0, 62.0)
    few = Dataset("few", images, rng.integers(0, 10, SIZE), classes, *statistics)
    monkeypatch.setattr(data, "shapes", lambda split, *_: few if split == "train" else few[:BATCH])


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Train on the emulated backend as if a GPU were here; return it, the history, the lines."""

    def run(name="run", backend="cupy", capture=True, shared_bytes=None, **settings):
        made, lines = [], []

        def emulated(storage):
            made.append(EmulatedBackend(storage, capture=capture))
            if shared_bytes:
                made[0].device.shared_bytes = shared_bytes
            return made[0]

        module = ModuleType("igc_ref.backends.cupy.backend")
        module.CupyBackend = emulated
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(backends._PROBLEMS, "cupy", lambda: None)
        settings = {**NETWORK, "batch_size": BATCH, "epochs": 3, "lr": 0.02, **settings}
        config = TrainConfig(**settings, backend=backend, out=str(tmp_path / name))
        history = train(config, lines.append)
        return made[0] if made else None, history, lines

    return run


def losses(history):
    return [record["train_loss"] for record in history.records]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"augment": False},
        pytest.param({"arch": "resnet_igc", "depth": 8}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_run_on_the_kernels_is_the_run_of_the_numpy_backend_to_rounding(run, settings):
    _, ours, _ = run("cupy", **settings)
    _, theirs, _ = run("numpy", "numpy", **settings, dtype="float64")
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-4)
    for one, two in zip(ours.records, theirs.records, strict=True):
        assert one["train_accuracy"] == two["train_accuracy"]
    weights, expected = (checkpoint.load(h.run / "checkpoint.npz").model for h in (ours, theirs))
    for name, array in weights.items():
        scale = 0.1 + np.abs(expected[name]).max()  # nine steps amplify rounding
        assert np.abs(array - expected[name]).max() <= 2e-3 * scale, name


def test_a_replayed_step_gives_the_bits_of_a_step_kernel_by_kernel_and_a_seed_its_own(run):
    backend, captured, _ = run("captured")
    assert backend.device.graphs == 2  # of 4 images and of 3
    backend, plain, _ = run("kernel by kernel", capture=False)
    assert backend.device.graphs == 0
    _, other, _ = run("another seed", seed=1)
    assert outcome(captured.run) == outcome(plain.run)
    assert losses(captured) != losses(other)


def test_an_epoch_crosses_the_border_a_few_times_whatever_its_steps():
    epochs = Epochs(Architecture(**NETWORK), EmulatedBackend(), SIZE, BATCH, SIDE)
    device = epochs.model.backend.device
    for seed in range(4):
        device.crossings.clear()
        device.launches.clear()
        epochs.run(seed)
    # In: order, window, mirror; learning rates, step number. Out: losses, correct answers.
    assert device.crossings == ["overwrite"] * 6 + ["download"] * 2
    for once_a_step in ("take_batch", "pack", "add_up", "sgd", "finish_step"):
        assert device.launches.count(once_a_step) == 3


@pytest.mark.parametrize(("limit", "together"), [(base.WAITING_BYTES, 1), (10_000, 2), (0, 4)])
def test_weight_gradients_added_up_together_have_the_bits_of_those_added_up_alone(
    limit, together, monkeypatch
):
    monkeypatch.setattr(base, "WAITING_BYTES", limit)
    backend = EmulatedBackend()
    launches, found, counts = backend.device.launches, [], []
    x = np.random.default_rng(0).normal(size=(3, 3, SIDE, SIDE)).astype("float32")
    for context in (nullcontext, backend.deferred):
        model = build_model(**NETWORK, backend=backend)
        dlogits = np.ones_like(model.forward(x, train=True))
        launches.clear()
        with context():
            model.backward(dlogits)
        counts.append(launches.count("add_up"))
        found.append(model.gradients())
    for name, gradient in found[0].items():
        assert np.array_equal(found[1][name], gradient), name
    assert counts == [launches.count("block_backward"), together] == [4, together]


@pytest.mark.parametrize("batch_size", [4, 11])
def test_an_evaluation_waits_for_the_device_once_whatever_its_batches(batch_size):
    model = build_model(**NETWORK, backend=EmulatedBackend())
    evaluate(model, data.shapes("train"), batch_size)
    assert model.backend.device.crossings.count("download") == 2  # losses, correct answers


def test_dropped_steps_let_go_of_their_graphs_and_then_of_the_memory(monkeypatch):
    backend, gone = EmulatedBackend(), []

    def noted(name):
        def made(*arguments):
            thing = partial(make(*arguments))
            weakref.finalize(thing, gone.append, name)
            return thing

        make = getattr(backend.device, name)
        monkeypatch.setattr(backend.device, name, made)

    noted("capture")
    noted("memory")
    epochs = Epochs(Architecture(**NETWORK), backend, SIZE, BATCH, SIDE)
    for seed in range(3):
        epochs.run(seed)
    assert gone == []
    del epochs
    assert gone == ["capture"] * 2 + ["memory"] * 2


def test_weights_packed_ahead_are_never_those_of_before_the_optimisers_step():
    backend = EmulatedBackend()
    weight = backend.asarray(np.ones((4, 3, 1, 1), "float32"))
    x = backend.to_layout(backend.asarray(np.ones((2, 3, 8, 8), "float32")))
    known, found = {}, []
    for _ in range(2):  # the second finds all of them packed ahead
        with backend.packed_ahead(known):
            found.append(backend.from_layout(backend.conv2d(x, weight)[0]).max())
            numbers = {"lr": 0.5, "momentum": 0.0, "weight_decay": 0.0}
            backend.sgd_step(weight, np.ones_like(weight), np.zeros_like(weight), **numbers)
            found.append(backend.from_layout(backend.conv2d(x, weight)[0]).max())
        weight += 2
    assert found == [3, 1.5, 7.5, 6]


def test_an_operator_of_the_library_inside_a_graph_is_an_error():
    device = EmulatedBackend().device
    with pytest.raises(AssertionError, match=r"xp\.ones inside a graph"):
        device.capture(lambda: device.xp.ones(3))


def test_a_network_without_kernels_is_trained_uncaptured_and_that_is_said(run):
    backend, ours, lines = run(shared_bytes=4, epochs=2)
    assert backend.device.graphs == 0
    (said,) = [line for line in lines if "not captured" in line]
    assert "igc" in said or "conv2d" in said
    _, theirs, _ = run("numpy", "numpy", dtype="float64", epochs=2)
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-4)


def test_losses_are_fetched_in_time_to_stop_a_run_that_diverges(run):
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at epoch 1, step 2, learning"):
        run(lr=1e25, schedule="step")


@pytest.mark.slow
def test_images_stored_in_16_bits_train_as_those_in_32_to_their_precision(run):
    _, half, _ = run("16", storage="float16")
    _, full, _ = run("32")
    assert losses(half) == pytest.approx(losses(full), rel=1e-2)
    assert losses(half) != losses(full)


@pytest.mark.slow
def test_gradients_of_images_stored_in_16_bits_come_out_at_their_own_scale():
    x, d = np.random.default_rng(0).normal(size=(2, 4, 3, SIDE, SIDE)).astype("float32")
    found = []
    for backend in (EmulatedBackend("float16"), EmulatedBackend()):
        model = build_model(**NETWORK, backend=backend)
        dx = model.backward(model.forward(x, train=True) * 0 + d[0, 0, 0, :10])
        found.append({"": dx, **model.gradients()})
    for name, expected in found[1].items():
        error = np.linalg.norm(found[0][name] - expected) / np.linalg.norm(expected)
        assert error < 0.2, name  # a ReLU may close because of a rounding error
