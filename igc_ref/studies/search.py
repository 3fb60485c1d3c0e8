"""A search by Optuna for the best IGC network within a budget: L, M and what else names a network.

Networks are judged by training images that are held out, never by the test set. All that is known
of a search is in Optuna's journal and the folders of its runs: any process may go on with it.
"""

from __future__ import annotations

import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from statistics import median
from typing import Any

import numpy as np

from igc_ref import data, errors, files, plots
from igc_ref.data import Dataset
from igc_ref.errors import SpecError
from igc_ref.networks.architecture import DOUBLINGS, GATES
from igc_ref.networks.builder import cost
from igc_ref.report import Report, markdown, silent
from igc_ref.studies.compare import greatest_within
from igc_ref.studies.sweep import COSTS
from igc_ref.training import folder as runs
from igc_ref.training.config import TrainConfig
from igc_ref.training.evaluation import interval
from igc_ref.training.session import Session, run_to_end

BY = (*COSTS, "milliseconds")
JOURNAL, REPORT, FRONT, IMPORTANCE = "study.journal", "report.md", "front.svg", "importance.svg"
KERNELS = ("3", "5", "3,5", "3,5,7")
PAPER: dict[str, Any] = {"M": 2, "doubling": "M", "kernel_sizes": "3", "gate": "none"}  # L = 24
GREATEST_M = 64
MOST_NEEDED = 8  # partitions: a form that is refused with so many is refused with any
HELD_OUT = 0.1  # of the training images
TRIES = 200  # proposals in a row that do not fit, or are not new
ENOUGH = 8  # finished trials for which importances mean something


def held_out(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Split training images: those to train on, and a tenth to judge by, always the same ones."""
    if len(dataset) < 2:
        raise errors.DataError(f"{dataset.name} has 1 image; 2 are needed, one of them held out")
    order = np.random.default_rng(1).permutation(len(dataset))
    part = max(1, round(HELD_OUT * len(dataset)))
    judge = replace(dataset[np.sort(order[:part])], name=f"{dataset.name}, held out")
    return dataset[np.sort(order[part:])], judge


def fill(
    training: TrainConfig,
    form: Mapping[str, Any],
    price: Callable[[TrainConfig], float],
    limit: float,
) -> TrainConfig | None:
    """Return the settings with the greatest L whose network's price is within the limit, if any."""

    def count(L: int) -> float:
        try:
            return price(replace(training, L=L, **form))
        except SpecError:
            return math.inf if L >= MOST_NEEDED else 0.0

    L = greatest_within(count, limit)
    return replace(training, L=L, **form) if L and count(L) else None


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (price, accuracy) that are more accurate than all that cost no more.

    Examples
    --------
    >>> front([(3, 0.5), (1, 0.4), (2, 0.4), (3, 0.6)])
    [(1, 0.4), (3, 0.6)]
    """
    best = list[tuple[float, float]]()
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best


def milliseconds(config: TrainConfig, batch: Dataset) -> float:
    """Measure a forward pass of a batch in evaluation mode: the median of 5, after one more."""
    model, times = Session(config, sets=(batch, batch)).model, []
    backend = model.backend
    backend.prepare(model.dtype, silent)
    with backend.session(), np.errstate(over="ignore", invalid="ignore"):  # weights are random
        x = backend.normalise(backend.asarray(batch.images), batch.mean, batch.std, model.dtype)
        for _ in range(6):
            begun = time.perf_counter()
            backend.to_numpy(model.forward(x))
            times.append(1e3 * (time.perf_counter() - begun))
    return median(times[1:])


@dataclass
class Search:
    """Trials of networks within a budget, in a folder that several processes may share.

    Parameters
    ----------
    training : TrainConfig
        Settings of all runs; the searched ones and out are replaced. Its seed is the sampler's too.
    folder : str
        For the journal, the report with its figures, and the runs, a folder each.
    budget : float
        The most that a network costs.
    by : {"parameters", "multiply_adds", "milliseconds"}
        What the budget is of. The last is measured once for each network: see `milliseconds`.
    trials : int
        Networks to train in all, with those of earlier starts and of other processes.
    tolerance : float
        A network costs at least 1 - tolerance of the budget.
    depths : sequence of int

    Raises
    ------
    SpecError
        Names the value and what is allowed.
    BackendError
        If Optuna is not installed.
    """

    training: TrainConfig
    folder: str
    budget: float
    by: str = COSTS[0]
    trials: int = 30
    tolerance: float = 0.5
    depths: Sequence[int] = (8,)

    def __post_init__(self) -> None:
        self.path = runs.of_study(self.folder)
        errors.choice("by", self.by, BY)
        errors.integer("trials", self.trials)
        for name, most in (("budget", math.inf), ("tolerance", 1)):
            if not 0 < (number := getattr(self, name)) < most:
                text = f"{name}={number} is not allowed; it must be between 0 and {most}"
                raise SpecError(text)
        if len(set(self.depths)) < len(self.depths):
            raise SpecError(f"depths={list(self.depths)} must be different numbers")
        for depth in self.depths:
            replace(self.training, **PAPER, L=24, depth=depth)
        try:
            import optuna
        except ImportError:
            text = 'search needs a library that is not installed: pip install "igc-ref[search]"'
            raise errors.BackendError(text) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.optuna, self.states = optuna, optuna.trial.TrialState
        self.unit, self.least = self.by.replace("_", "-"), (1 - self.tolerance) * self.budget

    def run(self, report: Report) -> list[Any]:
        """Train what is missing, rewrite the report after each trial; return Optuna's trials.

        Raises
        ------
        CheckpointError
            If the folder holds another search.
        Interrupted
            After Ctrl-C, SIGTERM or SIGHUP; the same search continues the trial.
        """
        t, self.report = self.training, report
        images = data.load(t.data, "train", t.data_dir, report, t.data_size)
        self.sets = held_out(images)
        batch, self.ends = self.sets[0][: t.batch_size], (len(images.classes), len(images.mean))
        size = images.images.shape[2:]
        self.price: Callable[[TrainConfig], float] = lru_cache(None)(
            partial(milliseconds, batch=batch)
            if self.by == "milliseconds"
            else lambda config: getattr(cost(config.architecture(*self.ends), size), self.by)
        )
        # What no trial could be trained with is refused here: a teacher, dims, the backend.
        tried = Session(replace(t, **PAPER, L=2, depth=self.depths[0]), sets=self.sets)
        (self.path / ".locks").mkdir(parents=True, exist_ok=True)
        with self._locked("study"):
            self._open(tried.teacher)
        report(
            f"{len(self.sets[1]):,} of {len(images):,} training images are held out to judge by; "
            "in what follows they are the test images"
        )
        while (number := self._train()) is not None:
            trial = next(t for t in self._write() if t.number == number)
            _, network, price, epochs, accuracy, _, end = self._cells(trial)
            report(f"trial {number}, {network}, {price} {self.unit}, {end} after epoch {epochs}: "
                   f"{accuracy} held out")  # fmt: skip
        return self._write()

    def _locked(self, name: str, seconds: float = -1) -> AbstractContextManager[object]:
        return files.locked(self.path / ".locks" / name, seconds, self.report)

    def _open(self, teacher: str) -> None:
        """Open the study of the folder, or begin one whose first trial has the paper's setting."""
        journal, path = self.optuna.storages.journal, str(self.path / JOURNAL)
        file = journal.JournalFileBackend(path, lock_obj=journal.JournalFileOpenLock(path))
        self.storage = journal.JournalStorage(file)
        self.study = self.optuna.create_study(
            storage=self.storage, study_name="search", direction="maximize", load_if_exists=True,
            pruner=self.optuna.pruners.MedianPruner(5, self.training.epochs // 3),
        )  # fmt: skip
        free = {"L", "depth", "out", *PAPER, *runs.MAY_CHANGE}
        free -= {"backend"} if self.by == "milliseconds" else set()
        wanted = {n: v for n, v in self.training.to_dict().items() if n not in free}
        wanted |= {"budget": self.budget, "by": self.by, "tolerance": self.tolerance}
        wanted |= {"depths": list(self.depths), "images": data.fingerprint(*self.sets)}
        wanted["SHA-256 of the teacher"] = teacher
        if "settings" not in self.study.user_attrs or not self.study.get_trials(deepcopy=False):
            self.study.set_user_attr("settings", wanted)
        had = self.study.user_attrs["settings"]
        if more := [f"{n}={v} (it has {had.get(n)})" for n, v in wanted.items() if had.get(n) != v]:
            raise errors.CheckpointError(f"{self.path} holds another search: {', '.join(more)}")

    def _paper(self) -> dict[str, Any]:
        """Propose L24M2 if it is within the budget, else M = 2 with the L that fills the budget."""
        form = {"depth": self.depths[0], **PAPER}
        price = self.price(replace(self.training, L=24, **form))
        share = price * (1 + 1e-9) / self.budget  # rounding must not cost a partition
        within = self.least <= price <= self.budget
        return {"share": min(1.0, share) if within else 1.0, **form}

    def _train(self) -> int | None:
        """Train a trial that no process works on; return its number, None if no trial is left."""
        with ExitStack() as stack:
            if (claimed := self._claim(stack)) is None:
                return None
            trial, config = claimed

            def watch(records: Sequence[Mapping[str, float]]) -> None:
                trial.report(records[-1]["test_accuracy"], len(records))
                # The first trial, the paper's, is what the others are compared with.
                if trial.number and len(records) < config.epochs and trial.should_prune():
                    raise self.optuna.TrialPruned

            try:
                history = run_to_end(config, self.report, sets=self.sets, watch=watch)
                self.study.tell(trial, history.test_accuracy)
            except (self.optuna.TrialPruned, errors.TrainingError) as error:
                trial.set_user_attr("end", str(error) or "pruned")
                self.study.tell(trial, state=self.states.PRUNED)
            except KeyboardInterrupt as stop:
                text = f"interrupted in trial {trial.number}; the same command continues the search"
                number = getattr(stop, "signal", signal.SIGINT)
                raise errors.Interrupted(text, number) from stop
            return int(trial.number)

    def _claim(self, stack: ExitStack) -> tuple[Any, TrainConfig] | None:
        """Lock a trial that was left, or else a new one, while no other process does."""
        study, storage, states = self.study, self.storage, self.states
        study_id = storage.get_study_id_from_name(study.study_name)
        with self._locked("study"):
            for left in study.get_trials(states=(states.RUNNING,)):
                with suppress(TimeoutError):  # another process trains it
                    stack.enter_context(self._locked(f"trial-{left.number}", 0))
                    id_ = storage.get_trial_id_from_study_id_trial_number(study_id, left.number)
                    trial = self.optuna.trial.Trial(study, id_)
                    break
            else:
                if not study.get_trials(states=(states.WAITING,)) and not self._propose():
                    return None
                trial = study.ask()
                stack.enter_context(self._locked(f"trial-{trial.number}", 0))
            form = {**self._drawn(trial)[1], "L": trial.user_attrs["about"]["L"]}
            return trial, replace(
                self.training, **form, out=str(self.path / f"trial-{trial.number}")
            )

    def _drawn(self, trial: Any) -> tuple[float, dict[str, Any]]:
        """Draw the part of the budget, and all but L of a network; or repeat what was drawn."""
        choose = trial.suggest_categorical
        return trial.suggest_float("share", self.least / self.budget, 1), {
            "depth": choose("depth", self.depths),
            "M": trial.suggest_int("M", 1, GREATEST_M, log=True),
            "doubling": choose("doubling", DOUBLINGS),
            "kernel_sizes": choose("kernel_sizes", KERNELS),
            "gate": choose("gate", GATES),
        }

    def _propose(self) -> bool:
        """Queue a new network, if there are too few trials and one is found; say whether it is so.

        It follows from the seed and the trials before it. The sampler drafts in memory until a
        network fits: the journal is for networks that are trained.
        """
        trials = self.study.get_trials()
        if len(trials) >= self.trials:
            return False
        seed = np.random.SeedSequence([self.training.seed, len(trials)]).generate_state(1)
        sampler = self.optuna.samplers.TPESampler(seed=int(seed[0]))
        drafts = self.optuna.create_study(direction="maximize", sampler=sampler)
        drafts.add_trials(trials)
        if not trials:
            drafts.enqueue_trial(self._paper())
        for _ in range(TRIES):
            draft = drafts.ask()
            share, form = self._drawn(draft)
            found = fill(self.training, form, self.price, share * self.budget)
            end = self.states.PRUNED  # as the worst: the sampler learns what does not fit
            if found is not None and (price := self.price(found)) >= self.least:
                name = str(found.architecture(*self.ends))
                if name not in (t.user_attrs["about"]["network"] for t in trials):
                    about = {"network": name, "price": price, "L": found.L}
                    self.study.enqueue_trial(draft.params, user_attrs={"about": about})
                    return True
                end = self.states.FAIL  # of no account
            drafts.tell(draft, state=end)
        if not trials:
            least, most = f"{self.least:,.12g}", f"{self.budget:,.12g} {self.unit}"
            raise SpecError(f"budget={most}: no network was found that costs {least} to {most}")
        self.report(f"no new network in {TRIES} proposals: the tolerance may be too small")
        return False

    # -- the report --------------------------------------------------------------------------------

    def _write(self) -> list[Any]:
        """Write the report and its figures; return the trials, the most accurate first."""
        with self._locked("study"):
            states, t = self.states, self.training
            title = f"{t.arch} on {t.data}, {t.epochs} epochs"
            trials: list[Any] = self.study.get_trials(states=(states.COMPLETE, states.PRUNED))
            trials.sort(key=lambda t: (t.state == states.COMPLETE, t.value or 0.0), reverse=True)
            done = [t for t in trials if t.state == states.COMPLETE]
            header = ("trial", "network", self.unit, "epochs", "accuracy", "95 % interval", "end")
            lines = [
                f"# {title}: at most {self.budget:,.12g} {self.unit}",
                f"Accuracy on {len(self.sets[1]):,} training images that are held out; seed "
                f"{t.seed}. The best is chosen by it, so its own is a little too high: train that "
                "network on all images, with the options of the search, and test it.",
            ]
            if done:
                pair = [done[0], *(t for t in done[1:] if t.number == 0)]
                lines.append("The best, beside the paper's setting (trial 0), and its command:")
                lines.append(markdown([header, *map(self._cells, pair)]))
                best = {**done[0].params, "arch": t.arch, **done[0].user_attrs["about"]}
                lines.append(
                    "    igc-ref train --arch {arch} --depth {depth} -L {L} -M {M} --doubling "
                    "{doubling} --kernel-sizes {kernel_sizes} --gate {gate}".format(**best)
                )
                lines += self._draw(done, title)
            lines += ["All trials:", markdown([header, *map(self._cells, trials)])]
            with files.replacing(self.path / REPORT) as file:
                file.write("\n\n".join([*lines, ""]).encode())
        return trials

    def _cells(self, trial: Any) -> tuple[str, ...]:
        about, accuracy = trial.user_attrs["about"], trial.value or 0.0
        low, high = interval(accuracy, len(self.sets[1]))
        return (
            str(trial.number), about["network"], f"{round(about['price'], 2):,}",
            str(max(trial.intermediate_values, default=0)), f"{accuracy:.2%}",
            f"{low:.2%} to {high:.2%}", trial.user_attrs.get("end", "finished"),
        )  # fmt: skip

    def _draw(self, done: Sequence[Any], title: str) -> Iterator[str]:
        """Draw the figures; yield what the report shows of them."""
        if not plots.available():
            return
        points = {t.number: (t.user_attrs["about"]["price"], 100 * t.value) for t in done}
        lines: dict[str, Any] = {
            "Pareto front": tuple(zip(*front(list(points.values())), strict=True))
        }
        if 0 in points:
            name = next(t.user_attrs["about"]["network"] for t in done if t.number == 0)
            lines[f"trial 0, {name}"] = ([points[0][0]], [points[0][1]])
        dots: Any = tuple(zip(*points.values(), strict=True))
        figure = plots.draw_lines(
            lines, x=self.unit, y="held-out accuracy (%)", title=title, dots=dots
        )
        plots.save(figure, self.path / FRONT)
        yield f"![Accuracy against cost]({FRONT})"
        if len(done) < ENOUGH:
            return
        with warnings.catch_warnings(action="ignore"):  # of choices that few trials have
            judge = self.optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
            parts = self.optuna.importance.get_param_importances(self.study, evaluator=judge)
        text = "importance for the best quarter (PED-ANOVA)"
        figure = plots.draw_bars(list(parts), {text: list(parts.values())}, y="part of the whole")
        plots.save(figure, self.path / IMPORTANCE)
        yield f"![Importance of the choices]({IMPORTANCE})"
