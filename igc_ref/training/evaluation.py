"""How well a network does on a data set."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from igc_ref.data import Dataset
from igc_ref.errors import DataError, SpecError, TrainingError, instance, integer
from igc_ref.networks import BatchNorm
from igc_ref.networks.model import Model

PRECISE_BATCH = 200  # images whose statistics are taken together


@dataclass(frozen=True)
class Evaluation:
    """Mean loss (nats), accuracy (0 to 1), and counts of each class (row) by answer (column)."""

    loss: float
    accuracy: float
    confusion: npt.NDArray[np.int64] = field(repr=False, compare=False)


def evaluate(
    model: Model, dataset: Dataset, batch_size: int = 256, mirror: bool = False
) -> Evaluation:
    """Compute loss, accuracy and confusion matrix over a data set.

    Parameters
    ----------
    model : Model
    dataset : Dataset
    batch_size : int
        Images at a time; changes memory, not the result beyond rounding.
    mirror : bool
        Test-time augmentation: average the logits of each image and its mirror image.

    Raises
    ------
    DataError
        If the set has another number of classes than the network.
    TrainingError
        If the loss is not finite: an accuracy beside it says nothing.
    """
    instance("model", model, Model)
    instance("dataset", dataset, Dataset)
    backend, classes = model.backend, model.architecture.num_classes
    batch_size = integer("batch_size", batch_size)
    if len(dataset.classes) != classes:
        raise DataError(f"{dataset.name} has {len(dataset.classes)} classes, the network {classes}")
    results = []
    with backend.session():
        for start in range(0, len(dataset), batch_size):
            batch = dataset[start : start + batch_size]
            images = backend.asarray(batch.images[backend.share(len(batch))])
            labels = backend.asarray(batch.labels)
            x = backend.normalise(images, batch.mean, batch.std, model.dtype)
            logits = model.forward(x)
            if mirror:
                logits = (logits + model.forward(x[..., ::-1])) / 2
            results.append((len(batch), backend.loss(logits, labels)[0], logits.argmax(axis=1)))
        model.forget()
        sizes, means, found = zip(*results, strict=True)
        # Fetched only now: to look at a result is to wait for the device.
        losses = backend.to_numpy(backend.xp.stack(means))
        answers = backend.to_numpy(backend.xp.concatenate(found))
    loss = sum(float(m) * n for m, n in zip(losses, sizes, strict=True)) / len(dataset)
    if not math.isfinite(loss):
        raise TrainingError(f"the loss on {dataset.name} is {loss}")
    pairs = dataset.labels * classes + answers
    confusion = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return Evaluation(loss, int(confusion.trace()) / len(dataset), confusion)


def interval(accuracy: float, images: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy on so many images, drawn independently: Wilson's.

    Examples
    --------
    >>> "{:.2%} to {:.2%}".format(*interval(0.85, 10_000))
    '84.29% to 85.69%'
    """
    z = 1.96  # standard deviations
    middle, spread = accuracy + z**2 / 2 / images, accuracy * (1 - accuracy) / images
    half = z * math.sqrt(spread + (z / 2 / images) ** 2)
    return max(0.0, middle - half) / (1 + z**2 / images), (middle + half) / (1 + z**2 / images)


def bits_per_byte(loss: float) -> str:
    """Say what a mean loss in nats is to a network that predicts the next byte of a text.

    Examples
    --------
    >>> bits_per_byte(math.log(256))
    '8.000 bits per byte'
    """
    return f"{loss / math.log(2):.3f} bits per byte"


def precise_statistics(model: Model, dataset: Dataset, batches: int = 50) -> None:
    """Replace the running statistics of a network by their means over batches of images.

    Running averages lag behind weights that move: by about 100 steps with a momentum of 0.99. After
    a short run, or where weights were exchanged, they do not fit the weights. This is known as
    precise batch norm (arXiv:2105.07576).

    Parameters
    ----------
    model : Model
        Its running statistics are overwritten; its weights stay.
    dataset : Dataset
        Training images; the first ``200 * batches`` are taken, without augmentation.
    batches : int
        Of 200 images each.

    Raises
    ------
    SpecError
        If the network has no batch norm.
    """
    backend = model.backend
    norms = [layer for _, layer in model.network.named_layers() if isinstance(layer, BatchNorm)]
    if not norms:
        raise SpecError(f"{model.architecture} has no batch norm: there are no statistics to take")
    momenta = [norm.momentum for norm in norms]
    starts = range(0, min(integer("batches", batches) * PRECISE_BATCH, len(dataset)), PRECISE_BATCH)
    try:
        with backend.session():
            for past, start in enumerate(starts):
                for norm in norms:
                    norm.momentum = past / (past + 1)  # so that all batches weigh the same
                part = dataset[start : start + PRECISE_BATCH]
                images = backend.asarray(part.images)
                x = backend.normalise(images, part.mean, part.std, model.dtype)
                model.forward(x, train=True)
    finally:
        model.forget()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
