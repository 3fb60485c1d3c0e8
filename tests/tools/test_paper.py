"""``docs/paper.md`` is what its record and the code say; verdicts follow from the figures."""

import json
from pathlib import Path

import pytest

from benchmarks.paper.claims import PLAIN_20, claims, sweep_means
from benchmarks.paper.document import document, draw
from benchmarks.paper.record import collect, read, write
from igc_ref import TrainConfig
from igc_ref.training.session import train

ROOT = Path(__file__).parents[2]
MACHINE = {"date": "2000-01-01", "processor": "P", "threads": 1, "numpy": "1", "numba": "1"}


def run(arch, depth, accuracy, seed=0, **numbers):
    config = {"arch": arch, "depth": depth, "seed": seed, "epochs": 5, "data": "cifar10", **numbers}
    last = {"epoch": 5, "train_accuracy": 0.5, "test_accuracy": 0.1}
    return {
        "config": config, "records": [last], "precise_bn_accuracy": accuracy, "commit": "c",
        "machine": MACHINE,
    }  # fmt: skip


def record(igc=0.8, extremes=0.5, middle=0.6):
    return {
        "runs": {
            "plain_igc-20-L24M2-s0": run("plain_igc", 20, igc, L=24, M=2),
            "plain-20-W16-s0": run("plain", 20, 0.7, width=16),
            "sweep-8/L1M13-8-seed0": run("plain_igc", 8, extremes, L=1, M=13),
            "sweep-8/L24M2-8-seed0": run("plain_igc", 8, middle, L=24, M=2),
            "sweep-8/L47M1-8-seed0": run("plain_igc", 8, extremes, L=47, M=1),
            "sweep-8/L24M2-8-seed1": run("plain_igc", 8, 0.99, seed=1, L=24, M=2),
        },
        "compress": {},
    }


def verdict_of(words, found):
    return next(row for row in claims(found) if words in row.claim).verdict


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


@pytest.mark.parametrize(("igc", "seen"), [(0.71, True), (0.7, False), (0.6, False)])
def test_a_network_is_better_only_if_its_accuracy_is_greater(igc, seen):
    verdict = verdict_of("better than plain-20 W16", record(igc=igc))
    assert verdict == f"{'seen' if seen else '**not seen**'} in 5 epochs, 1 seed"
    assert verdict_of("better than plain-20 W18", record()) == "not checked"


@pytest.mark.parametrize(("extremes", "seen"), [(0.5, True), (0.7, False)])
def test_extremes_are_judged_by_the_seeds_that_every_setting_has(extremes, seen):
    found = record(extremes=extremes)
    means, seeds = sweep_means(found)
    assert (means[24, 2], seeds) == (0.6, 1)  # the 0.99 of seed 1 has no rivals
    verdict = verdict_of("extremes", found)
    assert verdict == f"{'seen' if seen else '**not seen**'} in 5 epochs, 1 seed"


def test_without_runs_nothing_is_claimed_to_be_seen():
    empty = {"runs": {}, "compress": {}}
    assert not [row for row in claims(empty) if "seen" in row.verdict]
    assert "No run." in document(empty)


def test_the_document_holds_every_run_and_its_pictures_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    found = record()
    text = document(found)
    for name in ("80.00 %", "L1M13", "commit c, 2000-01-01", "not the published files"):
        assert name in text
    draw(found, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "paper-plain20.svg", "paper-sweep.svg",
    ]  # fmt: skip
    assert len(PLAIN_20) == 5


@pytest.mark.usefixtures("few_images")
def test_collecting_takes_finished_runs_alone_and_no_paths(tmp_path):
    out, lines = tmp_path / "sweep-5" / "L2M2", []
    train(TrainConfig(depth=5, L=2, M=2, backend="numpy", epochs=1, out=str(out)))
    unfinished = tmp_path / "sweep-5" / "unfinished"
    unfinished.mkdir()
    for name in ("config.json", "log.jsonl"):
        (unfinished / name).write_bytes((out / name).read_bytes())
    config = json.loads((unfinished / "config.json").read_text())
    (unfinished / "config.json").write_text(json.dumps({**config, "epochs": 2}))
    found = collect([tmp_path / "sweep-5"], "abc", {}, None, lines.append)
    assert list(found["runs"]) == ["sweep-5/L2M2"]
    assert str(tmp_path) not in json.dumps(found)
    entry = found["runs"]["sweep-5/L2M2"]
    assert (entry["commit"], entry["network"]) == ("abc", "plain_igc-5 L2M2")
    assert 0 <= entry["precise_bn_accuracy"] <= 1
    write(tmp_path / "paper.json", found)
    assert read(tmp_path / "paper.json") == found
