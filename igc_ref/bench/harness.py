"""Contenders take turns on one case; medians, ratios and shares of the roofline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import igc_ref
from igc_ref.backends import numba_problem
from igc_ref.bench.cases import BlockCase, Case, floor_seconds, multiply_adds, to_dict
from igc_ref.bench.roofline import Roofline
from igc_ref.errors import BackendError

TORCH = tuple(
    f"torch {how} {layout}" for how in ("eager", "compile") for layout in ("NCHW", "channels_last")
)
SECONDS_A_TURN = 0.3


def contenders() -> list[str]:
    """Return who can run here: numpy, numba if installed, four ways of PyTorch if installed."""
    ours = ["numpy"] if numba_problem() else ["numpy", "numba"]
    return ours + (list(TORCH) if find_spec("torch") else [])


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

    def lines(self, roofline: Roofline) -> list[str]:
        """Return the comparison as a table of text."""
        rival = self.best_of_torch() or next(iter(self.measured))
        peaks = [m.peak for name, m in self.measured.items() if name.startswith("torch")]
        lines = [
            f"{self.case.name}, batch {self.case.batch_size}",
            f"  {'':28}{'ms':>9}{'forward':>9}{'ratio':>8}{'GFLOP/s':>9}{'roofline':>10}"
            f"{'peak MB':>9}",
        ]
        floor = floor_seconds(self.case, roofline.flops, roofline.bandwidth)
        for name, m in self.measured.items():
            forward = "" if m.forward is None else f"{m.forward * 1e3:.2f}"
            rate = 2 * multiply_adds(self.case) / m.both / 1e9
            ratio = self.measured[rival].both / m.both
            lines.append(
                f"  {name:28}{m.both * 1e3:9.2f}{forward:>9}{ratio:8.2f}{rate:9.1f}"
                f"{floor / m.both:10.1%}{m.peak / 1e6:9.0f}"
            )
        lines.append(f"  ratio: times as fast as {rival}" + (
            f"; PyTorch's smallest peak {min(peaks) / 1e6:.0f} MB" if peaks else ""
        ))  # fmt: skip
        return lines

    def to_dict(self, roofline: Roofline) -> dict[str, Any]:
        """Return everything as plain numbers, for JSON."""
        return {
            "case": to_dict(self.case),
            "name": self.case.name,
            "multiply_adds": multiply_adds(self.case),
            "floor_seconds": floor_seconds(self.case, roofline.flops, roofline.bandwidth),
            "measured": {name: vars(m) for name, m in self.measured.items()},
        }


def compare(case: Case, names: Sequence[str], threads: int, rounds: int = 7) -> Comparison:
    """Time a case for several contenders, each in its own process, in turns.

    Parameters
    ----------
    case : BlockCase or StepCase
    names : sequence of str
        Out of `contenders`.
    threads : int
        For every contender but numpy, which has one.
    rounds : int
        How often everyone has a turn; a turn takes a third of a second or one call.

    Raises
    ------
    BackendError
        If a contender fails; says which, and its own message stands above.
    """
    workers: dict[str, _Worker] = {}
    try:
        for name in names:
            workers[name] = _Worker(name, case, threads)
        kinds = ("forward", "both") if isinstance(case, BlockCase) else ("both",)
        turns = {
            name: {kind: worker.turn(kind) for kind in kinds} for name, worker in workers.items()
        }
        times: dict[str, dict[str, list[float]]] = {n: {k: [] for k in kinds} for n in names}
        for _ in range(rounds):
            for name, worker in workers.items():
                for kind in kinds:
                    times[name][kind] += worker.ask(f"{kind} {turns[name][kind]}")
        return Comparison(case, {
            name: Measured(
                median(times[name]["both"]),
                median(times[name]["forward"]) if "forward" in kinds else None,
                worker.ask("memory")["bytes"],
            )
            for name, worker in workers.items()
        })  # fmt: skip
    finally:
        for worker in workers.values():
            worker.stop()


class _Worker:
    """The process of one contender, warmed up and waiting."""

    def __init__(self, name: str, case: Case, threads: int) -> None:
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
        try:
            self.ask(json.dumps({"contender": name, "case": to_dict(case), "threads": threads}))
        except BaseException:
            self.stop()
            raise

    def turn(self, kind: str) -> int:
        """Return how many calls fill a turn."""
        return max(1, int(SECONDS_A_TURN / min(self.ask(f"{kind} 2"))))

    def ask(self, line: str) -> Any:
        """Send a line, and wait for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = self.process.wait()
            raise BackendError(f"{self.name} failed with exit status {code}; see its message above")
        return json.loads(answer)

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
