"""What a run reached, epoch by epoch."""

from __future__ import annotations

import math
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


def check_record(value: object) -> Record:
    """Return the record of one epoch, or raise a ValueError that names what it lacks."""
    if not isinstance(value, dict):
        raise ValueError(f"an epoch's record must be a dict, not {type(value).__name__}")
    for field in FIELDS:
        number = value.get(field)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"an epoch's record needs a number for {field}, not {number!r}")
        if not math.isfinite(number):
            raise ValueError(f"{field}={number} of an epoch's record is not finite")
    return {field: value[field] for field in FIELDS}
