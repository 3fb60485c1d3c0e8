"""Clocks: the host's own, and one made of events on the stream of a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

Run = Callable[[], object]


class Clock(Protocol):
    """Times what a library does."""

    def times(self, run: Run, count: int) -> list[float]:
        """Call `run` `count` times; return the seconds of each call."""

    def wait(self) -> None:
        """Wait until nothing is queued any more."""


class WallClock:
    """For work that is done when the call returns."""

    def times(self, run: Run, count: int) -> list[float]:
        """See `Clock`."""
        marks = [time.perf_counter()]
        for _ in range(count):
            run()
            marks.append(time.perf_counter())
        return [after - before for before, after in pairwise(marks)]

    def wait(self) -> None:
        """See `Clock`."""


class EventClock:
    """For work that a call only queues.

    Parameters
    ----------
    event : callable
        Makes an event, with ``record()`` and ``synchronize()``.
    elapsed : callable
        Returns the milliseconds from one event to another.
    wait : callable
        Waits for the device.

    Examples
    --------
    On CuPy's current stream::

        EventClock(cupy.cuda.Event, cupy.cuda.get_elapsed_time, cupy.cuda.Device().synchronize)
    """

    def __init__(
        self,
        event: Callable[[], Any],
        elapsed: Callable[[Any, Any], float],
        wait: Callable[[], object],
    ) -> None:
        self.event, self.elapsed, self._wait = event, elapsed, wait

    def times(self, run: Run, count: int) -> list[float]:
        """See `Clock`."""
        events = [self.event() for _ in range(count + 1)]
        events[0].record()
        for event in events[1:]:
            run()
            event.record()
        events[-1].synchronize()
        return [self.elapsed(before, after) / 1e3 for before, after in pairwise(events)]

    def wait(self) -> None:
        """See `Clock`."""
        self._wait()
