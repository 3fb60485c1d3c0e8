"""The commands ``doctor``, what is installed and which backend runs, and ``warm-up``."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import distributions
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import numpy as np

import igc_ref
from igc_ref import backends
from igc_ref.bench.record import available_threads, machine, output
from igc_ref.cli.options import add_command, add_settings
from igc_ref.errors import BackendError, describe
from igc_ref.report import aligned, say

PACKAGES = re.compile(r"cupy.*|llvmlite|numba|numpy|nvidia-cuda-nvrtc.*|scipy|torch")
EXTRAS = {"matplotlib": "plots", "jupyterlab": "notebooks", "torch": "bench"}
VARIABLES = ("CUDA_", "CUPY_", "IGC_", "MKL_", "NUMBA_", "OMP_", "OPENBLAS_")


def add_commands(commands: Any) -> None:
    """Add the commands of this file to the command line."""
    add = add_command(commands, doctor_command)
    add_settings(add, ["backend"])
    add.epilog = "Exit status: 0 if the backend computes, else 1. Paste the output into a report."

    add = add_command(commands, warm_up_command)
    add_settings(add, ["dtype", "lanes"])
    add.epilog = "Exit status: 0 if all kernels are in the cache, else 1. NUMBA_CACHE_DIR names it."


def doctor_command(backend: str = "auto") -> None:
    """Show what is installed and which backends run, and try one."""
    failure = None
    try:
        chosen = backends.get_backend(backend)
        verdict = f"takes {chosen.name}; {_try(chosen)}"
    except Exception as error:  # an installation fails in ways of its own
        failure = verdict = describe(error)
    say(aligned([*_rows(), (f"backend={backend}", verdict)], left=2))
    if failure:
        raise BackendError(f"backend={backend} does not compute here; the last line says why")


def warm_up_command(dtype: str = "float32", lanes: str = "auto") -> None:
    """Compile the numba backend's kernels into its cache, as when a container is built."""
    start = perf_counter()
    backends.get_backend("numba", lanes=lanes).prepare(dtype, say)
    from igc_ref.backends.numba.warm_up import kept  # here: numba is optional

    count, folder = kept()
    say(f"{count} kernels for {dtype} in {folder}, after {perf_counter() - start:.1f} s")


def _rows() -> Iterator[tuple[str, str]]:
    """Yield the machine, then what each compiled backend finds."""
    here, given = machine(available_threads()), sorted(os.environ.items())
    packages = {f"{d.name} {d.version}" for d in distributions() if PACKAGES.fullmatch(str(d.name))}
    missing = [f"{name} [{extra}]" for name, extra in EXTRAS.items() if not find_spec(name)]
    cards = output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    yield "igc_ref", f"{igc_ref.__version__}, commit {here['commit'] or '-'}, {igc_ref.__path__[0]}"
    yield "Python", f"{here['python']}, {platform.platform()}"
    yield "processor", f"{here['processor']}, {here['threads']} threads for this process"
    yield "packages", ", ".join(sorted(packages))
    yield "missing [extra]", ", ".join(missing) or "-"
    yield "variables", " ".join(f"{k}={v}" for k, v in given if k.startswith(VARIABLES)) or "-"
    yield "numba backend", backends.numba_problem() or "can run"
    yield from _facts("igc_ref.backends.numba.backend")
    yield "nvidia-smi", "; ".join(cards.splitlines()) if cards else "does not answer"
    yield "cupy backend", backends.cupy_problem() or "can run"
    yield from _facts("igc_ref.backends.cupy.backend")


def _facts(module: str) -> Iterator[tuple[str, str]]:
    """Yield what a backend knows of its library; nothing if it cannot be imported."""
    try:
        facts = import_module(module).facts()
    except Exception:  # the row before has said why
        return
    for name, fact in facts.items():
        try:
            yield name, fact()
        except Exception as error:  # such as a missing driver
            yield name, describe(error)


def _try(backend: backends.GenericBackend) -> str:
    """Compile and run one kernel."""
    x = np.arange(108, dtype="float32").reshape(2, 6, 3, 3)
    with backend.session():
        y, _ = backend.shuffle(backend.to_layout(backend.asarray(x)), 3)
        y = backend.to_numpy(backend.from_layout(y))
    if not np.array_equal(y, x[:, [0, 2, 4, 1, 3, 5]]):
        raise BackendError(f"the {backend.name} backend shuffles wrongly: {y[0, :, 0, 0]}")
    return "one kernel tried: right"
