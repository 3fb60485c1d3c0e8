"""How a batch comes into the cupy backend, goes out, and is read while something is pending."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.backends.cupy.device import Device
from igc_ref.backends.cupy.kernels import Kernels, f32, i64
from igc_ref.backends.operators.lazy import NO_FLOOR, Batch, LazyBackend, Rule
from igc_ref.backends.operators.library import STORAGES, Array
from igc_ref.errors import BackendError, choice

THREADS = 256  # of every kernel but those of the block: a guess
WAITING_BYTES = 32 << 20  # of shares of weight gradients that wait to be added up: a guess
NO_SUMS = "max_pool", "max_pool_backward"  # of the generic operators: each image by itself
MOST = 2**31 - 2**18  # numbers that a 32-bit index reaches, and a step of the widest grid beyond
LOSS_SCALE = 4096.0  # of gradients stored as float16: they would be too small for it; a guess
# A weight gradient to be, its shares (CUDA blocks, weights), and how many of them a unit has.
Waiting = tuple[Array, Array, int]


class CudaBase(LazyBackend):
    """A device, its kernels, and a batch in both layouts.

    Parameters
    ----------
    device : Device
    storage : {"float32", "float16"}
        How a batch of a float32 network lies in memory. With float16, kernels still compute and
        add up in float32, weights stay float32, and gradients of a batch are kept 4096 times
        larger.
    """

    tile_bytes = 1 << 30  # generic operators on a GPU want long rows: a guess
    unit = 16  # images; those of a CUDA block, 1, 2, 4 or 8 (tiles.py), divide it. A guess

    def __init__(self, device: Device, storage: str = "float32") -> None:
        super().__init__()
        choice("storage", storage, STORAGES)
        self.device, self.storage = device, storage
        self.xp, self.half = device.xp, storage == "float16"
        self.scale = LOSS_SCALE if self.half else 1.0
        self.kernels = Kernels(device)
        self._identities: dict[int, Array] = {}
        self._deferring = False
        self._shares: list[Waiting] = []  # not added up yet
        self._waiting_bytes = 0

    def __reduce__(self) -> Any:
        return type(self), (self.storage,)  # a copy has a stream and kernels of its own

    def launch(
        self, file: str, name: str, grid: tuple[int, ...], *arguments: Any, threads: int = THREADS
    ) -> None:
        """Launch a kernel that has no macros but the storage's."""
        macros = {"HALF": int(self.half)}
        self.kernels.launch(file, name, grid, threads, arguments, macros)

    def _bring(self, array: Array, dtype: npt.DTypeLike | None) -> Array:
        """Copy an array to the device, or within it."""
        if not isinstance(array, np.ndarray):
            return self.xp.array(array, dtype=dtype, order="C")
        return self.device.upload(np.array(array, dtype=dtype, order="C"))

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        """Copy an array to the host: the only way out."""
        self.check("array", array)
        return self.device.download(array)

    def to_layout(self, images: Array) -> Batch:
        """Turn public images (N, C, H, W) into the layout inside, (C, N, H, W)."""
        return self.to_batch(super().to_layout(images))

    def from_layout(self, x: Batch, gradient: bool = False) -> Array:
        """Turn the layout inside back into public images (N, C, H, W)."""
        y = self.xp.array(self.to_array(x).swapaxes(0, 1), order="C")
        if gradient and self.half:
            y /= y.dtype.type(self.scale)
        return y

    # -- for operators with kernels --------------------------------------------------------------

    def _fast(self, x: Batch) -> bool:
        """Return whether the kernels can work on this: a batch of float32, and not too large."""
        return x.dtype == np.float32 and self._fits(x.shape)

    def _fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether kernels can count the numbers of a channel, and the channels."""
        return min(shape) > 0 and math.prod(shape[1:]) < MOST and shape[0] < 2**16

    def _empty(self, shape: tuple[int, int, int, int]) -> Batch:
        return Batch(self.xp.empty(shape, self.storage))

    def _numbers(self, *shape: int) -> Array:
        return self.xp.empty(shape, "float32")

    @cached_property
    def _one(self) -> Array:
        """One number that no kernel reads: stands where an array is not needed."""
        return self._constant(np.ones(8, "float32"))

    def _identity(self, channels: int) -> Array:
        """Return the table of the rule that reads the numbers as they are."""
        if channels not in self._identities:
            rows = np.tile(np.array([1, 0, 0, 1], "float32"), (channels, 1))
            self._identities[channels] = self._constant(rows)
        return self._identities[channels]

    def _constant(self, values: npt.NDArray[Any]) -> Array:
        """Return what stays on the device: not in the memory of a graph, which is given back.

        While a graph is captured, the values are brought there as soon as that is done.
        """
        array = self.device.lasting(values.shape, str(values.dtype))
        if (pending := self.device.after_capture) is None:
            self.device.overwrite(array, values)
        else:
            pending.append((array, values))
        return array

    def _by_rule(self, x: Batch) -> tuple[Batch, Rule]:
        """Return a batch and how to read it: by its own rule, or as it is."""
        if isinstance(x.pending, Rule):
            return x, x.pending
        x = self._plain(x)
        return x, Rule(self._identity(x.shape[0]), NO_FLOOR)

    def _plain(self, x: Batch) -> Batch:
        """Apply what is pending."""
        if x.pending is None:
            return x
        y, (C, N, H, W) = self._empty(x.shape), x.shape
        table, floor, *normalised = x.pending
        name = "apply_derivative" if normalised else "apply_rule"
        arguments = (y.data, x.data, *normalised, table, f32(floor), i64(N * H * W))
        self.launch("normalise.cu", name, self._grid(N * H * W, C), *arguments)
        return y

    def _grid(self, length: int, channels: int) -> tuple[int, int]:
        """Return a grid for a kernel that goes through rows of numbers: four a thread, a guess."""
        return max(1, min(1024, -(-length // (4 * THREADS)))), channels

    # -- sums of weight gradients, and tables of addresses ---------------------------------------

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Return the context of a training step, which adds up the weight gradients of all layers.

        Every CUDA block writes its share of a weight gradient. Here the shares wait, and one kernel
        adds up those of many layers: at the optimiser's step, at the end of the context, or when
        they take `WAITING_BYTES`. So no weight gradient can be read before one of the first two.
        """
        self._deferring = True
        try:
            yield
            self._add_up()
        finally:
            self._deferring, self._shares, self._waiting_bytes = False, [], 0

    def _total(self, shares: Array, N: int, images: int) -> Array:
        """Return what will hold the sums of `shares` (CUDA blocks, weights) of N, `images` each."""
        total = self._numbers(shares.shape[1])
        self._shares.append((total, shares, self.unit // images))
        # All ranks have to gather at the same time: the whole batch decides.
        self._waiting_bytes += self.in_all(N) // images * total.nbytes
        if not self._deferring or self._waiting_bytes > WAITING_BYTES:
            self._add_up()
        return total

    def _add_up(self) -> None:
        """Add up the shares of all weight gradients that wait: in each unit, then over the units.

        Alone, one kernel does both. Ranks gather in between, 4 bytes a weight and unit; all shares
        would be 4 bytes a weight and CUDA block, 2 to 16 times as many.
        """
        waiting, self._shares, self._waiting_bytes = self._shares, [], 0
        if self.communicator is not None and waiting:
            edges = [0, *accumulate(total.size for total, *_ in waiting)]
            columns = [slice(*pair) for pair in pairwise(edges)]
            of_each = list(zip(columns, waiting, strict=True))
            sums = self._numbers(math.ceil(len(waiting[0][1]) / waiting[0][2]), edges[-1])
            self._launch_add_up([
                (row[column], shares[unit * each :][:each], each)
                for unit, row in enumerate(sums) for column, (_, shares, each) in of_each
            ], 1.0)  # fmt: skip
            every = self.gathered(sums, self.unit)
            waiting = [(total, every[:, column], 1) for column, (total, *_) in of_each]
        self._launch_add_up(waiting, 1 / self.scale)

    def _launch_add_up(self, waiting: list[Waiting], unscale: float) -> None:
        if waiting:
            address = self.device.address
            table = self._table([
                (address(total), address(shares), *shares.shape, each, shares.strides[0] // 4)
                for total, shares, each in waiting
            ])  # fmt: skip
            grid = math.ceil(max(total.size for total, *_ in waiting) / 32), len(waiting)
            self.launch("learning.cu", "add_up", grid, table, f32(unscale))

    def _table(self, rows: Sequence[tuple[int, ...]]) -> Array:
        """Return addresses and sizes in device memory."""
        return self._constant(np.array(rows, np.int64))

    # -- for the generic operators ---------------------------------------------------------------

    def to_array(self, x: Batch) -> Array:
        """Return a batch as an array on which the generic operators work."""
        self.check_batch("x", x)
        data = self._plain(x).data
        return data.astype(x.dtype) if data.dtype != x.dtype else data

    def to_batch(self, array: Array) -> Batch:
        """Return an array of a generic operator as a batch."""
        if array.dtype == np.float32 and self.half:
            return Batch(array.astype("float16"))
        return Batch(self.xp.ascontiguousarray(array))

    def weight_gradient(self, array: Array) -> Array:
        """Undo the scale of gradients that are stored as float16."""
        return array / array.dtype.type(self.scale) if self.half else array

    def note_generic(self, operator: str, what: str) -> None:
        """Note that an operator of the library runs; a CUDA graph can hold our kernels only."""
        if self.communicator is not None and operator not in NO_SUMS:
            raise BackendError(f"{what}; ranks share a batch among kernels only")
        super().note_generic(operator, what)
        if self.device.capturing:
            raise BackendError(what)
