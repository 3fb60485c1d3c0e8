"""Backends: one object per library, with every operator of a training step.

A backend that is asked for by name runs, or raises an error that says what is missing. Nothing
falls back silently.
"""

from __future__ import annotations

from importlib.util import find_spec

from igc_ref.backends.generic import GenericBackend
from igc_ref.backends.numpy_backend import NumpyBackend
from igc_ref.errors import BackendError

__all__ = ["NAMES", "GenericBackend", "NumpyBackend", "get_backend"]

NAMES = ("auto", "numpy", "cupy")


def get_backend(name: str = "auto") -> GenericBackend:
    """Return the backend of this name.

    Parameters
    ----------
    name : {"auto", "numpy", "cupy"}
        ``auto`` takes cupy if a device answers, else numpy; the backend's ``name`` says which.

    Raises
    ------
    BackendError
        If the name is unknown, or the backend cannot run here; says what to install.
    """
    if name == "auto":
        return get_backend("numpy" if cupy_problem() else "cupy")
    if name == "numpy":
        return NumpyBackend()
    if name == "cupy":
        problem = cupy_problem()
        if problem:
            raise BackendError(f"backend 'cupy' cannot run: {problem}")
        from igc_ref.backends.cupy_backend import CupyBackend

        return CupyBackend()
    raise BackendError(f"backend={name!r} is unknown; choose one of {', '.join(NAMES)}")


def cupy_problem() -> str | None:
    """Say why the cupy backend cannot run here, or return None if it can."""
    if find_spec("cupy") is None:
        return (
            "CuPy is not installed; on a machine with an NVIDIA GPU: "
            "pip install 'igc-ref[cuda12x]' or 'igc-ref[cuda13x]'"
        )
    try:
        from igc_ref.backends.cupy_backend import device_problem

        return device_problem()
    except Exception as error:  # a broken installation fails in ways of its own
        return f"CuPy is installed but fails: {type(error).__name__}: {error}"
