"""What the inputs and outputs of a trained network mean: how images become numbers, class names."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

from igc_ref.errors import SpecError, integer, shown

LONGEST_NAME = 200  # characters of a class


@dataclass(frozen=True)
class Metadata:
    """What the inputs and outputs of a trained network mean.

    Parameters
    ----------
    data : str
        Name of the data set that it was trained on.
    classes : tuple of str
        Name of each class, in the order of the logits.
    mean, std : tuple of three floats
        Channel statistics in 0..255: the network takes ``(pixel - mean) / std``.
    size : tuple of two ints
        Height and width of the images that it was trained on.

    Raises
    ------
    SpecError
        If a field is none of these; names it.

    Examples
    --------
    >>> Metadata("pets", ["cat", "dog"], [128, 128, 128], [64, 64, 64], [32, 32]).classes
    ('cat', 'dog')
    """

    data: str
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        for name, value in (("data", self.data), *(("class", c) for c in _items(self.classes))):
            if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
                raise SpecError(f"{name}={shown(value)} is no name of 1 to {LONGEST_NAME} letters")
        classes, size = _items(self.classes), _items(self.size)
        if not classes or len(size) != 2:
            raise SpecError(f"{len(classes)} classes, size {shown(self.size)}: one and two needed")
        object.__setattr__(self, "classes", tuple(classes))
        object.__setattr__(self, "size", tuple(integer("size", number) for number in size))
        for name in ("mean", "std"):
            numbers = _items(getattr(self, name))
            low = 0 if name == "mean" else 1e-6
            if len(numbers) != 3 or not all(_is_number(n) and low <= n <= 255 for n in numbers):
                raise SpecError(f"{name}={shown(numbers)} must be 3 numbers from {low} to 255")
            object.__setattr__(self, name, tuple(map(float, numbers)))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> Metadata:
        """Return the metadata of `to_dict`; anything else is a SpecError."""
        if not isinstance(values, dict) or set(values) != set(cls.__dataclass_fields__):
            raise SpecError(f"{shown(values)} is no metadata of a network")
        return cls(**values)


def _items(values: object) -> list[Any]:
    return list(values) if isinstance(values, Iterable) and not isinstance(values, str) else []


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
