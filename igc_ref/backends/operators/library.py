"""What every family of operators relies on: the library `xp` and the size of its scratch memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


class Library:
    """Base of the operator families; `GenericBackend` documents the attributes."""

    xp: ModuleType
    tile_bytes: int

    def tiles(self, count: int, bytes_each: int) -> Iterator[slice]:
        """Cut ``range(count)`` into slices whose items fit into the scratch memory together."""
        size = max(1, self.tile_bytes // max(1, bytes_each))
        for start in range(0, count, size):
            yield slice(start, min(start + size, count))


DTYPES = ("float32", "float64")  # in which networks compute
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")  # of labels and of crops
STORAGES = ("float32", "float16")  # in which the cupy backend can keep a batch
LANES = ("auto", "8", "16")  # float32 numbers in a vector of the numba backend
Array = Any  # an array of the backend's library, or a batch in its layout: see `LazyBackend`
Saved = Any  # what a backward pass needs: opaque to the caller, who only carries it there


class TrainingData(NamedTuple):
    """Where batches come from: bytes (n, C, H, W), labels (n,), channel mean and std in 0..255."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    mean: Sequence[float]
    std: Sequence[float]


class Crops(NamedTuple):
    """Crops of n images, see `AugmentationOperators.pad_crop_mirror`; each array has shape (n,)."""

    top: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]
    mirror: npt.NDArray[np.bool_]


class Sampling(NamedTuple):
    """The random numbers of one epoch: the order of the images, and their augmentation, if any."""

    order: npt.NDArray[np.int64]
    crops: Crops | None

    def fingerprint(self) -> str:
        """Return a short hash: another NumPy may draw other numbers from the same seed."""
        digest = hashlib.blake2b(digest_size=16)
        for numbers in (self.order, *(self.crops or ())):
            digest.update(np.ascontiguousarray(numbers, dtype="<i8").tobytes())
        return digest.hexdigest()


class EpochRunner(Protocol):
    """Runs the training steps of whole epochs on a device."""

    def epoch(
        self,
        sampling: Sampling,
        rates: npt.NDArray[np.float64],
        first: int = 0,
        pauses: Callable[[int], bool] = lambda done: False,  # noqa: ARG005
    ) -> Iterator[tuple[float, int]]:
        """Take one step for each learning rate, beginning with number `first`.

        Yields the loss and the number of correct answers of each step. The device runs ahead of
        the results, but not past a pause: when step `done` is yielded and ``pauses(done)`` is
        true, or it is the last step, the weights are those after exactly `done` steps.
        """
