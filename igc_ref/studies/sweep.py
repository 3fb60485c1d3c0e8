"""The paper's study of L and M: train networks that cost the same, and compare their accuracy.

`settings_near` enumerates the (L, M) near a budget; `Sweep` trains each of them, at every depth and
with every seed, and writes a table and a figure after every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from igc_ref import plots
from igc_ref.errors import CheckpointError, SpecError, TrainingError, choice, integer
from igc_ref.files import writable, write_csv
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import Cost, cost
from igc_ref.report import Report, aligned
from igc_ref.studies import workers
from igc_ref.studies.compare import of_equal_cost
from igc_ref.training import folder as runs
from igc_ref.training import ranks
from igc_ref.training.config import TrainConfig

COSTS = ("parameters", "multiply_adds")
CSV, PICTURE = "sweep.csv", "sweep.svg"


class Setting(NamedTuple):
    """One choice of L and M, and the cost of the network with it."""

    L: int
    M: int
    cost: Cost

    @property
    def width(self) -> int:
        """G = L*M, the channels of the first stage."""
        return self.L * self.M


def settings_near(
    architecture: Architecture, budget: int, what: str = "parameters", tolerance: float = 0.05
) -> list[Setting]:
    """Find, for every M, the L with which the network's cost is nearest to a budget.

    Parameters
    ----------
    architecture : Architecture
        An IGC network that doubles M; its L and M are replaced.
    budget : int
        Parameters, or multiply-adds for one image.
    what : {"parameters", "multiply_adds"}
    tolerance : float
        Allowed distance from the budget, as a part of it.

    Returns
    -------
    list of Setting
        Ordered by L. The nearest with L = 1 and the nearest with M = 1 are always among them, even
        outside the tolerance: the extremes that the paper claims are not best.

    Raises
    ------
    SpecError
        If the network is not an IGC network that doubles M, or a number is not allowed.
    """
    choice("what", what, COSTS)
    budget = integer("budget", budget)
    if not architecture.is_igc or architecture.doubling != "M":
        raise SpecError(f"{architecture} is no IGC network that doubles M: nothing to sweep")
    if not 0 < tolerance < 1:
        raise SpecError(f"tolerance={tolerance} is not allowed; it must be between 0 and 1")

    def nearest(sought: str, **given: int) -> Setting:
        def of_size(number: int) -> Architecture:
            return replace(architecture, **given, **{sought: number})  # type: ignore[arg-type]

        found = of_equal_cost(of_size, what, budget)
        return Setting(found.L or 1, found.M or 1, cost(found))

    regular, depthwise = nearest("M", L=1), nearest("L", M=1)
    # L = 1 has the greatest M, so no M is left out.
    between = [nearest("L", M=M) for M in range(2, regular.M)]
    near = [s for s in between if abs(getattr(s.cost, what) / budget - 1) <= tolerance]
    return sorted({regular, depthwise, *near})


class Result(NamedTuple):
    """The settings, cost and test accuracy (0 to 1) of one network of a sweep."""

    L: int
    M: int
    width: int
    depth: int
    seed: int
    parameters: int
    multiply_adds: int
    epochs: int
    test_accuracy: float


@dataclass(frozen=True)
class Sweep:
    """Which networks to train: every (L, M) near a budget, at every depth, with every seed.

    Parameters
    ----------
    training : TrainConfig
        Settings of all runs; its L, M, depth, seed and out are replaced.
    folder : str
        For the runs, a folder each, and for ``sweep.csv`` and ``sweep.svg``.
    budget : int
        Cost at the first depth; the other depths use the same (L, M).
    what : {"parameters", "multiply_adds"}
        What the budget counts.
    tolerance : float
        Allowed distance from the budget, as a part of it.
    depths, seeds : sequences of int

    Raises
    ------
    SpecError
        Names the number and what is allowed.
    """

    training: TrainConfig
    folder: str
    budget: int
    what: str = COSTS[0]
    tolerance: float = 0.05
    depths: Sequence[int] = (8,)
    seeds: Sequence[int] = (0,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", str(runs.of_study(self.folder)))
        for name, minimum in (("depths", 1), ("seeds", 0)):
            numbers = tuple(integer(name[:-1], n, minimum) for n in getattr(self, name))
            if not numbers or len(set(numbers)) < len(numbers):
                raise SpecError(
                    f"{name}={list(numbers)} is not allowed: different numbers are needed"
                )
            object.__setattr__(self, name, numbers)
        for depth in self.depths:
            self._architecture(depth)

    def _architecture(self, depth: int) -> Architecture:
        return replace(self.training, depth=depth).architecture()

    def settings(self) -> list[Setting]:
        """Enumerate the (L, M), by their cost at the first depth."""
        first = self._architecture(self.depths[0])
        return settings_near(first, self.budget, self.what, self.tolerance)

    def configs(self) -> Iterator[TrainConfig]:
        """Yield the runs; all settings with the first seed come before any with the second."""
        found = self.settings()
        for depth in self.depths:
            for seed in self.seeds:
                for L, M, _ in found:
                    out = Path(self.folder) / f"L{L}M{M}-{depth}-seed{seed}"
                    yield replace(self.training, L=L, M=M, depth=depth, seed=seed, out=str(out))

    def run(self, report: Report, jobs: int = 1, executor: Any = None) -> list[Result]:
        """Train the runs that are not finished; rewrite the table and the figure after each.

        The ranks of ``mpiexec`` share the runs; rank 0 writes at the end, others return no results.

        Parameters
        ----------
        report : callable
            Receives lines of text.
        jobs : int
            Processes that train, and share out the cores of this machine.
        executor : executor of submitit, optional
            Trains instead.

        Raises
        ------
        TrainingError
            At the end, if runs failed; names them.
        """
        configs, jobs = list(self.configs()), integer("jobs", jobs)
        with ranks.together(report) as (world, report):
            if (jobs > 1) + (executor is not None) + (world is not None) > 1:
                raise SpecError("choose one of --jobs, --slurm and several ranks of mpiexec")
            for config in configs:  # before any is trained
                folder = Path(str(config.out))
                found = runs.read_config(folder) if (folder / runs.CONFIG).exists() else config
                if more := runs.differing(replace(found, out=config.out), config.to_dict()):
                    raise CheckpointError(f"{folder} holds another run: {more}")
            report(aligned(_setting_cells(self.settings())))
            if world is None:
                outcomes = (workers.train(config, report) for config in configs)
                if jobs > 1 or executor is not None:
                    outcomes = workers.trained(configs, jobs, executor)
                with closing(outcomes):
                    return self._tabulate(configs, outcomes, report)
            mine = [workers.train(config) for config in configs[world.rank :: world.size]]
            every = world.exchange(mine)
            shared = (every[n % world.size][n // world.size] for n in range(len(configs)))
            return [] if world.rank else self._tabulate(configs, shared, report)

    def _tabulate(
        self, configs: list[TrainConfig], outcomes: Iterable[workers.Outcome], report: Report
    ) -> list[Result]:
        table, results = writable(Path(self.folder) / CSV, make_folder=True), list[Result]()
        title = f"{self.training.arch} on {self.training.data}, {self.training.epochs} epochs"
        failed = []
        for config, outcome in zip(configs, outcomes, strict=True):
            name = Path(str(config.out)).name
            if isinstance(outcome, Exception):
                failed.append(f"{name}: {str(outcome) or 'out of memory'}")
                continue
            report(f"{name}: test accuracy {outcome:.2%}")
            a, L, M = config.architecture(), config.L or 1, config.M or 1
            results.append(
                Result(L, M, L * M, a.depth, config.seed, *cost(a), config.epochs, outcome)
            )
            write_csv(table, [Result._fields, *results])
            if plots.available():
                plots.save(plots.draw_sweep(results, title), table.with_name(PICTURE))
        report(aligned(_result_cells(results)))
        if failed:
            raise TrainingError(f"{len(failed)} of {len(configs)} runs failed: {'; '.join(failed)}")
        return results


def _setting_cells(settings: Sequence[Setting]) -> list[tuple[str, ...]]:
    rows = [
        (f"L{s.L}M{s.M}", str(s.width), *(f"{c:,}" for c in s.cost), f"{s.L / (9 * s.M):.2f}")
        for s in settings
    ]
    return [("setting", "width", "parameters", "multiply-adds", "L/(M*S)"), *rows]


def _result_cells(results: Sequence[Result]) -> list[tuple[str, ...]]:
    rows = [
        (f"L{r.L}M{r.M}-{r.depth}", str(r.seed), str(r.width), f"{r.parameters:,}",
         f"{r.test_accuracy:.2%}")
        for r in results
    ]  # fmt: skip
    return [("network", "seed", "width", "parameters", "test accuracy"), *rows]
