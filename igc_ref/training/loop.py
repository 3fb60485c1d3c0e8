"""The training loop: one step, and the steps of an epoch.

Nothing random is carried from epoch to epoch: order and augmentation of each are drawn from the
seed and the epoch's number. So a run resumes from its weights and velocities, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.backends import GenericBackend
from igc_ref.backends.operators.library import Array, Crops, EpochRunner, Sampling, TrainingData
from igc_ref.data import Dataset
from igc_ref.networks.model import Model
from igc_ref.report import Report
from igc_ref.training.optim import SGD

PADDING = 4  # pixels added on each side before the random crop
PAUSE_EVERY = 64  # steps that a device may run ahead of the host


@dataclass(frozen=True)
class Objective:
    """What training makes small: the cross-entropy, or with a teacher `distillation_loss`.

    Parameters
    ----------
    smoothing : float
        Label smoothing, in [0, 1).
    teacher : Model, optional
        On the backend and of the dtype of the model that is trained. It sees the same images, in
        evaluation mode.
    temperature, alpha : float
        As in `LearningOperators.distillation_loss`.
    """

    smoothing: float = 0.0
    teacher: Model | None = None
    temperature: float = 4.0
    alpha: float = 0.9

    def __call__(
        self, backend: GenericBackend, logits: Array, labels: Array, x: Array
    ) -> tuple[Array, Array, Array]:
        """Return mean loss, correct answers, and gradient for the logits of a batch x."""
        if self.teacher is None:
            return backend.loss(logits, labels, self.smoothing)
        soft = self.teacher.forward_inside(x)
        self.teacher.forget()
        numbers = self.temperature, self.alpha, self.smoothing
        return backend.distillation_loss(logits, labels, soft, *numbers)


PLAIN = Objective()


def training_step(
    model: Model, optimiser: SGD, x: Array, labels: Array, lr: Any, objective: Objective = PLAIN
) -> tuple[Array, Array]:
    """Take one step of gradient descent on a batch.

    Parameters
    ----------
    model : Model
    optimiser : SGD
        Of this model.
    x : array
        A batch of images in the backend's layout, as ``backend.to_layout`` returns it.
    labels : array of int64, shape (N,)
    lr : float
        Learning rate, or what a backend that replays steps gives for one.
    objective : Objective

    Returns
    -------
    loss, correct : arrays of the backend
        Mean loss of the batch, and how many of its images were classified correctly.

    Examples
    --------
    >>> import igc_ref
    >>> model = igc_ref.build_model("plain_igc", 8, L=4, M=8, backend="numpy")
    >>> images, labels = np.zeros((2, 3, 32, 32), "float32"), np.array([3, 7])
    >>> x = model.backend.to_layout(images)
    >>> loss, correct = training_step(model, SGD(model), x, labels, lr=0.1)
    >>> int(correct)
    0
    """
    logits = model.forward_inside(x, train=True)
    loss, correct, dlogits = objective(model.backend, logits, labels, x)
    model.backward(dlogits, input_gradient=False)
    optimiser.step(lr)
    return loss, correct


class StepByStep:
    """Epochs of training steps, one after the other."""

    def __init__(
        self,
        model: Model,
        optimiser: SGD,
        dataset: Dataset,
        batch_size: int,
        objective: Objective = PLAIN,
    ) -> None:
        self.model, self.optimiser, self.objective = model, optimiser, objective
        self.dataset, self.batch_size = dataset, batch_size

    def epoch(
        self,
        sampling: Sampling,
        rates: npt.NDArray[np.float64],
        first: int = 0,
        pauses: Callable[[int], bool] | None = None,  # noqa: ARG002
    ) -> Iterator[tuple[float, int]]:
        """Take a step for each learning rate from number `first` on; see `EpochRunner`."""
        for number in range(first, len(rates)):
            images, labels = self.batch(sampling, number)
            x, lr = self.model.backend.to_layout(images), float(rates[number])
            step = self.model, self.optimiser, x, labels, lr, self.objective
            loss, correct = training_step(*step)
            yield float(loss), int(correct)

    def batch(self, sampling: Sampling, number: int) -> tuple[Array, Array]:
        """Return this process's images of a batch, normalised and augmented, and all its labels."""
        backend, dataset = self.model.backend, self.dataset
        chosen = slice(number * self.batch_size, (number + 1) * self.batch_size)
        rows = sampling.order[chosen]
        mine = backend.share(len(rows))
        images = backend.asarray(dataset.images[rows[mine]])
        x = backend.normalise(images, dataset.mean, dataset.std, self.model.dtype)
        if sampling.crops is not None:
            top, left, mirror = (backend.asarray(draw[chosen][mine]) for draw in sampling.crops)
            x = backend.pad_crop_mirror(x, top, left, mirror, PADDING)
        return x, backend.asarray(dataset.labels[rows])


def steps_of(
    model: Model,
    optimiser: SGD,
    dataset: Dataset,
    batch_size: int,
    report: Report,
    objective: Objective = PLAIN,
) -> EpochRunner:
    """Return the backend's own way to take the steps of an epoch, or one step after the other."""
    own = None
    if objective.teacher is not None:
        if type(model.backend).steps is not GenericBackend.steps:
            report("with a teacher, steps go one after the other: none is captured")
    elif model.dtype == "float32":
        images = TrainingData(dataset.images, dataset.labels, dataset.mean, dataset.std)

        def learn(x: Array, labels: Array, lr: Any) -> tuple[Array, Array]:
            return training_step(model, optimiser, x, labels, lr, objective)

        own = model.backend.steps(learn, images, batch_size, PADDING, report)
    return own or StepByStep(model, optimiser, dataset, batch_size, objective)


def draw(
    seed: int, epoch: int, size: int, batch_size: int, augment: bool, mirror: str = "random"
) -> Sampling:
    """Draw order and augmentation of an epoch of `size` images; `mirror` as in `TrainConfig`."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(size)
    if not augment:
        return Sampling(order, None)
    corners, mirrors = [], []
    for start in range(0, size, batch_size):
        batch = min(batch_size, size - start)
        corners.append(rng.integers(0, 2 * PADDING + 1, (2, batch)))
        mirrors.append(rng.random(batch) < 0.5)
    mirrored = np.concatenate(mirrors)
    if mirror == "alternating":
        # The third number keeps this stream apart from that of the weights, seed alone.
        first = np.random.default_rng([seed, 0, 1]).random(size) < 0.5
        mirrored = first[order] ^ (epoch % 2 == 0)
    top, left = np.concatenate(corners, axis=1)
    return Sampling(order, Crops(top, left, mirrored))
