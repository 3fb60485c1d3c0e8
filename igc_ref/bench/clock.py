"""Clocks: the host's own, and one made of events on the stream of a device."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


class Clock(ABC):
    """Times what a library does: marks points in time, and tells the seconds between two marks."""

    @abstractmethod
    def mark(self) -> Any:
        """Mark this point in the order of the work."""

    @abstractmethod
    def seconds(self, start: Any, stop: Any) -> float:
        """Return the seconds from one mark to another, once that is reached."""

    @abstractmethod
    def wait(self) -> object:
        """Wait until nothing is queued any more."""

    def times(self, run: Callable[[], object], count: int) -> list[float]:
        """Call `run` `count` times; return the seconds of each call.

        >>> seconds = WallClock().times(lambda: sum(range(1000)), count=3)
        >>> len(seconds), min(seconds) > 0
        (3, True)
        """
        marks = [self.mark()]
        for _ in range(count):
            run()
            marks.append(self.mark())
        return [self.seconds(*pair) for pair in pairwise(marks)]


class WallClock(Clock):
    """For work that is done when the call returns."""

    def mark(self) -> float:
        """See `Clock`."""
        return time.perf_counter()

    def seconds(self, start: float, stop: float) -> float:
        """See `Clock`."""
        return stop - start

    def wait(self) -> None:
        """See `Clock`."""


@dataclass(frozen=True)
class EventClock(Clock):
    """For work that a call only queues.

    Parameters
    ----------
    event : callable
        Makes an event, with ``record()`` and ``synchronize()``: ``cupy.cuda.Event``.
    elapsed : callable
        Returns milliseconds from one event to another: ``cupy.cuda.get_elapsed_time``.
    wait_for_device : callable
        ``cupy.cuda.Device().synchronize``.
    """

    event: Callable[[], Any]
    elapsed: Callable[[Any, Any], float]
    wait_for_device: Callable[[], object]

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
