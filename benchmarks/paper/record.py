"""Finished runs as one JSON file for the repository: settings, curves, commit and machine."""

import json
from pathlib import Path

from igc_ref.bench.record import available_threads, machine
from igc_ref.errors import CheckpointError
from igc_ref.files import write_json
from igc_ref.training import folder as runs
from igc_ref.training.evaluation import evaluate, precise_statistics

PATHS = ("out", "data_dir")  # paths of one machine are not recorded


def collect(folders, commit, before, data_dir, save):
    """Return a record with every finished run below some folders added.

    Parameters
    ----------
    folders : sequence of Path
        Folders of runs, sweeps or compressions.
    commit : str
        Of the code that ran.
    before : dict
        The record so far; a run with the same name is replaced.
    data_dir : str
        Folder of the images: every run is evaluated once more, with batch statistics estimated
        anew.
    save : callable
        Called with the record after every run, because evaluating takes a while.
    """
    record = {"runs": {**before.get("runs", {})}, "compress": {**before.get("compress", {})}}
    for folder in folders:
        for path in sorted([folder, *folder.rglob("*")]):
            if (path / runs.CONFIG).is_file() and (found := _run(path, commit, data_dir)):
                record["runs"][_name(path, folder)] = found
                save(record)
            if (path / "compress.json").is_file():
                result = json.loads((path / "compress.json").read_text())
                record["compress"][path.name] = {**result, **_where(commit)}
    return record


def _run(path, commit, data_dir):
    """Return settings and curve of a run, or None if it is not finished."""
    try:
        saved = runs.load_newest(path, print)
    except CheckpointError as error:  # such as one whose checkpoints were removed
        print(f"left out: {error}")
        return None
    if saved is None or not saved.finished:
        return None
    config = saved.config
    settings = {k: v for k, v in config.to_dict().items() if k not in PATHS and v is not None}
    model, _ = runs.load_run(path)
    precise_statistics(model, runs.load_set(saved, "train", data_dir, print))
    test_set = runs.load_test_set(saved, data_dir, print)
    return {
        "network": str(model.architecture),
        "config": settings,
        "records": saved.records,
        "precise_bn_accuracy": evaluate(model, test_set).accuracy,
        **_where(commit),
    }


def _where(commit):
    return {"commit": commit, "machine": machine(available_threads())}


def _name(path, folder):
    """Name a run by its folder, and a part of something larger by both."""
    return path.name if path == folder else f"{folder.name}/{path.name}"


def read(path):
    """Read a record; an empty one if there is none."""
    return json.loads(Path(path).read_text()) if Path(path).exists() else {}


def write(path, record):
    """Write a record, its runs in the order of their names."""
    write_json(path, {kind: dict(sorted(entries.items())) for kind, entries in record.items()})
