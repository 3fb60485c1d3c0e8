"""What every family of operators relies on: the library `xp` and the size of its scratch memory."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any


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
Array = Any  # an array of the backend's library; pictures inside are what its `load` returns
Saved = Any  # what a backward pass needs: opaque to whoever carries it there
