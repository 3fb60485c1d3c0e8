"""Processes that have a GPU each and gather through NCCL, also within a CUDA graph.

Not run on several GPUs yet: neither that it works there nor how fast it is has been seen.
"""

from __future__ import annotations

import math
import socket
from typing import Any

import cupy

from igc_ref.backends.operators.library import Array
from igc_ref.errors import BackendError


class NcclRank:
    """A `Communicator` for arrays of CuPy, from one of mpi4py for names and NCCL's id.

    The GPUs of a machine are dealt out to its ranks. A BackendError on every rank if CuPy finds no
    NCCL, or if two ranks would have the same GPU.
    """

    def __init__(self, comm: Any) -> None:
        from cupy.cuda import nccl  # warns where it does not find the library

        self.rank, self.size, self.nccl = comm.rank, comm.size, nccl
        if not all(comm.allgather(nccl.available)):
            cuda = cupy.cuda.runtime.runtimeGetVersion() // 1000
            raise BackendError(f"a rank's CuPy finds no NCCL: pip install nvidia-nccl-cu{cuda}")
        hosts = comm.allgather(socket.gethostname())
        host, before = hosts[self.rank], hosts[: self.rank]
        cupy.cuda.Device(before.count(host) % cupy.cuda.runtime.getDeviceCount()).use()
        cards = comm.allgather(f"{cupy.cuda.Device().pci_bus_id} of {host}")
        if twice := [card for card in cards if cards.count(card) > 1]:
            raise BackendError(f"two ranks have the same GPU, {twice[0]}; each needs its own")
        name = comm.bcast(nccl.get_unique_id() if self.rank == 0 else None)
        self.ours = nccl.NcclCommunicator(self.size, name, self.rank)

    def allgather(self, rows: Array, counts: list[int]) -> Array:
        """Return the float32 rows of all ranks, queued on the current stream."""
        every = cupy.empty((sum(counts), *rows.shape[1:]), "float32")
        each, stream = math.prod(rows.shape[1:]), cupy.cuda.get_current_stream().ptr
        self.nccl.groupStart()  # a broadcast of every rank, since ncclAllGather wants equal counts
        for rank, count in enumerate(counts):
            to, numbers = every[sum(counts[:rank]) :], (count * each, self.nccl.NCCL_FLOAT32)
            self.ours.broadcast(rows.data.ptr, to.data.ptr, *numbers, rank, stream)
        self.nccl.groupEnd()
        return every
