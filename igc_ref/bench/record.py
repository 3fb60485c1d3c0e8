"""Where and when something was measured, and all of it as JSON."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import igc_ref
from igc_ref.bench.harness import Comparison
from igc_ref.bench.rivals import RIVALS
from igc_ref.bench.roofline import Roofline
from igc_ref.cores import usable_cores
from igc_ref.files import write_json

PACKAGES = ("numpy", "numba", "torch")


def available_threads() -> int:
    """Return how many cores this process may use."""
    return len(usable_cores())


def machine(threads: int, packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Return date, commit, processor, threads and versions; None for what is not there."""
    return {
        "date": date.today().isoformat(),
        "commit": _commit(),
        "processor": _processor(),
        "threads": threads,
        "python": platform.python_version(),
        **{package: _version(package) for package in packages},
    }


def write_comparisons(
    path: Path, comparisons: Sequence[Comparison], roofline: Roofline, threads: int
) -> None:
    """Write everything that was measured so far, with the machine."""
    write_json(path, {
        "machine": machine(threads, (*PACKAGES, *RIVALS)),
        "roofline": roofline._asdict(),
        "comparisons": [comparison.to_dict(roofline) for comparison in comparisons],
    })  # fmt: skip


def output(*command: str, folder: Path | None = None) -> str | None:
    """Return what a command prints; None if it cannot run, fails or prints nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=folder)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _commit() -> str | None:
    """Return the commit of this package's repository; None for an installed package."""
    root = Path(igc_ref.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    return output("git", "describe", "--always", "--dirty", "--abbrev=12", folder=root)


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
