"""Contenders take turns on one case; medians, ratios and shares of the roofline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from textwrap import indent
from typing import Any, TypeVar

import igc_ref
from igc_ref.backends import numba_problem
from igc_ref.bench.cases import BlockCase, Case, floor_seconds, multiply_adds
from igc_ref.bench.roofline import Roofline
from igc_ref.errors import BackendError
from igc_ref.report import aligned

TORCH = tuple(
    f"torch {how} {layout}" for how in ("eager", "compile") for layout in ("NCHW", "channels_last")
)
SECONDS_A_TURN = 0.3
Name = TypeVar("Name", bound=Hashable)


def contenders() -> list[str]:
    """Return who can run here: numpy, numba if installed, four ways of PyTorch if installed."""
    ours = ["numpy"] if numba_problem() else ["numpy", "numba"]
    return ours + (list(TORCH) if find_spec("torch") else [])


def take_turns(
    times: Mapping[Name, Callable[[int], list[float]]],
    rounds: int,
    seconds: float,
    *,
    most: int = 10**6,
    failed: Callable[[Name, Exception], None] | None = None,
) -> dict[Name, list[float]]:
    """Let contenders take turns, every second time in the opposite order; return all their seconds.

    Parameters
    ----------
    times : mapping of callables
        By contender: ``f(n)`` returns the seconds of each of n calls, after one that does not
        count because another contender ran before it.
    rounds : int
        Turns of each contender, after a short one that finds how many calls fill a turn.
    seconds : float
        Length of a turn of 1 to `most` calls.
    failed : callable, optional
        Gets name and error of a contender that fails; without it, the error is raised.

    Examples
    --------
    >>> take_turns({"a": lambda n: n * [1.0], "b": lambda n: n * [2.0]}, rounds=2, seconds=2)
    {'a': [1.0, 1.0, 1.0, 1.0], 'b': [2.0, 2.0]}
    """
    counts = dict.fromkeys(times, 2)
    found: dict[Name, list[float]] = {name: [] for name in times}
    for turn in range(rounds + 1):
        for name in list(counts) if turn % 2 else reversed(list(counts)):
            try:
                new = times[name](counts[name])
            except Exception as error:
                if failed is None:
                    raise
                failed(name, error)
                del counts[name]
                continue
            if turn:
                found[name] += new
            else:
                counts[name] = max(1, min(most, int(seconds / max(min(new), 1e-9))))
    return found


@dataclass(frozen=True)
class Measured:
    """Median seconds of the forward pass (blocks only) and of everything; bytes at the peak."""

    both: float
    forward: float | None
    peak: int


@dataclass(frozen=True)
class Comparison:
    """One case, measured for every contender."""

    case: Case
    measured: dict[str, Measured]

    def best_of_torch(self) -> str | None:
        """Return the fastest way of PyTorch."""
        ways = [name for name in self.measured if name.startswith("torch")]
        return min(ways, key=lambda name: self.measured[name].both, default=None)

    def torch_peak(self) -> int | None:
        """Return the smallest peak memory of all ways of PyTorch, in bytes."""
        peaks = (m.peak for name, m in self.measured.items() if name.startswith("torch"))
        return min(peaks, default=None)

    def lines(self, roofline: Roofline) -> list[str]:
        """Return the comparison as a table of text."""
        rival, peak = self.best_of_torch() or next(iter(self.measured)), self.torch_peak()
        floor = floor_seconds(self.case, roofline)
        rows = [["", "ms", "forward", "ratio", "GFLOP/s", "roofline", "peak MB"]]
        for name, m in self.measured.items():
            ratio, rate = self.measured[rival].both / m.both, 2 * multiply_adds(self.case) / m.both
            rows.append([
                name, f"{m.both * 1e3:.2f}", "" if m.forward is None else f"{m.forward * 1e3:.2f}",
                f"{ratio:.2f}", f"{rate / 1e9:.1f}", f"{floor / m.both:.1%}", f"{m.peak / 1e6:.0f}",
            ])  # fmt: skip
        smallest = "" if peak is None else f"; PyTorch's smallest peak {peak / 1e6:.0f} MB"
        return [
            f"{self.case.name}, batch {self.case.batch_size}",
            indent(aligned(rows), "  "),
            f"  ratio: times as fast as {rival}{smallest}",
        ]

    def to_dict(self, roofline: Roofline) -> dict[str, Any]:
        """Return everything as plain numbers, for JSON."""
        return {
            "case": asdict(self.case),
            "name": self.case.name,
            "multiply_adds": multiply_adds(self.case),
            "floor_seconds": floor_seconds(self.case, roofline),
            "measured": {name: vars(m) for name, m in self.measured.items()},
        }


def time_case(case: Case, names: Sequence[str], threads: int, rounds: int = 7) -> Comparison:
    """Time a case for several contenders, each in its own process, in turns.

    Parameters
    ----------
    case : BlockCase or StepCase
    names : sequence of str
        Out of `contenders`.
    threads : int
        For every contender but numpy, which has one.
    rounds : int
        Turns of each contender; a turn takes a third of a second or one call.

    Raises
    ------
    BackendError
        If a contender fails; says which, and its own message stands above.
    """
    workers: dict[str, _Worker] = {}
    with ExitStack() as stack:
        for name in names:
            workers[name] = _Worker(name)
            stack.callback(workers[name].stop)
            order = {"contender": name, "case": asdict(case), "threads": threads}
            workers[name].ask(json.dumps(order))
        kinds = ("forward", "both") if isinstance(case, BlockCase) else ("both",)
        turns = {(n, k): partial(w.times, k) for n, w in workers.items() for k in kinds}
        times = take_turns(turns, rounds, SECONDS_A_TURN)
        medians = {key: median(seconds) for key, seconds in times.items()}
        return Comparison(case, {
            name: Measured(
                medians[name, "both"], medians.get((name, "forward")), worker.ask("memory")["bytes"]
            )
            for name, worker in workers.items()
        })  # fmt: skip


class _Worker:
    """The process of one contender; the first thing that it is asked is its case."""

    def __init__(self, name: str) -> None:
        self.name = name
        ours = str(Path(igc_ref.__file__).parents[1])  # not what lies in the current folder
        paths = [ours, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "igc_ref.bench.worker"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.orders, self.answers = self.process.stdin, self.process.stdout

    def times(self, kind: str, count: int) -> list[float]:
        """Return the seconds of each of `count` calls."""
        seconds: list[float] = self.ask(f"{kind} {count}")
        return seconds

    def ask(self, line: str) -> Any:
        """Send a line, and wait for the answer."""
        try:
            print(line, file=self.orders, flush=True)
            answer = self.answers.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = self.process.wait()
            raise BackendError(f"{self.name} failed with exit status {code}; see its message above")
        return json.loads(answer)

    def stop(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self.orders.close()
        self.process.wait()
        self.answers.close()
