"""The folder of a run: ``config.json``, the last two checkpoints, and ``log.jsonl`` made from them.

What a run has reached is known from its newest readable checkpoint, and from nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from igc_ref import data, files
from igc_ref.backends import GenericBackend
from igc_ref.data import Dataset
from igc_ref.errors import CheckpointError, DataError, one_line, shown, user_path
from igc_ref.files import replacing, write_json
from igc_ref.networks.metadata import Metadata
from igc_ref.networks.model import Model, build, sha256
from igc_ref.report import Report, silent
from igc_ref.training import checkpoint
from igc_ref.training.checkpoint import Checkpoint
from igc_ref.training.config import TrainConfig, plain

CHECKPOINT, PREVIOUS = "checkpoint.npz", "checkpoint-previous.npz"
CONFIG, LOG, LOCK = "config.json", "log.jsonl", ".lock"
# Between a run and its continuation.
MAY_CHANGE = ("backend", "data_dir", "checkpoint_every", "until", "teacher")


@contextmanager
def create(config: TrainConfig, report: Report = silent) -> Iterator[Path]:
    """Make the folder of a new run, lock it, write its config; refuse one that holds anything."""
    folder = _new_folder(config) if config.out is None else Path(config.out)
    if not (folder / LOCK).exists():  # no run's folder: no lock is left in it
        _check_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, report):
        _check_empty(folder)
        write_json(folder / CONFIG, config.to_dict())
        yield folder


def _check_empty(folder: Path) -> None:
    """Raise a CheckpointError if there is anything but what a failed attempt leaves behind."""
    left = (LOCK, f"{CONFIG}.partial")
    if folder.exists() and (
        not folder.is_dir() or any(path.name not in left for path in folder.iterdir())
    ):
        raise CheckpointError(
            f"{folder} is not an empty folder; choose another --out, or --resume it"
        )


def of_study(out: str | Path) -> Path:
    """Return the folder of a study, which holds runs; a CheckpointError if it is a run's own."""
    folder = user_path("out", out)
    if (folder / CONFIG).exists():
        raise CheckpointError(f"{folder} is the folder of a run; choose another --out")
    return folder


def locked(folder: Path, report: Report = silent) -> AbstractContextManager[object]:
    """Lock the folder of a run; a CheckpointError if another process is training in it."""
    try:
        return files.locked(folder / LOCK, 0, report)
    except TimeoutError as error:
        raise CheckpointError(f"another process is training in {folder}") from error


def _new_folder(config: TrainConfig) -> Path:
    """Make the first folder ``runs/<network>-<data>-<number>`` that does not exist."""
    name = str(config.architecture(1)).replace(" ", "-")
    for number in count(1):
        folder = Path("runs") / f"{name}-{config.data}-{number}"
        with suppress(FileExistsError):  # also one that another process made just now
            folder.mkdir(parents=True)
            break
    return folder


def write_log(folder: Path, saved: Checkpoint) -> None:
    """Write the log, one line for each epoch, unless it says that already.

    The last line of a finished run has the SHA-256 of its weights as well. The log is for people
    and other programs: this package reads the checkpoint.
    """
    path, records = folder / LOG, list[Mapping[str, object]](saved.records)
    if saved.finished:
        records[-1] = {**records[-1], "sha256": sha256(saved.model)}
    text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()
    if text != (path.read_bytes() if path.is_file() else b""):
        with replacing(path) as file:
            file.write(text)


def read_config(folder: str | Path) -> TrainConfig:
    """Read ``config.json`` of a run; a CheckpointError if there is none, or it is damaged."""
    path = user_path("folder", folder) / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{path.parent} is no run: there is no {path}")
    try:
        return TrainConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:  # of the encoding, of json, or a SpecError
        raise CheckpointError(f"{path} is damaged: {error}") from error


def differing(config: TrainConfig, settings: Mapping[str, Any]) -> str:
    """List the settings that a run does not have and cannot be continued with."""
    run = config.to_dict()
    return ", ".join(
        f"{name}={value} (the run has {run[name]})"
        for name, value in plain(settings).items()
        if name not in MAY_CHANGE and value != run[name]
    )


def load_newest(folder: str | Path, report: Report) -> Checkpoint | None:
    """Read the newest checkpoint of a run that can be read: all that any command knows of it.

    If the last one is missing or damaged, that is reported, and the one before it is read.

    Returns
    -------
    Checkpoint, or None if the run was ended before it had written one

    Raises
    ------
    CheckpointError
        If there is no run; if neither can be read, that of the last one; if both were removed, for
        the log is kept; or if it has other settings than ``config.json``.
    """
    last, previous = (user_path("folder", folder) / name for name in (CHECKPOINT, PREVIOUS))
    declared = read_config(folder)
    if not last.exists() and not previous.exists():
        if (log := last.with_name(LOG)).is_file() and log.stat().st_size:
            raise CheckpointError(f"the checkpoints of {folder} are gone; its log is kept: {log}")
        return None
    try:
        saved = checkpoint.load(last)
    except CheckpointError as damage:
        try:
            saved = checkpoint.load(previous)
        except CheckpointError:
            raise damage from None
        report(f"{damage}; taking {previous}, {saved.position}")
    settings = saved.config.to_dict()
    if found := differing(declared, {n: v for n, v in settings.items() if n != "out"}):
        raise CheckpointError(f"the checkpoint in {folder} is of another run: {found}")
    return saved


def load_run(
    folder: str | Path, backend: str | GenericBackend = "auto", report: Report = silent
) -> tuple[Model, Checkpoint]:
    """Rebuild the network of a run with its trained weights; return also the checkpoint read.

    Raises
    ------
    CheckpointError
        As `load_newest`, or if there is no checkpoint yet, or the weights are not those of the
        network.
    """
    saved = load_newest(folder, report)
    if saved is None:
        raise CheckpointError(f"there is no checkpoint in {folder} yet")
    config = saved.config
    model = build(saved.architecture, backend, config.dtype, bn_momentum=config.bn_momentum)
    model.load_state_dict(saved.model)
    model.metadata = saved.metadata
    return model, saved


def load_teacher(
    config: TrainConfig, about: Metadata, backend: GenericBackend, report: Report
) -> Model | None:
    """Rebuild the network that a run learns from, if any; a CheckpointError if it does not fit."""
    if config.teacher is None:
        return None
    model, saved = load_run(config.teacher, backend, report)
    ours = vars(about) | {"dtype": config.dtype}
    for name, theirs in (vars(saved.metadata) | {"dtype": model.dtype}).items():
        if theirs != ours[name]:
            text = f"the teacher in {config.teacher} has {name}={shown(theirs)}"
            raise CheckpointError(f"{text}, this run {shown(ours[name])}: they must agree")
    report(
        f"teacher {model.architecture}, {saved.progress}; T={config.temperature:g}, "
        f"alpha={config.alpha:g}"
    )
    return model


def check_teacher(saved: Checkpoint, teacher: str | None, weights: str) -> None:
    """Raise a CheckpointError if a run has not learned from the weights of SHA-256 `weights`."""
    if saved.teacher != weights:
        raise CheckpointError(
            f"the run's teacher has weights of SHA-256 {saved.teacher or None}, those of "
            f"teacher={teacher} are of {weights or None}"
        )


def teacher_weights(teacher: str | None) -> str:
    """Return the SHA-256 of the weights in a run's folder, "" for no teacher."""
    return "" if teacher is None else load_run(teacher, "numpy")[0].sha256()


def load_set(saved: Checkpoint, split: str, data_dir: str | None, report: Report) -> Dataset:
    """Load a data set for a run, normalised as it was trained; a DataError if it does not fit."""
    config, about = saved.config, saved.metadata
    found = data.load(config.data, split, data_dir, report, config.data_size)
    place = data_dir or found.name
    if found.classes != about.classes:
        raise DataError(f"{place} has the classes {one_line(found.classes)}, not the run's")
    if len(found.mean) != len(about.mean):
        raise DataError(f"{place} has {len(found.mean)} channels, the run's {len(about.mean)}")
    return replace(found, mean=about.mean, std=about.std)


def load_test_set(saved: Checkpoint, data_dir: str | None, report: Report) -> Dataset:
    """Load the test set of a run; report if its images are not those that the run was tested on."""
    test_set = load_set(saved, "test", data_dir, report)
    if saved.test_fingerprint not in ("", data.fingerprint(test_set)):
        report(f"these are not the images of {test_set.name} that the run was tested on")
    return test_set
