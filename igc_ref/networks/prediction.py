"""What a network says of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.errors import TrainingError, integer


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says of N images.

    Attributes
    ----------
    probabilities : ndarray of float64, shape (N, classes)
    classes : tuple of str

    Examples
    --------
    >>> Prediction(np.array([[0.25, 0.75]]), ("cat", "dog")).top(2)
    [[('dog', 0.75), ('cat', 0.25)]]
    """

    probabilities: npt.NDArray[np.float64]
    classes: tuple[str, ...]

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Number of the most probable class of each image, shape (N,); of equals the first."""
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)

    def top(self, k: int) -> list[list[tuple[str, float]]]:
        """Return name and probability of the k most probable classes of each image, in order."""
        k = integer("k", k, maximum=len(self.classes))
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        rows = zip(self.probabilities, order, strict=True)
        return [[(self.classes[c], float(row[c])) for c in best] for row, best in rows]


@np.errstate(over="ignore", under="ignore")  # of what is far below the greatest: exp makes it 0
def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return probabilities (N, classes) of logits; a TrainingError if one is not finite."""
    if not (finite := np.isfinite(logits).all(axis=1)).all():
        raise TrainingError(f"image {int(finite.argmin())} has logits that are not finite")
    logits = logits.astype(np.float64)
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))
