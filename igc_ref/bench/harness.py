"""Contenders take turns on one case; medians, ratios and shares of the roofline."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from textwrap import indent
from threading import Event, Timer
from typing import Any, TypeVar

import igc_ref
from igc_ref.backends import numba_problem
from igc_ref.bench.cases import Case, floor_seconds, multiply_adds
from igc_ref.bench.rivals import RIVALS, able
from igc_ref.bench.roofline import Roofline
from igc_ref.errors import BackendError
from igc_ref.report import aligned

TORCH = tuple(
    f"torch {how} {layout}" for how in ("eager", "compile") for layout in ("NCHW", "channels_last")
)
SECONDS_A_TURN = 0.3
SLOW = 4.0  # seconds; who needs more for a call is measured in one turn only
LIMIT = 300.0  # seconds; for each answer of a contender, its compilation included
Name = TypeVar("Name", bound=Hashable)


def contenders(case: Case | None = None) -> list[str]:
    """Return who can run here: numpy, then of numba, PyTorch and its rivals what is installed.

    With a case, only those that have it.
    """
    found = ["numpy"] if numba_problem() else ["numpy", "numba"]
    found += TORCH if find_spec("torch") else ()
    found += (name for name, needs in RIVALS.items() if all(map(find_spec, needs)))
    return [name for name in found if case is None or able(name, case)]


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
    """Median seconds and bytes at the peak; None for what was not measured.

    Seconds of everything (forward and backward pass, or step), of the forward pass, and of the
    gradients of the weights alone.
    """

    both: float | None
    forward: float | None
    peak: int | None
    weights: float | None = None


@dataclass(frozen=True)
class Comparison:
    """One case, measured for every contender, and what is to be said of those that failed."""

    case: Case
    measured: dict[str, Measured]
    failed: dict[str, str] = field(default_factory=dict)

    def seconds(self, kind: str) -> dict[str, float]:
        """Return the seconds of "both" or of "forward", by contender, of those that have them."""
        found = {name: getattr(m, kind) for name, m in self.measured.items()}
        return {name: seconds for name, seconds in found.items() if seconds is not None}

    def best_of_torch(self, kind: str | None = None) -> str | None:
        """Return the fastest way of PyTorch, of the whole case or in "both" or "forward"."""
        seconds = self.seconds(kind or ("both" if self.case.train else "forward"))
        ways = [name for name in seconds if name.startswith("torch")]
        return min(ways, key=lambda name: seconds[name], default=None)

    def torch_peak(self) -> int | None:
        """Return the smallest peak memory of all ways of PyTorch, in bytes."""
        peaks = (m.peak for name, m in self.measured.items() if name.startswith("torch"))
        return min((peak for peak in peaks if peak is not None), default=None)

    def lines(self, roofline: Roofline) -> list[str]:
        """Return the comparison as a table of text."""
        whole = self.seconds("both" if self.case.train else "forward")
        forward = self.seconds("forward") if self.case.train else {}
        rival, rival_forward, peak = (
            self.best_of_torch() or next(iter(whole), None),
            self.best_of_torch("forward") or next(iter(forward), None),
            self.torch_peak(),
        )
        floor, operations = floor_seconds(self.case, roofline), 2 * multiply_adds(self.case)
        rows = [["", "ms", "ratio", "forward", "ratio", "GFLOP/s", "roofline", "peak MB"]]
        for name, m in self.measured.items():
            row = [name, *_beside(whole, name, rival), *_beside(forward, name, rival_forward)]
            rates = ["", ""]
            if name in whole:
                rates = [f"{operations / whole[name] / 1e9:.1f}", f"{floor / whole[name]:.1%}"]
            rows.append([*row, *rates, "" if m.peak is None else f"{m.peak / 1e6:.0f}"])
        smallest = "" if peak is None else f"; PyTorch's smallest peak {peak / 1e6:.0f} MB"
        also = f", forward as {rival_forward}" if rival_forward not in (None, rival) else ""
        return [
            f"{self.case.name}, batch {self.case.batch_size}",
            indent(aligned(rows), "  "),
            f"  ratio: times as fast as {rival}{also}{smallest}",
            *(
                f"  {name}: the gradients of the weights alone take {m.weights * 1e3:.2f} ms"
                for name, m in self.measured.items()
                if m.weights is not None
            ),
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


def _beside(seconds: Mapping[str, float], name: str, rival: str | None) -> list[str]:
    """Return a contender's milliseconds, and how many times as fast as its rival it is."""
    if name not in seconds or rival is None:
        return ["", ""]
    return [f"{seconds[name] * 1e3:.2f}", f"{seconds[rival] / seconds[name]:.2f}"]


def time_case(
    case: Case,
    names: Sequence[str],
    threads: int,
    rounds: int = 7,
    *,
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
        Seconds for each answer of a contender. Who needs longer has failed.

    Raises
    ------
    BackendError
        If all contenders fail. If only some do, the comparison says which. Messages of their own
        stand above.
    """
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        workers: dict[str, _Worker] = {}
        for name in names:  # all of them start and compile at once
            workers[name] = _Worker(name, limit)
            stack.callback(workers[name].stop)
            order = {"contender": name, "case": asdict(case), "threads": threads}
            workers[name].send(json.dumps(order))
        turns: dict[tuple[str, str], Callable[[int], list[float]]] = {}
        for name, worker in workers.items():
            try:
                turns |= {(name, kind): partial(worker.times, kind) for kind in worker.answer()}
            except BackendError as error:
                failed[name] = str(error)

        def note(key: tuple[str, str], error: Exception) -> None:
            failed.setdefault(key[0], str(error))

        times = take_turns(turns, rounds, seconds, slow=SLOW, failed=note)
        medians = {key: median(found) for key, found in times.items() if found}
        measured = {}
        for name, worker in workers.items():
            found = {kind: medians.get((name, kind)) for kind in ("both", "forward", "weights")}
            if any(found.values()):
                measured[name] = Measured(peak=worker.peak(), **found)
    if not measured:
        raise BackendError("; ".join(failed.values()))
    return Comparison(case, measured, failed)


class _Worker:
    """The process of one contender; the first thing that it is asked is its case."""

    def __init__(self, name: str, limit: float) -> None:
        self.name, self.limit = name, limit
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

    def peak(self) -> int | None:
        """Return the bytes at the peak; None if the process has failed."""
        with suppress(BackendError):
            return int(self.ask("memory")["bytes"])
        return None

    def ask(self, line: str) -> Any:
        """Send a line, and wait for the answer."""
        self.send(line)
        return self.answer()

    def send(self, line: str) -> None:
        """Send a line; of a process that has ended, `answer` tells."""
        with suppress(BrokenPipeError):
            print(line, file=self.orders, flush=True)

    def answer(self) -> Any:
        """Wait for an answer, within the time limit."""
        late = Event()

        def end() -> None:
            late.set()
            self.process.kill()

        timer = Timer(self.limit, end)
        timer.start()
        answer = self.answers.readline()
        timer.cancel()
        if answer:
            return json.loads(answer)
        code = self.process.wait()
        if late.is_set():
            raise BackendError(f"{self.name} gave no answer within {self.limit:g} s")
        raise BackendError(f"{self.name} failed with exit status {code}; see its message above")

    def stop(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self.orders.close()
        self.process.wait()
        self.answers.close()
