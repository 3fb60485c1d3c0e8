"""The energy that the whole board takes, by the counter of NVML, the driver's own library."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

from igc_ref.errors import describe

SECONDS = 1.75  # of a loop: the counter moves every tenth of a second or so
WAIT_EVERY = 0.1  # seconds: a host that runs far ahead would go on after the end


class Board:
    """The first card of this machine."""

    def __init__(self) -> None:
        self.nvml = ctypes.CDLL("libnvidia-ml.so.1")
        self.card = ctypes.c_void_p()
        self._ask("nvmlInit_v2")
        self._ask("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(0), ctypes.byref(self.card))

    def _ask(self, name: str, *arguments: Any) -> None:
        if status := getattr(self.nvml, name)(*arguments):
            raise OSError(f"{name} returns {status}")

    def joules(self) -> float:
        """Return the energy since the driver was loaded."""
        millijoules = ctypes.c_ulonglong()
        total = ctypes.byref(millijoules)
        self._ask("nvmlDeviceGetTotalEnergyConsumption", self.card, total)
        return millijoules.value / 1e3


def of_loop(
    run: Callable[[], object], wait: Callable[[], object], units: int, seconds: float = SECONDS
) -> dict[str, Any]:
    """Run again and again for so many seconds; return joules and microseconds a unit, and watts.

    Where there is no counter, the result says why.
    """
    try:
        board = Board()
    except (OSError, AttributeError) as error:
        return {"unknown": describe(error)}
    wait()
    start = time.perf_counter()
    run()
    wait()
    between = max(1, int(WAIT_EVERY / (time.perf_counter() - start)))
    count, before, start = 0, board.joules(), time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(between):
            run()
        wait()
        count += between * units
    taken, joules = time.perf_counter() - start, board.joules() - before
    return {"J": joules / count, "W": joules / taken, "us": taken / count * 1e6, "units": count}
