"""Files of a run that are damaged, hostile, or of another run: each is named, none is believed."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from igc_ref.errors import CheckpointError
from igc_ref.training import checkpoint
from igc_ref.training import folder as runs
from igc_ref.training.checkpoint import FIELDS, check_records
from igc_ref.training.session import resume, train
from tests.support.runs import STEPS, config, failing

pytestmark = pytest.mark.usefixtures("few_images")
RECORD = dict.fromkeys(FIELDS, 0.5) | {"epoch": 1}


@pytest.fixture
def run(tmp_path):
    """A finished run of two epochs."""
    return train(config(tmp_path)).run


def rewrite(path, edit):
    """Write a checkpoint again, its description edited."""
    with np.load(path) as file:
        arrays = dict(file)
    meta = json.loads(arrays["meta"].item())
    edit(meta)
    np.savez(path, **arrays | {"meta": np.array(json.dumps(meta))})
    return meta


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format 99; this version reads format 2"),
        ({"config": {"groups": 3}}, "unknown settings groups: made by a newer version"),
        ({"config": None}, "settings must be a dict by name, not NoneType"),
        ({"metadata": {"mean": ["1", 1, 1]}}, r"'mean': \['1', 1, 1\].* is no metadata"),
        ({"metadata": {"std": [1, 1, 0]}}, r"std=\(1, 1, 0\) must be 3 numbers from 1e-06"),
        ({"metadata": {"mean": [1, 1, float("inf")]}}, r"mean=\(1, 1, inf\) must be 3 numbers"),
        ({"metadata": {"size": [32]}}, r"size=\(32,\) must be 2 numbers from 1"),
        ({"metadata": {"data": 3}}, "3 is no name of a data set or class"),
        ({"metadata": 3}, "3 is no metadata"),
        ({"fingerprint": 7}, "its fingerprint is no short text"),
        ({"records": 3}, "records must be a list, not int"),
        ({"partial": {"step": -1}}, "step=-1"),
        ({"partial": {"step": 1.5}}, "step=1.5"),
        ({"partial": {"loss_sum": -1.0}}, "loss_sum=-1.0 of an epoch is no number from 0 to"),
        ({"partial": {"seconds": 10**400}}, "seconds=10+ .* of an epoch is no number"),
        ({"partial": {"draws": 3}}, "its draws is no short text"),
        ({"partial": None}, "its partial epoch is no dict but NoneType"),
        ({"config": {"epochs": 1}}, "it is at epoch 2 of a run of 1 epochs"),
        ({"partial": {"step": 1}}, "it is at epoch 3, step 1 of a run of 2 epochs"),
        ({"config": {"epochs": 3}, "partial": {"step": 1, "correct": 17}}, "has 17 of 16 images"),
        ({"records": [RECORD | {"train_accuracy": 1.1}]}, "train_accuracy=1.1 of an epoch is no"),
    ],
    ids=str,
)
def test_a_checkpoint_that_describes_no_run_is_refused(run, changes, message):
    def edit(meta):
        for name, value in changes.items():
            meta[name] = meta[name] | value if isinstance(value, dict) else value

    rewrite(run / "checkpoint.npz", edit)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(run / "checkpoint.npz")


@pytest.mark.parametrize(
    ("part", "name", "number", "message"),
    [
        ("model", "linear.weight", np.nan, "has a number that is not finite"),
        ("velocity", "linear.bias", np.inf, "has a number that is not finite"),
        ("model", "stem.bn.running_var", -1, "has a negative number"),
    ],
)
def test_an_array_that_no_training_gives_is_refused_by_name(run, part, name, number, message):
    saved = checkpoint.load(run / "checkpoint.npz")
    getattr(saved, part)[name].flat[-1] = number
    checkpoint.save(run / "checkpoint.npz", saved)
    with pytest.raises(CheckpointError, match=f"{part}/{name} {message}"):
        checkpoint.load(run / "checkpoint.npz")


def test_a_run_of_an_earlier_version_is_read_with_the_authors_batch_norm(run):
    def edit(meta):
        del meta["config"]["bn_momentum"], meta["metadata"]

    meta = rewrite(run / "checkpoint.npz", edit)
    (run / "config.json").write_text(json.dumps(meta["config"]))
    model, found = runs.load_run(run, "numpy")
    assert found.config.bn_momentum is None
    assert model.metadata.classes[:2] == ("disk", "ring")
    assert (model.metadata.mean, model.metadata.size) == ((128.7, 127.8, 128.0), (32, 32))
    rewrite(run / "checkpoint.npz", lambda meta: meta["config"].update(data="npz"))
    with pytest.raises(CheckpointError, match="None is no metadata"):  # no such version had these
        checkpoint.load(run / "checkpoint.npz")


def test_a_checkpoint_that_hides_a_pickle_is_not_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    path = tmp_path / "checkpoint.npz"
    np.savez(path, meta=np.array([Trap()], dtype=object))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"L": 4}, r"L=4 \(the run has 2\)"),
        ({"dtype": "float64"}, r"dtype=float64 \(the run has float32\)"),
        ({"momentum": 0.5, "batch_size": 8}, r"batch_size=8 \(the run has 16\), momentum=0\.5 \("),
    ],
)
def test_a_checkpoint_with_other_settings_is_refused_with_both(run, tmp_path, changes, message):
    other = train(config(tmp_path, "other", **changes)).run
    (run / "checkpoint.npz").write_bytes((other / "checkpoint.npz").read_bytes())
    for attempt in (lambda: runs.load_run(run, "numpy"), lambda: resume(run)):
        with pytest.raises(CheckpointError, match=f"is of another run: {message}"):
            attempt()


def test_a_run_whose_velocities_or_steps_do_not_fit_is_not_resumed(run):
    saved = checkpoint.load(run / "checkpoint.npz")
    del saved.velocity["linear.bias"]
    checkpoint.save(run / "checkpoint.npz", replace(saved, records=saved.records[:1]))
    with pytest.raises(CheckpointError, match=r"the state lacks 'linear\.bias'"):
        resume(run)
    partial = replace(saved.partial, step=STEPS)  # an epoch that is done is a record
    impossible = replace(saved, records=saved.records[:1], partial=partial)
    checkpoint.save(run / "checkpoint.npz", impossible)
    with pytest.raises(CheckpointError, match="of epoch 2, step 4, but an epoch has 4 steps"):
        resume(run)
    name = "x" * 60_000  # a message has room for both ends
    checkpoint.save(run / "checkpoint.npz", replace(saved, model=saved.model | {name: np.ones(1)}))
    with pytest.raises(CheckpointError, match=r" has not, 'x+ \.\.\. x+': another arch") as caught:
        runs.load_run(run, "numpy")
    assert len(str(caught.value)) == 3000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged"),
        ("[1, 2]", "settings must be a dict by name, not list"),
        ('{"epochs": "abc"}', "epochs='abc' is not an integer"),
        ('{"colour": 1}', "unknown settings colour"),
        ("[" * 100_000, "is damaged"),
        ("{}", "there are no settings"),
    ],
)
def test_a_damaged_config_is_named_with_what_is_wrong(run, text, message):
    (run / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        runs.load_run(run, "numpy")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([3], "must be a dict, not int"),
        ([RECORD | {"train_loss": 10**400}], "train_loss=10+ .* of an epoch is no number from 0"),
        ([{"epoch": 1}], "train_loss=None of an epoch is no number"),
        ([RECORD | {"train_loss": np.nan}], "train_loss=nan of an epoch is no number"),
        ([RECORD | {"epoch": 2}], "record 1 is of epoch 2"),
        ([RECORD | {"train_loss": True}], "train_loss=True of an epoch is no number"),
        ([RECORD | {"seconds": "1"}], "seconds='1' of an epoch is no number"),
    ],
    ids=str,
)
def test_records_are_numbers_of_consecutive_epochs_and_nothing_else(values, message):
    assert check_records([RECORD | {"more": 1}]) == [RECORD]
    with pytest.raises(ValueError, match=message):
        check_records(values)


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(run, monkeypatch):
    denied = PermissionError(13, "Permission denied", "checkpoint.npz")
    monkeypatch.setattr(checkpoint, "read_arrays", failing(denied))  # root may read everything
    with pytest.raises(PermissionError):
        runs.load_run(run, "numpy")


def test_what_is_no_file_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "checkpoint.npz")  # opening it would wait for ever
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "checkpoint.npz")
