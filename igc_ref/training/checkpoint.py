"""The state of a run, on the disk and in memory: records of its epochs, weights, velocities."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.data import ABOUT
from igc_ref.data.npz import read_arrays
from igc_ref.errors import CheckpointError, describe, integer, shown
from igc_ref.files import replacing
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.metadata import Metadata
from igc_ref.training.config import TrainConfig

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
    sha256 : str
        Of the final weights and running statistics; see `Model.sha256`.
    """

    run: Path
    records: list[Record]
    sha256: str

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
    """The state of a run; a ValueError if no run of these settings gets there.

    Parameters
    ----------
    config : TrainConfig
    metadata : Metadata
        What the network's inputs and outputs mean.
    fingerprint, test_fingerprint : str
        Of all images and labels, and of the test set's alone; see `igc_ref.data.fingerprint`.
        Empty if the weights were imported.
    records : list of dict
        One for each epoch done.
    partial : Partial
        The epoch after them, if it has begun.
    model, velocity : dict of ndarray
        State of the network and of the optimiser.
    numpy : str
        Version of the NumPy that drew the order of the images.
    teacher : str
        SHA-256 of the weights of the network that this one learns from, if any.
    """

    config: TrainConfig
    metadata: Metadata
    fingerprint: str
    test_fingerprint: str
    records: list[Record]
    partial: Partial
    model: Arrays
    velocity: Arrays
    numpy: str = np.__version__
    teacher: str = ""

    def __post_init__(self) -> None:
        if len(self.records) + bool(self.partial.step) > self.config.epochs:
            raise ValueError(f"it is at {self.position} of a run of {self.config.epochs} epochs")
        if self.partial.correct > (seen := self.partial.step * self.config.batch_size):
            raise ValueError(f"its partial epoch has {self.partial.correct} of {seen} images right")

    @property
    def architecture(self) -> Architecture:
        """The network of the run."""
        return self.config.architecture(len(self.metadata.classes), len(self.metadata.mean))

    @property
    def finished(self) -> bool:
        """Whether the run trains no more."""
        return not self.partial.step and ended(self.config, self.records)

    @property
    def position(self) -> str:
        """Say how far the run is."""
        if self.partial.step:
            return f"epoch {len(self.records) + 1}, step {self.partial.step}"
        return f"epoch {len(self.records)}"

    @property
    def progress(self) -> str:
        """Say how far the run is, and of how many epochs; or that there was no run."""
        of_epochs = f"{self.position} (of {self.config.epochs} epochs)"
        return of_epochs if self.fingerprint else "imported weights"


def reached(config: TrainConfig, records: list[Record]) -> Record | None:
    """Return the record of the first epoch with the accuracy to train until, or None."""
    until = config.until
    return next((r for r in records if until and r["test_accuracy"] >= until), None)


def ended(config: TrainConfig, records: list[Record]) -> bool:
    """Return whether a run that has these epochs begins no other."""
    return len(records) >= config.epochs or reached(config, records) is not None


def save(path: Path, checkpoint: Checkpoint, keep: Path | None = None) -> None:
    """Write a checkpoint; a reader sees the old file or the new one, never half of one.

    The old file, if there is one, becomes `keep`.
    """
    meta = vars(checkpoint) | {"format": FORMAT, "partial": asdict(checkpoint.partial)}
    meta |= {name: getattr(checkpoint, name).to_dict() for name in ("config", "metadata")}
    arrays: Arrays = {}
    for part in ("model", "velocity"):
        arrays |= {f"{part}/{name}": array for name, array in meta.pop(part).items()}
    arrays["meta"] = np.array(json.dumps(meta, allow_nan=False))
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
        check_numbers(arrays)
        # An earlier version wrote neither.
        meta = {"test_fingerprint": "", "teacher": ""} | _meta(arrays)
        config = TrainConfig.from_dict(meta.get("config"))
        if "metadata" not in meta and config.data in ABOUT:  # nor this
            size = config.architecture().input_shape[1:]
            meta["metadata"] = Metadata(config.data, *ABOUT[config.data], size).to_dict()
        return Checkpoint(
            config=config,
            metadata=Metadata.from_dict(meta.get("metadata")),
            **{n: _text(meta, n) for n in ("fingerprint", "test_fingerprint", "numpy", "teacher")},
            records=check_records(meta.get("records")),
            partial=_partial(meta.get("partial")),
            model=_part(arrays, "model/"),
            velocity=_part(arrays, "velocity/"),
        )
    except (ValueError, RecursionError) as error:  # json recurses where brackets nest
        reason = describe(error, 300)  # it may quote the file
        raise CheckpointError(f"{path} is damaged or no checkpoint: {reason}") from error


def check_records(values: object) -> list[Record]:
    """Return the records of epochs 1, 2, ..., or raise a ValueError that says what is wrong."""
    if not isinstance(values, list):
        raise ValueError(f"records must be a list, not {type(values).__name__}")
    records = [{name: _number(value, name) for name in FIELDS} for value in values]
    for epoch, record in enumerate(records, start=1):
        if record["epoch"] != epoch:
            raise ValueError(f"record {epoch} is of epoch {record['epoch']}")
    return records


def check_numbers(arrays: Arrays) -> None:
    """Raise a CheckpointError if a weight is not finite, or a variance is negative."""
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            if not np.isfinite(array).all():
                raise CheckpointError(f"{name} has a number that is not finite")
            if name.endswith("running_var") and (array < 0).any():
                raise CheckpointError(f"{name} has a negative number")


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
    return Partial(
        step=integer("step", values.get("step"), minimum=0),
        loss_sum=_number(values, "loss_sum"),
        correct=integer("correct", values.get("correct"), minimum=0),
        seconds=_number(values, "seconds"),
        draws=_text(values, "draws"),
    )


def _number(values: object, name: str) -> float:
    """Return a number of a JSON object: an accuracy from 0 to 1, anything else from 0."""
    if not isinstance(values, dict):
        raise ValueError(f"an epoch's record must be a dict, not {type(values).__name__}")
    number, most = values.get(name), 1 if name.endswith("_accuracy") else 1e300
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= most:
        raise ValueError(f"{name}={shown(number)} of an epoch is no number from 0 to {most:g}")
    return number


def _text(values: dict[str, Any], name: str) -> str:
    """Return a short text of a JSON object."""
    text = values.get(name)
    if not isinstance(text, str) or len(text) > 100:
        raise ValueError(f"its {name} is no short text")
    return text


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}
