"""Who trains the runs of a sweep: this process, several on this machine, Slurm, or MPI's ranks."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import BrokenExecutor, wait
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from igc_ref.errors import BackendError, SpecError, TrainingError, describe
from igc_ref.report import Report
from igc_ref.training.config import TrainConfig
from igc_ref.training.session import run_to_end

Outcome = float | Exception  # of a run: its test accuracy, or the error that ended it
NEEDED = 'needs a library that is not installed: pip install "igc-ref[workers]"'
TO_SAVE, IDLE = 10, 10  # seconds that a worker has to save, and to wait for work
_parent, _signals = os.getppid(), list[int]()


def _heed(line: str = "") -> None:  # noqa: ARG001
    """Stand in for the report of a worker that saves and ends if asked to, or if orphaned."""
    if _signals or os.getppid() != _parent:
        raise BrokenPipeError


def train(config: TrainConfig, report: Report = _heed) -> Outcome:
    """Train a run, or what is left of it; an error that other runs need not meet is returned."""
    try:
        if report is _heed:
            _heed()
        return run_to_end(config, report).test_accuracy
    except (TrainingError, MemoryError) as error:
        return error
    except (KeyboardInterrupt, BrokenPipeError) as stop:
        if report is not _heed:
            raise
        _signals.append(signal.SIGINT)  # no more runs
        return TrainingError(str(stop) or "interrupted before it began")


def trained(
    configs: Sequence[TrainConfig], report: Report, jobs: int, executor: Any
) -> Generator[Outcome, None, None]:
    """Yield the outcomes of runs, in their order; the arguments are those of `Sweep.run`."""
    executor = _processes(jobs) if jobs > 1 else executor
    if executor is None:
        yield from (train(config, report) for config in configs)
        return
    resource_tracker.ensure_running()  # it would unblock signals when it starts
    _mask("SIG_BLOCK")  # Ctrl-C waits until workers that start can note it
    try:
        runs = [executor.submit(train, config) for config in configs]
    except RuntimeError as error:  # sbatch's
        raise BackendError(describe(error)) from error
    finally:
        _mask("SIG_UNBLOCK")
    try:
        for run in runs:
            try:
                yield run.result()
            except BrokenExecutor as error:
                text = "a worker was killed, perhaps for want of memory; the same command goes on"
                raise TrainingError(text) from error
            except RuntimeError as error:  # submitit's, of a job that was killed
                yield TrainingError(describe(error))
    finally:
        left = [run for run in runs if not run.done() and not run.cancel()]
        if jobs > 1:
            executor.shutdown(kill_workers=bool(wait(left, TO_SAVE).not_done))


def _processes(jobs: int) -> Any:
    try:
        from joblib import cpu_count
        from joblib.externals.loky import ProcessPoolExecutor
    except ImportError:
        raise BackendError(f"jobs={jobs} {NEEDED}") from None
    threads = {"NUMBA_NUM_THREADS": str(max(1, cpu_count() // jobs))}
    return ProcessPoolExecutor(jobs, timeout=IDLE, initializer=_begin, env=threads)


def _begin() -> None:
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - bars of several runs would mix
    signal.signal(signal.SIGINT, lambda number, _: _signals.append(number))
    _mask("SIG_UNBLOCK")


def _mask(how: str) -> None:
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(getattr(signal, how), [signal.SIGINT])


def slurm(folder: Path, options: str) -> Any:
    """Return submitit's executor for options of ``sbatch``, as ``partition=gpu,time=60``."""
    try:
        from submitit import SlurmExecutor

        pairs: dict[str, Any] = dict(pair.split("=", 1) for pair in options.split(","))
        pairs["time"] = int(pairs["time"])  # without it submitit ends a run after 5 minutes
        executor = SlurmExecutor(folder)
        executor.update_parameters(**pairs)
    except ImportError:
        raise BackendError(f"slurm={options} {NEEDED}") from None
    except (KeyError, RuntimeError, ValueError) as error:
        text = f"slurm={options!r} is not allowed; it must be as partition=gpu,time=MINUTES"
        raise SpecError(f"{text} ({describe(error)})") from error
    return executor
