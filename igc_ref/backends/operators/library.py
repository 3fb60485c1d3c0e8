"""What every family of operators relies on: the library `xp` and the size of its scratch memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


def kind_of(value: object) -> str:
    """Return the full name of a value's type, for a message."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


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
STORAGES = ("float32", "float16")  # in which the cupy backend can keep pictures
Array = Any  # an array of the backend's library; pictures inside are what its `load` returns
Saved = Any  # what a backward pass needs: opaque to whoever carries it there


class Pool(NamedTuple):
    """What batches are drawn from: bytes (n, C, H, W), labels (n,), statistics in 0..255."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    mean: Sequence[float]
    std: Sequence[float]


class Windows(NamedTuple):
    """How pictures are augmented: see `PictureOperators.pad_crop_mirror`; each has shape (n,)."""

    top: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]
    mirror: npt.NDArray[np.bool_]


class Draws(NamedTuple):
    """The chances of one epoch: which picture is taken when, and how it is augmented, if it is."""

    order: npt.NDArray[np.int64]
    windows: Windows | None

    def fingerprint(self) -> str:
        """Return a short hash: another NumPy may draw other numbers from the same seed."""
        digest = hashlib.blake2b(digest_size=16)
        for numbers in (self.order, *(self.windows or ())):
            digest.update(np.ascontiguousarray(numbers, dtype="<i8").tobytes())
        return digest.hexdigest()


class Steps(Protocol):
    """Epochs of training steps that a backend runs by itself."""

    def epoch(
        self,
        draws: Draws,
        rates: npt.NDArray[np.float64],
        first: int = 0,
        pauses: Callable[[int], bool] = lambda done: False,  # noqa: ARG005
    ) -> Iterator[tuple[float, int]]:
        """Take a step for each learning rate from number `first` on.

        Yields loss and right answers of each. After `done` steps for which ``pauses(done)`` is
        true, and after the last, nothing runs ahead: when their results are yielded, the weights
        are those of so many steps.
        """
