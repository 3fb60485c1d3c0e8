"""Runs: repeated bit for bit, stopped, killed, resumed, and refused before anything is written."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from igc_ref import TrainConfig, cli, data, plots
from igc_ref.backends import numba_problem
from igc_ref.backends.operators.library import Sampling
from igc_ref.errors import CheckpointError, SpecError, TrainingError
from igc_ref.training import checkpoint, loop, session
from igc_ref.training import folder as runs
from igc_ref.training.evaluation import Evaluation
from igc_ref.training.session import Interrupted, noted_signals, resume, run_to_end, train
from tests.backends.cuda import emulator
from tests.support.runs import SMALL, STEPS, config, failing, outcome, read_log

pytestmark = pytest.mark.usefixtures("few_images")


@pytest.fixture(params=["numpy", "numba", "emulated"])
def backend(request, monkeypatch):
    """Every backend that can be had here, by the name to give to a config."""
    if request.param == "emulated":
        if emulator.problem():
            pytest.skip(emulator.problem())
        from tests.backends.cuda.emulator.backend import EmulatedBackend

        monkeypatch.setattr(session, "get_backend", lambda _, storage, __: EmulatedBackend(storage))
        return "numpy"
    if request.param == "numba" and numba_problem():
        pytest.skip(numba_problem())
    return request.param


@pytest.fixture
def at_step(monkeypatch):
    """Let something happen at the n-th training step from now; return what arranges it."""
    step = loop.training_step

    def arrange(number, happen):
        taken = []

        def counting(*arguments):
            taken.append(arguments)
            if len(taken) == number:
                happen()
            return step(*arguments)

        monkeypatch.setattr(loop, "training_step", counting)

    return arrange


@pytest.fixture
def stopped(tmp_path, at_step):
    """The folder of a run that was stopped within its second epoch."""
    at_step(6, failing(RuntimeError))
    with pytest.raises(RuntimeError):
        train(config(tmp_path, checkpoint_every=1))
    assert ["sha256" in record for record in read_log(tmp_path / "run")] == [False]
    return tmp_path / "run"


def killing(number):
    return lambda: os.kill(os.getpid(), number)


# -- what a run leaves -----------------------------------------------------------------------


def test_a_run_leaves_config_log_and_checkpoints_and_says_what_it_did(tmp_path):
    lines = []
    history = train(config(tmp_path), lines.append)
    assert {path.name for path in history.run.iterdir()} - {".lock"} == {
        "checkpoint-previous.npz", "checkpoint.npz", "config.json", "log.jsonl",
    }  # fmt: skip
    assert len(lines) == 4
    assert "plain_igc-5 L2M2" in lines[0]
    assert "60 images of shapes" in lines[0]
    assert lines[2].startswith("epoch 2/2: train loss ")
    assert lines[3] == f"SHA-256 of the weights {history.sha256}"
    assert [record.get("sha256") for record in read_log(history.run)] == [None, history.sha256]
    assert [record["epoch"] for record in read_log(history.run)] == [1, 2]
    for record in history.records:
        assert record["images_per_second"] == pytest.approx(60 / record["seconds"])
    assert history.test_accuracy == history.records[-1]["test_accuracy"]
    assert runs.read_config(history.run) == config(tmp_path)
    found = [checkpoint.load(history.run / n).position for n in (runs.CHECKPOINT, runs.PREVIOUS)]
    assert found == ["epoch 2", "epoch 1"]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path):
    one, two, other = (
        outcome(train(config(tmp_path, f"run{number}", seed=seed)).run)
        for number, seed in enumerate((3, 3, 4))
    )
    assert one == two
    assert outcome(train(config(tmp_path, "r", seed=3, mirror="alternating")).run)[0] != one[0]
    assert one[0] != other[0]


def test_checkpoints_come_every_n_steps_and_after_every_epoch(tmp_path, monkeypatch):
    positions, save = [], checkpoint.save

    def noting(path, saved, keep):
        positions.append(saved.position)
        save(path, saved, keep)

    monkeypatch.setattr(checkpoint, "save", noting)
    train(config(tmp_path, checkpoint_every=3))
    assert positions == [
        "epoch 0", "epoch 1, step 3", "epoch 1", "epoch 2, step 3", "epoch 2",
    ]  # fmt: skip


# -- resuming --------------------------------------------------------------------------------


def test_a_run_that_signals_end_twice_has_the_bits_of_one_left_alone(backend, tmp_path, at_step):
    more = {"backend": backend, "mirror": "alternating", "label_smoothing": 0.1}
    whole = train(config(tmp_path, "whole", **more))
    said = r"saved in .*run; continue with: igc-ref train --resume"
    at_step(2, killing(signal.SIGINT))
    with pytest.raises(Interrupted, match=f"epoch 1, step 2; {said}"):
        train(config(tmp_path, checkpoint_every=1, **more))
    at_step(STEPS - 2 + 1, killing(signal.SIGTERM))
    with pytest.raises(Interrupted, match=f"epoch 2, step 1; {said}"):
        resume(tmp_path / "run")
    resume(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(whole.run)


@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(tmp_path, damage, monkeypatch):
    folder = train(config(tmp_path)).run
    whole, path = outcome(folder), folder / runs.CHECKPOINT
    weights = checkpoint.load(path).model["linear.weight"].tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(weights)] ^= 1  # one bit of one number: the archive's checksum tells
    path.write_bytes(content if damage == "flipped" else content[:1000])
    if damage == "missing":
        path.unlink()
    lines, rename = [], os.replace

    def full(source, target):
        if source.suffix == ".partial":
            raise OSError(28, "No space left on device")
        rename(source, target)

    with monkeypatch.context() as disk:
        disk.setattr(os, "replace", full)  # the damaged one does not replace the other
        disk.setattr(loop, "training_step", None)  # the first write comes before any
        with pytest.raises(OSError, match="No space"):
            resume(folder)
    assert runs.load_run(folder, "numpy", lines.append)[1].position == "epoch 1"
    resume(folder, lines.append)
    assert lines[0] == lines[1]
    assert "checkpoint.npz" in lines[0]
    assert lines[0].endswith(f"taking {folder / runs.PREVIOUS}, epoch 1")
    assert outcome(folder) == whole
    for name in (runs.CHECKPOINT, runs.PREVIOUS):  # without either, the newest is named
        (folder / name).write_bytes(b"not a checkpoint")
        if damage == "missing":
            (folder / name).unlink()
    refusal = "gone; its log is kept: .*log" if damage == "missing" else r"point\.npz is damaged"
    with pytest.raises(CheckpointError, match=refusal):
        run_to_end(config(tmp_path), lines.append)
    assert [record["epoch"] for record in read_log(folder)] == [1, 2]


def test_a_run_that_was_ended_before_its_first_checkpoint_starts_from_the_beginning(tmp_path):
    whole = train(config(tmp_path, "whole"))
    with runs.create(config(tmp_path)):
        pass  # the process ended here
    lines = []
    resume(tmp_path / "run", lines.append)
    assert lines[0].endswith("run has no checkpoint yet: it starts from the beginning")
    assert outcome(tmp_path / "run") == outcome(whole.run)


def test_a_finished_run_is_only_reported_and_a_different_one_not_resumed(tmp_path):
    history, lines = train(config(tmp_path)), []
    folder = history.run
    assert resume(folder, lines.append) == history
    assert lines[0] == f"{folder} is finished: {history.test_accuracy:.2%}"
    assert lines[1:] == [f"SHA-256 of the weights {history.sha256}"]
    with pytest.raises(CheckpointError, match=r"arch=plain \(the run has plain_igc\), lr=0\.2"):
        resume(folder, arch="plain", lr=0.2)
    with pytest.raises(SpecError, match="setting='epoch' is unknown; choose one of arch, depth"):
        resume(folder, epoch=3)


def test_a_continued_run_may_find_its_data_elsewhere_but_not_change_its_epochs(
    stopped, monkeypatch
):
    with pytest.raises(CheckpointError, match=r"epochs=9 \(the run has 2\)"):
        resume(stopped, epochs=9)
    seen, load = [], data.load
    monkeypatch.setattr(
        data, "load", lambda name, split, where, *_: seen.append(where) or load(name, split)
    )
    resume(stopped, data_dir="elsewhere")
    assert seen == [os.path.abspath("elsewhere")] * 2


def test_a_run_is_not_continued_on_other_images(stopped, monkeypatch):
    draw = data.shapes

    def one_pixel_off(split, _):
        images = draw(split).images.copy()
        images[0, 0, 0, 0] ^= 1
        return replace(draw(split), images=images)

    monkeypatch.setattr(data, "shapes", one_pixel_off)
    with pytest.raises(CheckpointError, match="trained on other images of shapes: their finger"):
        resume(stopped)


def test_a_numpy_that_draws_other_numbers_does_not_continue_an_epoch(stopped, monkeypatch):
    monkeypatch.setattr(Sampling, "fingerprint", lambda self: "another")
    with pytest.raises(CheckpointError, match="draws epoch 2 in another order than the NumPy that"):
        resume(stopped)


def accuracies(monkeypatch, *values):
    found = (Evaluation(1.0, value, None) for value in values)
    monkeypatch.setattr(session, "evaluate", lambda *_, **__: next(found))


def test_a_run_ends_once_its_accuracy_is_reached_and_goes_on_if_that_is_raised(
    tmp_path, monkeypatch
):
    whole = train(config(tmp_path, "whole", epochs=4))
    accuracies(monkeypatch, 0.3, 0.5, 0.4, 0.6)
    lines, again = [], []
    monkeypatch.setattr(session.time, "perf_counter", count().__next__)  # so that no epoch is short
    history = train(config(tmp_path, epochs=4, until=0.5), lines.append)
    seconds = f"{sum(record['seconds'] for record in history.records):.1f}"
    assert lines[-1] == f"reached 50.00% (until 50.00%) after epoch 2: {seconds} s of training"
    assert resume(history.run, again.append, until=0.5) == history
    assert again == [f"{history.run} is finished: 50.00%", *lines[-2:]]
    history = resume(history.run, lines.append, until=0.75)
    assert lines[-1] == "75.00% was not reached in 4 epochs: best 60.00%"
    assert history.sha256 == whole.sha256  # the learning rates are those of all epochs
    resume(history.run, lines.append, until=0.45)  # lowered: it was reached before
    assert lines[-1].startswith("reached 50.00% (until 45.00%) after epoch 2: ")
    assert runs.load_newest(history.run, print).config.until == 0.45


def test_an_epoch_that_has_begun_is_finished_though_the_one_before_was_good_enough(
    tmp_path, monkeypatch, at_step
):
    accuracies(monkeypatch, 0.5, 0.4, 0.3)
    at_step(STEPS + 2, killing(signal.SIGINT))
    with pytest.raises(Interrupted, match="epoch 2, step 2"):
        train(config(tmp_path, epochs=3))
    saved = runs.load_newest(tmp_path / "run", print)
    assert not replace(saved, config=replace(saved.config, until=0.5)).finished
    assert len(resume(tmp_path / "run", until=0.5).records) == 2


# -- signals, kills, locks -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "times", "place"),
    [(signal.SIGTERM, 1, "1, step 2"), (signal.SIGHUP, 2, "1, step 2"), (signal.SIGTERM, 2, "0")],
)
def test_the_command_line_says_how_to_continue_an_interrupted_run(
    tmp_path, at_step, capsys, number, times, place
):
    at_step(2, lambda: [os.kill(os.getpid(), number) for _ in range(times)])
    small = "--depth 5 -L 2 -M 2 --batch-size 16 --backend numpy --out".split()
    assert cli.main(["train", *small, str(tmp_path / "my run")]) == 128 + number
    err, folder = capsys.readouterr().err, tmp_path / "my run"
    assert f"igc-ref: interrupted at epoch {place}; saved in {folder}; " in err
    assert err.endswith(f"continue with: igc-ref train --resume '{folder}'\n")


def test_a_report_that_nobody_reads_any_more_ends_a_run_that_can_be_resumed(tmp_path):
    lines = []

    def report(line):
        lines.append(line)
        if "epoch 1/2" in line:
            raise BrokenPipeError

    with pytest.raises(Interrupted, match=r"at epoch 1; saved in .*run; continue with") as stop:
        train(config(tmp_path), report)
    assert stop.value.signal == signal.SIGPIPE
    assert len(resume(tmp_path / "run").records) == 2


def test_without_stderr_there_is_no_progress_bar(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert len(train(config(tmp_path, epochs=1)).records) == 1


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noted_signals() as noted:
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not noted


def test_a_second_signal_does_not_wait_and_handlers_are_given_back():
    before = signal.getsignal(signal.SIGINT)
    with noted_signals() as noted:
        os.kill(os.getpid(), signal.SIGINT)
        assert noted == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_thread_can_train_though_it_gets_no_signals(tmp_path):
    thread = threading.Thread(target=train, args=(config(tmp_path, epochs=1),))
    thread.start()
    thread.join()
    assert len(read_log(tmp_path / "run")) == 1


def test_a_folder_is_one_process_s_at_a_time_and_free_once_that_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from igc_ref.training import folder\n"
        "with folder.locked(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    with runs.create(config(tmp_path)):
        pass
    folder = tmp_path / "run"
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        for attempt in (lambda: resume(folder), lambda: train(config(tmp_path))):
            with pytest.raises(CheckpointError, match=r"another process is training in .*run"):
                attempt()
        other.kill()
    assert len(resume(folder).records) == 2


@pytest.mark.slow
def test_killed_runs_lose_nothing():
    options = "-m tests.stress.faults --kills 3 --epochs 2 --images 48 --longest 0.4".split()
    done = subprocess.run([sys.executable, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# -- disk, memory, numbers -------------------------------------------------------------------


def finished(folder, capsys):
    """Whether a run of one epoch is finished, as each of the commands that read it says."""
    for command, said in {
        "eval --backend numpy": "epoch 1 (of 1 epochs)",
        "plot": "curves in",
        "compress -L 2 -M 2 --backend numpy --out none": "is no regular network",
    }.items():
        cli.main([*command.split(), str(folder)])
        yield said in "".join(capsys.readouterr())


def test_after_a_write_that_failed_all_commands_agree_and_the_next_mends_the_folder(
    tmp_path, monkeypatch, capsys
):
    for name in ("draw_curves", "save"):
        monkeypatch.setattr(plots, name, lambda *_: None)
    whole = outcome(train(config(tmp_path, "whole", epochs=1)).run)
    named, seen = [], set()
    while True:
        settings = config(tmp_path, f"run{len(named)}", epochs=1, checkpoint_every=3)
        written = count()

        def write(call, *arguments, written=written):
            if next(written) >= len(named):
                raise OSError(28, "No space left on device")
            call(*arguments)

        with monkeypatch.context() as disk:
            for name in ("fsync", "replace"):
                disk.setattr(os, name, partial(write, getattr(os, name)))
            try:
                train(settings)
                break
            except OSError as error:
                named.append(os.path.basename(error.filename))
        folder = Path(settings.out)
        assert not list(folder.glob("*.partial"))
        seen.add(tuple(finished(folder, capsys)))
        assert session.run_to_end(settings, print) == resume(folder)
        assert outcome(folder) == whole
    assert seen == {(False,) * 3, (True,) * 3}
    assert set(named) == {"config.json", "log.jsonl", "checkpoint.npz"}


def test_out_of_memory_names_a_smaller_batch(tmp_path, at_step):
    at_step(2, failing(MemoryError("Out of memory allocating 4,096 bytes")))
    with pytest.raises(
        TrainingError, match="with batch size 16; try --batch-size 8: Out of memory allocating"
    ):
        train(config(tmp_path))


def test_a_run_that_diverges_ends_with_its_step_and_the_last_checkpoint(tmp_path):
    message = r"the loss is (nan|inf) at epoch 1, step 2, learning rate 1e\+20; .* epoch 1, step 1"
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match=message):
        train(config(tmp_path, lr=1e20, schedule="step", checkpoint_every=1))


def test_a_test_loss_that_is_not_finite_stops_the_run_with_its_epoch(tmp_path, monkeypatch):
    nan = TrainingError("the loss on shapes/test is nan")
    monkeypatch.setattr(session, "evaluate", failing(nan))
    with pytest.raises(TrainingError, match="the loss on shapes/test is nan after epoch 1; the l"):
        train(config(tmp_path))
    assert checkpoint.load(tmp_path / "run" / "checkpoint.npz").records == []


# -- folders ---------------------------------------------------------------------------------


def test_runs_without_a_folder_of_their_own_never_share_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("somebody else's")
    assert run_to_end(TrainConfig(**SMALL | {"epochs": 1}), print).run.name[-2:] == "-1"
    folders = []
    for _ in range(3):
        with runs.create(TrainConfig(**SMALL)) as folder:
            folders.append(folder)
    assert [folder.name[-2:] for folder in folders] == ["-2", "-3", "-4"]


def test_a_checkpoint_that_cannot_be_written_is_found_out_before_the_training(tmp_path):
    folder = train(config(tmp_path)).run
    (folder / runs.CHECKPOINT).unlink()
    (folder / runs.CHECKPOINT).mkdir()
    with pytest.raises(IsADirectoryError, match=r"checkpoint\.npz"):
        resume(folder)


def test_a_folder_that_holds_anything_is_refused_and_left_alone(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(CheckpointError, match="is not an empty folder"):
        train(config(tmp_path))
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    with pytest.raises(CheckpointError, match=r"thesis\.txt is not an empty folder"):
        train(config(tmp_path, out=str(folder / "thesis.txt")))
    assert (folder / "thesis.txt").read_text() == "precious"
