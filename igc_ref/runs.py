"""The folder of a run: ``config.json``, ``log.jsonl`` (a line an epoch) and ``checkpoint.npz``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from igc_ref import checkpoint
from igc_ref.config import TrainConfig
from igc_ref.errors import CheckpointError
from igc_ref.models import Model, build

Record = dict[str, Any]
CHECKPOINT, CONFIG, LOG = "checkpoint.npz", "config.json", "log.jsonl"


def create(config: TrainConfig) -> Path:
    """Make the folder of a new run and write its config; refuse a folder that holds anything."""
    folder = Path(config.out) if config.out is not None else free_folder(config)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(
            f"{folder} is not an empty folder; choose another --out, or --resume it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config.to_dict(), indent=2, allow_nan=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
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
    lines = [json.dumps(record, allow_nan=False) + "\n" for record in records]
    (folder / LOG).write_text("".join(lines), encoding="utf-8")


def read_log(folder: str | Path) -> list[Record]:
    """Read the log of a run.

    Raises
    ------
    CheckpointError
        If there is none, or a line of it is not JSON.
    """
    path = Path(folder) / LOG
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no run with a log: there is no {path}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not records:
        raise CheckpointError(f"{path} is empty: no epoch was finished")
    return records


def read_config(folder: Path) -> TrainConfig:
    """Read ``config.json`` of a run."""
    path = folder / CONFIG
    try:
        return TrainConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no run: there is no {path}") from None
    except (ValueError, TypeError, AttributeError) as error:
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
    config = TrainConfig.from_dict(saved.config)
    declared = read_config(folder)
    ours, theirs = (c.architecture(saved.classes) for c in (config, declared))
    if ours != theirs or config.dtype != declared.dtype:
        raise CheckpointError(
            f"{folder / 'checkpoint.npz'} is of {ours} ({config.dtype}), but "
            f"{folder / 'config.json'} says {theirs} ({declared.dtype})"
        )
    model = build(ours, backend, config.dtype, config.seed)
    model.load_state_dict(saved.model)
    return model, config
