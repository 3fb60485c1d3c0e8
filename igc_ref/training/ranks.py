"""The processes of ``mpiexec``, which share every batch of a training run and end together."""

from __future__ import annotations

import math
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.cores import usable_cores
from igc_ref.errors import (
    BackendError,
    CheckpointError,
    IGCError,
    Interrupted,
    TrainingError,
    describe,
)
from igc_ref.report import Report, silent

# Where MPICH, Open MPI and a step of Slurm tell a process how many there are.
LAUNCHERS = "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"
EXPECTED = IGCError, OSError, MemoryError
PATIENCE = 1.0  # seconds in which rank 0 tells an error that it has as well; a guess
TO_FORWARD = 0.5  # seconds that mpiexec has to pass on a line; without, it lost some; a guess


class World:
    """All ranks of an MPI program; a `Communicator` for arrays of NumPy.

    Parameters
    ----------
    comm : mpi4py communicator
    """

    # Within `together`: how to continue the run, once ranks wait for each other's parts of sums.
    running: str | None = None
    ended = False  # by an error that all ranks have

    def __init__(self, comm: Any) -> None:
        self.comm, self.rank, self.size = comm, comm.rank, comm.size

    def allgather(self, rows: npt.NDArray[Any], counts: list[int]) -> npt.NDArray[Any]:
        """Return the rows of all ranks, in their order; see `Communicator`."""
        every = np.empty((sum(counts), *rows.shape[1:]), rows.dtype)
        each = math.prod(rows.shape[1:])
        self.comm.Allgatherv(np.ascontiguousarray(rows), [every, [n * each for n in counts]])
        return every

    def exchange(
        self, value: Any = None, error: BaseException | None = None, what: str = ""
    ) -> list[Any]:
        """Return the values of all ranks, or raise the error of the lowest that has one on all.

        A CheckpointError, on all, if they are not all of the same: `what` a rank does.
        """
        kind = type(error) if isinstance(error, IGCError) else IGCError
        every = self.comm.allgather((value, what, kind, error and describe(error)))
        for rank, (_, theirs, kind, text) in enumerate(every):
            if text is not None:
                self.ended = True
                raise kind(f"rank {rank}: {text}") if rank else error or kind(text)
            if theirs != (first := every[0][1]):
                self.ended = True
                raise CheckpointError(f"rank {rank} {theirs}, rank 0 {first}: ranks must agree")
        return [value for value, *_ in every]

    def abort(self, error: BaseException) -> None:
        """Print an error that the other ranks may not have, and end all of them."""
        time.sleep(PATIENCE if self.rank else 0)
        stop = isinstance(error, KeyboardInterrupt)
        trace = "" if stop or isinstance(error, EXPECTED) else traceback.format_exc()
        line = f"igc-ref: error: rank {self.rank}: {describe(error)}{self.running or ''}\n{trace}"
        with suppress(OSError):  # nobody may be reading
            os.write(2, line.encode())
        time.sleep(TO_FORWARD)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # MPI has a line of its own
        self.comm.Abort(128 + getattr(error, "signal", 2) if stop else 1)


@cache
def world() -> World | None:
    """Return the ranks that a launcher has started, or None if this process is alone.

    A BackendError if there are several, and MPI does not connect them.
    """
    started = next((name for name in LAUNCHERS if int(os.environ.get(name) or 1) > 1), None)
    if not started and "mpi4py.MPI" not in sys.modules:
        return None  # to load it is to start MPI
    try:
        from mpi4py import MPI

        if (comm := MPI.COMM_WORLD).size > 1:
            node = comm.Split_type(MPI.COMM_TYPE_SHARED)
            cores = set[int]().union(*node.allgather(usable_cores()))  # a rank may be bound to some
            os.environ.setdefault("NUMBA_NUM_THREADS", str(max(1, len(cores) // node.size)))
            return World(comm)
        problem = f"mpi4py sees one: start them with the mpiexec of {MPI.get_vendor()[0]}"
    except (ImportError, RuntimeError) as error:  # the latter: there is no MPI
        problem = f'mpi4py cannot be loaded: pip install "igc-ref[mpi]" ({error})'
    if started:
        raise BackendError(f"{started}={os.environ[started]} processes were started, but {problem}")
    return None


def is_first(ranks: World | None) -> bool:
    """Return whether this process is rank 0, or alone: it has the run's folder, and reports."""
    return ranks is None or ranks.rank == 0


@contextmanager
def together(
    report: Report, shared: bool = True, quiet: bool = False
) -> Iterator[tuple[World | None, Report]]:
    """Let all ranks begin and end something together; give `world`, and who reports: rank 0.

    An error that all ranks have, or one has while no other waits for its part of a sum, is raised
    on all; another ends all. If `quiet`, the other ranks print nothing more, no error either.
    """
    ranks = world() if shared else None
    report = report if is_first(ranks) else silent
    if ranks is None or ranks.running is not None:  # alone, or within such a context
        yield ranks, report
        return
    ranks.running, ranks.ended = "", False
    if quiet and ranks.rank:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        yield ranks, report
        ranks.exchange()
    except BaseException as error:
        if not ranks.ended:
            if not isinstance(error, (TrainingError, Interrupted) if ranks.running else EXPECTED):
                ranks.abort(error)
            ranks.exchange(error=error)
        raise
    finally:
        ranks.running = None
