"""Ctrl-C and SIGTERM: a run ends at its next step, saved."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A run was asked to end and has saved its state.

    Attributes
    ----------
    signal : int
        SIGINT or SIGTERM.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal = signal_number


class StopRequest:
    """Within this context Ctrl-C and SIGTERM are noted; a second one ends the program at once.

    Outside the main thread, where Python delivers no signals, it does nothing.

    Attributes
    ----------
    signal : int or None
        The signal that came.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    def check(self, position: str, folder: Path) -> None:
        """Raise `Interrupted` if a signal came; the state must have been saved."""
        if self.signal is not None:
            raise Interrupted(
                f"interrupted {position}; saved in {folder}; "
                f"continue with: igc-ref train --resume {folder}",
                self.signal,
            )
