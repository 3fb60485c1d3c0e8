"""Contenders take turns; each is timed by events of its own library on the stream it works on."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

ROUNDS = 5
L2_BYTES = 60e6  # of an H200: inputs rotate through four times as much
MOST_SETS = 24


class Clock(Protocol):
    """Times what a library queues."""

    def times(self, run: Callable[[], object], count: int) -> list[float]:
        """Run so many times, and return the seconds of each."""

    def wait(self) -> None:
        """Wait until everything queued has run."""


class HostClock:
    """For work that is done when the call returns."""

    def times(self, run: Callable[[], object], count: int) -> list[float]:
        """See `Clock`."""
        found = []
        for _ in range(count):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
        return found

    def wait(self) -> None:
        """See `Clock`."""


class CupyClock:
    """CUDA events on CuPy's current stream: use it inside the backend's ``session()``."""

    def times(self, run: Callable[[], object], count: int) -> list[float]:
        """See `Clock`."""
        import cupy

        events = [cupy.cuda.Event() for _ in range(count + 1)]
        events[0].record()
        for event in events[1:]:
            run()
            event.record()
        events[-1].synchronize()
        return [cupy.cuda.get_elapsed_time(*pair) / 1e3 for pair in pairwise(events)]

    def wait(self) -> None:
        """See `Clock`."""
        import cupy

        cupy.cuda.Device().synchronize()


class TorchClock:
    """CUDA events on PyTorch's current stream."""

    def times(self, run: Callable[[], object], count: int) -> list[float]:
        """See `Clock`."""
        import torch

        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        events[0].record()
        for event in events[1:]:
            run()
            event.record()
        events[-1].synchronize()
        return [a.elapsed_time(b) / 1e3 for a, b in pairwise(events)]

    def wait(self) -> None:
        """See `Clock`."""
        import torch

        torch.cuda.synchronize()


@dataclass
class Contender:
    """Somebody who computes a case.

    Parameters
    ----------
    name : str
    run : callable
        Queues the work ``units`` times.
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


def sets_for(numbers: int, itemsize: int = 4, tiny: bool = False) -> int:
    """Return through how many sets of so many numbers inputs must rotate to miss the L2."""
    return 2 if tiny else int(np.clip(np.ceil(4 * L2_BYTES / (numbers * itemsize)), 2, MOST_SETS))


def compete(
    contenders: Sequence[Contender], rounds: int = ROUNDS, seconds: float = 0.02
) -> dict[str, dict[str, Any]]:
    """Let contenders take turns of so many seconds; return microseconds a unit by name.

    Every turn begins with a run that is not timed. One that fails is named and left out.
    """
    counts: dict[str, int] = {}
    found: dict[str, list[float]] = {c.name: [] for c in contenders}
    failed: dict[str, str] = {}
    for turn in range(rounds + 1):  # the first one warms up and counts
        order = contenders if turn % 2 else list(reversed(contenders))
        for c in order:
            if c.name in failed:
                continue
            try:
                c.clock.wait()
                c.run()
                times = c.clock.times(c.run, counts.get(c.name, 1))
            except Exception as error:
                traceback.print_exc()
                failed[c.name] = f"{type(error).__name__}: {error}"[:500]
                continue
            if turn:
                found[c.name] += [t / c.units for t in times]
            else:
                counts[c.name] = int(np.clip(seconds / max(times[0], 1e-6), 2, 200))
    return {c.name: _spread(c, found[c.name], failed.get(c.name)) for c in contenders}


def _spread(c: Contender, seconds: list[float], failed: str | None) -> dict[str, Any]:
    about: dict[str, Any] = {"exact": c.exact} | ({"note": c.note} if c.note else {})
    if failed or not seconds:
        return about | {"failed": failed or "not timed"}
    p10, median, p90 = (float(q) * 1e6 for q in np.percentile(seconds, (10, 50, 90)))
    return about | {"us": median, "p10": p10, "p90": p90, "samples": len(seconds)}


def best(
    found: dict[str, dict[str, Any]], start: str, exact: bool | None = None
) -> tuple[str, float] | tuple[None, None]:
    """Return name and microseconds of the fastest whose name begins so; (None, None) if none."""
    times = {
        name: value["us"]
        for name, value in found.items()
        if name.startswith(start) and "us" in value and exact in (None, value["exact"])
    }
    if not times:
        return None, None
    name = min(times, key=lambda n: times[n])
    return name, times[name]


def only(found: dict[str, dict[str, Any]], name: str) -> float | None:
    """Return the microseconds of one contender, or None."""
    value: float | None = found.get(name, {}).get("us")
    return value


def ratio(a: float | None, b: float | None) -> float | None:
    """Return a/b, or None where one is missing."""
    return None if a is None or b is None else a / b
