"""What a run on a card has found so far: JSON, written anew after every item, so that none is lost.

A section is a list of named items. An item that fails leaves its traceback and the next one runs.
If a kernel has killed the CUDA context, nothing runs in this process any more: the section ends
with `DeviceLostError`, and a new process goes on after the item that did it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from igc_ref.files import replacing

PACKAGES = ("numpy", "scipy", "cupy-cuda13x", "cupy-cuda12x", "torch", "triton", "igc-ref")
STATUS = ("failed", "skipped", "running")  # keys of an item that has no result


class DeviceLostError(RuntimeError):
    """The device does not answer any more; only a new process can go on."""


class Record:
    """The JSON file of a run: ``machine``, ``settings`` and ``sections``.

    Parameters
    ----------
    path : Path
        Taken up if it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {"machine": {}, "settings": {}, "sections": {}}
        if path.exists():
            self.values = json.loads(path.read_text())

    def save(self) -> None:
        """Write everything; a reader sees the old file or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as file:
            file.write((json.dumps(finite(self.values), indent=1) + "\n").encode())

    def section(self, name: str) -> dict[str, Any]:
        """Return the items of a section by name."""
        found = self.values["sections"].setdefault(name, {"items": {}})
        items: dict[str, Any] = found["items"]
        return items


class Section:
    """Runs the items of one section.

    Parameters
    ----------
    record : Record
    name : str
    until : float
        `time.time` at which to stop; an item that needs longer than what is left is skipped.
    alive : callable
        Raises if the device does not answer any more.
    """

    def __init__(
        self,
        record: Record,
        name: str,
        until: float = float("inf"),
        alive: Callable[[], object] = lambda: None,
    ) -> None:
        self.record, self.name, self.until, self.alive = record, name, until, alive
        self.items = record.section(name)
        for item, value in self.items.items():
            if "running" in value:
                self.items[item] = {"failed": "the process died in it"}

    def item(self, name: str, f: Callable[[], dict[str, Any]], seconds: float = 0) -> Any:
        """Run an item that needs about so many seconds; return its result, or None."""
        if name in self.items and "skipped" not in self.items[name]:
            return None if set(STATUS) & set(self.items[name]) else self.items[name]
        if time.time() + seconds > self.until:
            print(f"{self.name}: {name} skipped, no time left", flush=True)
            return self._keep(name, {"skipped": "no time left"})
        self._keep(name, {"running": True})
        start = time.perf_counter()
        try:
            value = dict(f())
        except Exception as error:
            traceback.print_exc()
            self._keep(name, {"failed": f"{type(error).__name__}: {error}"[:2000]})
            try:
                self.alive()
            except Exception as lost:
                raise DeviceLostError(
                    f"{self.name}: {name} has killed the device: {lost}"
                ) from error
            return None
        value["seconds"] = round(time.perf_counter() - start, 3)
        self._keep(name, value)
        return self.items[name]

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.until - time.time()

    def failed(self) -> list[str]:
        """Return the names of the items that failed, or whose check did."""
        return [n for n, v in self.items.items() if "failed" in v or v.get("passed") is False]

    def _keep(self, name: str, value: dict[str, Any]) -> None:
        self.items[name] = value
        self.record.save()


def finite(value: Any) -> Any:
    """Return the same with what JSON has no word for as text: ``nan``, ``inf``."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    number = float(value)
    return number if abs(number) < float("inf") else str(number)


def machine() -> dict[str, Any]:
    """Return date, versions and the commit; the card is added by whoever drives it."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "commit": _output("git", "describe", "--always", "--dirty", "--abbrev=12"),
        "card": _output(
            "nvidia-smi", "--format=csv,noheader",
            "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit",
        ),
    }  # fmt: skip
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def table(head: list[str], rows: list[list[Any]]) -> str:
    """Return a Markdown table with aligned columns."""
    text = [[_cell(value) for value in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in text) for i in range(len(head))]
    lines = [
        "| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in cells) + " |"
        for cells in (list(enumerate(zip(row, widths, strict=True))) for row in text)
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def say(*lines: object) -> None:
    """Print at once, also into a pipe."""
    print(*lines, sep="\n", flush=True)
    sys.stdout.flush()
