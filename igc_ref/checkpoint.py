"""Checkpoints: one ``.npz`` of plain arrays, replaced atomically, never unpickled."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.config import TrainConfig
from igc_ref.errors import CheckpointError
from igc_ref.files import replacing
from igc_ref.history import Record, check_records
from igc_ref.spec import integer

FORMAT = 1
Arrays = dict[str, npt.NDArray[Any]]

# All that numpy, zipfile and json raise when a file is not what it should be.
DAMAGE = (
    ArithmeticError, AttributeError, EOFError, KeyError, MemoryError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A run after a whole number of epochs.

    Parameters
    ----------
    config : TrainConfig
    classes : int
        Classes of the data set.
    records : list of dict
        One for each epoch done.
    model, velocity : dict of ndarray
        State of the network and of the optimiser.
    """

    config: TrainConfig
    classes: int
    records: list[Record]
    model: Arrays
    velocity: Arrays


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a reader sees the old file or the new one, never half of one."""
    meta = {
        "format": FORMAT,
        "config": checkpoint.config.to_dict(),
        "classes": checkpoint.classes,
        "records": checkpoint.records,
    }
    arrays = {"meta": np.array(json.dumps(meta, allow_nan=False))}
    arrays |= {f"model/{name}": array for name, array in checkpoint.model.items()}
    arrays |= {f"velocity/{name}": array for name, array in checkpoint.velocity.items()}
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or of another format.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}")
    try:
        arrays = _read_arrays(path)
        meta = json.loads(arrays.pop("meta").item())
        if meta["format"] != FORMAT:
            raise ValueError(f"format {meta['format']}; this version reads format {FORMAT}")
        return Checkpoint(
            config=TrainConfig.from_dict(meta["config"]),
            classes=integer("classes", meta["classes"]),
            records=check_records(meta["records"]),
            model=_part(arrays, "model/"),
            velocity=_part(arrays, "velocity/"),
        )
    except DAMAGE as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(f"{path} is damaged or no checkpoint: {reason}") from error


def _read_arrays(path: Path) -> Arrays:
    with zipfile.ZipFile(path) as archive:
        # We write no compressed members; whoever does may claim any size.
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("it has compressed members")
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"its member {name!r} is no array")
    return found


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}
