"""Finished runs as one JSON file for the repository: settings, curves, commit, machine and hash."""

import json
import re
from pathlib import Path

from igc_ref.errors import CheckpointError, SpecError, shown
from igc_ref.files import replacing
from igc_ref.networks.model import sha256
from igc_ref.training import folder as runs
from igc_ref.training.config import TrainConfig
from igc_ref.training.evaluation import evaluate, precise_statistics

PATHS = ("out", "data_dir", "teacher")  # paths of one machine are not recorded
ALWAYS = ("arch", "depth", "L", "M", "width", "epochs", "seed", "backend")  # if there is a value
FAST = TrainConfig.recipe("fast", data="cifar10").to_dict() | dict.fromkeys(ALWAYS)
KEPT = ("train_accuracy", "test_accuracy")  # of every epoch
NEEDED = {  # of every run
    "network": r"\S+ .+",
    "commit": r"[0-9a-f]{7,40}",
    "machine": r".+",
    "date": r"\d{4}-\d\d-\d\d.*",
    "sha256": r"[0-9a-f]{64}",
}


def collect(folders, place, before, data_dir, save):
    """Return a record with every finished run below some folders added.

    Parameters
    ----------
    folders : sequence of Path
        Folders of runs, sweeps or compressions; their names do not matter.
    place : dict
        ``commit`` of the code that ran, ``machine`` and ``date`` of the run.
    before : dict
        The record so far; a run of the same network, seed and epochs is replaced.
    data_dir : str
        Folder of the images: every run is evaluated once more, with batch statistics estimated
        anew.
    save : callable
        Called with the record after every run, because evaluating takes a while.

    Raises
    ------
    SpecError
        If a run, one of `before` too, lacks its commit, machine, date or hash; if there is no
        such folder.
    """
    for field, value in place.items():  # before any work
        _check("this collection", field, value)
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise SpecError(f"there is no folder {', '.join(missing)}")
    record = {"runs": {**before.get("runs", {})}, "compress": {**before.get("compress", {})}}
    for path in sorted({p for folder in folders for p in (folder, *folder.rglob("*"))}):
        part_of_larger = (path.parent / "compress.json").is_file()
        if (path / "compress.json").is_file():
            result = json.loads((path / "compress.json").read_text())
            parts = {part: _run(path / part, place, data_dir) for part in ("finetuned", "scratch")}
            precise = {part: run["precise_bn_accuracy"] for part, run in parts.items() if run}
            record["compress"][path.name] = {**result, **place, "precise": precise}
        elif not (path / runs.CONFIG).is_file() or part_of_larger:
            continue
        elif found := _run(path, place, data_dir):
            c = found["config"]
            what = f"{found['network']}, {c.get('data', FAST['data'])}"
            record["runs"][f"{what}, seed {c['seed']}, {c['epochs']} epochs"] = found
            save(record)
    return check(record)


def check(record):
    """Return a record, or raise a SpecError that names a run and what it lacks."""
    for name, run in record.get("runs", {}).items():
        for field in NEEDED:
            _check(name, field, run.get(field))
    return record


def _check(name, field, value):
    if not re.fullmatch(NEEDED[field], str(value or "")):
        raise SpecError(f"{name}: {field}={shown(value)} must match {NEEDED[field]}")


def _run(path, place, data_dir):
    """Return what is recorded of a run, or None if it is not finished."""
    try:
        model, saved = runs.load_run(path, report=print)
    except CheckpointError as error:  # such as one whose checkpoints were removed
        print(f"left out: {error}")
        return None
    if not saved.finished:
        print(f"left out: {path} is at {saved.progress}")
        return None
    settings = {k: v for k, v in saved.config.to_dict().items() if k not in PATHS and v != FAST[k]}
    precise_statistics(model, runs.load_set(saved, "train", data_dir, print))
    test_set = runs.load_test_set(saved, data_dir, print)
    return {
        "network": str(model.architecture),
        "config": settings,
        "records": [{"epoch": r["epoch"], **{k: round(r[k], 5) for k in KEPT}}
                    for r in saved.records],
        "precise_bn_accuracy": evaluate(model, test_set).accuracy,
        "sha256": sha256(saved.model),
        **place,
    }  # fmt: skip


def read(path):
    """Read a record; an empty one if there is none."""
    return json.loads(Path(path).read_text()) if Path(path).exists() else {}


def write(path, record):
    """Write a record, a line for each run, in the order of their names."""
    kinds = (
        f'"{kind}": {{\n' + ",\n".join(
            f"{json.dumps(name)}: {json.dumps(entry, separators=(',', ':'), allow_nan=False)}"
            for name, entry in sorted(entries.items())
        ) + "\n}"
        for kind, entries in sorted(check(record).items())
    )  # fmt: skip
    with replacing(Path(path)) as file:
        file.write(("{" + ",\n".join(kinds) + "}\n").encode())
