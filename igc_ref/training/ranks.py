"""The processes of ``mpiexec``, which share every batch of a training run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt


class World:
    """All ranks of an MPI program; a `Communicator` for arrays of NumPy.

    Parameters
    ----------
    comm : mpi4py communicator
    """

    def __init__(self, comm: Any) -> None:
        self.comm, self.rank, self.size = comm, comm.rank, comm.size

    def allgather(self, rows: npt.NDArray[Any], counts: list[int]) -> npt.NDArray[Any]:
        """Return the rows of all ranks, in their order; see `Communicator`."""
        every = np.empty((sum(counts), *rows.shape[1:]), rows.dtype)
        each = math.prod(rows.shape[1:])
        self.comm.Allgatherv(np.ascontiguousarray(rows), [every, [n * each for n in counts]])
        return every
