"""The folder of a run: ``config.json``, ``log.jsonl`` (a line an epoch) and ``checkpoint.npz``."""

from __future__ import annotations

import json
from pathlib import Path

from igc_ref import checkpoint
from igc_ref.config import TrainConfig
from igc_ref.errors import CheckpointError
from igc_ref.files import replacing
from igc_ref.history import Record, check_record
from igc_ref.models import Model, build

CHECKPOINT, CONFIG, LOG = "checkpoint.npz", "config.json", "log.jsonl"


def create(config: TrainConfig) -> Path:
    """Make the folder of a new run and write its config; refuse a folder that holds anything."""
    folder = Path(config.out) if config.out is not None else free_folder(config)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(
            f"{folder} is not an empty folder; choose another --out, or --resume it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / CONFIG) as file:
        file.write((json.dumps(config.to_dict(), indent=2) + "\n").encode())
    return folder


def free_folder(config: TrainConfig) -> Path:
    """Return the first folder ``runs/<network>-<data>-<number>`` that does not exist."""
    name = str(config.architecture(num_classes=10)).replace(" ", "-")
    number = 1
    while (folder := Path("runs") / f"{name}-{config.data}-{number}").exists():
        number += 1
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
        records = [check_record(json.loads(line)) for line in lines]
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
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} is no run: there is no {path}") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def load_run(folder: str | Path, backend: str = "auto") -> tuple[Model, TrainConfig]:
    """Rebuild the network of a run with its trained weights.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing, damaged, or not of the network in ``config.json``.
    """
    folder = Path(folder)
    saved = checkpoint.load(folder / CHECKPOINT)
    config, declared = saved.config, read_config(folder)
    ours, theirs = (c.architecture(saved.classes) for c in (config, declared))
    if ours != theirs or config.dtype != declared.dtype:
        raise CheckpointError(
            f"{folder / 'checkpoint.npz'} is of {ours} ({config.dtype}), but "
            f"{folder / 'config.json'} says {theirs} ({declared.dtype})"
        )
    model = build(ours, backend, config.dtype, config.seed)
    model.load_state_dict(saved.model)
    return model, config
