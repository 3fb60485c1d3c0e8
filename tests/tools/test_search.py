"""The search within a budget: what is proposed, trained, pruned, continued, shared, refused."""

import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igc_ref import TrainConfig, data, plots
from igc_ref.cli import main
from igc_ref.errors import CheckpointError, DataError, SpecError
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import cost
from igc_ref.studies import search as module
from igc_ref.studies.compare import greatest_within
from igc_ref.studies.search import Search, fill, front, held_out, milliseconds
from igc_ref.training import folder as runs
from igc_ref.training.session import run_to_end, train
from tests.support.runs import config, error_of, outcome

PLAIN = TrainConfig(depth=5)
FAST = {"backend": "numpy", "epochs": 2, "batch_size": 16, "lr": 0.05}


def silent(line):
    pass


# -- without Optuna --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 30, 300])
def test_a_tenth_is_held_out_always_the_same_and_never_trained_on(size):
    images = data.shapes("train", size)
    rest, judge = held_out(images)
    assert (len(judge), len(rest)) == (max(1, size // 10), size - max(1, size // 10))
    both = sorted(image.tobytes() for part in (rest, judge) for image in part.images)
    assert both == sorted(image.tobytes() for image in images.images)
    seen = {
        image.tobytes(): label for image, label in zip(images.images, images.labels, strict=True)
    }
    assert all(seen[i.tobytes()] == n for i, n in zip(judge.images, judge.labels, strict=True))
    assert data.fingerprint(*held_out(images)) == data.fingerprint(rest, judge)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(0, 100))
def test_the_greatest_number_within_a_limit(steps, limit):
    counts = [0, *np.cumsum(steps)]
    expected = max(n for n in range(len(counts)) if counts[n] <= limit)

    def count(n):
        return counts[n] if n < len(counts) else 10**9

    assert greatest_within(count, limit) == expected


def params(training):
    return cost(training.architecture()).parameters


@given(
    st.integers(300, 60_000), st.integers(1, 20), st.sampled_from(["M", "L"]),
    st.sampled_from(["3", "5"]),
)  # fmt: skip
def test_L_fills_the_budget_and_never_exceeds_it(limit, M, doubling, kernels):
    form = {"M": M, "doubling": doubling, "kernel_sizes": kernels}
    found = fill(PLAIN, form, params, limit)
    if doubling == "L" and M % 2:
        assert found is None
    elif found is None:
        assert params(replace(PLAIN, L=1, **form)) > limit
    else:
        assert params(found) <= limit < params(replace(found, L=found.L + 1))


def test_a_form_that_needs_more_partitions_gets_them_and_an_error_is_not_proposed():
    def price(training):
        if training.L < 3:
            raise SpecError("too few partitions")
        return params(training)

    assert fill(PLAIN, {"M": 2}, price, 3000).L == fill(PLAIN, {"M": 2}, params, 3000).L > 3
    assert fill(PLAIN, {"M": 2}, price, params(replace(PLAIN, L=2, M=2))) is None
    assert fill(PLAIN, {"M": 3, "doubling": "L"}, params, 3000) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_the_front_is_what_nothing_else_beats(points):
    def beaten(p):
        return any(o != p and o[0] <= p[0] and o[1] >= p[1] for o in points)

    assert front(points) == sorted({p for p in points if not beaten(p)})


def test_a_forward_pass_takes_time():
    batch = data.shapes("test")[:3]
    assert milliseconds(TrainConfig(**FAST, depth=5, L=2, M=2), batch) > 0


def test_what_watches_a_run_sees_every_epoch_and_may_end_it_without_losing_a_bit(tmp_path):
    def watch(records):
        seen.append([r["epoch"] for r in records])
        if len(records) == 1 and len(seen) == 1:
            raise RuntimeError("enough")

    seen, sets = [], held_out(data.shapes("train", 40))
    cut, whole = (config(tmp_path, name) for name in ("cut", "whole"))
    with pytest.raises(RuntimeError, match="enough"):
        train(cut, sets=sets, watch=watch)
    assert run_to_end(cut, silent, sets=sets, watch=watch).records[-1]["epoch"] == 2
    assert seen == [[1], [1, 2]]
    train(whole, sets=sets)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    saved = runs.load_newest(tmp_path / "cut", silent)
    assert saved.fingerprint == data.fingerprint(*sets)
    with pytest.raises(CheckpointError, match="was trained on other images"):
        run_to_end(replace(cut, checkpoint_every=1, until=0.99), silent, sets=sets[::-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--budget 0", "budget=0.0 is not allowed; it must be between 0 and inf"),
        ("--budget nan", "budget=nan is not allowed"),
        ("--budget 9 --tolerance 1", "tolerance=1.0 is not allowed; it must be between 0 and 1"),
        ("--budget 9 --trials 0", "trials=0 is not an integer of at least 1"),
        ("--budget 9 --depths 8,8", "depths=[8, 8] must be different numbers"),
        ("--budget 9 --depths 8,9", "depth=9 is not allowed"),
        ("--budget 9 --recipe fast", "recipe='fast' says nothing about data='shapes'"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path, capsys, options, message
):
    assert message in error_of(capsys, "search", *options.split(), "--out", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_without_optuna_a_line_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    text = error_of(capsys, "search", "--budget", 1500, "--out", tmp_path / "s")
    assert 'pip install "igc-ref[search]"' in text
    assert not (tmp_path / "s").exists()


# -- with it ---------------------------------------------------------------------------------------

slow = pytest.mark.slow


@pytest.fixture
def optuna(few_images, monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)  # slow
    return pytest.importorskip("optuna")


def search(folder, trials=4, **changes):
    plan = {"budget": 1500, "depths": (5,), **changes}
    training = TrainConfig(**{**FAST, **plan.pop("training", {})})
    return Search(training, str(folder), trials=trials, **plan)


def known(trials):
    """What of trials does not depend on the time: by number, the paper's first."""
    order = sorted(trials, key=lambda t: t.number)
    return [(t.number, t.params, t.value, t.state, t.user_attrs) for t in order]


@slow
def test_trials_are_new_networks_within_the_budget_judged_by_images_held_out(
    tmp_path, optuna, monkeypatch
):
    monkeypatch.setattr(plots, "available", lambda: True)
    plan = search(tmp_path, trials=10, depths=(5, 8))
    trials = plan.run(silent)
    rest, judge = held_out(data.shapes("train"))
    assert len({t.user_attrs["about"]["network"] for t in trials}) == len(trials) == 10
    for trial in trials:
        model, saved = runs.load_run(tmp_path / f"trial-{trial.number}", "numpy")
        assert str(model.architecture) == trial.user_attrs["about"]["network"]
        counted = cost(model.architecture).parameters
        assert counted == trial.user_attrs["about"]["price"]
        assert 750 <= counted <= 1500
        assert saved.fingerprint == data.fingerprint(rest, judge)
        accuracies = [r["test_accuracy"] for r in saved.records]
        assert list(trial.intermediate_values.values()) == accuracies
        assert trial.value == accuracies[-1]
    text = (tmp_path / "report.md").read_text()
    best, first = trials[0], next(t for t in trials if t.number == 0)
    shown = re.findall(r"^\| (\d+) \| (.*?) \|", text, re.M)
    if best is not first:
        assert [int(n) for n, _ in shown[:2]] == [best.number, 0]
    assert [int(n) for n, _ in shown[-10:]] == [t.number for t in trials]
    assert first.user_attrs["about"]["network"] == "plain_igc-5 L2M2"  # L24M2 costs too much
    assert (tmp_path / "front.svg").exists()
    command = re.search(r"^    igc-ref (train .*)$", text, re.M)[1].split()
    assert (
        main([*command, "--epochs", "1", "--backend", "numpy", "--out", str(tmp_path / "t")]) == 0
    )
    name = runs.load_run(tmp_path / "t", "numpy")[0].architecture
    assert str(name) == best.user_attrs["about"]["network"]


@slow
def test_the_first_trial_is_the_papers_if_that_is_within_the_budget(tmp_path, optuna):
    limit = cost(Architecture("plain_igc", 5, 24, 2)).parameters
    for number, budget in enumerate((limit, 1.5 * limit)):
        (trial,) = search(tmp_path / str(number), trials=1, budget=budget).run(silent)
        assert trial.user_attrs["about"]["network"] == "plain_igc-5 L24M2"


@slow
def test_an_interrupted_search_proposes_and_trains_the_same_as_a_whole_one(tmp_path, optuna):
    def until_third_epoch(line):
        lines.append(line)
        if sum(line.startswith("epoch") for line in lines) == 3:
            raise KeyboardInterrupt

    lines, whole = [], search(tmp_path / "whole").run(silent)
    with pytest.raises(KeyboardInterrupt, match="trial 1; the same command continues the search"):
        search(tmp_path / "cut").run(until_third_epoch)
    assert len(search(tmp_path / "cut", trials=2).run(silent)) == 2
    cut = search(tmp_path / "cut").run(silent)
    assert known(cut) == known(whole)
    for trial in cut:
        name = f"trial-{trial.number}"
        assert outcome(tmp_path / "cut" / name) == outcome(tmp_path / "whole" / name)
    before = {path: path.read_bytes() for path in (tmp_path / "cut").glob("*/checkpoint.npz")}
    assert len(before) == 4
    assert known(search(tmp_path / "cut").run(silent)) == known(whole)
    assert before == {path: path.read_bytes() for path in before}
    assert known(search(tmp_path / "other", training={"seed": 1}).run(silent)) != known(whole)


@slow
def test_the_sampler_learns_what_does_not_fit(tmp_path, optuna, monkeypatch):
    class Reached:
        test_accuracy = 0.5

    monkeypatch.setattr(module, "run_to_end", lambda *_, **__: Reached)
    trials = search(tmp_path, trials=16, budget=48_442, depths=(8,)).run(silent)
    assert len({t.user_attrs["about"]["network"] for t in trials}) == 16
    assert sorted(t.number for t in trials) == list(range(16))


@slow
def test_a_budget_is_of_the_network_that_is_trained(tmp_path, optuna):
    (tmp_path / "a.txt").write_bytes(b"ab ba\n" * 300)
    text = {"data": "text", "data_dir": str(tmp_path / "a.txt"), "data_size": 60, "epochs": 1}
    plan = search(tmp_path / "s", 1, training=text, by="multiply_adds", budget=6e4)
    (trial,) = plan.run(silent)
    model, _ = runs.load_run(tmp_path / "s" / "trial-0", "numpy")
    counted = sum(row.multiply_adds for row in model.network.rows((9, 1, 64)))
    assert 30_000 <= counted == trial.user_attrs["about"]["price"] <= 60_000
    title, *_ = (tmp_path / "s" / "report.md").read_text().splitlines()
    assert title.endswith("at most 60,000 multiply-adds")


@slow
def test_another_teacher_makes_another_search_and_a_wrong_one_none(tmp_path, optuna):
    teachers = [
        str(train(config(tmp_path, f"t{seed}", epochs=1, seed=seed)).run) for seed in (0, 1)
    ]
    first = {"training": {"teacher": teachers[0]}}
    search(tmp_path / "s", 1, **first).run(silent)
    assert search(tmp_path / "s", 1, **first).run(silent)
    for error, changes in (
        (CheckpointError, {"teacher": str(tmp_path / "no")}), (SpecError, {"dims": "1"})
    ):  # fmt: skip
        with pytest.raises(error):
            search(tmp_path / "n", 1, training=changes).run(silent)
    assert not (tmp_path / "n").exists()
    for changes in ({"teacher": teachers[1]}, {}):
        with pytest.raises(CheckpointError, match="another search: SHA-256 of the teacher="):
            search(tmp_path / "s", 2, training=changes).run(silent)


@slow
def test_what_is_worse_than_the_others_is_pruned_but_not_the_papers_setting(
    tmp_path, optuna, monkeypatch
):
    never = optuna.pruners.ThresholdPruner(lower=1.1)
    monkeypatch.setattr(optuna.pruners, "MedianPruner", lambda *_: never)
    first, *others = search(tmp_path, trials=3).run(silent)
    assert (first.number, first.state.name) == (0, "COMPLETE")
    assert [t.state.name for t in others] == ["PRUNED"] * 2
    for trial in others:
        saved = runs.load_newest(tmp_path / f"trial-{trial.number}", silent)
        assert len(saved.records) == 1
    assert (tmp_path / "report.md").read_text().count("| pruned |") == 2


@slow
def test_a_run_without_a_finite_loss_is_a_trial_that_was_worth_nothing(tmp_path, optuna):
    trials = search(tmp_path, trials=2, training={"lr": 1e28}).run(silent)
    assert [t.state.name for t in trials] == ["PRUNED"] * 2
    assert (tmp_path / "report.md").read_text().count("the loss is") == 2


@slow
def test_milliseconds_are_measured_once_for_each_network(tmp_path, optuna, monkeypatch):
    def measure(config, batch):
        found = cost(config.architecture()).multiply_adds / 1e6
        measured.append(config.architecture())
        return found

    measured = []
    monkeypatch.setattr(module, "milliseconds", measure)
    trials = search(tmp_path, by="milliseconds", budget=0.3, trials=3).run(silent)
    assert len(trials) == 3
    assert len(measured) == len(set(measured)) > 3
    assert all(0.15 <= t.user_attrs["about"]["price"] <= 0.3 for t in trials)


@slow
def test_a_folder_of_another_search_and_a_budget_without_networks_are_refused(tmp_path, optuna):
    trials = search(tmp_path, trials=1).run(silent)
    for changes, text in (({"budget": 1600}, "budget=1600"), ({"training": {"lr": 1}}, "lr=1.0")):
        with pytest.raises(CheckpointError, match=f"holds another search: {text}"):
            search(tmp_path, **changes).run(silent)
    assert known(search(tmp_path, trials=1).run(silent)) == known(trials)
    with pytest.raises(SpecError, match="budget=9 parameters: no network was found that costs"):
        search(tmp_path / "small", budget=9).run(silent)
    assert search(tmp_path / "small", trials=1).run(silent)  # nothing is left of it
    with pytest.raises(DataError, match="1 image; 2 are needed"):
        search(tmp_path / "one", training={"data_size": 1}).run(silent)
    lines = []
    plan = search(tmp_path / "narrow", trials=9, tolerance=0.1, training={"epochs": 1})
    names = [t.user_attrs["about"]["network"] for t in plan.run(lines.append)]
    assert len(names) == len(set(names)) < 9
    assert "no new network in 200 proposals" in lines[-1]


@slow
def test_processes_share_a_search_and_what_one_leaves_behind_is_finished(tmp_path, optuna):
    options = "--budget 1500 --depths 5 --backend numpy --data-size 200 --trials 6 --epochs 3"
    command = [sys.executable, "-m", "igc_ref", "search", *options.split(), "--out", tmp_path / "s"]

    def start():
        return subprocess.Popen(command, stdout=-1, stderr=-1, text=True, start_new_session=True)

    with start() as one, start() as two:
        assert any(line.startswith("epoch 1/3") for line in one.stdout)
        one.send_signal(signal.SIGINT)
        assert one.wait(60) == 130
        text = "igc-ref: interrupted.*\n"  # nearly always within a trial
        assert re.fullmatch(text, one.stderr.read())
        out, err = two.communicate(timeout=100)
        assert (two.returncode, err) == (0, "")
    with start() as three:
        last, err = three.communicate(timeout=100)
    assert err == ""
    trained = re.findall(r"^trial (\d+)", out + last, re.M)
    assert len(trained) == len(set(trained)) >= 5  # what one left, the others have finished
    text = (tmp_path / "s" / "report.md").read_text().split("All trials")[1]
    assert sorted(re.findall(r"^\| (\d+) ", text, re.M)) == list("012345")
    assert len(list(tmp_path.glob("s/trial-*"))) == 6
