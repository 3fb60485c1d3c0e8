"""The contenders of one case, each timed by the clock of its own library."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from igc_ref.bench.clock import Clock
from igc_ref.bench.harness import take_turns
from igc_ref.errors import describe

Each = Callable[[int], object]  # computes on the inputs with this number
Times = dict[str, dict[str, Any]]  # by contender: what `compete` returns
MOST_CALLS = 200  # a turn: an event for each


@dataclass
class Contender:
    """One way to compute a case.

    Parameters
    ----------
    name : str
    prepare : callable
        Compiles and captures; returns what does the work ``units`` times, or queues it, and a note
        for the reader.
    clock : Clock
    units : int
    exact : bool
        Whether multiply-adds are float32's, not TF32's or of 16 bits.
    """

    name: str
    prepare: Callable[[], tuple[Callable[[], object], str]]
    clock: Clock
    units: int = 1
    exact: bool = True

    def times(self, run: Callable[[], object], count: int) -> list[float]:
        """Return the seconds of each of `count` runs, after one that does not count."""
        self.clock.wait()
        run()
        return self.clock.times(run, count)


def compete(
    contenders: Sequence[Contender],
    rounds: int,
    seconds: float = 0.02,
    alive: Callable[[], object] = lambda: None,
) -> Times:
    """Let contenders take turns; return microseconds a unit by name: 10 %, median, 90 %.

    A contender that fails is named and left out. If `alive` raises then, so does this: all others
    would fail for what that one did.
    """
    result: Times = {c.name: {"exact": c.exact} for c in contenders}

    def failed(name: str, error: Exception) -> None:
        traceback.print_exception(error)
        text = result[name]["failed"] = describe(error)
        try:
            alive()
        except Exception as lost:
            raise RuntimeError(f"{name} has lost the device: {text}") from lost

    ready = {}
    for c in contenders:
        try:
            run, note = c.prepare()
        except Exception as error:
            failed(c.name, error)
        else:
            ready[c.name] = partial(c.times, run)
            result[c.name] |= {"note": note} if note else {}
    found = take_turns(ready, rounds, seconds, most=MOST_CALLS, failed=failed)
    for c in contenders:
        if "failed" not in result[c.name]:
            spread = np.percentile(found[c.name], (10, 50, 90)) / c.units * 1e6
            named = dict(zip(("p10", "us", "p90"), map(float, spread), strict=True))
            result[c.name] |= named | {"samples": len(found[c.name])}
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
