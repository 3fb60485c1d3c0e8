"""The paper's study of L and M: networks of one cost, one after the other, and what they reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from igc_ref import plots
from igc_ref.architecture import Architecture
from igc_ref.builder import cost
from igc_ref.config import TrainConfig
from igc_ref.errors import SpecError
from igc_ref.report import Report
from igc_ref.spec import integer
from igc_ref.studies.resumable import run_to_end
from igc_ref.studies.settings import COSTS, Setting, settings_near
from igc_ref.table import aligned, write_csv

CSV, PICTURE = "sweep.csv", "sweep.svg"


class Result(NamedTuple):
    """What one network of a sweep reached."""

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
        How all of them are trained; its L, M, depth, seed and out are replaced.
    folder : str
        Where the runs lie, a folder each, with ``sweep.csv`` and ``sweep.svg``.
    budget : int
        Cost at the first of the depths; the same (L, M) are taken at the others.
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
        for name, minimum in (("depths", 1), ("seeds", 0)):
            numbers = tuple(integer(name[:-1], n, minimum) for n in getattr(self, name))
            if not numbers or len(set(numbers)) < len(numbers):
                raise SpecError(f"{name}={list(numbers)} is not allowed: different numbers, please")
            object.__setattr__(self, name, numbers)
        for depth in self.depths:
            self._architecture(depth)

    def _architecture(self, depth: int) -> Architecture:
        return replace(self.training, depth=depth).architecture(num_classes=10)

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

    def run(self, report: Report) -> list[Result]:
        """Train what is missing; write the table and the picture anew after every run."""
        report(aligned(_setting_cells(self.settings())))
        results = []
        for config in self.configs():
            history = run_to_end(config, report)
            results.append(_result(config, history.test_accuracy))
            self.write(results)
        report(aligned(_result_cells(results)))
        return results

    def write(self, results: Sequence[Result]) -> None:
        """Write ``sweep.csv``, and ``sweep.svg`` where matplotlib is installed."""
        folder = Path(self.folder)
        write_csv(folder / CSV, [Result._fields, *results])
        if plots.available():
            plots.save(plots.draw_sweep(results, _title(self.training)), folder / PICTURE)


def _result(config: TrainConfig, accuracy: float) -> Result:
    a = config.architecture(num_classes=10)
    L, M = a.L or 0, a.M or 0
    return Result(L, M, L * M, a.depth, config.seed, *cost(a), config.epochs, accuracy)


def _title(config: TrainConfig) -> str:
    return f"{config.arch} on {config.data}, {config.epochs} epochs"


def _setting_cells(settings: Sequence[Setting]) -> list[tuple[str, ...]]:
    header = ("setting", "width", "parameters", "multiply-adds", "L/(M*S)")
    rows = [
        (f"L{s.L}M{s.M}", str(s.width), *(f"{c:,}" for c in s.cost), f"{s.L / (9 * s.M):.2f}")
        for s in settings
    ]
    return [header, *rows]


def _result_cells(results: Sequence[Result]) -> list[tuple[str, ...]]:
    header = ("network", "seed", "width", "parameters", "test accuracy")
    rows: list[Any] = [
        (f"L{r.L}M{r.M}-{r.depth}", str(r.seed), str(r.width), f"{r.parameters:,}",
         f"{r.test_accuracy:.2%}")
        for r in results
    ]  # fmt: skip
    return [header, *rows]
