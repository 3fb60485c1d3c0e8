"""The state of a run, on the disk and in memory: records of its epochs, weights, velocities."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.errors import CheckpointError, describe, integer
from igc_ref.files import replacing
from igc_ref.training.config import TrainConfig
from igc_ref.training.npz import read_arrays

FORMAT = 2
FIELDS = (
    "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy",
    "seconds", "images_per_second",
)  # fmt: skip

Arrays = dict[str, npt.NDArray[Any]]
Record = dict[str, float]  # of an epoch: the FIELDS


@dataclass(frozen=True)
class History:
    """What a run reached.

    Parameters
    ----------
    run : Path
        Folder with ``config.json``, ``log.jsonl`` and ``checkpoint.npz``.
    records : list of dict
        For each epoch: train and test loss (nats) and accuracy (0 to 1), seconds, images/s.
    """

    run: Path
    records: list[Record]

    @property
    def test_accuracy(self) -> float:
        """Test accuracy after the last epoch, 0 to 1."""
        return self.records[-1]["test_accuracy"]


@dataclass(frozen=True)
class Partial:
    """How far the present epoch is.

    Parameters
    ----------
    step : int
        Steps done.
    loss_sum, correct, seconds : float, int, float
        Over the images seen in this epoch; time spent on it.
    draws : str
        Fingerprint of the epoch's order and augmentation, if ``step > 0``.
    """

    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seconds: float = 0.0
    draws: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run.

    Parameters
    ----------
    config : TrainConfig
    classes : int
        Classes of the data set.
    fingerprint, test_fingerprint : str
        Of all images and labels, and of the test set's alone; see `igc_ref.data.fingerprint`.
    records : list of dict
        One for each epoch done.
    partial : Partial
        The epoch after them, if it has begun.
    model, velocity : dict of ndarray
        State of the network and of the optimiser.
    numpy : str
        Version of the NumPy that drew the order of the images.
    """

    config: TrainConfig
    classes: int
    fingerprint: str
    test_fingerprint: str
    records: list[Record]
    partial: Partial
    model: Arrays
    velocity: Arrays
    numpy: str = np.__version__

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return len(self.records) >= self.config.epochs

    @property
    def position(self) -> str:
        """Say how far the run is."""
        if self.partial.step:
            return f"epoch {len(self.records) + 1}, step {self.partial.step}"
        return f"epoch {len(self.records)}"


def save(path: Path, checkpoint: Checkpoint, keep: Path | None = None) -> None:
    """Write a checkpoint; a reader sees the old file or the new one, never half of one.

    The old file, if there is one, becomes `keep`.
    """
    meta = {
        "format": FORMAT,
        "numpy": checkpoint.numpy,
        "config": checkpoint.config.to_dict(),
        "classes": checkpoint.classes,
        "fingerprint": checkpoint.fingerprint,
        "test_fingerprint": checkpoint.test_fingerprint,
        "records": checkpoint.records,
        "partial": asdict(checkpoint.partial),
    }
    arrays = {"meta": np.array(json.dumps(meta, allow_nan=False))}
    arrays |= {f"model/{name}": array for name, array in checkpoint.model.items()}
    arrays |= {f"velocity/{name}": array for name, array in checkpoint.velocity.items()}
    with replacing(path, keep) as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or of another format, or no run can have such a state.
    OSError
        If it may not be read.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}")
    try:
        arrays = read_arrays(path)
        _check_numbers(arrays)
        meta = _meta(arrays)
        saved = Checkpoint(
            config=TrainConfig.from_dict(meta.get("config")),
            classes=integer("classes", meta.get("classes")),
            fingerprint=_text(meta, "fingerprint"),
            test_fingerprint=_text({"test_fingerprint": ""} | meta, "test_fingerprint"),
            records=check_records(meta.get("records")),
            partial=_partial(meta.get("partial")),
            model=_part(arrays, "model/"),
            velocity=_part(arrays, "velocity/"),
            numpy=_text(meta, "numpy"),
        )
        _check_progress(saved)
    except (ValueError, RecursionError) as error:  # json recurses where brackets nest
        reason = describe(error, 300)  # it may quote the file
        raise CheckpointError(f"{path} is damaged or no checkpoint: {reason}") from error
    return saved


def check_records(values: object) -> list[Record]:
    """Return the records of epochs 1, 2, ..., or raise a ValueError that says what is wrong."""
    if not isinstance(values, list):
        raise ValueError(f"records must be a list, not {type(values).__name__}")
    records = [{name: _number(value, name) for name in FIELDS} for value in values]
    for epoch, record in enumerate(records, start=1):
        if record["epoch"] != epoch:
            raise ValueError(f"record {epoch} is of epoch {record['epoch']}")
        for name in ("train_accuracy", "test_accuracy"):
            if not 0 <= record[name] <= 1:
                raise ValueError(f"{name} of epoch {epoch} is {record[name]}, not from 0 to 1")
    return records


def _check_progress(saved: Checkpoint) -> None:
    """Raise a ValueError if no run of these settings gets to where this one is."""
    config, partial = saved.config, saved.partial
    if len(saved.records) + bool(partial.step) > config.epochs:
        raise ValueError(f"it is at {saved.position} of a run of {config.epochs} epochs")
    if partial.correct > (seen := partial.step * config.batch_size):
        raise ValueError(f"its partial epoch has {partial.correct} of {seen} images right")


def _check_numbers(arrays: Arrays) -> None:
    """Raise a ValueError if a weight is not finite, or a variance is negative."""
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has a number that is not finite")
            if name.endswith("running_var") and (array < 0).any():
                raise ValueError(f"{name} has a negative number")


def _meta(arrays: Arrays) -> dict[str, Any]:
    """Return what `save` wrote beside the weights."""
    text = arrays.get("meta", np.array(0))
    meta = json.loads(text.item()) if text.dtype.kind == "U" and text.ndim == 0 else None
    if not isinstance(meta, dict):
        raise ValueError("it does not describe a run")
    if meta.get("format") != FORMAT:
        raise ValueError(f"format {meta.get('format')}; this version reads format {FORMAT}")
    return meta


def _partial(values: object) -> Partial:
    """Return what `asdict` made of a `Partial`, or raise a ValueError that says what is wrong."""
    if not isinstance(values, dict):
        raise ValueError(f"its partial epoch is no dict but {type(values).__name__}")
    for name in ("loss_sum", "seconds"):
        if _number(values, name) < 0:
            raise ValueError(f"its {name} is {values[name]}")
    return Partial(
        step=integer("step", values.get("step"), minimum=0),
        loss_sum=float(values["loss_sum"]),
        correct=integer("correct", values.get("correct"), minimum=0),
        seconds=float(values["seconds"]),
        draws=_text(values, "draws"),
    )


def _number(values: object, name: str) -> float:
    """Return a finite number of a JSON object."""
    if not isinstance(values, dict):
        raise ValueError(f"an epoch's record must be a dict, not {type(values).__name__}")
    number = values.get(name)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"an epoch's record needs a number for {name}, not {number!r}")
    if not -1e300 < number < 1e300:
        raise ValueError(f"{name} of an epoch's record is not a finite number")
    return number


def _text(values: dict[str, Any], name: str) -> str:
    """Return a short text of a JSON object."""
    text = values.get(name)
    if not isinstance(text, str) or len(text) > 100:
        raise ValueError(f"its {name} is no short text")
    return text


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}
