"""A network in training: epochs of steps, and the state from which they go on bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from igc_ref import data
from igc_ref.backends import get_backend
from igc_ref.backends.operators.library import Crops, EpochRunner, Sampling, TrainingData
from igc_ref.errors import CheckpointError, TrainingError
from igc_ref.networks.model import build
from igc_ref.report import Report, silent
from igc_ref.training import checkpoint
from igc_ref.training import folder as runs
from igc_ref.training.checkpoint import Checkpoint, History, Partial, Record
from igc_ref.training.config import TrainConfig
from igc_ref.training.evaluation import Evaluation, evaluate
from igc_ref.training.optim import SGD, learning_rate
from igc_ref.training.signals import StopRequest

PADDING = 4  # pixels added on each side before the random crop
PAUSE_EVERY = 64  # steps that a device may run ahead of the host


class Trainer:
    """A network in training: its data, its optimiser, and what is done so far.

    Nothing random is carried along: order and augmentation of an epoch are drawn from the seed and
    the number of the epoch. So the state of a run is its weights, velocities and running
    statistics, the epochs done, and how far the present epoch is.
    """

    def __init__(self, config: TrainConfig, report: Report = silent) -> None:
        self.config = config
        # The backend first: it fails at once, data may take a while.
        backend = get_backend(config.backend, config.storage)
        self.train_set, self.test_set = (
            data.load(config.data, split, config.data_dir, report) for split in ("train", "test")
        )
        architecture = config.architecture(len(self.train_set.classes))
        self.model = build(architecture, backend, config.dtype, config.seed)
        self.optimiser = SGD(self.model, config.momentum, config.weight_decay)
        self.steps_per_epoch = math.ceil(len(self.train_set) / config.batch_size)
        self.fingerprint = data.fingerprint(self.train_set, self.test_set)
        self.records: list[Record] = []
        self.partial = Partial()
        self.saved = "epoch 0"  # what the last checkpoint is of
        self.device_steps: EpochRunner | None = None

    def restore(self, saved: Checkpoint) -> None:
        """Take up the state of a checkpoint.

        Raises
        ------
        CheckpointError
            If it is of other pictures, another network, or of a NumPy that draws other numbers.
        """
        if saved.fingerprint != self.fingerprint:
            raise CheckpointError(
                f"the run was trained on other pictures of {self.config.data}: their fingerprint "
                f"was {saved.fingerprint}, that of these is {self.fingerprint}"
            )
        epoch = len(saved.records) + 1
        if saved.partial.step and saved.partial.draws != self.draw(epoch).fingerprint():
            raise CheckpointError(
                f"NumPy {np.__version__} draws epoch {epoch} in another order than the NumPy that "
                f"began it: continue with that one (the checkpoint says {saved.numpy})"
            )
        self.model.load_state_dict(saved.model)
        self.optimiser.load_state_dict(saved.velocity)
        self.records, self.partial = list(saved.records), saved.partial
        self.saved = saved.position

    def finish(self, folder: Path, report: Report) -> History:
        """Train the epochs that are left, with a checkpoint and a line of the log after each.

        Raises
        ------
        TrainingError
            If a loss is not finite, or the memory does not suffice.
        Interrupted
            After Ctrl-C or SIGTERM; the state has been saved.
        """
        c = self.config
        report(f"{self._headline()}; run folder {folder}")
        try:
            with StopRequest() as stop:
                if not self.records and not self.partial.step:
                    self.save(folder)
                self._prepare(report)
                for epoch in range(len(self.records) + 1, c.epochs + 1):
                    self._epoch(epoch, folder, stop)
                    report(_line(self.records[-1], c.epochs))
                    stop.check(f"after epoch {epoch}", folder)
        except MemoryError as error:
            smaller = f"; try --batch-size {c.batch_size // 2}" if c.batch_size > 1 else ""
            reason = str(error).splitlines()[0] if str(error) else "no more memory"
            raise TrainingError(
                f"out of memory with batch size {c.batch_size}{smaller}: {reason}"
            ) from error
        return History(folder, self.records)

    def _epoch(self, epoch: int, folder: Path, stop: StopRequest) -> None:
        """Train and test for one epoch; write the log, then the checkpoint."""
        with np.errstate(over="ignore", invalid="ignore"):  # the loss is checked
            trained, seconds = self.train_epoch(epoch, folder, stop)
            tested = evaluate(self.model, self.test_set)
        if not math.isfinite(tested.loss):
            raise TrainingError(
                f"the test loss is {tested.loss} after epoch {epoch}; "
                f"the last checkpoint is of {self.saved}"
            )
        self.records.append({
            "epoch": epoch,
            "train_loss": trained.loss,
            "train_accuracy": trained.accuracy,
            "test_loss": tested.loss,
            "test_accuracy": tested.accuracy,
            "seconds": seconds,
            "images_per_second": len(self.train_set) / seconds,
        })  # fmt: skip
        runs.write_log(folder, self.records)
        self.save(folder)

    def train_epoch(
        self, epoch: int, folder: Path | None = None, stop: StopRequest | None = None
    ) -> tuple[Evaluation, float]:
        """Go through the training set once, or through what is left of it.

        Returns
        -------
        result : Evaluation
            Loss and accuracy as seen on the way.
        seconds : float
            Spent in this epoch, also before a pause.
        """
        c, count, begun = self.config, len(self.train_set), time.perf_counter()
        draws, rates, before = self.draw(epoch), self._rates(epoch), self.partial.seconds
        title, done = f"epoch {epoch}/{c.epochs}", self.partial.step
        with self.model.backend.session():
            bar = tqdm(
                self._steps(draws, rates, done), title, len(rates), initial=done, leave=False,
                disable=None,
            )  # fmt: skip
            for loss, hits in bar:
                done += 1
                if not math.isfinite(loss):
                    raise TrainingError(
                        f"the loss is {loss} at epoch {epoch}, step {done}, learning rate "
                        f"{rates[done - 1]:.4g}; the last checkpoint is of {self.saved}"
                    )
                pictures = min(c.batch_size, count - (done - 1) * c.batch_size)
                self.partial = replace(
                    self.partial,
                    step=done,
                    loss_sum=self.partial.loss_sum + loss * pictures,
                    correct=self.partial.correct + hits,
                    seconds=before + time.perf_counter() - begun,
                )
                if done < len(rates) and self._pauses(done):
                    self._pause(epoch, draws, folder, stop)
        whole, self.partial = self.partial, Partial()
        return Evaluation(whole.loss_sum / count, whole.correct / count), whole.seconds

    def _pause(
        self, epoch: int, draws: Sampling, folder: Path | None, stop: StopRequest | None
    ) -> None:
        """Save, if it is time or somebody wants to stop. Here the state is that of `partial`."""
        every, done = self.config.checkpoint_every, self.partial.step
        stopping = stop is not None and stop.signal is not None
        if folder is not None and (stopping or (every and done % every == 0)):
            self.partial = replace(self.partial, draws=draws.fingerprint())
            self.save(folder)
        if stop is not None and folder is not None:
            stop.check(f"at epoch {epoch}, step {done}", folder)

    def _pauses(self, done: int) -> bool:
        """Say whether after so many steps the weights are those of exactly these steps."""
        every = self.config.checkpoint_every
        return (
            self.device_steps is None
            or done % PAUSE_EVERY == 0
            or bool(every and done % every == 0)
        )

    def _rates(self, epoch: int) -> npt.NDArray[np.float64]:
        c, steps = self.config, self.steps_per_epoch
        return np.array([
            learning_rate(c.schedule, c.lr, (epoch - 1) * steps + step, c.epochs * steps)
            for step in range(steps)
        ])  # fmt: skip

    def _steps(
        self, draws: Sampling, rates: npt.NDArray[np.float64], first: int
    ) -> Iterator[tuple[float, int]]:
        """Take the steps of an epoch from `first` on; yield loss and right answers of each."""
        if self.device_steps is not None:
            yield from self.device_steps.epoch(draws, rates, first, self._pauses)
        else:
            for (x, labels), lr in zip(self._batches(draws, first), rates[first:], strict=True):
                yield self.train_step(x, labels, float(lr))

    def train_step(self, x: Any, labels: Any, lr: float) -> tuple[float, int]:
        """Learn from one batch (N, 3, H, W); return its mean loss and how many were right."""
        loss, hits = self.learn(self.model.backend.to_layout(x), labels, lr)
        return float(loss), int(hits)

    def learn(self, x: Any, labels: Any, lr: Any) -> tuple[Any, Any]:
        """Queue one training step on pictures in the backend's layout; loss and hits as arrays."""
        logits = self.model.forward_inside(x, train=True)
        loss, hits, dlogits = self.model.backend.loss(logits, labels)
        self.model.backward(dlogits, input_gradient=False)
        self.optimiser.step(lr)
        return loss, hits

    def draw(self, epoch: int) -> Sampling:
        """Draw order and augmentation of an epoch; every epoch has its own random stream."""
        c, count = self.config, len(self.train_set)
        rng = np.random.default_rng([c.seed, epoch])
        order = rng.permutation(count)
        if not c.augment:
            return Sampling(order, None)
        corners, mirrors = [], []
        for start in range(0, count, c.batch_size):
            batch = min(c.batch_size, count - start)
            corners.append(rng.integers(0, 2 * PADDING + 1, (2, batch)))
            mirrors.append(rng.random(batch) < 0.5)
        top, left = np.concatenate(corners, axis=1)
        return Sampling(order, Crops(top, left, np.concatenate(mirrors)))

    def _batches(self, draws: Sampling, first: int = 0) -> Iterator[tuple[Any, Any]]:
        """Yield shuffled, normalised, augmented batches, from batch number `first` on."""
        c, backend, pictures = self.config, self.model.backend, self.train_set
        for start in range(first * c.batch_size, len(pictures), c.batch_size):
            batch = slice(start, start + c.batch_size)
            rows = draws.order[batch]
            images = backend.asarray(pictures.images[rows])
            x = backend.normalise(images, pictures.mean, pictures.std, c.dtype)
            if draws.crops is not None:
                top, left, mirror = (backend.asarray(draw[batch]) for draw in draws.crops)
                x = backend.pad_crop_mirror(x, top, left, mirror, PADDING)
            yield x, backend.asarray(pictures.labels[rows])

    def _prepare(self, report: Report) -> None:
        """Let the backend get ready, and take over whole epochs if it can."""
        backend, pictures, c = self.model.backend, self.train_set, self.config
        backend.prepare(self.model.dtype, report)
        if self.model.dtype == "float32":
            pool = TrainingData(pictures.images, pictures.labels, pictures.mean, pictures.std)
            self.device_steps = backend.steps(self.learn, pool, c.batch_size, PADDING, report)

    def save(self, folder: Path) -> None:
        """Write a checkpoint of the present state; keep the one before it."""
        state = Checkpoint(
            config=self.config,
            classes=len(self.train_set.classes),
            fingerprint=self.fingerprint,
            records=self.records,
            partial=self.partial,
            model=self.model.state_dict(),
            velocity=self.optimiser.state_dict(),
        )
        checkpoint.save(folder / runs.CHECKPOINT, state, keep=folder / runs.PREVIOUS)
        self.saved = state.position

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
