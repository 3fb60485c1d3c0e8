"""What happens to runs: kills, signals, full disks, damaged files, other data. Nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from igc_ref import TrainConfig, build_model, cli, data
from igc_ref.backends import numba_problem
from igc_ref.backends.operators.library import Sampling
from igc_ref.errors import CheckpointError, TrainingError
from igc_ref.training import checkpoint
from igc_ref.training import folder as runs
from igc_ref.training.loop import Trainer
from igc_ref.training.session import resume, train
from igc_ref.training.signals import Interrupted, StopRequest
from tests.backends.cuda import emulator

STEPS = 4  # of an epoch: 60 pictures, 16 at a time


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    """Train on 60 pictures of `shapes`, test on 30; the last batch is a small one."""
    sizes, draw = {"train": 60, "test": 30}, data.shapes
    monkeypatch.setattr(data, "shapes", lambda split: draw(split, size=sizes[split]))


@pytest.fixture(params=["numpy", "numba", "emulated"])
def backend(request, monkeypatch):
    """Every backend that can be had here, by the name to give to a config."""
    if request.param == "emulated":
        if emulator.problem():
            pytest.skip(emulator.problem())
        from tests.backends.cuda.emulator.backend import EmulatedBackend

        module = sys.modules[Trainer.__module__]
        # Steps kernel by kernel, so that faults can be planted between them; the bits are the same.
        monkeypatch.setattr(
            module, "get_backend", lambda name, storage: EmulatedBackend(storage, capture=False)
        )
        return "numpy"
    if request.param == "numba" and numba_problem():
        pytest.skip(numba_problem())
    return request.param


def config(tmp_path, name="run", **changes):
    settings = {
        "depth": 5, "L": 2, "M": 2, "backend": "numpy", "epochs": 3, "batch_size": 16, "lr": 0.05,
        "out": str(tmp_path / name),
    }  # fmt: skip
    return TrainConfig(**settings | changes)


def outcome(folder):
    """All of a run that must not depend on what happened to it."""
    saved = checkpoint.load(folder / "checkpoint.npz")
    arrays = {**saved.model, **{f"velocity of {n}": v for n, v in saved.velocity.items()}}
    timings = {"seconds", "images_per_second"}
    log = [{k: v for k, v in r.items() if k not in timings} for r in runs.read_log(folder)]
    return {name: array.tobytes() for name, array in arrays.items()}, log


def failing_after(steps, error, monkeypatch):
    """Let the step after so many raise an error; return what mends it."""
    learn, taken = Trainer.learn, []

    def failing(self, x, labels, lr):
        taken.append(lr)
        if len(taken) > steps:
            raise error
        return learn(self, x, labels, lr)

    monkeypatch.setattr(Trainer, "learn", failing)
    return lambda: monkeypatch.setattr(Trainer, "learn", learn)


# -- resuming --------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3, 4, 6])
def test_a_run_resumes_from_the_middle_of_an_epoch_bit_for_bit(
    backend, tmp_path, monkeypatch, steps
):
    whole = train(config(tmp_path, "whole", backend=backend))
    mend = failing_after(steps, RuntimeError("power cut"), monkeypatch)
    with pytest.raises(RuntimeError, match="power cut"):
        train(config(tmp_path, backend=backend, checkpoint_every=1))
    mend()
    saved = checkpoint.load(tmp_path / "run" / "checkpoint.npz")
    assert (len(saved.records), saved.partial.step) == divmod(steps, STEPS)
    resume(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(whole.run)


def test_checkpoints_come_every_so_many_steps_and_after_every_epoch(tmp_path, monkeypatch):
    positions, save = [], checkpoint.save

    def noting(path, saved, keep):
        positions.append(saved.position)
        save(path, saved, keep)

    monkeypatch.setattr(checkpoint, "save", noting)
    train(config(tmp_path, epochs=2, checkpoint_every=3))
    assert positions == [
        "epoch 0", "epoch 1, step 3", "epoch 1", "epoch 2, step 3", "epoch 2",
    ]  # fmt: skip


def test_the_last_two_checkpoints_are_kept(tmp_path):
    folder = train(config(tmp_path)).run
    found = [checkpoint.load(folder / n).position for n in (runs.CHECKPOINT, runs.PREVIOUS)]
    assert found == ["epoch 3", "epoch 2"]


@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_resumed(tmp_path, damage):
    whole = train(config(tmp_path, "whole"))
    folder = train(config(tmp_path)).run
    path = folder / runs.CHECKPOINT
    weights = checkpoint.load(path).model["linear.weight"].tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(weights)] ^= 1  # one bit of one number: the archive's checksum tells
    path.write_bytes(content if damage == "flipped" else content[:1000])
    if damage == "missing":
        path.unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint\.npz"):  # only who resumes goes back
        runs.load_run(folder, "numpy")
    lines = []
    resume(folder, lines.append)
    assert "checkpoint.npz" in lines[0]
    assert lines[0].endswith(f"going on from {folder / runs.PREVIOUS}, epoch 2")
    assert outcome(folder) == outcome(whole.run)


def test_where_both_checkpoints_are_damaged_the_newest_is_named(tmp_path):
    folder = train(config(tmp_path)).run
    for name in (runs.CHECKPOINT, runs.PREVIOUS):
        (folder / name).write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"checkpoint\.npz is damaged"):
        resume(folder)


def test_a_run_is_not_continued_on_other_pictures(tmp_path, monkeypatch):
    mend = failing_after(5, RuntimeError, monkeypatch)
    with pytest.raises(RuntimeError):
        train(config(tmp_path))
    mend()
    draw = data.shapes
    changed = {}

    def one_pixel_off(split):
        pictures = draw(split)
        images = pictures.images.copy()
        images[0, 0, 0, 0] ^= 1
        changed[split] = True
        return replace(pictures, images=images)

    monkeypatch.setattr(data, "shapes", one_pixel_off)
    with pytest.raises(CheckpointError, match="trained on other pictures of shapes: their finger"):
        resume(tmp_path / "run")
    assert changed


def test_a_numpy_that_draws_other_numbers_does_not_continue_an_epoch(tmp_path, monkeypatch):
    mend = failing_after(2, RuntimeError, monkeypatch)
    with pytest.raises(RuntimeError):
        train(config(tmp_path, checkpoint_every=1))
    mend()
    monkeypatch.setattr(Sampling, "fingerprint", lambda self: "another")
    with pytest.raises(CheckpointError, match="draws epoch 1 in another order than the NumPy that"):
        resume(tmp_path / "run")


def test_weights_move_between_backends_exactly():
    if numba_problem():
        pytest.skip(numba_problem())
    kinds = {"depth": 8, "L": 2, "M": 2}
    one, two = (build_model("resnet_igc", backend=b, **kinds, seed=i) for i, b in enumerate(
        ("numpy", "numba")
    ))  # fmt: skip
    two.load_state_dict(one.state_dict())
    for name, array in one.state_dict().items():
        assert np.array_equal(array, two.state_dict()[name]), name


def test_a_run_that_was_ended_before_its_first_checkpoint_begins_anew(tmp_path, monkeypatch):
    whole = train(config(tmp_path, "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", lambda self, folder: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(config(tmp_path))
    lines = []
    resume(tmp_path / "run", lines.append)
    assert lines[0].endswith("run has no checkpoint yet: it begins anew")
    assert outcome(tmp_path / "run") == outcome(whole.run)


# -- signals and kills -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_a_run_at_its_next_pause_saved_and_resumable(
    backend, tmp_path, monkeypatch, number
):
    whole = train(config(tmp_path, "whole", backend=backend))
    learn, taken = Trainer.learn, []

    def signalled(self, x, labels, lr):
        taken.append(lr)
        if len(taken) == 6:
            os.kill(os.getpid(), number)
        return learn(self, x, labels, lr)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "learn", signalled)
        with pytest.raises(Interrupted, match=r"saved in .*run; continue with: igc-ref train"):
            train(config(tmp_path, backend=backend))
    resume(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(whole.run)


def test_the_command_line_says_where_an_interrupted_run_lies(tmp_path, monkeypatch, capsys):
    def interrupted(config, report):
        raise Interrupted("interrupted at epoch 1, step 2; saved in runs/x", signal.SIGTERM)

    monkeypatch.setattr(cli, "train", interrupted)
    assert cli.main(["train"]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "igc-ref: interrupted at epoch 1, step 2; saved in runs/x\n"


def test_a_second_signal_does_not_wait_and_handlers_are_given_back():
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_thread_can_train_though_it_gets_no_signals(tmp_path):
    thread = threading.Thread(target=train, args=(config(tmp_path, epochs=1),))
    thread.start()
    thread.join()
    assert len(runs.read_log(tmp_path / "run")) == 1


@pytest.mark.slow
def test_killed_runs_and_full_disks_lose_nothing(tmp_path):
    command = [sys.executable, "-m", "tests.stress.faults", "--kills", "3", "--epochs", "2"]
    done = subprocess.run(
        [*command, "--pictures", "48", "--longest", "0.4"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| disk full at one write |" in done.stdout


# -- disks, memory, folders ------------------------------------------------------------------


def test_a_disk_that_is_full_at_any_write_loses_nothing(tmp_path, monkeypatch):
    whole = outcome(train(config(tmp_path, "whole")).run)
    fsync, failures = os.fsync, 0
    while True:
        left = [failures + 1]

        def failing(descriptor, left=left):
            left[0] -= 1
            if left[0] == 0:
                raise OSError(28, "No space left on device")
            fsync(descriptor)

        name = f"run{failures}"
        monkeypatch.setattr(os, "fsync", failing)
        try:
            train(config(tmp_path, name, checkpoint_every=2))
            break
        except OSError:
            failures += 1
        finally:
            monkeypatch.setattr(os, "fsync", fsync)
        folder = tmp_path / name
        assert not list(folder.glob("*.partial"))
        if (folder / runs.CHECKPOINT).exists():  # else nothing was there to lose
            with suppress(CheckpointError):  # the last write of all: the run is finished
                resume(folder)
            assert outcome(folder) == whole
    assert failures >= 15


def test_out_of_memory_names_a_smaller_batch(tmp_path, monkeypatch):
    failing_after(1, MemoryError("Out of memory allocating 4,096 bytes"), monkeypatch)
    with pytest.raises(
        TrainingError, match="with batch size 16; try --batch-size 8: Out of memory allocating"
    ):
        train(config(tmp_path))


def test_a_folder_is_one_process_s_at_a_time(tmp_path, monkeypatch):
    failing_after(1, RuntimeError, monkeypatch)
    with pytest.raises(RuntimeError):
        train(config(tmp_path))
    with runs.locked(tmp_path / "run"):
        for attempt in (lambda: resume(tmp_path / "run"), lambda: train(config(tmp_path))):
            with pytest.raises(CheckpointError, match=r"another process is training in .*run"):
                attempt()


def test_a_loss_that_is_not_finite_names_the_last_checkpoint_within_the_epoch(
    tmp_path, monkeypatch
):
    results = iter([(1.0, 3), (1.0, 3), (float("nan"), 3)])
    monkeypatch.setattr(Trainer, "train_step", lambda self, x, labels, lr: next(results))
    with pytest.raises(TrainingError, match=r"step 3, .* of epoch 1, step 2"):
        train(config(tmp_path, checkpoint_every=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, "step=-1"),
        ({"step": 1.5}, "step=1.5"),
        ({"loss_sum": -1.0}, "its loss_sum is -1.0"),
        ({"draws": 3}, "its draws is no short text"),
    ],
    ids=str,
)
def test_a_checkpoint_with_an_impossible_position_is_refused(tmp_path, change, message):
    path = train(config(tmp_path, epochs=1)).run / runs.CHECKPOINT
    with np.load(path) as file:
        arrays = dict(file)
    meta = json.loads(arrays["meta"].item())
    meta["partial"] |= change
    np.savez(path, **arrays | {"meta": np.array(json.dumps(meta))})
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(path)
