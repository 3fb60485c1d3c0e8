"""A batch that several processes share, each with the same network.

Every rank (process) holds whole *units* of a batch: as many images as kernels put side by side.
What a kernel sums is a piece that lies within a unit, and pieces are added in the order of the
images of the whole batch, wherever they were computed: one process or many, the same bits. After
global pooling every rank has the features of the whole batch, and computes what follows by itself.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

from igc_ref.backends.operators.library import Array, Library
from igc_ref.errors import BackendError


class Communicator(Protocol):
    """The ranks that share every batch, as in MPI."""

    rank: int
    size: int

    def allgather(self, rows: Array, counts: list[int]) -> Array:
        """Return the rows (axis 0) of all ranks, in their order; rank r has ``counts[r]``."""


class SharedBatches(Library):
    """Who has which images of the present batch; alone, all of them.

    Attributes
    ----------
    communicator : Communicator or None
    unit : int
        Images of a unit; 0 if the backend cannot share a batch.
    whole : int
        Images of the batch that is shared,
    mine : slice
        and those that this process has.
    """

    name: str
    communicator: Communicator | None = None
    unit = 0
    whole = 0
    mine = slice(None)

    def join(self, communicator: Communicator) -> None:
        """Share every batch from now on; a BackendError if this backend cannot."""
        if not self.unit:
            raise BackendError(
                f"the {self.name} backend trains in one process: its sums are not cut into pieces "
                "that several could share; numba's and cupy's are"
            )
        self.communicator = communicator

    def share(self, images: int) -> slice:
        """Begin a batch of this many images; return which of them are this process's."""
        self.whole, self.mine = images, slice(None)
        if self.communicator is not None:
            first, last = self._edges()[self.communicator.rank :][:2]
            # A rank that is left without images computes one all the same, and gives nothing.
            self.mine = slice(first, last) if first < last else slice(1)
        return self.mine

    def in_all(self, images: int) -> int:
        """Return how many images all ranks have together."""
        if self.communicator is None:
            return images
        if images != (mine := len(range(self.whole)[self.mine])):
            text = f"this rank has {mine} images of the batch, not {images}: call `share` first"
            raise BackendError(text)
        return self.whole

    def gathered(self, rows: Array, images: int = 1, pieces: int = 1) -> Array:
        """Return the rows (axis 0) of all ranks: `pieces` of every `images` images."""
        if self.communicator is None:
            return rows
        edges = self._edges()
        counts = [-(-(last - first) // images) * pieces for first, last in pairwise(edges)]
        return self.communicator.allgather(rows[: counts[self.communicator.rank]], counts)

    def _edges(self) -> list[int]:
        """Return where the images of the ranks begin, and where the last one's end."""
        assert self.communicator is not None
        units, size = -(-self.whole // self.unit), self.communicator.size
        return [min(self.whole, units * rank // size * self.unit) for rank in range(size + 1)]
