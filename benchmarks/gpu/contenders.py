"""The contenders of one case, each timed by the clock of its own library."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from igc_ref.bench.clock import Clock
from igc_ref.bench.harness import take_turns

Times = dict[str, dict[str, Any]]  # by contender: what `compete` returns
MOST_CALLS = 200  # a turn: an event for each


@dataclass
class Contender:
    """One who computes a case.

    Parameters
    ----------
    name : str
    run : callable
        Does the work ``units`` times, or queues it.
    clock : Clock
    units : int
    exact : bool
        Whether multiply-adds are float32's, not TF32's or of 16 bits.
    note : str
        What a reader should know.
    """

    name: str
    run: Callable[[], object]
    clock: Clock
    units: int = 1
    exact: bool = True
    note: str = ""

    def times(self, count: int) -> list[float]:
        """Return the seconds of each of `count` runs, after one that does not count."""
        self.clock.wait()
        self.run()
        return self.clock.times(self.run, count)


def compete(contenders: Sequence[Contender], rounds: int, seconds: float = 0.02) -> Times:
    """Let contenders take turns; return microseconds a unit by name: 10 %, median, 90 %.

    A contender that fails is named and left out.
    """
    failed: dict[str, str] = {}

    def note(name: str, error: Exception) -> None:
        traceback.print_exception(error)
        failed[name] = f"{type(error).__name__}: {error}"[:500]

    times = {c.name: c.times for c in contenders}
    found = take_turns(times, rounds, seconds, most=MOST_CALLS, failed=note)
    result: Times = {}
    for c in contenders:
        about: dict[str, Any] = {"exact": c.exact} | ({"note": c.note} if c.note else {})
        if c.name in failed or not found[c.name]:
            result[c.name] = about | {"failed": failed.get(c.name, "not timed")}
        else:
            spread = np.percentile(found[c.name], (10, 50, 90)) / c.units * 1e6
            named = dict(zip(("p10", "us", "p90"), map(float, spread), strict=True))
            result[c.name] = about | named | {"samples": len(found[c.name])}
    return result


def best(
    times: Times, start: str, exact: bool | None = None
) -> tuple[str, float] | tuple[None, None]:
    """Return name and microseconds of the fastest whose name begins so; (None, None) if none."""
    found = {
        name: value["us"]
        for name, value in times.items()
        if name.startswith(start) and "us" in value and exact in (None, value["exact"])
    }
    name = min(found, key=lambda n: found[n], default=None)
    return (None, None) if name is None else (name, found[name])


def ratio(a: float | None, b: float | None) -> float | None:
    """Return a/b, or None where one is missing."""
    return None if a is None or b is None else a / b
