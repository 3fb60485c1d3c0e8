"""Training and evaluation: data -> forward -> loss -> backward -> optimiser -> checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from igc_ref import checkpoint, data, runs
from igc_ref.backends import get_backend
from igc_ref.backends.library import Draws, Pool, Steps, Windows
from igc_ref.config import TrainConfig
from igc_ref.data import Dataset
from igc_ref.errors import CheckpointError, DataError, TrainingError
from igc_ref.history import History, Record
from igc_ref.models import Model, build
from igc_ref.optim import SGD, learning_rate
from igc_ref.spec import integer

__all__ = ["Evaluation", "History", "TrainConfig", "evaluate", "resume", "train"]

Report = Callable[[str], None]
PADDING = 4  # pixels added on each side before the random crop
MAY_CHANGE = ("backend", "data_dir")  # between a run and its continuation


@dataclass(frozen=True)
class Evaluation:
    """Mean loss (nats) and accuracy (0 to 1) over a data set."""

    loss: float
    accuracy: float


def silent(line: str) -> None:
    """Report nothing."""


def train(config: TrainConfig, report: Report = silent) -> History:
    """Train a network from scratch, as `config` says.

    Parameters
    ----------
    config : TrainConfig
    report : callable
        Receives a line of text at the start and after every epoch.

    Returns
    -------
    History

    Raises
    ------
    IGCError
        For data, a backend or a folder that cannot serve; raised before anything is written.
    TrainingError
        If the loss is not finite any more.
    """
    trainer = Trainer(config)
    folder = runs.create(config)
    return trainer.finish(folder, report)


def resume(folder: str | Path, report: Report = silent, **settings: Any) -> History:
    """Continue an interrupted run after its last whole epoch; the same bits as without the pause.

    Parameters
    ----------
    folder : path
        The run's folder.
    report : callable
        As in `train`.
    settings
        Fields of `TrainConfig`. ``backend`` and ``data_dir`` may be new; anything else must be
        what the run has.

    Raises
    ------
    CheckpointError
        If there is no run, it is finished, or `settings` describe another run.
    """
    folder = Path(folder)
    saved = runs.load_checkpoint(folder)
    config = saved.config
    differing = [
        f"{name}={value} (the run has {getattr(config, name)})"
        for name, value in settings.items()
        if name not in MAY_CHANGE and value != getattr(config, name)
    ]
    if differing:
        raise CheckpointError(f"{folder} is another run: {', '.join(differing)}")
    if len(saved.records) >= config.epochs:
        raise CheckpointError(f"{folder} has finished all its {config.epochs} epochs")
    config = replace(config, **{n: v for n, v in settings.items() if n in MAY_CHANGE})
    trainer = Trainer(config)
    trainer.restore(saved)
    return trainer.finish(folder, report)


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


class Trainer:
    """A network in training: its data, its optimiser, and the epochs done so far."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        backend = get_backend(
            config.backend, config.storage
        )  # first: it fails at once, data may take a while
        self.train_set, self.test_set = (
            data.load(config.data, split, config.data_dir) for split in ("train", "test")
        )
        architecture = config.architecture(len(self.train_set.classes))
        self.model = build(architecture, backend, config.dtype, config.seed)
        self.optimiser = SGD(self.model, config.momentum, config.weight_decay)
        self.steps_per_epoch = math.ceil(len(self.train_set) / config.batch_size)
        self.records: list[Record] = []
        self.device_steps: Steps | None = None

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Take up the state of a checkpoint."""
        self.model.load_state_dict(saved.model)
        self.optimiser.load_state_dict(saved.velocity)
        self.records = list(saved.records)

    def finish(self, folder: Path, report: Report) -> History:
        """Train the epochs that are left, with a checkpoint and a line of the log after each."""
        epochs = self.config.epochs
        report(f"{self._headline()}; run folder {folder}")
        self._prepare(report)
        if not self.records:  # so that a run can be resumed from its very beginning
            checkpoint.save(folder / runs.CHECKPOINT, self._checkpoint())
        for epoch in range(len(self.records) + 1, epochs + 1):
            start = time.perf_counter()
            with np.errstate(over="ignore", invalid="ignore"):  # the loss is checked
                trained = self.train_epoch(epoch)
                seconds = time.perf_counter() - start
                tested = evaluate(self.model, self.test_set)
            if not math.isfinite(tested.loss):
                raise TrainingError(
                    f"the test loss is {tested.loss} after epoch {epoch}; "
                    f"the last checkpoint is of epoch {epoch - 1}"
                )
            record = {
                "epoch": epoch,
                "train_loss": trained.loss,
                "train_accuracy": trained.accuracy,
                "test_loss": tested.loss,
                "test_accuracy": tested.accuracy,
                "seconds": seconds,
                "images_per_second": len(self.train_set) / seconds,
            }
            self.records.append(record)
            runs.write_log(folder, self.records)
            checkpoint.save(folder / runs.CHECKPOINT, self._checkpoint())
            report(_line(record, epochs))
        return History(folder, self.records)

    def _prepare(self, report: Report) -> None:
        """Let the backend get ready, and take over whole epochs if it can."""
        backend, pictures, c = self.model.backend, self.train_set, self.config
        backend.prepare(self.model.dtype, report)
        if self.model.dtype == "float32":
            pool = Pool(pictures.images, pictures.labels, pictures.mean, pictures.std)
            self.device_steps = backend.steps(self.learn, pool, c.batch_size, PADDING, report)

    def train_epoch(self, epoch: int) -> Evaluation:
        """Go through the training set once; return loss and accuracy as seen on the way."""
        c, steps = self.config, self.steps_per_epoch
        title = f"epoch {epoch}/{c.epochs}"
        rates = np.array([
            learning_rate(c.schedule, c.lr, (epoch - 1) * steps + step, c.epochs * steps)
            for step in range(steps)
        ])  # fmt: skip
        loss_sum, correct = 0.0, 0
        with self.model.backend.session():
            results = tqdm(self._steps(epoch, rates), title, steps, leave=False, disable=None)
            for step, (loss, hits) in enumerate(results):
                if not math.isfinite(loss):
                    raise TrainingError(
                        f"the loss is {loss} at epoch {epoch}, step {step + 1}, learning rate "
                        f"{rates[step]:.4g}; the last checkpoint is of epoch {epoch - 1}"
                    )
                loss_sum += loss * min(c.batch_size, len(self.train_set) - step * c.batch_size)
                correct += hits
        return Evaluation(loss_sum / len(self.train_set), correct / len(self.train_set))

    def _steps(self, epoch: int, rates: np.typing.NDArray[np.float64]) -> Iterator[Any]:
        """Take the steps of an epoch; yield loss and right answers of each."""
        if self.device_steps is not None:
            yield from self.device_steps.epoch(self.draw(epoch), rates)
        else:
            for (x, labels), lr in zip(self._batches(epoch), rates, strict=True):
                yield self.train_step(x, labels, float(lr))

    def train_step(self, x: Any, labels: Any, lr: float) -> tuple[float, int]:
        """Learn from one batch (N, 3, H, W); return its mean loss and how many were right."""
        loss, hits = self.learn(self.model.backend.load(x), labels, lr)
        return float(loss), int(hits)

    def learn(self, x: Any, labels: Any, lr: Any) -> tuple[Any, Any]:
        """Queue one training step on pictures in the backend's layout; loss and hits as arrays."""
        logits = self.model.forward_inside(x, train=True)
        loss, hits, dlogits = self.model.backend.loss(logits, labels)
        self.model.backward(dlogits, input_gradient=False)
        self.optimiser.step(lr)
        return loss, hits

    def draw(self, epoch: int) -> Draws:
        """Draw order and augmentation of an epoch; every epoch has its own random stream."""
        c, count = self.config, len(self.train_set)
        rng = np.random.default_rng([c.seed, epoch])
        order = rng.permutation(count)
        if not c.augment:
            return Draws(order, None)
        corners, mirrors = [], []
        for start in range(0, count, c.batch_size):
            batch = min(c.batch_size, count - start)
            corners.append(rng.integers(0, 2 * PADDING + 1, (2, batch)))
            mirrors.append(rng.random(batch) < 0.5)
        top, left = np.concatenate(corners, axis=1)
        return Draws(order, Windows(top, left, np.concatenate(mirrors)))

    def _batches(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Yield shuffled, normalised, augmented batches."""
        c, backend, pictures = self.config, self.model.backend, self.train_set
        draws = self.draw(epoch)
        for start in range(0, len(pictures), c.batch_size):
            batch = slice(start, start + c.batch_size)
            rows = draws.order[batch]
            images = backend.asarray(pictures.images[rows])
            x = backend.normalise(images, pictures.mean, pictures.std, c.dtype)
            if draws.windows is not None:
                top, left, mirror = (backend.asarray(draw[batch]) for draw in draws.windows)
                x = backend.pad_crop_mirror(x, top, left, mirror, PADDING)
            yield x, backend.asarray(pictures.labels[rows])

    def _checkpoint(self) -> checkpoint.Checkpoint:
        return checkpoint.Checkpoint(
            config=self.config,
            classes=len(self.train_set.classes),
            records=self.records,
            model=self.model.state_dict(),
            velocity=self.optimiser.state_dict(),
        )

    def _headline(self) -> str:
        m = self.model
        return (
            f"{m.architecture}: {m.num_parameters:,} parameters; "
            f"{len(self.train_set):,} pictures of {self.config.data}; "
            f"{m.backend.name} backend, {m.dtype}"
        )


def _line(record: Record, epochs: int) -> str:
    return (
        f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}: "
        f"train loss {record['train_loss']:.3f}, accuracy {record['train_accuracy']:.1%}; "
        f"test loss {record['test_loss']:.3f}, accuracy {record['test_accuracy']:.1%}; "
        f"{record['seconds']:.1f} s, {record['images_per_second']:,.0f} pictures/s"
    )
