"""Who trains the runs of a sweep: this process, several on this machine, Slurm, or MPI's ranks."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

from igc_ref.cores import usable_cores
from igc_ref.errors import BackendError, SpecError, TrainingError, describe
from igc_ref.report import Report, silent
from igc_ref.training.config import TrainConfig
from igc_ref.training.session import run_to_end

Outcome = float | Exception  # of a run: its test accuracy, or the error that ended it


def train(config: TrainConfig, report: Report = silent) -> Outcome:
    """Train a run, or what is left of it; an error that other runs need not meet is returned."""
    try:
        return run_to_end(config, report).test_accuracy
    except (TrainingError, MemoryError) as error:
        return error


def trained(
    configs: Sequence[TrainConfig], jobs: int, executor: Any
) -> Generator[Outcome, None, None]:
    """Yield the outcomes of runs, in their order, that child processes or submitit's jobs train."""
    children, runs = list[Popen[str]](), list[Any]()
    work = train if executor else partial(_child, children, len(usable_cores()) // jobs)
    executor = executor or ThreadPoolExecutor(jobs)
    try:
        runs += (executor.submit(work, config) for config in configs)
        for run in runs:
            try:
                yield run.result()
            except RuntimeError as error:  # submitit's, of a job that was killed
                yield TrainingError(describe(error))
    except RuntimeError as error:  # sbatch's
        raise BackendError(describe(error)) from error
    finally:
        left = [run for run in runs if not run.done() and not run.cancel()]
        while jobs > 1 and wait(left, timeout=0.1).not_done:
            while children:  # also one that has begun just now; a second signal would not save
                children.pop().send_signal(signal.SIGINT)


def _child(children: list[Popen[str]], threads: int, config: TrainConfig) -> Outcome:
    child = Popen(
        [sys.executable, "-m", __name__, json.dumps(config.to_dict())],
        env={"NUMBA_NUM_THREADS": str(max(1, threads)), **os.environ},
        stdin=DEVNULL, stdout=PIPE, stderr=PIPE, errors="replace",
        start_new_session=True,  # Ctrl-C would reach it twice
    )  # fmt: skip
    children.append(child)
    out, err = child.communicate()
    if child.returncode == 0:
        return float(out)
    killed = f"killed by signal {-child.returncode}, perhaps for want of memory"
    last = err.splitlines()[-1].removeprefix("igc_ref.errors.") if child.returncode > 0 else killed
    return TrainingError(last)


def slurm(folder: Path, options: str) -> Any:
    """Return submitit's executor for options of ``sbatch``, as ``partition=gpu,time=60``."""
    try:
        from submitit import SlurmExecutor

        executor = SlurmExecutor(folder)
        pairs = dict(pair.split("=", 1) for pair in options.split(","))
        # Without a time submitit ends a run after 5 minutes.
        executor.update_parameters(**pairs | {"time": int(pairs["time"])})
    except ImportError:
        text = f"slurm={options} needs a library that is not installed"
        raise BackendError(f'{text}: pip install "igc-ref[workers]"') from None
    except (KeyError, RuntimeError, ValueError) as error:
        text = f"slurm={options!r} is not allowed; it must be as partition=gpu,time=MINUTES"
        raise SpecError(f"{text} ({describe(error)})") from error
    return executor


if __name__ == "__main__":  # a child: its result is a line, its error the last of a traceback
    print(run_to_end(TrainConfig.from_dict(json.loads(sys.argv[1])), silent).test_accuracy)
