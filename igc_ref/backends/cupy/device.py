"""What the CUDA operators ask of an array library; `backend.py` answers for CuPy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, Protocol

import numpy.typing as npt

from igc_ref.backends.operators.library import Array


class Device(Protocol):
    """One card and the library that drives it."""

    xp: ModuleType  # the library of the arrays
    shared_bytes: int  # shared memory that one CUDA block can have
    capturing: bool  # whether kernels are noted for a graph, not run
    # Meanwhile, what is to be written into arrays of the device once the graph is there.
    after_capture: list[tuple[Array, npt.NDArray[Any]]] | None

    def module(self, code: str, options: tuple[str, ...]) -> Any:
        """Compile a source; the result has ``get_function``, as a ``cupy.RawModule``."""

    def upload(self, array: npt.NDArray[Any]) -> Array:
        """Copy an array to the device."""

    def overwrite(self, array: Array, values: npt.NDArray[Any]) -> None:
        """Copy numbers into an array of the device."""

    def download(self, array: Array) -> npt.NDArray[Any]:
        """Copy an array to the host."""

    def address(self, array: Array) -> int:
        """Return where an array lies in device memory."""

    def session(self) -> AbstractContextManager[None]:
        """Return the context in which all work of a training is queued, in order."""

    def memory(self) -> Callable[[], AbstractContextManager[None]]:
        """Set memory aside for one graph; the result makes contexts whose arrays lie there.

        A graph keeps the addresses that were given out while it was captured. As long as nothing
        else takes arrays from its memory, these stay its own.
        """

    def lasting(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return memory that no captured kernel writes unless it is told to.

        Within a graph `xp.empty` may give memory of arrays that the same step has let go already:
        every replay overwrites it. What is written once, after the capture, must not lie there.
        """

    def capture(self, f: Callable[[], None]) -> Callable[[], None]:
        """Note every kernel that `f` launches, without running any; return what runs them all."""
