"""The GPU backend: our CUDA kernels through CuPy. CuPy is imported here and nowhere else.

Memory comes from CuPy's default pool, which keeps what it was given; the training steps that are
replayed as a CUDA graph have a pool of their own, since the graph holds its addresses. It is given
back to the card with the graph.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import Any

import cupy
import numpy as np
import numpy.typing as npt

from igc_ref.backends.cupy.kernels import Kernels
from igc_ref.backends.cupy.operators import CudaOperators
from igc_ref.backends.cupy.steps import CapturedSteps, Learn
from igc_ref.backends.operators.library import Array, TrainingData
from igc_ref.report import Report

OLDEST_CUPY = (14, 0)
OLDEST_CARD = 75  # compute capability 7.5: what NVRTC 13 still compiles for


class CupyBackend(CudaOperators):
    """Our kernels where they fit, the generic operators on CuPy arrays elsewhere.

    Parameters
    ----------
    storage : {"float32", "float16"}
        See `CudaBase`.
    capture : bool
        Whether training steps are replayed as a CUDA graph.
    """

    name = "cupy"

    def __init__(self, storage: str = "float32", *, capture: bool = True) -> None:
        super().__init__(CupyDevice(), storage)
        self.capture = capture

    def join(self, communicator: Any) -> None:
        """Share every batch with the ranks of a `World`; from now on arrays lie on our own GPU."""
        from igc_ref.backends.cupy.nccl import NcclRank

        super().join(NcclRank(communicator.comm))
        self.device = CupyDevice()  # of the GPU that is the current one now
        self.kernels = Kernels(self.device)

    def session(self) -> Any:
        """Return a context in which all work is queued on one stream."""
        return self.device.session()

    def steps(
        self, learn: Learn, pool: TrainingData, batch_size: int, padding: int, report: Report
    ) -> CapturedSteps:
        """Return what runs whole epochs on the device."""
        report("the first steps compile the kernels; CuPy keeps them in its cache")
        return CapturedSteps(
            self, learn, pool, batch_size, padding, capture=self.capture, report=report
        )


class CupyDevice:
    """The current CUDA device, driven by CuPy."""

    xp = cupy

    def __init__(self) -> None:
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.shared_bytes = cupy.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"]
        self.capturing = False
        self.after_capture: list[tuple[Array, npt.NDArray[Any]]] | None = None

    def module(self, code: str, options: tuple[str, ...]) -> Any:
        """Compile a source for this card."""
        return cupy.RawModule(code=code, options=options)

    def upload(self, array: npt.NDArray[Any]) -> Array:
        """Copy an array to the device."""
        return cupy.asarray(array, order="C")

    def overwrite(self, array: Array, values: npt.NDArray[Any]) -> None:
        """Copy numbers into an array of the device."""
        array.set(np.ascontiguousarray(values, array.dtype))

    def download(self, array: Array) -> npt.NDArray[Any]:
        """Copy an array to the host."""
        return cupy.asnumpy(array)  # type: ignore[no-any-return]

    def address(self, array: Array) -> int:
        """Return where an array lies in device memory."""
        return int(array.data.ptr)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Queue everything on one stream of its own; wait at the end."""
        cupy.cuda.Device().synchronize()
        give_back()
        with self.stream:
            try:
                yield
            finally:
                self.stream.synchronize()

    def memory(self) -> Callable[[], AbstractContextManager[None]]:
        """Set a pool aside for one graph; it is given back when the result is dropped."""
        pool, device = cupy.cuda.MemoryPool(), cupy.cuda.Device()

        def arrays() -> Any:
            return cupy.cuda.using_allocator(pool.malloc)

        weakref.finalize(arrays, give_back, (device, pool)).atexit = False
        return arrays

    def lasting(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Take memory from the default pool, also while a graph is captured."""
        with cupy.cuda.using_allocator(cupy.get_default_memory_pool().malloc):
            return cupy.empty(shape, dtype)

    def capture(self, f: Callable[[], None]) -> Callable[[], None]:
        """Capture what `f` queues as a CUDA graph."""
        stream = cupy.cuda.get_current_stream()
        self.capturing, self.after_capture = True, []
        try:
            with _capture:
                stream.begin_capture()
                try:
                    f()
                finally:
                    graph = stream.end_capture()
            kept = self.after_capture
            for array, values in kept:
                self.overwrite(array, values)
        finally:
            self.capturing, self.after_capture = False, None

        def replay() -> None:
            assert kept is not None  # what the graph reads lives as long as the graph
            graph.launch(cupy.cuda.get_current_stream())

        return replay


_dropped: list[tuple[Any, Any]] = []  # devices and pools of graphs that are gone, not all memory
_capture = Lock()  # held while a graph is captured: no thread may wait for a device then


def give_back(*dropped: tuple[Any, Any]) -> None:
    """Give the memory of dropped graphs back to the card.

    CuPy 14.1 and newer would keep it: what a pool has cached is not freed with the pool. A block in
    which an array is still in use, as a model's last gradients, stays until a later call.
    """
    _dropped.extend(dropped)
    if not _dropped or cupy.cuda.get_current_stream().is_capturing():
        return
    # The garbage collector may call in any thread, where another device is the current one.
    if not _capture.acquire(blocking=False):
        return
    try:
        for device, pool in tuple(_dropped):
            with device:  # a pool answers for what it has on the current one
                device.synchronize()  # a last replay may be under way
                pool.free_all_blocks()
                if not pool.total_bytes():
                    _dropped.remove((device, pool))
    finally:
        _capture.release()


def device_problem() -> str | None:
    """Say why no kernel can run here, or return None if a device answers."""
    version = tuple(int(part) for part in cupy.__version__.split(".")[:2] if part.isdigit())
    if version < OLDEST_CUPY:
        return f"CuPy is {cupy.__version__}; 14.0 or newer is needed"
    # Importing CuPy succeeds without a driver, so only asking the driver tells.
    if not cupy.cuda.is_available():
        return "CuPy finds no CUDA device or driver on this machine"
    card = int(cupy.cuda.Device().compute_capability)
    if card < OLDEST_CARD:
        return f"the card has compute capability {card / 10}; {OLDEST_CARD / 10} is needed"
    return None


def facts() -> dict[str, Callable[[], str]]:
    """Return what to know where something goes wrong; each may fail in a way of its own."""
    return {
        "NVRTC": lambda: "{}.{}".format(*cupy.cuda.nvrtc.getVersion()),
        "CUDA runtime": lambda: _dotted(cupy.cuda.runtime.runtimeGetVersion()),
        "CUDA of driver": lambda: _dotted(cupy.cuda.runtime.driverGetVersion()),
        "GPU": _card,
    }


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}" if version else "no driver"


def _card() -> str:
    device = cupy.cuda.Device()
    name = cupy.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
    free, total = (part / 2**30 for part in device.mem_info)
    capability = int(device.compute_capability) / 10
    return f"{name}, compute capability {capability}, {free:.1f} of {total:.1f} GiB free"
