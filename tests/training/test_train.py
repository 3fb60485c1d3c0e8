"""Runs: they learn, repeat bit for bit, resume, and refuse what they cannot do before writing."""

import json
import os
import zipfile
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import igc_ref
from igc_ref import TrainConfig, data
from igc_ref.backends import NumpyBackend
from igc_ref.data import Dataset
from igc_ref.errors import CheckpointError, DataError, SpecError, TrainingError
from igc_ref.training import checkpoint
from igc_ref.training import folder as runs
from igc_ref.training import loop as trainer
from igc_ref.training.checkpoint import FIELDS, check_records
from igc_ref.training.evaluation import Evaluation, evaluate
from igc_ref.training.loop import Trainer
from igc_ref.training.session import resume, train

SMALL = {
    "arch": "plain_igc", "depth": 5, "L": 2, "M": 2, "backend": "numpy", "epochs": 2,
    "batch_size": 16, "lr": 0.05,
}  # fmt: skip


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    """Train on 60 pictures of `shapes`, test on 30; the last batch is a small one."""
    sizes = {"train": 60, "test": 30}
    draw = data.shapes
    monkeypatch.setattr(data, "shapes", lambda split: draw(split, size=sizes[split]))


def config(tmp_path, **changes):
    return TrainConfig(**{**SMALL, "out": str(tmp_path / "run"), **changes})


def contents(folder):
    """Everything a checkpoint holds, in bytes."""
    with np.load(folder / "checkpoint.npz") as file:
        return {name: file[name].tobytes() for name in file.files if name != "meta"}


def results(folder):
    """The log without its timings."""
    timings = {"seconds", "images_per_second"}
    return [{k: v for k, v in line.items() if k not in timings} for line in runs.read_log(folder)]


def test_a_run_leaves_config_log_and_checkpoint_and_says_what_it_did(tmp_path):
    lines = []
    history = train(config(tmp_path), lines.append)
    assert sorted(path.name for path in history.run.iterdir()) == [
        "checkpoint-previous.npz", "checkpoint.npz", "config.json", "log.jsonl",
    ]  # fmt: skip
    assert len(lines) == 3
    for record in history.records:
        assert record["images_per_second"] == pytest.approx(60 / record["seconds"])
    assert "plain_igc-5 L2M2" in lines[0]
    assert "60 pictures of shapes" in lines[0]
    assert lines[2].startswith("epoch 2/2: train loss ")
    assert [record["epoch"] for record in runs.read_log(history.run)] == [1, 2]
    assert history.test_accuracy == history.records[-1]["test_accuracy"]
    assert runs.read_config(history.run) == config(tmp_path)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path):
    folders = [tmp_path / name for name in ("one", "two", "other")]
    for folder, seed in zip(folders, (3, 3, 4), strict=True):
        train(config(tmp_path, seed=seed, out=str(folder)))
    assert contents(folders[0]) == contents(folders[1])
    assert results(folders[0]) == results(folders[1])
    assert contents(folders[0]) != contents(folders[2])


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path):
    whole = train(config(tmp_path, epochs=3, out=str(tmp_path / "whole")))
    broken = config(tmp_path, epochs=3, out=str(tmp_path / "broken"))
    trainer = Trainer(broken)

    def stop_after_one(line):
        if line.startswith("epoch 1"):
            raise KeyboardInterrupt

    with runs.create(broken) as folder, pytest.raises(KeyboardInterrupt):
        trainer.finish(folder, stop_after_one)
    assert len(runs.read_log(folder)) == 1
    resume(folder)
    assert contents(folder) == contents(whole.run)
    assert results(folder) == results(whole.run)


def test_a_finished_or_different_run_is_not_resumed(tmp_path):
    folder = train(config(tmp_path)).run
    with pytest.raises(CheckpointError, match="has finished all its 2 epochs"):
        resume(folder)
    with pytest.raises(CheckpointError, match=r"arch=plain \(the run has plain_igc\), lr=0\.2"):
        resume(folder, arch="plain", lr=0.2)
    with pytest.raises(CheckpointError, match="nowhere is no run: there is no such folder"):
        resume(tmp_path / "nowhere")


def test_a_small_network_learns(tmp_path):
    settings = {"L": 4, "M": 4, "epochs": 20, "lr": 0.1, "augment": False}
    first, *_, last = train(config(tmp_path, **settings)).records
    assert last["train_accuracy"] > 0.5  # chance is 0.1
    assert last["train_loss"] < 0.7 * first["train_loss"]


def test_evaluation_does_not_depend_on_the_batch_size_and_changes_nothing(tmp_path):
    model, _ = runs.load_run(train(config(tmp_path)).run, "numpy")
    before = model.state_dict()
    test_set = data.load("shapes", "test")
    one, two = (evaluate(model, test_set, batch_size=size) for size in (30, 7))
    assert one.accuracy == two.accuracy
    assert one.loss == pytest.approx(two.loss, rel=1e-5)
    assert all(np.array_equal(before[name], a) for name, a in model.state_dict().items())


def test_a_loaded_run_is_the_network_that_was_trained(tmp_path):
    history = train(config(tmp_path))
    model, _ = runs.load_run(history.run, "numpy")
    result = evaluate(model, data.load("shapes", "test"))
    assert result.accuracy == history.test_accuracy
    assert result.loss == pytest.approx(history.records[-1]["test_loss"])


def test_an_epoch_sees_every_picture_once_each_epoch_in_another_order(tmp_path):
    trainer = Trainer(config(tmp_path, augment=False))
    labels = [
        np.concatenate([batch for _, batch in trainer._batches(trainer.draw(epoch))])
        for epoch in (1, 2, 1)
    ]
    sums = [
        sorted(float(x.sum()) for x, _ in trainer._batches(trainer.draw(epoch)) for x in x)
        for epoch in (1, 2)
    ]
    assert sums[0] == pytest.approx(sums[1], rel=1e-4, abs=1e-2)
    assert not np.array_equal(labels[0], labels[1])
    assert np.array_equal(labels[0], labels[2])


def test_augmentation_changes_the_pictures_and_repeats_with_the_epoch(tmp_path):
    plain, augmented = (Trainer(config(tmp_path, augment=a)) for a in (False, True))
    first, again, still = (next(t._batches(t.draw(1)))[0] for t in (augmented, augmented, plain))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, still)


def test_a_batch_is_normalised_then_padded_cropped_and_mirrored_by_the_numbers_of_its_epoch(
    tmp_path,
):
    trainer = Trainer(config(tmp_path, seed=5))
    rng = np.random.default_rng([5, 2])  # seed, epoch
    order = rng.permutation(60)
    pictures = trainer.train_set
    for start, (x, labels) in zip(range(0, 60, 16), trainer._batches(trainer.draw(2)), strict=True):
        rows = order[start : start + 16]
        top, left = rng.integers(0, 9, (2, len(rows)))
        mirror = rng.random(len(rows)) < 0.5
        assert np.array_equal(labels, pictures.labels[rows])
        for n, row in enumerate(rows):
            z = (pictures.images[row] - np.reshape(pictures.mean, (3, 1, 1))) / np.reshape(
                pictures.std, (3, 1, 1)
            )
            padded = np.zeros((3, 40, 40))
            padded[:, 4:36, 4:36] = z
            z = padded[:, top[n] : top[n] + 32, left[n] : left[n] + 32]
            assert np.abs(x[n] - (z[:, :, ::-1] if mirror[n] else z)).max() < 1e-5


STEPS = [0.5] * 8 + [0.05] * 4 + [0.005] * 2 + [0.0005] * 2  # 16 steps, four an epoch
CYCLE = [0.5 * min((i + 0.5) / 4, (15.5 - i) / 12) for i in range(16)]


@pytest.mark.parametrize(("schedule", "expected"), [("step", STEPS), ("onecycle", CYCLE)])
def test_training_follows_the_schedule_of_the_whole_run_with_the_config_s_momentum_and_decay(
    tmp_path, monkeypatch, schedule, expected
):
    used = []

    def record(self, weight, gradient, velocity, *, lr, momentum, weight_decay):
        used.append((lr, momentum, weight_decay))

    monkeypatch.setattr(NumpyBackend, "sgd_step", record)
    settings = {"schedule": schedule, "lr": 0.5, "momentum": 0.7, "weight_decay": 0.01, "epochs": 4}
    trainer = Trainer(config(tmp_path, **settings))
    for epoch in (1, 2, 3, 4):
        trainer.train_epoch(epoch)
    arrays = len(trainer.model.parameters())
    rates = [lr for lr, _, _ in used[::arrays]]
    assert rates == pytest.approx(expected)
    assert set(used) == {(lr, 0.7, 0.01) for lr in rates}


def test_the_mean_loss_of_an_epoch_weighs_pictures_not_batches(tmp_path, monkeypatch):
    trainer = Trainer(config(tmp_path))
    results = iter([(1.0, 3), (1.0, 3), (1.0, 3), (5.0, 1)])  # the last batch has 12 of 60
    monkeypatch.setattr(trainer, "train_step", lambda x, labels, lr: next(results))
    result, _ = trainer.train_epoch(1)
    assert result.loss == pytest.approx((48 * 1.0 + 12 * 5.0) / 60)
    assert result.accuracy == pytest.approx(10 / 60)


def test_a_continued_run_may_find_its_data_elsewhere_but_not_change_its_epochs(
    tmp_path, monkeypatch
):
    folder = train(config(tmp_path)).run
    with pytest.raises(CheckpointError, match=r"epochs=9 \(the run has 2\)"):
        resume(folder, epochs=9)
    saved = checkpoint.load(folder / "checkpoint.npz")
    checkpoint.save(folder / "checkpoint.npz", replace(saved, records=saved.records[:1]))
    seen = []
    load = data.load
    monkeypatch.setattr(
        data, "load", lambda name, split, where, _: seen.append(where) or load(name, split, where)
    )
    resume(folder, data_dir="elsewhere")
    assert seen == ["elsewhere", "elsewhere"]


def test_a_run_that_fails_in_its_first_epoch_can_be_resumed_from_its_beginning(
    tmp_path, monkeypatch
):
    whole = train(config(tmp_path, out=str(tmp_path / "whole")))

    def power_cut(self, *epoch):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", power_cut)
        with pytest.raises(KeyboardInterrupt):
            train(config(tmp_path))
    assert contents(resume(tmp_path / "run").run) == contents(whole.run)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda v: v.pop("linear.bias"), "the state lacks 'linear.bias'"),
        (lambda v: v.update({"linear.bias": v["linear.bias"][:1]}), r"of shape \(1,\)"),
        (lambda v: v.update({"linear.bias": v["linear.bias"] + 0j}), "linear.bias is complex64"),
    ],
    ids=["missing", "short", "complex"],
)
def test_a_run_whose_velocities_do_not_fit_is_not_resumed(tmp_path, damage, message):
    folder = train(config(tmp_path)).run
    saved = checkpoint.load(folder / "checkpoint.npz")
    damage(saved.velocity)
    checkpoint.save(folder / "checkpoint.npz", replace(saved, records=saved.records[:1]))
    with pytest.raises(CheckpointError, match=message):
        resume(folder)


def test_a_test_loss_that_is_not_finite_stops_the_run_with_its_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "evaluate", lambda model, test_set: Evaluation(np.nan, 0.1))
    with pytest.raises(TrainingError, match="the test loss is nan after epoch 1; the last check"):
        train(config(tmp_path))
    assert checkpoint.load(tmp_path / "run" / "checkpoint.npz").records == []


def test_runs_without_a_folder_of_their_own_never_share_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unnamed = TrainConfig(**SMALL)
    folders = []
    for _ in range(3):
        with runs.create(unnamed) as folder:
            folders.append(folder)
    assert [folder.name[-2:] for folder in folders] == ["-1", "-2", "-3"]


def test_what_is_no_file_is_no_log_and_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "log.jsonl")  # opening it would wait for ever
    os.mkfifo(tmp_path / "checkpoint.npz")
    with pytest.raises(CheckpointError, match="is no run: there is no"):
        runs.read_log(tmp_path)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "checkpoint.npz")


def test_an_evaluation_that_cannot_mean_anything_is_refused(tmp_path):
    model, _ = runs.load_run(train(config(tmp_path)).run, "numpy")
    test_set = data.load("shapes", "test")
    with pytest.raises(SpecError, match="batch_size=-1 is not an integer of at least 1"):
        evaluate(model, test_set, batch_size=-1)
    with pytest.raises(DataError, match="is empty"):
        evaluate(model, test_set[:0])
    more = replace(test_set, classes=(*test_set.classes, "eleventh"))
    with pytest.raises(DataError, match="has 11 classes, the network 10"):
        evaluate(model, more)


def test_the_seed_of_a_run_is_the_seed_of_its_weights(tmp_path):
    ours = Trainer(config(tmp_path, seed=5)).model.state_dict()
    expected = igc_ref.build_model("plain_igc", 5, L=2, M=2, backend="numpy", seed=5).state_dict()
    assert all(np.array_equal(ours[name], array) for name, array in expected.items())


def test_the_log_is_written_before_the_checkpoint_so_that_no_epoch_is_lost(tmp_path, monkeypatch):
    save = checkpoint.save

    def power_cut(path, saved, keep):
        if saved.records:
            raise KeyboardInterrupt
        save(path, saved, keep)

    monkeypatch.setattr(checkpoint, "save", power_cut)
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path))
    assert len(runs.read_log(tmp_path / "run")) == 1


def test_training_and_evaluation_compute_within_the_backend_s_session(tmp_path, monkeypatch):
    trainer = Trainer(config(tmp_path))
    model, depths, depth = trainer.model, [], 0

    @contextmanager
    def session():
        nonlocal depth
        depth += 1
        yield
        depth -= 1

    def forward(x, train=False):
        depths.append(depth)
        return type(model).forward_inside(model, x, train)

    monkeypatch.setattr(model.backend, "session", session)
    monkeypatch.setattr(model, "forward_inside", forward)
    trainer.train_epoch(1)
    evaluate(model, trainer.test_set)
    assert depths == [1] * 5  # four batches and one


def test_a_run_prepares_its_backend_before_its_first_epoch(tmp_path, monkeypatch):
    prepared = []
    monkeypatch.setattr(NumpyBackend, "prepare", lambda self, *call: prepared.append(call))
    lines = []
    report = lines.append
    train(config(tmp_path, epochs=1), report)
    assert prepared == [("float32", report)]


def test_the_numpy_session_keeps_blas_on_one_thread_and_gives_the_threads_back():
    def blas_threads():
        return [m["num_threads"] for m in threadpool_info() if m["user_api"] == "blas"]

    before = blas_threads()
    with NumpyBackend().session():
        assert set(blas_threads()) <= {1}
    assert blas_threads() == before


RECORD = dict.fromkeys(FIELDS, 0.5) | {"epoch": 1}


def test_records_are_numbers_of_consecutive_epochs_and_nothing_else():
    assert check_records([RECORD | {"more": 1}]) == [RECORD]
    for wrong in ({"epoch": 2}, {"train_loss": True}, {"seconds": "1"}):
        with pytest.raises(ValueError, match=r"epoch"):
            check_records([RECORD | wrong])


def test_a_disk_that_is_full_leaves_no_half_of_config_or_log(tmp_path, monkeypatch):
    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match=r"No space left on device: .*config\.json"):
        runs.create(config(tmp_path)).__enter__()
    with pytest.raises(OSError, match=r"No space left on device: .*log\.jsonl"):
        runs.write_log(tmp_path / "run", [RECORD])
    assert not list((tmp_path / "run").iterdir())


def test_a_checkpoint_with_a_member_that_is_no_array_is_refused(tmp_path):
    path = train(config(tmp_path, epochs=1)).run / "checkpoint.npz"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/junk", b"x")
    with pytest.raises(CheckpointError, match="'model/junk' is no array"):
        checkpoint.load(path)


def test_numbers_of_a_config_are_plain_floats_and_no_truth_values(tmp_path):
    assert type(config(tmp_path, lr=1).lr) is float
    with pytest.raises(SpecError, match="lr=True is not allowed"):
        config(tmp_path, lr=True)


def test_paths_and_numpy_numbers_make_the_same_config_as_plain_ones(tmp_path):
    made = config(tmp_path, out=tmp_path / "run", lr=np.float64(0.05), epochs=np.int64(2))
    assert made == config(tmp_path)
    json.dumps(made.to_dict())


def test_a_checkpoint_of_another_dtype_is_refused(tmp_path):
    run = train(config(tmp_path)).run
    other = train(config(tmp_path, dtype="float64", out=str(tmp_path / "other"))).run
    (run / "checkpoint.npz").write_bytes((other / "checkpoint.npz").read_bytes())
    with pytest.raises(CheckpointError, match=r"float64.*float32"):
        runs.load_run(run, "numpy")


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_training_loss_that_is_not_finite_is_found_at_its_step(tmp_path, monkeypatch, loss):
    trainer = Trainer(config(tmp_path))
    results = iter([(1.0, 3), (loss, 3)])
    monkeypatch.setattr(trainer, "train_step", lambda x, labels, lr: next(results))
    with pytest.raises(TrainingError, match=f"the loss is {loss} at epoch 1, step 2, learning"):
        trainer.train_epoch(1)


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step_and_rate(tmp_path):
    with (
        np.errstate(all="ignore"),
        pytest.raises(
            TrainingError, match=r"the loss is (nan|inf) at epoch \d, step \d, learning rate"
        ),
    ):
        train(config(tmp_path, lr=1e20, schedule="step"))


# -- refused before anything is written ------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs=0 is not an integer of at least 1"),
        ({"batch_size": 2.5}, r"batch_size=2\.5 is not an integer"),
        ({"seed": -1}, "seed=-1 is not an integer of at least 0"),
        ({"lr": 0.0}, r"lr=0\.0 is not allowed; it must be greater than 0 and below 1e30"),
        ({"lr": float("nan")}, "lr=nan is not allowed"),
        ({"lr": 1e39}, "lr=1e\\+39 is not allowed"),
        ({"lr": None}, "lr=None is not allowed"),
        ({"epochs": 10**400}, "epochs is too large; at most 2147483647"),
        ({"out": ""}, "out='' is not a path"),
        ({"momentum": 1.0}, r"momentum=1\.0 is not allowed; it must be in"),
        ({"weight_decay": -1e-4}, r"weight_decay=-0\.0001 is not allowed"),
        ({"data": "mnist"}, "data='mnist' is unknown; choose one of shapes, cifar10"),
        ({"schedule": "cosine"}, "schedule='cosine' is unknown"),
        ({"backend": "torch"}, "backend='torch' is unknown; choose one of auto"),
        ({"dtype": "int8"}, "dtype='int8' is unknown"),
        ({"depth": 6}, "depth=6 is not allowed"),
        ({"M": None}, "M is missing"),
    ],
)
def test_impossible_settings_are_refused_with_their_numbers(tmp_path, changes, message):
    with pytest.raises(SpecError, match=message):
        config(tmp_path, **changes)


def test_the_defaults_are_the_paper_s_small_network_or_a_regular_one_of_width_16():
    assert (TrainConfig().L, TrainConfig().M, TrainConfig().width) == (4, 8, None)
    assert TrainConfig(arch="resnet").width == 16


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


def test_missing_data_leaves_no_folder_behind(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(DataError, match="missing"):
        train(config(tmp_path, data="cifar10", data_dir=str(missing)))
    with pytest.raises(DataError, match="--data-dir"):
        train(config(tmp_path, data="cifar10"))
    assert not (tmp_path / "run").exists()


# -- checkpoints -----------------------------------------------------------------------------


def test_a_checkpoint_of_another_architecture_is_refused_with_both_names(tmp_path):
    run = train(config(tmp_path)).run
    other = train(config(tmp_path, L=4, out=str(tmp_path / "other"))).run
    (run / "checkpoint.npz").write_bytes((other / "checkpoint.npz").read_bytes())
    with pytest.raises(CheckpointError, match=r"plain_igc-5 L4M2.*says plain_igc-5 L2M2"):
        runs.load_run(run, "numpy")


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b"",
        lambda b: b"PK\x03\x04 but no archive",
        lambda b: b[:2000] + bytes([b[2000] ^ 255]) + b[2001:],
    ],
    ids=["half", "empty", "garbage", "one byte"],
)
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    run = train(config(tmp_path)).run
    path = run / "checkpoint.npz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"checkpoint\.npz is damaged"):
        runs.load_run(run, "numpy")


def test_a_checkpoint_that_hides_a_pickle_is_not_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    path = tmp_path / "checkpoint.npz"
    np.savez(path, meta=np.array([Trap()], dtype=object))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


def test_a_newer_format_and_unknown_settings_are_refused(tmp_path):
    run = train(config(tmp_path)).run
    saved = checkpoint.load(run / "checkpoint.npz")
    with pytest.raises(SpecError, match="unknown settings groups"):
        TrainConfig.from_dict(saved.config.to_dict() | {"groups": 3})
    with np.load(run / "checkpoint.npz") as file:
        arrays = dict(file)
    meta = json.loads(arrays["meta"].item()) | {"format": 99}
    np.savez(run / "checkpoint.npz", **arrays | {"meta": np.array(json.dumps(meta))})
    with pytest.raises(CheckpointError, match="format 99; this version reads format 2"):
        checkpoint.load(run / "checkpoint.npz")


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    run = train(config(tmp_path)).run
    with np.load(run / "checkpoint.npz") as file:
        arrays = dict(file)
    np.savez_compressed(run / "checkpoint.npz", **arrays, bomb=np.zeros(10**7))
    with pytest.raises(CheckpointError, match="compressed members"):
        checkpoint.load(run / "checkpoint.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged"),
        ("[1, 2]", "settings must be a dict by name, not list"),
        ('{"epochs": "abc"}', "epochs='abc' is not an integer"),
        ('{"arch": 3}', "arch=3 is unknown"),
        ('{"lr": "fast"}', "lr='fast' is not allowed"),
        ('{"augment": 1}', "augment=1 is neither True nor False"),
        ('{"out": 5}', "out=5 is not a path"),
        ('{"colour": 1}', "unknown settings colour"),
        ("[" * 100_000, "is damaged"),
    ],
)
def test_a_damaged_config_is_named_with_what_is_wrong(tmp_path, text, message):
    run = train(config(tmp_path, epochs=1)).run
    (run / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        runs.load_run(run, "numpy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no epoch was finished"),
        ("{", "is damaged"),
        ("3", "must be a dict, not int"),
        ('{"epoch": 1, "train_loss": 1' + "0" * 400 + "}", "is not a finite number"),
        ('{"epoch": 1}', "needs a number for train_loss, not None"),
        (
            '{"epoch": 1, "train_loss": NaN}',
            "train_loss of an epoch's record is not",
        ),
        ("\xff", "is damaged"),
    ],
)
def test_a_damaged_log_is_named_with_what_is_wrong(tmp_path, text, message):
    (tmp_path / "log.jsonl").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=message):
        runs.read_log(tmp_path)


def test_a_failed_write_leaves_the_old_checkpoint_and_no_debris(tmp_path, monkeypatch):
    run = train(config(tmp_path)).run
    before = (run / "checkpoint.npz").read_bytes()
    saved = checkpoint.load(run / "checkpoint.npz")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(run / "checkpoint.npz", saved)
    assert (run / "checkpoint.npz").read_bytes() == before
    assert not list(run.glob("*.partial"))


def test_a_data_set_with_other_than_ten_classes_trains_a_network_with_as_many(
    tmp_path, monkeypatch
):
    def three_classes(split):
        drawn = data.shapes("test")
        names = drawn.classes[:3]
        return Dataset(
            f"three/{split}", drawn.images, drawn.labels % 3, names, drawn.mean, drawn.std
        )

    monkeypatch.setattr(data, "load", lambda name, split, *rest: three_classes(split))
    run = igc_ref.train(config(tmp_path, epochs=1)).run
    model, _ = runs.load_run(run, "numpy")
    assert model.state_dict()["linear.bias"].shape == (3,)
