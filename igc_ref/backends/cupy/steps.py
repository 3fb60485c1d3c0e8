"""Whole training steps as one CUDA graph: the host only says "again".

What changes from step to step lies in device memory: the data set, the epoch's order and
augmentation, the learning rates, the number of the step, the losses. The first two steps of a batch
size run kernel by kernel, which compiles them and fills the memory that the graph will use; the
third is captured, and from then on replayed. Replayed or not, the same kernels run in the same
order: the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.backends.cupy.base import MOST, THREADS
from igc_ref.backends.cupy.kernels import i32
from igc_ref.backends.cupy.loss_and_sgd import Rates
from igc_ref.backends.cupy.operators import CudaOperators
from igc_ref.backends.cupy.packing import Row
from igc_ref.backends.operators.checks import within
from igc_ref.backends.operators.lazy import Batch
from igc_ref.backends.operators.library import Array, Sampling, TrainingData
from igc_ref.errors import integer
from igc_ref.report import Report

WARM_UP = 2  # steps kernel by kernel before one is captured

Learn = Callable[[Batch, Array, Rates], tuple[Array, Array]]


class CapturedSteps:
    """Runs epochs of training steps.

    Parameters
    ----------
    backend : CudaOperators
    learn, pool, batch_size, padding, report
        See `GenericBackend.steps`. `learn` gets `Rates`, and may launch our kernels only.
    capture : bool
        Whether to replay steps as a CUDA graph. A network that needs a generic operator cannot be
        captured; then that is reported, and its steps run kernel by kernel.
    """

    def __init__(
        self,
        backend: CudaOperators,
        learn: Learn,
        pool: TrainingData,
        batch_size: int,
        padding: int,
        *,
        capture: bool = True,
        report: Report,
    ) -> None:
        # Graphs come first, so that they are dropped before the memory whose addresses they hold,
        # and before NCCL's communicator, which waits for that.
        self._graphs: dict[int, Callable[[], None]] = {}
        self.backend, self.learn, self.capture, self.report = backend, learn, capture, report
        self.batch_size, self.padding, self.size = batch_size, padding, len(pool.labels)
        upload = backend.device.upload
        self.images = upload(np.ascontiguousarray(pool.images))
        self.labels = upload(np.ascontiguousarray(pool.labels, dtype=np.int64))
        scale = 1 / np.asarray(pool.std, "float32")
        self.lines = upload(scale), upload(np.asarray(pool.mean, "float32") * scale)
        batch = min(batch_size, self.size) * math.prod(pool.images.shape[1:])
        integer("numbers in a batch", batch, maximum=MOST)
        integer("2 * padding", 2 * padding, 0, 127)  # corners are stored in 8 bits
        steps = math.ceil(self.size / batch_size)
        # Overwritten for every epoch, in place: their addresses are in the graph.
        self.draws = [
            upload(np.zeros(self.size, dtype)) for dtype in ("int32", "int8", "int8", "uint8")
        ]
        self.rates = Rates(upload(np.zeros(steps, "float32")), upload(np.zeros(1, "int32")))
        self.losses = upload(np.zeros(steps, "float32"))
        self.correct = upload(np.zeros(steps, "int32"))
        self._weights: dict[Row, list[Array]] = {}  # to pack at the start of a step
        self._seen: dict[int, int] = {}
        self._memory: dict[int, Callable[[], AbstractContextManager[None]]] = {}

    def epoch(
        self,
        sampling: Sampling,
        rates: npt.NDArray[np.float64],
        first: int = 0,
        pauses: Callable[[int], bool] = lambda done: False,  # noqa: ARG005
    ) -> Iterator[tuple[float, int]]:
        """Take the steps of one epoch; see `EpochRunner`. Losses are fetched at pauses only."""
        self.begin(sampling, rates, first)
        fetched = first
        for step in range(first, len(rates)):
            self.run_one(min(self.batch_size, self.size - step * self.batch_size))
            if pauses(step + 1) or step + 1 == len(rates):
                losses, correct = map(self.backend.device.download, (self.losses, self.correct))
                for done in range(fetched, step + 1):
                    yield float(losses[done]), int(correct[done])
                fetched = step + 1

    @property
    def captured(self) -> set[int]:
        """The batch sizes whose steps are replays of a graph."""
        return set(self._graphs)

    def begin(self, sampling: Sampling, rates: npt.NDArray[np.float64], first: int = 0) -> None:
        """Bring the random numbers and learning rates of an epoch to the device."""
        overwrite, N = self.backend.device.overwrite, self.size
        integer("first", first, 0, len(rates))
        within("order", sampling.order, N - 1)
        for name, corner in zip(("top", "left"), sampling.crops or (), strict=False):
            within(name, corner, 2 * self.padding)
        still = np.full(N, self.padding)  # the window in the middle, as without augmentation
        crops = sampling.crops or (still, still, np.zeros(N))
        for array, values in zip(self.draws, (sampling.order, *crops), strict=True):
            overwrite(array, np.asarray(values).astype(array.dtype))
        overwrite(self.rates.values, rates.astype("float32"))
        overwrite(self.rates.counter, np.full(1, first, "int32"))

    def run_one(self, count: int) -> None:
        """Queue the next step of the epoch that `begin` began, on a batch of `count` images.

        Nothing waits for the device, and no loss is fetched.
        """
        if count in self._graphs:
            return self._graphs[count]()
        device = self.backend.device
        if count not in self._seen:
            self._seen[count], self._memory[count] = 0, device.memory()
        with self._memory[count]():
            if not self.capture or self._seen[count] < WARM_UP:
                return self._try(count)
            self._graphs[count] = device.capture(lambda: self._launch(count))
        return self._graphs[count]()

    def _try(self, count: int) -> None:
        """Take a step kernel by kernel, and see whether it can be captured."""
        self._seen[count] += 1
        self.backend.generic = ""
        self._launch(count)
        if self.capture and self.backend.generic:
            self.capture = False
            self.report(f"steps are not captured as a CUDA graph: {self.backend.generic}")

    def _launch(self, count: int) -> None:
        """Queue every kernel of a step on this process's images of a batch of `count`."""
        backend, counter = self.backend, self.rates.counter
        _, C, H, W = self.images.shape
        mine = range(count)[backend.share(count)]
        x = backend._empty((C, len(mine), H, W))
        labels = backend.xp.empty(count, "int64")
        numbers: Any = map(i32, (count, mine.start, len(mine), C, H, W, self.padding))
        backend.launch(
            "augment.cu", "take_batch", (math.ceil(max(count, math.prod(x.shape)) / THREADS),),
            x.data, labels, self.images, self.labels, *self.draws, counter, i32(self.batch_size),
            *self.lines, *numbers,
        )  # fmt: skip
        with backend.packed_ahead(self._weights), backend.deferred():
            loss, correct = self.learn(x, labels, self.rates)
        arguments = (self.losses, self.correct, counter, loss, correct)
        backend.launch("learning.cu", "finish_step", (1,), *arguments, threads=1)
