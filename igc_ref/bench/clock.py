"""Clocks: the host's own, and one made of events on the stream of a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


class Clock:
    """The host's clock, for work that is done when the call returns."""

    def mark(self) -> Any:
        """Mark this point in the order of the work."""
        return time.perf_counter()

    def seconds(self, start: Any, stop: Any) -> float:
        """Return the seconds from one mark to another, once that is reached."""
        return float(stop - start)

    def wait(self) -> object:
        """Wait until nothing is queued any more."""
        return None

    def times(self, run: Callable[[], object], count: int) -> list[float]:
        """Call `run` `count` times; return the seconds of each call.

        >>> seconds = Clock().times(lambda: sum(range(1000)), count=3)
        >>> len(seconds), min(seconds) > 0
        (3, True)
        """
        marks = [self.mark()]
        for _ in range(count):
            run()
            marks.append(self.mark())
        return [self.seconds(*pair) for pair in pairwise(marks)]


@dataclass(frozen=True)
class EventClock(Clock):
    """A clock for work that a call only queues."""

    event: Callable[[], Any]  # makes one that can record() and synchronize(): cupy.cuda.Event
    elapsed: Callable[[Any, Any], float]  # milliseconds: cupy.cuda.get_elapsed_time
    wait_for_device: Callable[[], object]  # cupy.cuda.Device().synchronize

    def mark(self) -> Any:
        """See `Clock`."""
        event = self.event()
        event.record()
        return event

    def seconds(self, start: Any, stop: Any) -> float:
        """See `Clock`."""
        stop.synchronize()
        return self.elapsed(start, stop) / 1e3

    def wait(self) -> object:
        """See `Clock`."""
        return self.wait_for_device()
