"""A training run: started, saved, stopped, resumed, reported. `loop` has the training itself."""

from __future__ import annotations

import math
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np

from igc_ref import __version__, data
from igc_ref.backends import get_backend
from igc_ref.backends.operators.library import EpochRunner, Sampling
from igc_ref.errors import (
    CheckpointError,
    Interrupted,
    SpecError,
    TrainingError,
    instance,
    user_path,
)
from igc_ref.networks.metadata import Metadata
from igc_ref.networks.model import build, sha256
from igc_ref.report import Report, progress_bar, silent
from igc_ref.training import checkpoint, ranks
from igc_ref.training import folder as runs
from igc_ref.training.checkpoint import Checkpoint, History, Partial, Record, ended, reached
from igc_ref.training.config import TrainConfig, check_settings, of_sequences
from igc_ref.training.evaluation import bits_per_byte, evaluate
from igc_ref.training.loop import PAUSE_EVERY, Objective, StepByStep, draw, steps_of
from igc_ref.training.optim import SGD, learning_rate
from igc_ref.training.ranks import World

Sets = tuple[data.Dataset, data.Dataset]  # to train on, to test on
Watch = Callable[[Sequence[Record]], None]


def train(
    config: TrainConfig,
    report: Report = silent,
    initial: Mapping[str, Any] | None = None,
    shared: bool = True,
    sets: Sets | None = None,
    watch: Watch | None = None,
) -> History:
    """Train a network, as `config` says.

    Parameters
    ----------
    config : TrainConfig
    report : callable
        Receives a line of text at the start and after every epoch.
    initial : dict of ndarrays, optional
        Weights and statistics to begin with, as `Model.state_dict` gives them, instead of freshly
        drawn ones.
    shared : bool
        Whether the processes of ``mpiexec``, if that started this one, share every batch.
    sets : two Datasets, optional
        To train and to test on, instead of those that `config` names.
    watch : callable, optional
        Receives the records of all epochs after each, once it is saved. What it raises ends the
        run, which can be continued.

    Returns
    -------
    History

    Raises
    ------
    IGCError
        If the data, the backend or the folder cannot be used; raised before anything is written.
    TrainingError
        If the loss is no longer finite, or the memory does not suffice.
    Interrupted
        After Ctrl-C, SIGTERM, SIGHUP, or a BrokenPipeError of `report`; the run has been saved and
        can be resumed.

    Examples
    --------
    >>> import igc_ref
    >>> config = igc_ref.TrainConfig(depth=20, L=24, M=2, data="cifar10", epochs=10)
    >>> igc_ref.train(config, print).test_accuracy  # doctest: +SKIP
    0.86
    """
    instance("config", config, TrainConfig)
    with ranks.together(report, shared) as (world, report):
        session = Session(config, report, world, sets, watch)
        if initial is not None:
            session.model.load_state_dict(initial)
        session.agree()
        with runs.create(config, report) if session.first else nullcontext(Path()) as folder:
            return session.run(folder)


def resume(
    folder: str | Path,
    report: Report = silent,
    initial: Mapping[str, Any] | None = None,
    shared: bool = True,
    sets: Sets | None = None,
    watch: Watch | None = None,
    **settings: Any,
) -> History:
    """Continue an interrupted run from its last checkpoint; the same bits as without the pause.

    If the last checkpoint is damaged, that is reported, and the one before it is taken. A run that
    is finished only reports its result.

    Parameters
    ----------
    folder : path
        The run's folder.
    report, initial, shared, sets, watch
        As in `train`; `initial` is for a run that was ended before its first checkpoint.
    settings
        Fields of `TrainConfig`. ``backend``, ``data_dir``, ``checkpoint_every``, ``until`` and the
        folder of the same ``teacher`` may be new; anything else must be what the run has.

    Raises
    ------
    CheckpointError
        If there is no run, `settings` describe another run, the images are not the run's, or
        another process is training in the folder.
    SpecError
        For a setting that does not exist, or whose value is not allowed.
    """
    with ranks.together(report, shared) as (world, report), ExitStack() as stack:
        settings, folder = check_settings(settings), user_path("folder", folder)
        found: Any = None
        if first := ranks.is_first(world):
            runs.read_config(folder)  # before the lock, which only a run's folder may get
            stack.enter_context(runs.locked(folder, report))
            saved = runs.load_newest(folder, report)
            found = saved, runs.read_config(folder) if saved is None else saved.config
        saved, config = found if world is None else world.exchange(found, what="continues a run")[0]
        if differing := runs.differing(config, settings):
            raise CheckpointError(f"{folder} holds another run: {differing}")
        if saved is not None and not saved.fingerprint:
            raise CheckpointError(f"{folder} holds imported weights, and no run to continue")
        config = replace(config, **{n: v for n, v in settings.items() if n in runs.MAY_CHANGE})
        if saved is not None and saved.finished and saved.config.until == config.until:
            if "teacher" in settings:
                runs.check_teacher(saved, config.teacher, runs.teacher_weights(config.teacher))
            if first:
                runs.write_log(folder, saved)
            history = History(folder, saved.records, sha256(saved.model))
            report(f"{folder} is finished: {history.test_accuracy:.2%}")
            _report_end(config, history, report)
            return history
        session = Session(config, report, world, sets, watch)
        if saved is not None:
            session.restore(saved)
        else:
            report(f"{folder} has no checkpoint yet: it starts from the beginning")
            if initial is not None:
                session.model.load_state_dict(initial)
        session.agree()
        return session.run(folder)


def run_to_end(
    config: TrainConfig, report: Report, initial: Mapping[str, Any] | None = None, **more: Any
) -> History:
    """Return what the run in the folder ``config.out`` reached, after training what is missing.

    As `train` or `resume`, in one process, with their `sets` and `watch`; a CheckpointError if the
    folder holds a run with other settings.
    """
    if config.out is None or not (Path(config.out) / runs.CONFIG).exists():
        return train(config, report, initial, shared=False, **more)
    settings = {name: value for name, value in asdict(config).items() if name != "out"}
    return resume(config.out, report, initial, shared=False, **more, **settings)


class Session:
    """A run at work: its network, optimiser and data, the epochs done, how far the present one is.

    Parameters
    ----------
    config : TrainConfig
    report : callable
        Receives lines of text.
    world : World, optional
        The ranks that share every batch.
    sets, watch
        As in `train`.
    """

    def __init__(
        self,
        config: TrainConfig,
        report: Report = silent,
        world: World | None = None,
        sets: Sets | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.config, self.report, self.world, self.watch = config, report, world, watch
        self.first = ranks.is_first(world)  # it alone has a folder
        # The backend first: it fails at once, data may take a while.
        backend = get_backend(config.backend, config.storage, config.lanes)
        if world is not None:
            backend.join(world)
        self.train_set, self.test_set = sets or (
            data.load(config.data, split, config.data_dir, report, config.data_size)
            for split in ("train", "test")
        )
        t = self.train_set
        self.sequences = of_sequences(config, t.images.shape[2])
        of = f"of {config.data}"
        self.kind = f"sequences {of}, not augmented" if self.sequences else f"images {of}"
        architecture = config.architecture(len(t.classes), len(t.mean))
        self.model = build(
            architecture, backend, config.dtype, config.seed, bn_momentum=config.bn_momentum
        )
        self.model.network.output_shape(t.images.shape[1:])  # a SpecError if they are too small
        self.metadata = Metadata(config.data, *t.about, t.images.shape[2:])
        self.optimiser = SGD(self.model, config.momentum, config.weight_decay)
        teacher = runs.load_teacher(config, self.metadata, backend, report)
        numbers = teacher, config.temperature, config.alpha
        self.objective = Objective(config.label_smoothing, *numbers)
        self.teacher = "" if teacher is None else teacher.sha256()
        self.fingerprint = data.fingerprint(self.train_set, self.test_set)
        self.test_fingerprint = data.fingerprint(self.test_set)
        self.records: list[Record] = []
        self.partial = Partial()
        self.saved = "epoch 0"  # position of the last checkpoint
        self.steps: EpochRunner  # once the backend is prepared
        self.signals: list[int] = []  # that came while it ran

    def restore(self, saved: Checkpoint) -> None:
        """Take up the state of a checkpoint.

        A CheckpointError if it is of other images, another network or teacher, or of a NumPy that
        draws other numbers, or at a step that no epoch has.
        """
        if saved.fingerprint != self.fingerprint:
            raise CheckpointError(
                f"the run was trained on other images of {self.config.data}: their fingerprint "
                f"was {saved.fingerprint}, that of these is {self.fingerprint}"
            )
        runs.check_teacher(saved, self.config.teacher, self.teacher)
        epoch = len(saved.records) + 1
        if saved.partial.step >= (steps := len(self._rates(epoch))):
            raise CheckpointError(
                f"the checkpoint is of {saved.position}, but an epoch has {steps} steps"
            )
        if saved.partial.step and saved.partial.draws != self._draw(epoch).fingerprint():
            raise CheckpointError(
                f"NumPy {np.__version__} draws epoch {epoch} in another order than the NumPy that "
                f"began it: continue with that one (the checkpoint says {saved.numpy})"
            )
        self.model.load_state_dict(saved.model)
        self.optimiser.load_state_dict(saved.velocity)
        self.records, self.partial = list(saved.records), saved.partial
        self.saved = saved.position

    def agree(self) -> None:
        """Raise an error unless all ranks have this run, and a batch has images for all of them."""
        if self.world is None:
            return
        c, backend, size = self.config, self.model.backend, self.world.size
        facts = {"igc_ref": __version__, "NumPy": np.__version__, **c.to_dict()}
        facts |= {"backend": backend.name, "lanes": backend.unit, "out": "", "data_dir": ""}
        facts["images of fingerprint"] = self.fingerprint
        facts["weights of SHA-256"] = self.model.sha256()  # of `initial`
        facts |= {"teacher": "", "teacher of SHA-256": self.teacher}
        for rank, theirs in enumerate(every := self.world.exchange(facts, what="begins to train")):
            for name, fact in theirs.items():
                if fact != (first := every[0].get(name)):
                    text = f"rank {rank} has {name} {fact}, rank 0 has {first}"
                    raise CheckpointError(f"{text}: ranks that train together must agree")
        images = min(c.batch_size, len(self.train_set))
        if size > (units := -(-images // backend.unit)):
            raise SpecError(
                f"batch_size={images} is too small for {size} ranks: at least "
                f"{backend.unit * (size - 1) + 1} is needed, or fewer ranks: {units}"
            )

    def save(self, folder: Path, keep: bool = True) -> None:
        """Write a checkpoint of the present state, then the log; `keep` the checkpoint before."""
        state = Checkpoint(
            config=self.config,
            metadata=self.metadata,
            fingerprint=self.fingerprint,
            test_fingerprint=self.test_fingerprint,
            records=self.records,
            partial=self.partial,
            model=self.model.state_dict(),
            velocity=self.optimiser.state_dict(),
            teacher=self.teacher,
        )
        if self.first:
            previous = folder / runs.PREVIOUS if keep else None
            checkpoint.save(folder / runs.CHECKPOINT, state, previous)
            runs.write_log(folder, state)
        self.saved = state.position

    def run(self, folder: Path) -> History:
        """Train the epochs that are left, with a checkpoint and a line of the log after each.

        Raises TrainingError and Interrupted, as `train`.
        """
        c, m = self.config, self.model
        if self.world is not None:
            folder = self.world.exchange(folder)[0]
            self.world.running = f"; {(how := _how_to_continue(folder))}"
            self.report(f"{self.world.size} ranks; if one is killed, {how}")
        self.report(
            f"{m.architecture}: {m.num_parameters:,} parameters; {len(self.train_set):,} "
            f"{self.kind}; {m.backend.name} backend, {m.dtype}; run folder {folder}"
        )
        try:
            with noted_signals() as self.signals:
                # Before the first step, so that a folder that cannot be written is found out. The
                # last checkpoint is replaced: a damaged one must not become the one before.
                self.save(folder, keep=False)
                m.backend.prepare(m.dtype, self.report)
                self.steps = steps_of(
                    m, self.optimiser, self.train_set, c.batch_size, self.report, self.objective
                )
                while self.partial.step or not ended(c, self.records):
                    epoch = len(self.records) + 1
                    with np.errstate(over="ignore", invalid="ignore"):  # the loss is checked
                        self._train(epoch, folder)
                        self._test(epoch)
                    self._end_epoch(folder)
                    if number := self._signal():
                        self._stop(folder, number)
            history = History(folder, self.records, m.sha256())
            _report_end(c, history, self.report)
            return history
        except (BrokenPipeError, KeyboardInterrupt, MemoryError) as error:
            if isinstance(error, Interrupted) or self.world is not None:
                raise  # the others wait for this rank: `together` ends them
            if isinstance(error, BrokenPipeError):  # nobody reads the report, as after `| head`
                self._stop(folder, 13)  # SIGPIPE, which Windows does not name
            if isinstance(error, KeyboardInterrupt):  # a second signal, which does not wait
                self._stop(folder, (self.signals or [signal.SIGINT])[0])
            smaller = f"; try --batch-size {c.batch_size // 2}" if c.batch_size > 1 else ""
            reason = str(error).splitlines()[0] if str(error) else "no more memory"
            raise TrainingError(
                f"out of memory with batch size {c.batch_size}{smaller}: {reason}; "
                f"the last checkpoint is of {self.saved}"
            ) from error

    def _end_epoch(self, folder: Path) -> None:
        self.save(folder)
        self.report(_line(self.records[-1], self.config.epochs))
        if self.watch is not None:
            self.watch(self.records)

    def _train(self, epoch: int, folder: Path) -> None:
        """Take the steps of an epoch, or those that are left of it; pause to save or to stop."""
        c, size, begun = self.config, len(self.train_set), time.perf_counter()
        sampling, rates, before = self._draw(epoch), self._rates(epoch), self.partial.seconds
        every = 1 if isinstance(self.steps, StepByStep) else PAUSE_EVERY
        due = range(0, len(rates), c.checkpoint_every or len(rates))  # to save after these steps

        def pauses(done: int) -> bool:
            return done in due or (done < len(rates) and done % every == 0)

        with self.model.backend.session():
            results = progress_bar()(
                self.steps.epoch(sampling, rates, self.partial.step, pauses),
                f"epoch {epoch}/{c.epochs}",
                len(rates),
                initial=self.partial.step,
                leave=False,
                disable=None if sys.stderr and self.first else True,
            )
            for done, (loss, correct) in enumerate(results, start=self.partial.step + 1):
                if not math.isfinite(loss):
                    raise TrainingError(
                        f"the loss is {loss} at epoch {epoch}, step {done}, learning rate "
                        f"{rates[done - 1]:.4g}; the last checkpoint is of {self.saved}"
                    )
                images = min(c.batch_size, size - (done - 1) * c.batch_size)
                self.partial = Partial(
                    done,
                    self.partial.loss_sum + loss * images,
                    self.partial.correct + correct,
                    before + time.perf_counter() - begun,
                )
                number = self._signal() if pauses(done) else 0
                if number or done in due:
                    self.partial = replace(self.partial, draws=sampling.fingerprint())
                    self.save(folder)
                    if number:
                        self._stop(folder, number)

    def _signal(self) -> int:
        """Return the number of a signal that came to this rank, or to any: all stop at one step."""
        number = self.signals[0] if self.signals else 0
        return number if self.world is None else max(self.world.exchange(number))

    def _stop(self, folder: Path, number: int) -> NoReturn:
        raise Interrupted(
            f"interrupted at {self.saved}; saved in {folder}; {_how_to_continue(folder)}", number
        )

    def _test(self, epoch: int) -> None:
        """Test the network after an epoch, and turn what is known of the epoch into a record."""
        partial, count = self.partial, len(self.train_set)
        try:
            tested = evaluate(self.model, self.test_set, mirror=self.config.test_mirror)
        except TrainingError as error:
            raise TrainingError(
                f"{error} after epoch {epoch}; the last checkpoint is of {self.saved}"
            ) from error
        self.records.append({
            "epoch": epoch,
            "train_loss": partial.loss_sum / count,
            "train_accuracy": partial.correct / count,
            "test_loss": tested.loss,
            "test_accuracy": tested.accuracy,
            "seconds": partial.seconds,
            "images_per_second": count / partial.seconds,
        })  # fmt: skip
        self.partial = Partial()

    def _rates(self, epoch: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the learning rate of each step of an epoch."""
        c = self.config
        steps = math.ceil(len(self.train_set) / c.batch_size)
        numbers = range((epoch - 1) * steps, epoch * steps)
        return np.array([learning_rate(c.schedule, c.lr, n, c.epochs * steps) for n in numbers])

    def _draw(self, epoch: int) -> Sampling:
        c = self.config
        augment = c.augment and not self.sequences
        return draw(c.seed, epoch, len(self.train_set), c.batch_size, augment, c.mirror)


def _report_end(config: TrainConfig, history: History, report: Report) -> None:
    """Report the hash of the weights, and when the accuracy to train until was reached, if ever."""
    report(f"SHA-256 of the weights {history.sha256}")
    if config.data == "text":
        report(f"{bits_per_byte(history.records[-1]['test_loss'])} on the test windows")
    if config.until is None:
        return
    if record := reached(config, history.records):
        epoch = int(record["epoch"])
        seconds = sum(r["seconds"] for r in history.records[:epoch])
        report(
            f"reached {record['test_accuracy']:.2%} (until {config.until:.2%}) after epoch "
            f"{epoch}: {seconds:.1f} s of training"
        )
    else:
        best = max(r["test_accuracy"] for r in history.records)
        report(f"{config.until:.2%} was not reached in {config.epochs} epochs: best {best:.2%}")


def _how_to_continue(folder: Path) -> str:
    return f"continue with: igc-ref train --resume {shlex.quote(str(folder))}"


def _line(record: Record, epochs: int) -> str:
    return (
        f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}: "
        f"train loss {record['train_loss']:.3f}, accuracy {record['train_accuracy']:.1%}; "
        f"test loss {record['test_loss']:.3f}, accuracy {record['test_accuracy']:.1%}; "
        f"{record['seconds']:.1f} s, {record['images_per_second']:,.0f} images/s"
    )


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Within this context note Ctrl-C, SIGTERM and SIGHUP, unless they are ignored.

    A second one ends the program at once, but for SIGHUP: a terminal that is closed may send two.
    Outside the main thread, where Python delivers no signals, it does nothing.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if noted and number in (signal.SIGINT, signal.SIGTERM):
            raise KeyboardInterrupt
        noted.append(number)

    in_main = threading.current_thread() is threading.main_thread()
    names = ("SIGINT", "SIGTERM", "SIGHUP") if in_main else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    heeded = [n for n in numbers if signal.getsignal(n) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
