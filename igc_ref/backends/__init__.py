"""Backends: one object per library, with every operator of a training step.

A backend that is asked for by name runs, or raises an error that says what is missing. Nothing
falls back silently. `operators.lazy` explains what the numba and cupy backends postpone, and how an
operator without a kernel runs there.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec

from igc_ref.backends import numba as compiled
from igc_ref.backends.numpy import NumpyBackend
from igc_ref.backends.operators.generic import GenericBackend
from igc_ref.backends.operators.library import LANES, STORAGES
from igc_ref.errors import BackendError, choice, describe

__all__ = ["NAMES", "GenericBackend", "NumpyBackend", "get_backend"]

NAMES = ("auto", "numpy", "numba", "cupy")


def get_backend(
    name: str = "auto", storage: str = "float32", lanes: str | None = None
) -> GenericBackend:
    """Return the backend of this name.

    Parameters
    ----------
    name : {"auto", "numpy", "numba", "cupy"}
        ``auto`` takes cupy if a device answers, else numba if it can run, else numpy; the backend's
        ``name`` says which. If it takes numpy, a warning says what keeps an installed one from
        running.
    storage : {"float32", "float16"}
        How images of a float32 network are kept between operators; float16 with cupy only.
    lanes : {"auto", "8", "16"}, optional
        How many float32 numbers, or half as many float64, the numba backend has in a vector:
        its sums depend on it. ``auto`` takes what this processor has; with a number, the name
        ``auto`` takes numba. One process has one: the first asked for, by default ``auto``.

    Raises
    ------
    BackendError
        If the name is unknown, or the backend cannot run here or not with this storage or these
        lanes; says what to install.
    """
    choice("backend", name, NAMES, BackendError)
    if lanes is not None and choice("lanes", lanes, LANES) != "auto":
        name = "numba" if name == "auto" else name
        if name != "numba":
            raise BackendError(f"lanes={lanes} needs the numba backend, not {name}")
        compiled.asked_lanes = compiled.asked_lanes or int(lanes)
    if name == "auto":
        passed = ""
        for other, find_problem in _PROBLEMS.items():
            if (problem := find_problem()) is None:
                return get_backend(other, storage, lanes)
            if find_spec(other):  # it was meant to run
                passed += f"; {problem}"
        if passed:
            warnings.warn(f"backend='auto' takes numpy{passed}", RuntimeWarning, stacklevel=2)
        name = "numpy"
    choice("storage", storage, STORAGES)
    if name in ("numpy", "numba") and storage != "float32":
        raise BackendError(f"storage={storage!r} needs the cupy backend, not {name}")
    if name == "numpy":
        return NumpyBackend()
    if problem := _PROBLEMS[name]():
        raise BackendError(f"backend {name!r} cannot run: {problem}")
    if name == "numba":
        from igc_ref.backends.numba.backend import NumbaBackend
        from igc_ref.backends.numba.vectors import AUTO, VECTOR_BYTES

        if lanes is not None and (AUTO if lanes == "auto" else int(lanes)) * 4 != VECTOR_BYTES:
            here = f"lanes={VECTOR_BYTES // 4}, and auto is {AUTO} here"
            raise BackendError(f"lanes={lanes} needs a new process: this one computes with {here}")
        return NumbaBackend()
    from igc_ref.backends.cupy.backend import CupyBackend

    return CupyBackend(storage)


def cupy_problem() -> str | None:
    """Say why the cupy backend cannot run here, or return None if it can."""
    if find_spec("cupy") is None:
        return (
            "CuPy is not installed; on a machine with an NVIDIA GPU: "
            "pip install 'cupy-cuda13x[ctk]' or 'cupy-cuda12x[ctk]'"
        )
    try:
        from igc_ref.backends.cupy.backend import device_problem

        return device_problem()
    except Exception as error:  # a broken installation fails in ways of its own
        return f"CuPy is installed but fails: {describe(error)}"


def numba_problem() -> str | None:
    """Say why the numba backend cannot run here, or return None if it can."""
    if find_spec("numba") is None:
        return "numba is not installed: pip install numba"
    try:
        from igc_ref.backends.numba import backend as numba_backend  # noqa: F401
    except Exception as error:  # a broken installation fails in ways of its own
        return f"numba is installed but fails: {describe(error)}"
    return None


_PROBLEMS = {"cupy": cupy_problem, "numba": numba_problem}  # in the order in which auto tries them
