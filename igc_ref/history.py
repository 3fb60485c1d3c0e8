"""What a run reached, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Record = dict[str, float]

FIELDS = (
    "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy",
    "seconds", "images_per_second",
)  # fmt: skip


@dataclass(frozen=True)
class History:
    """What a run reached.

    Parameters
    ----------
    run : Path
        Folder with ``config.json``, ``log.jsonl`` and ``checkpoint.npz``.
    records : list of dict
        For each epoch: train and test loss (nats) and accuracy (0 to 1), seconds, pictures/s.
    """

    run: Path
    records: list[Record]

    @property
    def test_accuracy(self) -> float:
        """Test accuracy after the last epoch, 0 to 1."""
        return self.records[-1]["test_accuracy"]


def check_records(values: object) -> list[Record]:
    """Return the records of epochs 1, 2, ..., or raise a ValueError that says what is wrong."""
    if not isinstance(values, list):
        raise ValueError(f"records must be a list, not {type(values).__name__}")
    records = [_check_record(value) for value in values]
    for epoch, record in enumerate(records, start=1):
        if record["epoch"] != epoch:
            raise ValueError(f"record {epoch} is of epoch {record['epoch']}")
    return records


def _check_record(value: object) -> Record:
    """Return the record of one epoch, or raise a ValueError that names what it lacks."""
    if not isinstance(value, dict):
        raise ValueError(f"an epoch's record must be a dict, not {type(value).__name__}")
    for field in FIELDS:
        number = value.get(field)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"an epoch's record needs a number for {field}, not {number!r}")
        if not -1e300 < number < 1e300:
            raise ValueError(f"{field} of an epoch's record is not a finite number")
    return {field: value[field] for field in FIELDS}
