"""The folder of a run: ``config.json``, ``log.jsonl`` (a line an epoch), the last checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TypeVar

from igc_ref import files
from igc_ref.errors import CheckpointError, user_path
from igc_ref.files import replacing, write_json
from igc_ref.networks.model import Model, build
from igc_ref.report import Report, silent
from igc_ref.training import checkpoint
from igc_ref.training.checkpoint import Record, check_records
from igc_ref.training.config import TrainConfig

CHECKPOINT, PREVIOUS = "checkpoint.npz", "checkpoint-previous.npz"
CONFIG, LOG, LOCK = "config.json", "log.jsonl", ".lock"
T = TypeVar("T")


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


@contextmanager
def locked(folder: Path, report: Report = silent) -> Iterator[None]:
    """Lock the folder of a run, so that no second process trains in it.

    Raises
    ------
    CheckpointError
        If another process has locked it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(folder / LOCK, 0, report))
        except TimeoutError as error:
            raise CheckpointError(f"another process is training in {folder}") from error
        yield


def _new_folder(config: TrainConfig) -> Path:
    """Make the first folder ``runs/<network>-<data>-<number>`` that does not exist."""
    name = str(config.architecture(num_classes=10)).replace(" ", "-")
    for number in count(1):
        folder = Path("runs") / f"{name}-{config.data}-{number}"
        with suppress(FileExistsError):  # also one that another process made just now
            folder.mkdir(parents=True)
            break
    return folder


def write_log(folder: Path, records: list[Record]) -> None:
    """Write the log: one JSON object a line, one line an epoch."""
    with replacing(folder / LOG) as file:
        for record in records:
            file.write((json.dumps(record, allow_nan=False) + "\n").encode())


def read_log(folder: str | Path) -> list[Record]:
    """Read the log of a run; a CheckpointError if there is none, or it is damaged or empty."""
    path = user_path("folder", folder) / LOG
    records = _read(path, lambda text: check_records([json.loads(s) for s in text.splitlines()]))
    if not records:
        raise CheckpointError(f"{path} is empty: no epoch was finished")
    return records


def read_config(folder: str | Path) -> TrainConfig:
    """Read ``config.json`` of a run; a CheckpointError if there is none, or it is damaged."""
    path = user_path("folder", folder) / CONFIG
    return _read(path, lambda text: TrainConfig.from_dict(json.loads(text)))


def _read(path: Path, parse: Callable[[str], T]) -> T:
    if not path.is_file():
        raise CheckpointError(f"{path.parent} is no run: there is no {path}")
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of the encoding, of json, or a SpecError
        raise CheckpointError(f"{path} is damaged: {error}") from error


def load_checkpoint(folder: Path, name: str = CHECKPOINT) -> checkpoint.Checkpoint:
    """Read the checkpoint of a run, and make sure that it is of the network in its config.

    A CheckpointError if either file is missing or damaged, or they are of different networks.
    """
    saved, declared = checkpoint.load(folder / name), read_config(folder)
    ours, theirs = (c.architecture(saved.classes) for c in (saved.config, declared))
    if ours != theirs or saved.config.dtype != declared.dtype:
        raise CheckpointError(
            f"{folder / name} is of {ours} ({saved.config.dtype}), but "
            f"{folder / CONFIG} says {theirs} ({declared.dtype})"
        )
    return saved


def load_newest(folder: Path, report: Report) -> checkpoint.Checkpoint | None:
    """Read the checkpoint of a run, or the one before it if the newest is damaged; say which.

    None if the run was ended before it had written one. If neither can be read, the CheckpointError
    is that of the newest.
    """
    if not any((folder / name).exists() for name in (CHECKPOINT, PREVIOUS)):
        read_config(folder)  # an error if this is no run at all
        report(f"{folder} has no checkpoint yet: it starts from the beginning")
        return None
    try:
        return load_checkpoint(folder)
    except CheckpointError as damage:
        try:
            saved = load_checkpoint(folder, PREVIOUS)
        except CheckpointError:
            raise damage from None
        report(f"{damage}; resuming from {folder / PREVIOUS}, {saved.position}")
        return saved


def load_run(folder: str | Path, backend: str = "auto") -> tuple[Model, TrainConfig]:
    """Rebuild the network of a run with its trained weights.

    Raises
    ------
    CheckpointError
        As `load_checkpoint`, or if the weights are not those of the network.
    """
    saved = load_checkpoint(user_path("folder", folder))
    config = saved.config
    model = build(
        config.architecture(saved.classes), backend, config.dtype, bn_momentum=config.bn_momentum
    )
    model.load_state_dict(saved.model)
    return model, config
