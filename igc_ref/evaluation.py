"""How well a network does on a data set."""

from __future__ import annotations

from dataclasses import dataclass

from igc_ref.data import Dataset
from igc_ref.errors import DataError
from igc_ref.models import Model
from igc_ref.spec import integer


@dataclass(frozen=True)
class Evaluation:
    """Mean loss (nats) and accuracy (0 to 1) over a data set."""

    loss: float
    accuracy: float


def evaluate(model: Model, dataset: Dataset, batch_size: int = 256) -> Evaluation:
    """Compute mean loss and accuracy of a network over a data set, without augmentation.

    Parameters
    ----------
    model : Model
    dataset : Dataset
    batch_size : int
        Pictures at a time; changes memory, not the result beyond rounding.

    Raises
    ------
    DataError
        If the set is empty, or has another number of classes than the network.
    """
    backend, classes = model.backend, model.architecture.num_classes
    batch_size = integer("batch_size", batch_size)
    if len(dataset) == 0:
        raise DataError(f"{dataset.name} is empty")
    if len(dataset.classes) != classes:
        raise DataError(f"{dataset.name} has {len(dataset.classes)} classes, the network {classes}")
    loss, correct = 0.0, 0
    with backend.session():
        for start in range(0, len(dataset), batch_size):
            batch = dataset[start : start + batch_size]
            labels, images = backend.asarray(batch.labels), backend.asarray(batch.images)
            logits = model.forward(backend.normalise(images, batch.mean, batch.std, model.dtype))
            mean, hits, _ = backend.loss(logits, labels)
            loss += float(mean) * len(batch)
            correct += int(hits)
    return Evaluation(loss / len(dataset), correct / len(dataset))
