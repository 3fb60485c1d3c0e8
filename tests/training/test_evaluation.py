"""Evaluation, and batch statistics estimated anew: what is computed; nothing else changes."""

from dataclasses import replace

import numpy as np
import pytest

from igc_ref import build_model, data
from igc_ref.cli import main
from igc_ref.errors import DataError, SpecError, TrainingError
from igc_ref.testing import assert_close
from igc_ref.training import evaluation
from igc_ref.training import folder as runs
from igc_ref.training.evaluation import evaluate, precise_statistics
from igc_ref.training.session import train
from tests.support.runs import config

pytestmark = pytest.mark.usefixtures("few_images")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(evaluation, "PRECISE_BATCH", 8)


def test_a_loaded_run_is_the_network_that_was_trained_and_evaluation_changes_nothing(tmp_path):
    history = train(config(tmp_path))
    model, _ = runs.load_run(history.run, "numpy")
    before, test_set = model.state_dict(), data.load("shapes", "test")
    for batch_size in (256, 7):  # does not matter
        result = evaluate(model, test_set, batch_size)
        assert result.accuracy == history.test_accuracy
        assert result.loss == pytest.approx(history.records[-1]["test_loss"], rel=1e-5)
        with pytest.raises(RuntimeError, match="needs a forward pass"):  # nothing is kept for it
            model.backward(np.zeros((len(test_set) % batch_size, 10), "float32"))
    assert all(np.array_equal(before[name], a) for name, a in model.state_dict().items())
    pairs = [*zip(test_set.labels, model.predict(test_set.images).labels, strict=True)]
    for pair in np.ndindex(10, 10):
        assert result.confusion[pair] == pairs.count(pair)


def test_test_time_mirror_images_are_averaged_with_the_images(backend):
    model = build_model("plain_igc", 5, L=2, M=2, backend=backend)
    test_set = data.shapes("test")
    logits = np.zeros((len(test_set), 10))
    for images in (test_set.images, test_set.images[..., ::-1]):
        x = backend.normalise(backend.asarray(images), test_set.mean, test_set.std, "float32")
        logits += 0.5 * backend.to_numpy(model.forward(x))
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = np.arange(len(test_set)), test_set.labels
    result = evaluate(model, test_set, 7, mirror=True)
    assert result.loss == pytest.approx(-np.log(probability[rows]).mean(), rel=1e-5)
    assert result.accuracy == (logits.argmax(axis=1) == test_set.labels).mean()
    assert evaluate(model, test_set).loss != pytest.approx(result.loss, rel=1e-4)


def test_a_run_is_tested_as_its_setting_says_also_by_the_command(tmp_path, capsys):
    history = train(config(tmp_path, test_mirror=True))
    expected, model = history.records[-1]["test_loss"], runs.load_run(history.run, "numpy")[0]
    assert evaluate(model, data.shapes("test"), mirror=True).loss == pytest.approx(expected)
    assert main(["eval", str(history.run), "--backend", "numpy"]) == 0
    assert f"loss {expected:.4f} (with mirror images)" in capsys.readouterr().out


def test_an_evaluation_that_cannot_mean_anything_is_refused():
    with pytest.raises(TypeError, match=r"model is builtins\.NoneType; Model is needed"):
        evaluate(None, data.shapes("test"))
    with pytest.raises(TypeError, match=r"config is builtins\.dict; TrainConfig is needed"):
        train({})
    model, test_set = build_model("plain", 5, width=3, backend="numpy"), data.shapes("test")
    for function, number in ((evaluate, "batch_size"), (precise_statistics, "batches")):
        with pytest.raises(SpecError, match=f"{number}=-1 is not an integer of at least 1"):
            function(model, test_set, **{number: -1})
        with pytest.raises(DataError, match="is empty"):
            function(model, test_set[:0])
    state = model.state_dict()
    state["linear.bias"][0] = np.nan
    model.load_state_dict(state)
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match="on shapes/test is nan"):
        evaluate(model, test_set)
    more = replace(test_set, classes=(*test_set.classes, "eleventh"))
    with pytest.raises(DataError, match="has 11 classes, the network 10"):
        evaluate(model, more)


@pytest.mark.parametrize(("batches", "starts"), [(2, [0, 8]), (50, [0, 8, 16, 24])])
def test_statistics_are_the_means_over_the_batches(backend, batches, starts):
    model = build_model("plain", 5, width=3, backend=backend, dtype="float64")
    weights = {name: backend.to_numpy(array) for name, array in model.parameters().items()}
    dataset = data.shapes("train")[:28]
    precise_statistics(model, dataset, batches)
    state = model.state_dict()
    means, variances = [], []
    for start in starts:
        images = dataset.images[start : start + 8]
        mean, std = (np.array(v).reshape(1, 3, 1, 1) for v in (dataset.mean, dataset.std))
        twin = build_model("plain", 5, width=3, backend="numpy", dtype="float64")
        x = ((images - mean) / std).swapaxes(0, 1)
        y = twin.network.children["stem"].children["conv"].forward(x)
        means.append(y.mean(axis=(1, 2, 3)))
        variances.append(y.var(axis=(1, 2, 3)))
    assert_close(state["stem.bn.running_mean"], np.mean(means, axis=0), 10_000)
    assert_close(state["stem.bn.running_var"], np.mean(variances, axis=0), 10_000)
    assert all(np.array_equal(state[name], array) for name, array in weights.items())
    assert model.network.children["stem"].children["bn"].momentum == 0.99


def test_an_error_midway_leaves_the_momentum_as_it_was(monkeypatch):
    model = build_model("plain", 5, width=3, backend="numpy")
    monkeypatch.setattr(model, "forward", lambda x, train: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        precise_statistics(model, data.shapes("train"))
    assert model.network.children["stem"].children["bn"].momentum == 0.99


def test_the_command_evaluates_with_fresh_statistics_and_on_other_images_and_writes_nothing(
    tmp_path, capsys, monkeypatch
):
    folder = train(config(tmp_path, epochs=1)).run
    before = (folder / "checkpoint.npz").read_bytes()
    assert main(["eval", str(folder), "--backend", "numpy", "--precise-bn"]) == 0
    shown = capsys.readouterr().out
    model, _ = runs.load_run(folder, "numpy")
    precise_statistics(model, data.shapes("train"))
    assert f"accuracy {evaluate(model, data.shapes('test')).accuracy:.2%}" in shown
    assert "estimated anew" in shown
    other, draw = "these are not the images of shapes/test that the run was tested on", data.shapes
    assert other not in shown
    monkeypatch.setattr(data, "shapes", lambda split, _: draw(split)[1:])
    assert main(["eval", str(folder), "--backend", "numpy"]) == 0
    assert other in capsys.readouterr().out
    assert (folder / "checkpoint.npz").read_bytes() == before
