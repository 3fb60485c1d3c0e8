"""Where and when something was measured, and all of it as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from igc_ref import files
from igc_ref.bench.harness import Comparison
from igc_ref.bench.roofline import Roofline


def available_threads() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine(threads: int) -> dict[str, Any]:
    """Return date, processor, threads and versions."""
    return {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "threads": threads,
        "python": platform.python_version(),
        **{package: _version(package) for package in ("numpy", "numba", "torch")},
    }


def write_json(
    path: Path, comparisons: Sequence[Comparison], roofline: Roofline, threads: int
) -> None:
    """Write everything that was measured, with the machine."""
    record = {
        "machine": machine(threads),
        "roofline": roofline._asdict(),
        "comparisons": [comparison.to_dict(roofline) for comparison in comparisons],
    }
    files.write_json(path, record)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
