"""The processes of ``mpiexec``, which share every batch of a training run and end together."""

from __future__ import annotations

import math
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from igc_ref import __version__
from igc_ref.errors import BackendError, CheckpointError, IGCError, describe, one_line
from igc_ref.report import Report, silent

# How many processes there are, and which this is: in MPICH, Open MPI, and a step of Slurm.
LAUNCHERS = {
    "PMI_SIZE": "PMI_RANK",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
}
PATIENCE = 1.0  # seconds in which rank 0 tells an error that it has as well; a guess


class World:
    """All ranks of an MPI program; a `Communicator` for arrays of NumPy.

    Parameters
    ----------
    comm : mpi4py communicator
    """

    def __init__(self, comm: Any) -> None:
        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        self.state = ""  # of a run: "set-up", "running", or "ended" by an error that all ranks have

    def allgather(self, rows: npt.NDArray[Any], counts: list[int]) -> npt.NDArray[Any]:
        """Return the rows of all ranks, in their order; see `Communicator`."""
        every = np.empty((sum(counts), *rows.shape[1:]), rows.dtype)
        each = math.prod(rows.shape[1:])
        self.comm.Allgatherv(np.ascontiguousarray(rows), [every, [n * each for n in counts]])
        return every

    def exchange(self, value: Any = None, error: Exception | None = None) -> list[Any]:
        """Return the values of all ranks, or raise the error of the lowest that has one on all."""
        kind = type(error) if isinstance(error, IGCError) else IGCError
        every = self.comm.allgather((value, kind, _told(error) if error else None))
        for rank, (_, kind, text) in enumerate(every):
            if text is not None:
                self.state = "ended"
                raise kind(f"rank {rank}: {text}") if rank else error or kind(text)
        return [value for value, *_ in every]

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Raise a CheckpointError unless all ranks have these facts, by name."""
        every = self.exchange(facts)
        for rank, theirs in enumerate(every):
            for name, fact in every[0].items():
                if theirs.get(name) != fact:
                    raise CheckpointError(
                        f"rank {rank} has {name} {one_line(theirs.get(name))}, rank 0 has "
                        f"{one_line(fact)}: ranks that train together must agree"
                    )

    def all_end(self) -> None:
        """Wait for all ranks, which are about to raise the same error."""
        self.exchange()
        self.state = "ended"

    def fail(self, error: BaseException) -> NoReturn:
        """Raise an error that all ranks have; print another one, and end all of them.

        While a run is set up, the others hear of it. Later they wait for this rank's part of a sum.
        """
        expected = isinstance(error, IGCError | OSError | MemoryError)
        if self.state == "set-up" and expected:
            self.exchange(error=error)  # type: ignore[arg-type]
        if self.state == "ended":
            raise error
        time.sleep(PATIENCE if self.rank else 0)
        text, status = f"error: rank {self.rank}: {_told(error)}", 1
        if isinstance(error, KeyboardInterrupt):
            text, status = str(error) or "interrupted", 128 + int(getattr(error, "signal", 2))
        elif not expected:
            text += f"\n{traceback.format_exc()}"
        with suppress(OSError):  # nobody may be reading
            print(f"igc-ref: {text}", file=sys.stderr, flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # MPI has a line of its own
        self.comm.Abort(status)
        raise error


def _told(error: Any) -> str:
    return str(error) if isinstance(error, IGCError) else describe(error)


@cache
def world() -> World | None:
    """Return the ranks that a launcher has started, or None if this process is alone.

    A BackendError if there are several, and MPI does not connect them.
    """
    started = [name for name in LAUNCHERS if int(os.environ.get(name) or 1) > 1]
    if not started and "mpi4py.MPI" not in sys.modules:
        return None  # to load it is to start MPI
    try:
        from mpi4py import MPI

        if (comm := MPI.COMM_WORLD).size > 1:
            threads = (os.cpu_count() or 1) // comm.Split_type(MPI.COMM_TYPE_SHARED).size
            os.environ.setdefault("NUMBA_NUM_THREADS", str(max(1, threads)))
            return World(comm)
        problem = f"mpi4py sees one: start them with the mpiexec of {MPI.get_vendor()[0]}"
    except (ImportError, RuntimeError) as error:  # the latter: there is no MPI
        problem = f'mpi4py cannot be loaded: pip install "igc-ref[mpi]" ({one_line(error)})'
    for name in started:
        if os.environ.get(LAUNCHERS[name], "0") != "0":
            sys.exit(1)  # one of them says it
        raise BackendError(f"{name}={os.environ[name]} processes were started, but {problem}")
    return None


@contextmanager
def together(
    report: Report, shared: bool = True, exits: bool = False
) -> Iterator[tuple[World | None, Report]]:
    """Let all ranks enter a training run and end it together; give `world`, and who reports.

    Only rank 0 reports. If `exits`, the others end silently where rank 0 raises an error.
    """
    ranks = world() if shared else None
    if ranks is None or ranks.state:  # alone, or within such a context
        yield ranks, silent if ranks and ranks.rank else report
        return
    ranks.state = "set-up"
    try:
        ranks.agree({"igc_ref": __version__, "NumPy": np.__version__})
        yield ranks, silent if ranks.rank else report
        if ranks.state == "set-up":
            ranks.exchange()  # another may have an error
    except BaseException as error:
        try:
            ranks.fail(error)
        except BaseException:
            if exits and ranks.rank:
                sys.exit(0)
            raise
    finally:
        ranks.state = ""
