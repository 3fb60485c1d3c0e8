"""Checkpoints: one ``.npz`` of plain arrays, replaced atomically, never unpickled."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.errors import CheckpointError

FORMAT = 1
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """A run after a whole number of epochs.

    Parameters
    ----------
    config : dict
        The fields of the run's `TrainConfig`.
    classes : int
        Classes of the data set.
    records : list of dict
        One for each epoch done.
    model, velocity : dict of ndarray
        State of the network and of the optimiser.
    """

    config: dict[str, Any]
    classes: int
    records: list[dict[str, Any]]
    model: Arrays
    velocity: Arrays


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a reader sees the old file or the new one, never half of one."""
    meta = {
        "format": FORMAT,
        "config": checkpoint.config,
        "classes": checkpoint.classes,
        "records": checkpoint.records,
    }
    arrays = {"meta": np.array(json.dumps(meta, allow_nan=False))}
    arrays |= {f"model/{name}": array for name, array in checkpoint.model.items()}
    arrays |= {f"velocity/{name}": array for name, array in checkpoint.velocity.items()}
    temporary = path.with_name(path.name + ".partial")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or of another format.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(arrays.pop("meta").item())
        if meta["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {meta['format']}; this version reads format {FORMAT}"
            )
        return Checkpoint(
            config=dict(meta["config"]),
            classes=int(meta["classes"]),
            records=list(meta["records"]),
            model=_part(arrays, "model/"),
            velocity=_part(arrays, "velocity/"),
        )
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except CheckpointError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
    ) as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint: {error}") from error


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}
