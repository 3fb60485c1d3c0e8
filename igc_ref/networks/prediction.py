"""What a network says of images: `igc_ref.networks.model.Model.predict`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from igc_ref.backends.operators.checks import check_numbers
from igc_ref.errors import SpecError, TrainingError, integer

if TYPE_CHECKING:
    from igc_ref.networks.model import Model


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says of N images.

    Attributes
    ----------
    probabilities : ndarray of float64, shape (N, classes)
        Softmax of the logits: each row adds up to 1.
    classes : tuple of str
        Name of each class.

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
        """Return names and probabilities of the k most probable classes of each image.

        Raises
        ------
        SpecError
            If k is not from 1 to the number of classes.
        """
        k = integer("k", k, maximum=len(self.classes))
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        return [
            [(self.classes[c], float(row[c])) for c in best]
            for row, best in zip(self.probabilities, order, strict=True)
        ]


def predict(model: Model, images: Any, batch_size: int) -> Prediction:
    """See `igc_ref.networks.model.Model.predict`."""
    backend, about, classes = model.backend, model.metadata, model.architecture.num_classes
    batch_size = integer("batch_size", batch_size)
    names = tuple(map(str, range(classes))) if about is None else about.classes
    if len(names) != classes:
        raise SpecError(f"the metadata has {len(names)} classes, the network {classes}")
    images = backend.view(images)
    one = images.ndim == 3
    check_numbers("images", images, ["uint8", model.dtype], "(3, H, W)" if one else "(N, 3, H, W)")
    if images.dtype == np.uint8 and about is None:
        raise SpecError(
            "bytes are normalised by mean and std, but this network has no metadata: "
            f"set model.metadata, or normalise and give {model.dtype}"
        )
    images = images[None] if one else images
    results = []
    with backend.session():
        try:
            for start in range(0, len(images), batch_size):
                x = backend.asarray(images[start : start + batch_size])
                if about is not None and x.dtype == np.uint8:
                    x = backend.normalise(x, about.mean, about.std, model.dtype)
                results.append(model.forward(x))
        finally:
            model.forget()
        logits = backend.to_numpy(backend.xp.concatenate(results)).astype(np.float64)
    if not (finite := np.isfinite(logits).all(axis=1)).all():
        raise TrainingError(f"image {int(finite.argmin())} has logits that are not finite numbers")
    return Prediction(_softmax(logits), names)


@np.errstate(over="ignore", under="ignore")  # of what is far below the greatest: exp makes it 0
def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))
