"""The processor's cores that a process may use."""

from __future__ import annotations

import os


def usable_cores() -> set[int]:
    """Return the numbers of the cores that this process may use: those it is bound to, or all."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return set(affinity(0) if affinity else range(os.cpu_count() or 1))
