"""Whole training steps of the cupy backend, on the emulator: captured, replayed, counted."""

import numpy as np
import pytest

from igc_ref import TrainConfig, build_model, data
from igc_ref.backends import get_backend
from igc_ref.backends.cupy import convolution as blocks
from igc_ref.data import Dataset
from igc_ref.errors import TrainingError
from igc_ref.training import session as sessions
from igc_ref.training.loop import draw
from igc_ref.training.session import Session
from tests.backends.cuda import emulator

if emulator.problem():
    pytest.skip(emulator.problem(), allow_module_level=True)

from tests.backends.cuda.emulator.backend import EmulatedBackend

SIZE, BATCH = 11, 4  # steps of 4, 4 and 3 pictures


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    """Train on a handful of random pictures."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (SIZE, 3, 32, 32), dtype=np.uint8)
    classes = tuple("abcdefghij")
    statistics = (120.0, 121.0, 122.0), (60.0, 61.0, 62.0)
    pictures = Dataset("few", images, rng.integers(0, 10, SIZE), classes, *statistics)
    monkeypatch.setattr(data, "load", lambda *where: pictures)


def run(monkeypatch, tmp_path, backend, **settings):
    """Train three epochs on this backend; return the session and the lines it reported."""
    monkeypatch.setattr(sessions, "get_backend", lambda name, storage: backend)
    settings = {"L": 2, "M": 2, "batch_size": BATCH, "epochs": 3, "lr": 0.02, **settings}
    lines = []
    session = Session(TrainConfig(**settings), lines.append)
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    session.run(folder)
    return session, lines


def another_epoch(session):
    """Take the steps of one more epoch."""
    return list(session.steps.epoch(draw(0, 4, SIZE, BATCH, augment=True), np.full(3, 0.01)))


def losses(session):
    return [record["train_loss"] for record in session.records]


def state(session):
    return {**session.model.state_dict(), **session.optimiser.state_dict()}


@pytest.mark.parametrize("settings", [{}, {"arch": "resnet_igc"}, {"augment": False}], ids=str)
def test_a_run_on_the_kernels_is_the_run_of_the_numpy_backend_to_rounding(
    monkeypatch, tmp_path, settings
):
    ours, _ = run(monkeypatch, tmp_path, EmulatedBackend(), **settings)
    theirs, _ = run(monkeypatch, tmp_path, get_backend("numpy"), **settings, dtype="float64")
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-4)
    assert [r["train_accuracy"] for r in ours.records] == [
        r["train_accuracy"] for r in theirs.records
    ]
    expected = theirs.model.state_dict()
    for name, array in ours.model.state_dict().items():
        scale = 0.1 + np.abs(expected[name]).max()  # nine steps amplify rounding
        assert np.abs(array - expected[name]).max() <= 2e-3 * scale, name


def test_a_replayed_step_gives_the_bits_of_a_step_kernel_by_kernel(monkeypatch, tmp_path):
    captured, _ = run(monkeypatch, tmp_path, EmulatedBackend())
    plain, _ = run(monkeypatch, tmp_path, EmulatedBackend(capture=False))
    assert set(captured.steps._graphs) == {4, 3}
    assert not plain.steps._graphs
    assert losses(captured) == losses(plain)
    assert all(np.array_equal(array, state(plain)[name]) for name, array in state(captured).items())


def test_two_runs_with_the_same_seed_give_the_same_bits_and_another_seed_others(
    monkeypatch, tmp_path
):
    one, two, other = (
        run(monkeypatch, tmp_path, EmulatedBackend(), seed=seed)[0] for seed in (1, 1, 2)
    )
    assert losses(one) == losses(two) != losses(other)
    assert all(np.array_equal(array, state(two)[name]) for name, array in state(one).items())


def test_an_epoch_crosses_the_border_a_few_times_whatever_its_steps(monkeypatch, tmp_path):
    session, _ = run(monkeypatch, tmp_path, EmulatedBackend())
    device = session.model.backend.device
    device.crossings.clear()
    device.launches.clear()
    another_epoch(session)
    # In: order, window, mirror; learning rates, step number. Out: losses, right answers.
    assert device.crossings == ["overwrite"] * 6 + ["download"] * 2
    assert device.launches.count("take_batch") == device.launches.count("finish_step") == 3


def test_nothing_of_a_captured_step_is_left_to_the_library(monkeypatch, tmp_path):
    session, _ = run(monkeypatch, tmp_path, EmulatedBackend())
    xp = session.model.backend.xp
    allowed = {"empty", "empty_like", "ascontiguousarray", "ndarray", "float32"}

    class Strict:
        def __getattr__(self, name):
            assert name in allowed, f"xp.{name} inside a graph"
            return getattr(xp, name)

    session.model.backend.xp = Strict()
    session.steps._graphs.clear()
    another_epoch(session)


def test_a_network_without_kernels_is_trained_uncaptured_and_that_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(blocks, "of_block", lambda *numbers: None)
    session, lines = run(monkeypatch, tmp_path, EmulatedBackend(), epochs=2)
    assert not session.steps._graphs
    said = [line for line in lines if "not captured" in line]
    assert len(said) == 1
    assert "igc 3x3" in said[0]
    theirs, _ = run(monkeypatch, tmp_path, get_backend("numpy"), dtype="float64", epochs=2)
    assert losses(session) == pytest.approx(losses(theirs), rel=1e-4)


def test_losses_are_fetched_in_time_to_stop_a_run_that_diverges(monkeypatch, tmp_path):
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at epoch 1, step 2, learning"):
        run(monkeypatch, tmp_path, EmulatedBackend(), lr=1e25, schedule="step")


def test_pictures_stored_in_16_bits_train_as_those_in_32_to_their_precision(monkeypatch, tmp_path):
    half, _ = run(monkeypatch, tmp_path, EmulatedBackend("float16"))
    full, _ = run(monkeypatch, tmp_path, EmulatedBackend())
    assert losses(half) == pytest.approx(losses(full), rel=1e-2)
    assert losses(half) != losses(full)
    assert all(array.dtype == np.float32 for array in half.model.state_dict().values())


def test_gradients_of_pictures_stored_in_16_bits_come_out_at_their_own_scale():
    x, d = np.random.default_rng(0).normal(size=(2, 4, 3, 32, 32)).astype("float32")
    found = []
    for backend in (EmulatedBackend("float16"), EmulatedBackend()):
        model = build_model("plain_igc", 5, L=2, M=2, backend=backend)
        dx = model.backward(model.forward(x, train=True) * 0 + d[0, 0, 0, :10])
        found.append({"": dx, **model.gradients()})
    for name, expected in found[1].items():
        error = np.linalg.norm(found[0][name] - expected) / np.linalg.norm(expected)
        assert error < 0.2, name  # a ReLU may close because of a rounding error
