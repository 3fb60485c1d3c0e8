"""What a run on a card has found so far: JSON, written anew after every item, so that none is lost.

A section is a list of named items. If one fails, its traceback is printed and the next one runs. If
a kernel has killed the CUDA context, nothing runs in this process any more: it ends with
`DeviceLostError`, and a new process goes on after what was tried last.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu import tables
from igc_ref.bench.clock import Clock
from igc_ref.errors import describe
from igc_ref.files import write_json
from igc_ref.report import say

STATUS = {"failed", "running"}  # keys of an item that has no result


def went_wrong(value: dict[str, Any]) -> bool:
    """Return whether an item failed, was left out, or did not pass its check."""
    return bool({"failed", "skipped"} & set(value)) or value.get("passed") is False


class DeviceLostError(RuntimeError):
    """The device does not answer any more; only a new process can go on."""


class Record:
    """The JSON file of a run: ``machine``, ``settings`` and ``sections``; read if it is there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {"machine": {}, "settings": {}, "sections": {}}
        if path.exists():
            self.values = json.loads(path.read_text())

    def save(self) -> None:
        """Write everything; a reader sees the old file or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, finite(self.values))

    def items(self, section: str) -> dict[str, Any]:
        """Return the items of a section by name."""
        found = self.values["sections"].setdefault(section, {"items": {}})
        return found["items"]  # type: ignore[no-any-return]


class Section:
    """Runs the items of one section.

    Parameters
    ----------
    record : Record
    name : str
    alive : callable
        Raises if the device does not answer any more.
    """

    def __init__(
        self, record: Record, name: str, alive: Callable[[], object] = lambda: None
    ) -> None:
        self.record, self.name, self.alive = record, name, alive
        self.items = record.items(name)

    def item(self, name: str, f: Callable[[], dict[str, Any]]) -> Any:
        """Run an item, or look it up if it was tried before; return its result, or None."""
        if name not in self.items:
            self._keep(name, {"running": True})
            self._keep(name, self._run(name, f))
        value = self.items[name]
        say(tables.item(name, value))
        return None if STATUS & set(value) else value

    def _run(self, name: str, f: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        try:
            (taken,) = Clock().times(lambda: value.update(f()), 1)
            return value | {"seconds": round(taken, 3)}
        except Exception as error:
            traceback.print_exc()
            failure = {"failed": describe(error)}
            self._keep(name, failure)
            try:
                self.alive()
            except Exception as lost:
                text = f"{self.name}: {name} has killed the device: {lost}"
                raise DeviceLostError(text) from error
            return failure

    def failed(self) -> list[str]:
        """Return the names of the items that went wrong."""
        return [name for name, value in self.items.items() if went_wrong(value)]

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
