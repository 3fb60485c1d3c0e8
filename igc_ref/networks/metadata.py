"""What the inputs and outputs of a trained network mean: how images become numbers, class names."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from igc_ref.errors import SpecError, shown

# How many numbers, 0 for one a channel, and the least that each may be.
NUMBERS: dict[str, tuple[int, float]] = {"mean": (0, 0), "std": (0, 1e-6), "size": (2, 1)}


@dataclass(frozen=True)
class Metadata:
    """What the inputs and outputs of a trained network mean.

    Parameters
    ----------
    data, classes : str, sequence of str
        Names of the data set that it was trained on and, in the order of the logits, its classes.
    mean, std : sequence of floats, one a channel
        Channel statistics in 0..255: the network takes ``(pixel - mean) / std``.
    size : sequence of two ints
        Height and width of the images that it was trained on.

    Raises
    ------
    TypeError, SpecError
        If a field is none of these.

    Examples
    --------
    >>> Metadata("pets", ["cat", "dog"], [128, 128, 128], [64, 64, 64], [32, 32]).classes
    ('cat', 'dog')
    """

    data: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        for name in ("classes", *NUMBERS):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for text in (self.data, *self.classes):
            if not isinstance(text, str):
                raise SpecError(f"{shown(text)} is no name of a data set or class")
        for name, (count, low) in NUMBERS.items():
            values, count = getattr(self, name), count or max(1, len(self.mean))
            if len(values) != count or not all(low <= number < math.inf for number in values):
                raise SpecError(f"{name}={shown(values)} must be {count} numbers from {low}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> Metadata:
        """Return the metadata of `to_dict`; anything else is a SpecError."""
        try:
            return cls(**values)  # type: ignore[arg-type]
        except TypeError as error:
            raise SpecError(f"{shown(values)} is no metadata of a network") from error
