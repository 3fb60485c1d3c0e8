"""The cupy backend without a card: its operators and kernels on NumPy arrays and the emulator."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from igc_ref.backends.cupy.operators import CudaOperators
from igc_ref.backends.cupy.steps import CapturedSteps
from tests.backends.cuda.emulator import DYNAMIC_LIMIT, RawModule

__all__ = ["EmulatedBackend", "EmulatedDevice"]


class EmulatedDevice:
    """What `CupyDevice` is, with NumPy for CuPy. It counts what crosses the border.

    Attributes
    ----------
    launches : list of str
        Names of the kernels that ran, in order.
    crossings : list of str
        Copies between host and device, in order.
    graphs : int
        Captured so far.
    """

    shared_bytes = DYNAMIC_LIMIT

    def __init__(self) -> None:
        self.xp: Any = _Numpy(self)
        self.capturing = False
        self.after_capture: list[Any] | None = None
        self.launches: list[str] = []
        self.crossings: list[str] = []
        self.graphs = 0
        self.reused: list[np.ndarray] = []
        self._graph: list[Callable[[], None]] = []

    def module(self, code: str, options: tuple[str, ...]) -> Any:
        return _Module(self, RawModule(code=code, options=options))

    def upload(self, array: np.ndarray) -> np.ndarray:
        self.crossings.append("upload")
        assert not self.capturing, "an upload inside a graph"
        return np.array(array, order="C")

    def overwrite(self, array: np.ndarray, values: np.ndarray) -> None:
        self.crossings.append("overwrite")
        assert not self.capturing, "an overwrite inside a graph"
        assert array.dtype == values.dtype
        array[...] = values

    def download(self, array: np.ndarray) -> np.ndarray:
        self.crossings.append("download")
        assert not self.capturing, "a download inside a graph"
        return np.array(array)

    def address(self, array: np.ndarray) -> int:
        return array.ctypes.data

    @contextmanager
    def session(self) -> Iterator[None]:
        yield

    def memory(self) -> Callable[[], AbstractContextManager[None]]:
        return nullcontext

    def lasting(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return np.empty(shape, dtype)

    def queue(self, launch: Callable[[], None]) -> None:
        """Run something at once, or note it while a graph is captured."""
        if self.capturing:
            self._graph.append(launch)
        else:
            launch()

    def capture(self, f: Callable[[], None]) -> Callable[[], None]:
        """Note the launches of `f`; as with a CUDA graph, nothing runs and addresses are kept."""
        self.capturing, self.after_capture = True, []
        self._graph, self.reused = [], []
        try:
            f()
            self.capturing = False
            for array, values in self.after_capture:
                self.overwrite(array, values)
            graph, reused = self._graph, self.reused
        finally:
            self.capturing, self.after_capture = False, None
        self.graphs += 1

        def replay() -> None:
            for array in reused:  # a pool lends it to others between two uses
                array.fill(np.nan if array.dtype.kind == "f" else 0)
            for launch in graph:
                launch()

        return replay


IN_A_GRAPH = {"empty", "empty_like", "ascontiguousarray", "ndarray", "float32"}  # launch nothing


class _Numpy:
    """NumPy, but a graph's own memory is noted: nothing in it survives from replay to replay.

    While a graph is captured, only functions that launch no kernel of the library can be had.
    """

    def __init__(self, device: EmulatedDevice) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Any:
        assert not self._device.capturing or name in IN_A_GRAPH, f"xp.{name} inside a graph"
        return getattr(np, name)

    def empty(self, *arguments: Any) -> np.ndarray:
        return self._noted(np.empty(*arguments))

    def empty_like(self, *arguments: Any) -> np.ndarray:
        return self._noted(np.empty_like(*arguments))

    def _noted(self, array: np.ndarray) -> np.ndarray:
        if self._device.capturing:
            self._device.reused.append(array)
        return array


class _Module:
    def __init__(self, device: EmulatedDevice, module: RawModule) -> None:
        self.device, self.module = device, module

    def get_function(self, name: str) -> Any:
        return _Function(self.device, name, self.module.get_function(name))


class _Function:
    """A kernel that runs at once, or is noted while a graph is captured."""

    def __init__(self, device: EmulatedDevice, name: str, kernel: Any) -> None:
        self.__dict__.update(device=device, name=name, kernel=kernel)

    def __setattr__(self, name: str, value: int) -> None:
        setattr(self.kernel, name, value)

    def __call__(self, *arguments: Any, **options: Any) -> None:
        def launch() -> None:
            self.device.launches.append(self.name)
            self.kernel(*arguments, **options)

        self.device.queue(launch)


class EmulatedRank:
    """What `NcclRank` is: its gathers are queued, so that a graph has them, and repeats them."""

    def __init__(self, communicator: Any, device: EmulatedDevice) -> None:
        self.gather, self.device = communicator.allgather, device
        self.rank, self.size = communicator.rank, communicator.size

    def allgather(self, rows: np.ndarray, counts: list[int]) -> np.ndarray:
        assert rows.dtype == np.float32
        every = self.device.xp.empty((sum(counts), *rows.shape[1:]), "float32")
        self.device.queue(lambda: np.copyto(every, self.gather(rows, counts)))
        return every


class EmulatedBackend(CudaOperators):
    """`CupyBackend` with an `EmulatedDevice`."""

    name = "emulated"

    def __init__(self, storage: str = "float32", *, capture: bool = True) -> None:
        super().__init__(EmulatedDevice(), storage)
        self.capture = capture

    def join(self, communicator: Any) -> None:
        super().join(EmulatedRank(communicator, self.device))

    def steps(self, learn, pool, batch_size, padding, report):
        return CapturedSteps(
            self, learn, pool, batch_size, padding, capture=self.capture, report=report
        )
