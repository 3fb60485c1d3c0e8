"""Runs that learn from a teacher: resumed, shared, refused; a compressed network's."""

import json
import signal

import numpy as np
import pytest

from igc_ref.cli import main
from igc_ref.errors import CheckpointError, Interrupted, SpecError
from igc_ref.networks.model import build
from igc_ref.training import checkpoint, loop
from igc_ref.training import folder as runs
from igc_ref.training.loop import training_step
from igc_ref.training.optim import SGD
from igc_ref.training.session import Session, resume, train
from tests.support.runs import config, error_of, outcome

pytestmark = pytest.mark.usefixtures("few_images")


@pytest.fixture
def teacher(tmp_path):
    """A run of one epoch."""
    changes = {"arch": "plain", "L": None, "M": None, "width": 6, "epochs": 1, "lr": 0.1}
    return str(train(config(tmp_path, "teacher", **changes)).run)


def test_a_step_follows_the_mixed_gradient_and_leaves_the_teacher_alone(tmp_path, teacher):
    ours = Session(config(tmp_path, teacher=teacher, temperature=2.0, alpha=0.7))
    tutor, _ = runs.load_run(teacher, "numpy")
    twin = build(ours.model.architecture, "numpy", seed=0)
    before, x = tutor.sha256(), ours.train_set.images[:8].astype("float32") / 64 - 2
    labels, inside = ours.train_set.labels[:8], twin.backend.to_layout(x)
    training_step(ours.model, ours.optimiser, inside, labels, 0.1, ours.objective)
    logits, soft = twin.forward(x, train=True), tutor.forward(x)
    *_, d = twin.backend.distillation_loss(logits, labels, soft, 2.0, 0.7)
    twin.backward(d)
    SGD(twin, ours.config.momentum, ours.config.weight_decay).step(0.1)
    found, expected = ours.model.state_dict(), twin.state_dict()
    for name in ("linear.weight", "stem.conv.weight"):
        assert np.array_equal(found[name], expected[name])
    assert ours.objective.teacher.sha256() == before == ours.teacher


def test_without_weight_a_teacher_changes_no_bit(tmp_path, teacher):
    plain = train(config(tmp_path, "plain"))
    taught = train(config(tmp_path, "taught", teacher=teacher, alpha=0))
    other = train(config(tmp_path, "other", teacher=teacher))
    assert taught.sha256 == plain.sha256 != other.sha256


def test_a_taught_run_that_was_interrupted_has_the_bits_of_one_left_alone(
    tmp_path, teacher, monkeypatch
):
    whole = train(config(tmp_path, "whole", teacher=teacher))

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return training_step(*arguments)

    monkeypatch.setattr(loop, "training_step", interrupted)
    with pytest.raises(Interrupted, match="epoch 1, step 1"):
        train(config(tmp_path, teacher=teacher))
    monkeypatch.setattr(loop, "training_step", training_step)
    other = train(config(tmp_path, "other", seed=1, epochs=1)).run
    with pytest.raises(CheckpointError, match=r"teacher has weights of SHA-256 .* those of teache"):
        resume(tmp_path / "run", teacher=str(other))
    moved = (tmp_path / "teacher").rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="teacher is no run"):
        resume(tmp_path / "run")
    resume(tmp_path / "run", teacher=str(moved))
    assert outcome(tmp_path / "run") == outcome(whole.run)
    plain = train(config(tmp_path, "plain", epochs=1)).run
    saved = checkpoint.load(plain / runs.CHECKPOINT)
    assert saved.teacher == ""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"data": "pets"}, r"has data='pets', this run 'shapes': they must agree"),
        ({"classes": list("abcdefghij")}, r"has classes=\('a', .*, this run \('disk"),
        ({"mean": [1.0, 2.0, 3.0]}, r"has mean=\(1.0, 2.0, 3.0\), this run"),
        ({"std": [1.0, 2.0, 3.0]}, r"has std=\(1.0, 2.0, 3.0\), this run"),
    ],
)
def test_a_teacher_of_something_else_is_refused_and_nothing_written(
    tmp_path, teacher, what, said, monkeypatch
):
    read = checkpoint.Metadata.from_dict
    monkeypatch.setattr(checkpoint.Metadata, "from_dict", lambda values: read({**values, **what}))
    with pytest.raises(CheckpointError, match=f"the teacher in .*teacher {said}"):
        train(config(tmp_path, teacher=teacher))
    assert not (tmp_path / "run").exists()


def test_settings_of_a_teacher_need_one_that_is_there_and_of_the_same_dtype(
    tmp_path, teacher, capsys
):
    for name, value in (("temperature", 2.0), ("alpha", 0.5)):
        with pytest.raises(SpecError, match=f"{name}={value} needs a teacher, the folder of a run"):
            config(tmp_path, **{name: value})
    with pytest.raises(SpecError, match="temperature=0 is not allowed; it must be from"):
        config(tmp_path, teacher=teacher, temperature=0)
    with pytest.raises(CheckpointError, match="dtype='float32', this run 'float64'"):
        train(config(tmp_path, teacher=teacher, dtype="float64"))
    line = error_of(capsys, "train", "--teacher", tmp_path / "nothing", "--backend", "numpy")
    assert "nothing is no run: there is no" in line


def test_a_projected_network_also_learns_from_the_regular_one_if_asked(tmp_path, teacher, capsys):
    out = tmp_path / "out"
    command = ["compress", teacher, "-L", "3", "-M", "2", "--epochs", "1", "--out", str(out)]
    assert main([*command, "--backend", "numpy", "--distil"]) == 0
    found = json.loads((out / "compress.json").read_text())["accuracies"]
    for name in ("finetuned", "distilled"):
        saved = checkpoint.load(out / name / runs.CHECKPOINT)
        assert found[name] == saved.records[-1]["test_accuracy"]
        assert bool(saved.config.teacher) == (name == "distilled")
    tutor, _ = runs.load_run(teacher, "numpy")
    assert saved.teacher == tutor.sha256()
    assert f"{found['distilled']:.2%}" in capsys.readouterr().out


def test_a_finished_run_is_not_that_of_another_teacher_or_of_none(tmp_path, teacher, capsys):
    other = {"arch": "plain", "L": None, "M": None, "width": 6, "epochs": 1, "seed": 1}
    other = str(train(config(tmp_path, "other", **other)).run)
    taught = train(config(tmp_path, teacher=teacher, epochs=1))
    moved = (tmp_path / "teacher").rename(tmp_path / "moved")
    assert resume(taught.run).sha256 == resume(taught.run, teacher=str(moved)).sha256
    for wrong in (other, None):
        with pytest.raises(CheckpointError, match=f"those of teacher={wrong} are of"):
            resume(taught.run, teacher=wrong)
    with pytest.raises(CheckpointError, match="teacher has weights of SHA-256 None, those of"):
        resume(moved, teacher=other)

    command = ["compress", "-L", "3", "-M", "2", "--epochs", "1", "--backend", "numpy", "--out"]
    assert main([*command, str(tmp_path / "c"), str(moved)]) == 0
    before = (tmp_path / "c" / "compress.json").read_bytes()
    assert "c holds the compression of weights of" in error_of(
        capsys, *command, tmp_path / "c", other
    )
    assert (tmp_path / "c" / "compress.json").read_bytes() == before
    for study in (command, ["search", "--budget", "1500", "--out"]):
        given = [*study, other, *[other] * (study is command)]
        assert "other is the folder of a run; choose" in error_of(capsys, *given)


def test_numba_learns_from_a_teacher_as_numpy_does(tmp_path, teacher):
    pytest.importorskip("numba")
    changes = {"teacher": teacher, "epochs": 1}
    one = train(config(tmp_path, "one", **changes)).records[0]["train_loss"]
    two = train(config(tmp_path, "two", **changes, backend="numba")).records[0]["train_loss"]
    assert two == pytest.approx(one, rel=1e-3)
