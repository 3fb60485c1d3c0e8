"""The folder of a run: ``config.json``, ``log.jsonl`` (a line an epoch), the last checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from igc_ref.errors import CheckpointError
from igc_ref.files import replacing
from igc_ref.networks.model import Model, build
from igc_ref.report import Report
from igc_ref.training import checkpoint
from igc_ref.training.checkpoint import Record, check_records
from igc_ref.training.config import TrainConfig

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CHECKPOINT, PREVIOUS = "checkpoint.npz", "checkpoint-previous.npz"
CONFIG, LOG = "config.json", "log.jsonl"


@contextmanager
def create(config: TrainConfig) -> Iterator[Path]:
    """Make the folder of a new run, hold it, write its config; refuse one that holds anything."""
    folder = _new_folder(config) if config.out is None else Path(config.out)
    if folder.exists() and not folder.is_dir():
        raise _not_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if any(not path.name.endswith(".partial") for path in folder.iterdir()):
            raise _not_empty(folder)
        with replacing(folder / CONFIG) as file:
            file.write((json.dumps(config.to_dict(), indent=2) + "\n").encode())
        yield folder


def _not_empty(folder: Path) -> CheckpointError:
    return CheckpointError(f"{folder} is not an empty folder; choose another --out, or --resume it")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder of a run, so that no second process trains in it.

    The lock is the system's (flock on the folder): it leaves no file and ends with the process,
    however that ends. Where there is no flock (Windows), nothing is locked.

    Raises
    ------
    CheckpointError
        If another process holds it, or there is no such folder.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no run: there is no such folder")
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(f"another process is training in {folder}") from error
        yield
    finally:
        os.close(descriptor)


def _new_folder(config: TrainConfig) -> Path:
    """Make the first folder ``runs/<network>-<data>-<number>`` that does not exist."""
    name = str(config.architecture(num_classes=10)).replace(" ", "-")
    for number in count(1):
        folder = Path("runs") / f"{name}-{config.data}-{number}"
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:  # also one that another process made just now
            continue
    return folder


def write_log(folder: Path, records: list[Record]) -> None:
    """Write the log: one JSON object a line, one line an epoch."""
    with replacing(folder / LOG) as file:
        for record in records:
            file.write((json.dumps(record, allow_nan=False) + "\n").encode())


def read_log(folder: str | Path) -> list[Record]:
    """Read the log of a run.

    Raises
    ------
    CheckpointError
        If there is none, or a line of it is not the record of an epoch.
    """
    path = Path(folder) / LOG
    lines = _read_text(path).splitlines()
    try:
        records = check_records([json.loads(line) for line in lines])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not records:
        raise CheckpointError(f"{path} is empty: no epoch was finished")
    return records


def read_config(folder: str | Path) -> TrainConfig:
    """Read ``config.json`` of a run.

    Raises
    ------
    CheckpointError
        If there is none, or it does not describe a run.
    """
    path = Path(folder) / CONFIG
    try:
        return TrainConfig.from_dict(json.loads(_read_text(path)))
    except (ValueError, RecursionError) as error:  # SpecError is a ValueError
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise CheckpointError(f"{path.parent} is no run: there is no {path}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def load_checkpoint(folder: Path, name: str = CHECKPOINT) -> checkpoint.Checkpoint:
    """Read the checkpoint of a run, and make sure that it is of the network in its config.

    Raises
    ------
    CheckpointError
        If either file is missing or damaged, or they are of different networks.
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

    Returns
    -------
    Checkpoint or None
        None if the run was ended before it had written one: it begins anew.

    Raises
    ------
    CheckpointError
        If neither can be read; the error is that of the newest.
    """
    if not any((folder / name).exists() for name in (CHECKPOINT, PREVIOUS)):
        read_config(folder)  # an error if this is no run at all
        report(f"{folder} has no checkpoint yet: it begins anew")
        return None
    try:
        return load_checkpoint(folder)
    except CheckpointError as damage:
        try:
            saved = load_checkpoint(folder, PREVIOUS)
        except CheckpointError:
            raise damage from None
        report(f"{damage}; going on from {folder / PREVIOUS}, {saved.position}")
        return saved


def load_run(folder: str | Path, backend: str = "auto") -> tuple[Model, TrainConfig]:
    """Rebuild the network of a run with its trained weights.

    Raises
    ------
    CheckpointError
        As `load_checkpoint`, or if the weights are not those of the network.
    """
    saved = load_checkpoint(Path(folder))
    config = saved.config
    model = build(config.architecture(saved.classes), backend, config.dtype, config.seed)
    model.load_state_dict(saved.model)
    return model, config
