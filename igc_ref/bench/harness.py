"""Contenders take turns on one case; medians, ratios and shares of the roofline."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from textwrap import indent
from threading import Timer
from typing import Any, TypeVar

import igc_ref
from igc_ref.backends import numba_problem
from igc_ref.bench.cases import Case, StepCase, floor_seconds, multiply_adds
from igc_ref.bench.rivals import RIVALS
from igc_ref.bench.roofline import Roofline
from igc_ref.errors import BackendError
from igc_ref.report import aligned

TORCH = tuple(
    f"torch {how} {layout}" for how in ("eager", "compile") for layout in ("NCHW", "channels_last")
)
KINDS = ("both", "forward", "weights")
SECONDS_A_TURN = 0.3
SLOW = 4.0  # seconds; who needs more for a call is measured in one turn only
LIMIT = 300.0  # seconds; for each answer of a contender, its compilation included
Name = TypeVar("Name", bound=Hashable)


def contenders(case: Case | None = None) -> list[str]:
    """Return who can run here: numpy, and of the others who is installed and has this case."""
    found = ["numpy"] if numba_problem() else ["numpy", "numba"]
    found += TORCH if find_spec("torch") else ()
    if not isinstance(case, StepCase) or not case.train:
        found += (name for name, needs in RIVALS.items() if all(map(find_spec, needs)))
    return [name for name in found if name != "jax" or not isinstance(case, StepCase)]


def take_turns(
    times: Mapping[Name, Callable[[int], list[float]]],
    rounds: int,
    seconds: float,
    *,
    most: int = 10**6,
    slow: float = math.inf,
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
    slow : float
        Seconds of a call above which the short turn is the only one, and counts.
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
            elif min(new) > slow:
                found[name] = new
                del counts[name]
            else:
                counts[name] = max(1, min(most, int(seconds / max(min(new), 1e-9))))
    return found


@dataclass(frozen=True)
class Measured:
    """Bytes at the peak, and median seconds of what was measured.

    That is the forward pass, both passes (or the step), the weights' gradients alone.
    """

    peak: int
    both: float | None = None
    forward: float | None = None
    weights: float | None = None


@dataclass(frozen=True)
class Comparison:
    """One case, measured for every contender, and a line on each that failed."""

    case: Case
    measured: dict[str, Measured]
    failed: dict[str, str] = field(default_factory=dict)

    def seconds(self, kind: str) -> dict[str, float]:
        """Return the seconds of one of `KINDS`, of every contender that has it."""
        return {name: vars(m)[kind] for name, m in self.measured.items() if vars(m)[kind]}

    def best_of_torch(self, kind: str = "both") -> str | None:
        """Return the fastest way of PyTorch."""
        seconds = self.seconds(kind)
        ways = (name for name in seconds if name.startswith("torch"))
        return min(ways, key=lambda name: seconds[name], default=None)

    def torch_peak(self) -> int | None:
        """Return the smallest peak memory of all ways of PyTorch, in bytes."""
        peaks = (m.peak for name, m in self.measured.items() if name.startswith("torch"))
        return min(peaks, default=None)

    def lines(self, roofline: Roofline) -> list[str]:
        """Return the comparison as a table of text."""
        times = {kind: found for kind in KINDS if (found := self.seconds(kind))}
        rivals = {kind: self.best_of_torch(kind) or next(iter(times[kind])) for kind in times}
        heads = (head for kind in times for head in (f"{kind} ms", "ratio"))
        rows = [["", *heads, "GFLOP/s", "roofline", "peak MB"]]
        floor, operations = floor_seconds(self.case, roofline), 2 * multiply_adds(self.case)
        for name, m in self.measured.items():
            row = [name]
            for kind, found in times.items():
                own, rival = found.get(name), found[rivals[kind]]
                row += [f"{own * 1e3:.2f}", f"{rival / own:.2f}"] if own else ["", ""]
            own = m.both if self.case.train else m.forward
            row += [f"{operations / own / 1e9:.1f}", f"{floor / own:.1%}"] if own else ["", ""]
            rows.append([*row, f"{m.peak / 1e6:.0f}"])
        peak = self.torch_peak()
        smallest = "" if peak is None else f"; PyTorch's smallest peak {peak / 1e6:.0f} MB"
        return [
            f"{self.case.name}, batch {self.case.batch_size}",
            indent(aligned(rows), "  "),
            f"  ratio: times as fast as {' / '.join(dict.fromkeys(rivals.values()))}{smallest}",
            *(f"  {text}" for text in self.failed.values()),
        ]

    def to_dict(self, roofline: Roofline) -> dict[str, Any]:
        """Return everything as plain numbers, for JSON."""
        return {
            "case": asdict(self.case),
            "name": self.case.name,
            "multiply_adds": multiply_adds(self.case),
            "floor_seconds": floor_seconds(self.case, roofline),
            "measured": {name: vars(m) for name, m in self.measured.items()},
            "failed": self.failed,
        }


def time_case(
    case: Case,
    names: Sequence[str],
    threads: int,
    rounds: int = 7,
    seconds: float = SECONDS_A_TURN,
    limit: float = LIMIT,
) -> Comparison:
    """Time a case for several contenders, each in its own process, in turns.

    Parameters
    ----------
    case : BlockCase or StepCase
    names : sequence of str
        Out of `contenders`.
    threads : int
        For every contender but numpy, which has one.
    rounds : int
        Turns of each contender; a turn takes `seconds` or one call.
    seconds : float
    limit : float
        Seconds for each answer of a contender, its compilation included.

    Raises
    ------
    BackendError
        If all contenders fail or exceed the limit; if only some do, the comparison says which.
        Their own messages stand above.
    """
    workers: dict[str, _Worker] = {}
    turns: dict[tuple[str, str], Callable[[int], list[float]]] = {}
    failed: dict[tuple[str, str], Exception] = {}
    with ExitStack() as stack:
        for name in names:  # all of them start and compile at once
            workers[name] = _Worker(name, limit)
            stack.callback(workers[name].stop)
            order = {"contender": name, "case": asdict(case), "threads": threads}
            workers[name].send(json.dumps(order))
        for name, worker in workers.items():
            try:
                turns |= {(name, kind): partial(worker.times, kind) for kind in worker.answer()}
            except BackendError as error:
                failed[name, "start"] = error
        times = take_turns(turns, rounds, seconds, slow=SLOW, failed=failed.__setitem__)
    measured = {}
    for name, worker in workers.items():
        found = {kind: median(s) for (who, kind), s in times.items() if who == name and s}
        if found:
            measured[name] = Measured(peak=worker.peak, **found)
    reasons = {name: str(error) for (name, _), error in reversed(failed.items())}  # the first one
    if not measured:
        raise BackendError("; ".join(reasons.values()))
    return Comparison(case, measured, reasons)


class _Worker:
    """The process of one contender; the first thing that it is asked is its case."""

    def __init__(self, name: str, limit: float) -> None:
        self.name, self.limit, self.peak = name, limit, 0
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
        self.send(f"{kind} {count}")
        seconds: list[float]
        seconds, self.peak = self.answer()
        return seconds

    def send(self, line: str) -> None:
        """Send a line; if the process has ended, `answer` says so."""
        with suppress(BrokenPipeError):
            print(line, file=self.orders, flush=True)

    def answer(self) -> Any:
        """Wait for an answer, within the time limit."""
        start, timer = time.monotonic(), Timer(self.limit, self.process.kill)
        timer.start()
        answer = self.answers.readline()
        timer.cancel()
        if answer:
            return json.loads(answer)
        code = self.process.wait()
        if time.monotonic() - start >= self.limit:
            raise BackendError(f"{self.name} gave no answer within {self.limit:g} s")
        raise BackendError(f"{self.name} failed with exit status {code}; see its message above")

    def stop(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self.orders.close()
        self.process.wait()
        self.answers.close()
