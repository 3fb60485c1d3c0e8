"""``docs/paper.md`` is what its record and the code say; verdicts follow from the figures."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.paper.claims import CHOSEN, IGC, PLAIN_20, PLAIN_EPOCHS, SWEEP_EPOCHS, claims
from benchmarks.paper.document import document, draw
from benchmarks.paper.record import collect, read, write
from benchmarks.paper.statistics import difference, estimate, judge
from igc_ref import TrainConfig
from igc_ref.errors import SpecError
from igc_ref.training import checkpoint
from igc_ref.training.session import train

ROOT = Path(__file__).parents[2]
PLACE = {"commit": "abcdef0", "machine": "P, 2 cores", "date": "2000-01-01"}
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}  # by degrees of freedom, from a printed table


def record(accuracies):
    """Return a record of runs, from the accuracies by seed of networks."""
    found = {}
    for network, by_seed in accuracies.items():
        epochs = PLAIN_EPOCHS if network in PLAIN_20 else SWEEP_EPOCHS
        for seed, accuracy in enumerate(by_seed):
            found[f"{network}, {seed}"] = {
                "network": network,
                "config": {"depth": 8, "seed": seed, "epochs": epochs, "backend": "numba"},
                "records": [{"epoch": epochs, "train_accuracy": 0.5, "test_accuracy": 0.1}],
                "precise_bn_accuracy": accuracy, "sha256": "0123456789abcdef" * 4, **PLACE,
            }  # fmt: skip
    return {"runs": found, "compress": {}}


def row_of(words, found):
    return next(row for row in claims(found) if words in row.claim)


def test_the_committed_document_is_what_its_record_and_the_code_say():
    found = read(ROOT / "benchmarks" / "results" / "paper.json")
    assert (ROOT / "docs" / "paper.md").read_text(encoding="utf-8") == document(found)


def test_what_needs_no_training_agrees_with_the_authors_definitions():
    rows = {row.claim: row for row in claims({"runs": {}, "compress": {}})}
    assert rows["parameters of the CIFAR networks"].ours == "28 of 28 exactly"
    assert rows["parameters of the ImageNet networks"].ours == "5 of 5 exactly"
    tables = {name: row.verdict for name, row in rows.items() if name.startswith("parameters, ")}
    assert [name for name, v in tables.items() if v == "agrees"] == [
        "parameters, imagenet_igc-18 L100M2 doubling L"
    ]
    assert all(row.verdict == "agrees" for name, row in rows.items() if name.startswith("FLOPs"))


def test_an_interval_is_that_of_the_table_of_t():
    for values in ([1.0, 4.0], [1.0, 2.0, 6.0], [0.1, 0.2, 0.4, -3.0], [5.0, 5.5, 4.0, 7.0, 5.1]):
        n = len(values)
        mean = sum(values) / n
        sd = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
        found = estimate(values)
        assert found[:3] == (pytest.approx(mean), pytest.approx(sd), n)
        assert found.half == pytest.approx(T_975[n - 1] * sd / math.sqrt(n), rel=2e-4)
    assert estimate([]) is None
    assert estimate([3.0]) == (3.0, None, 1, None)


def test_a_difference_is_taken_between_runs_of_one_seed():
    found = difference({0: 5.0, 2: 1.0, 1: 3.0}, {2: 0.0, 0: 2.0, 7: 9.0})
    assert found[:3] == (2.0, pytest.approx(math.sqrt(2)), 2)  # of 3 and 1
    assert difference({0: 1.0}, {1: 2.0}) is None


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([], "not checked"),
        ([2.0], "one seed: no interval"),
        ([1.0, 1.1, 0.9], "seen"),
        ([-1.0, -1.1, -0.9], "**not seen: the opposite**"),
        (
            [1.0, 0.0, 2.0],
            "**undecided**; 7 seeds would decide it",
        ),  # 2.447/sqrt(7) < 1 < 2.571/sqrt(6)
        ([-2.0, -1.0, -3.0], "**undecided**; 4 seeds would decide it"),
        ([0.0, 0.0], "**undecided**; more than 10,000 seeds would decide it"),
    ],
)
def test_a_verdict_follows_from_the_interval(values, verdict):
    assert judge(estimate(values)) == verdict


def test_claims_are_judged_by_differences_and_the_best_other_setting_is_among_them():
    found = record({
        IGC: [0.80, 0.81, 0.82], "plain-20 W16": [0.70, 0.72, 0.71], "plain-20 W18": [0.9],
        CHOSEN: [0.6, 0.6, 0.6], "plain_igc-8 L1M13": [0.5, 0.51, 0.49],
        "plain_igc-8 L47M1": [0.5, 0.6, 0.7], "plain_igc-8 L14M3": [0.70, 0.71, 0.72],
    })  # fmt: skip
    short = found["runs"][f"{IGC}, 0"] | {"precise_bn_accuracy": 0.1}
    found["runs"]["short"] = short | {"config": short["config"] | {"epochs": 5}}  # not compared
    row = row_of("better than plain-20 W16", found)
    assert (row.ours, row.verdict) == ("+10.00 [+7.52, +12.48] points, 3 seeds, 30 epochs", "seen")
    assert row_of("better than plain-20 W18", found).ours == "-10.00 points, 1 seed, 30 epochs"
    assert row_of("better than plain-20 W18", found).verdict == "one seed: no interval"
    assert row_of("better than plain_fusion", found).verdict == "not checked"
    assert row_of("better than plain_igc-8 L1M13", found).verdict == "seen"
    assert "undecided" in row_of("better than plain_igc-8 L47M1", found).verdict
    assert "opposite" in row_of("L14M3 (48,604 parameters), the best other", found).verdict
    for row in claims(found):  # no verdict on an accuracy without its interval
        assert ("[" in row.ours) == ("seen" in row.verdict or "undecided" in row.verdict), row


def test_without_runs_nothing_is_claimed_to_be_seen():
    empty = record({})
    assert not [row for row in claims(empty) if "seen" in row.verdict]
    assert "No run." in document(empty)


def test_the_document_holds_every_run_and_its_figures_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    found = record({IGC: [0.8, 0.9], CHOSEN: [0.6]})
    text = document(found)
    assert (
        text.count("| 80.00 % | `0123456789ab` | numba | abcdef0 | P, 2 cores | 2000-01-01 |") == 1
    )
    assert "3 runs, 3 of 20 epochs or more" in text
    assert f"* {IGC}: 85.00 % after 30 epochs; against plain-20 W16 not checked" in text
    draw(found, tmp_path)
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(drawn) == ["paper-plain20.svg", "paper-sweep.svg"]
    draw(found, tmp_path)
    assert all((tmp_path / name).read_bytes() == content for name, content in drawn.items())


@pytest.mark.usefixtures("few_images")
def test_collecting_takes_finished_runs_alone_and_no_paths(tmp_path, capsys):
    out, parts = tmp_path / "any name", []
    run = train(TrainConfig(depth=5, L=2, M=2, backend="numpy", epochs=1, out=str(out)))
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    saved = checkpoint.load(out / "checkpoint.npz")
    longer = replace(saved, config=replace(saved.config, epochs=2))
    checkpoint.save(unfinished / "checkpoint.npz", longer)
    (unfinished / "config.json").write_text(json.dumps(longer.config.to_dict()))
    before = record({IGC: [0.5]})
    found = collect([tmp_path], PLACE, before, None, parts.append)
    name = "plain_igc-5 L2M2, shapes, seed 0, 1 epochs"
    assert list(found["runs"]) == [*before["runs"], name]
    assert f"left out: {unfinished} is at epoch 1 (of 2 epochs)" in capsys.readouterr().out
    assert str(tmp_path) not in json.dumps(found)
    entry = found["runs"][name]
    assert (entry["network"], entry["sha256"]) == ("plain_igc-5 L2M2", run.sha256)
    assert {field: entry[field] for field in PLACE} == PLACE
    assert entry["config"] | {"backend": "numpy", "data": "shapes", "lr": 0.3} == entry["config"]
    assert not {"momentum", "schedule", "width", "out"} & set(entry["config"])  # as in the recipe
    assert set(entry["records"][0]) == {"epoch", "train_accuracy", "test_accuracy"}
    assert 0 <= entry["precise_bn_accuracy"] <= 1
    write(tmp_path / "paper.json", found)
    assert read(tmp_path / "paper.json") == found
    again = collect([out], {**PLACE, "commit": "1234567"}, found, None, parts.append)
    assert len(again["runs"]) == 2  # replaced
    assert again["runs"][name]["commit"] == "1234567"


@pytest.mark.parametrize("field", ["sha256", "commit", "machine", "date"])
def test_a_record_of_a_run_without_its_provenance_is_refused(tmp_path, field):
    found = record({IGC: [0.5]})
    del found["runs"][f"{IGC}, 0"][field]
    with pytest.raises(SpecError, match=f"{IGC}, 0: {field}=None"):
        collect([], PLACE, found, None, print)
    with pytest.raises(SpecError, match=f"{IGC}, 0: {field}=None"):
        write(tmp_path / "paper.json", found)
    if field in PLACE:
        with pytest.raises(SpecError, match=f"{field}=''"):
            collect([], {**PLACE, field: ""}, {}, None, print)
    with pytest.raises(SpecError, match="no folder"):
        collect([tmp_path / "nowhere"], PLACE, {}, None, print)
