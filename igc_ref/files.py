"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its place once it is wholly on the disk.

    If writing fails, `path` stays as it was and the temporary file is removed.

    Parameters
    ----------
    path : Path
    keep : Path, optional
        Becomes what `path` was before. At every moment `path` or `keep` is whole.
    """
    temporary = path.with_name(path.name + ".partial")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
        _to_disk(path.parent)
    except OSError as error:
        if error.filename is None:  # a failed write does not say of what
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(folder: Path) -> None:
    """Make sure that a change of names in a folder survives a power cut, where that is possible."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: str | Path, value: object) -> None:
    """Write a value as indented JSON, whole or not at all; a ValueError for NaN or infinity."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with replacing(Path(path)) as file:
        file.write(f"{text}\n".encode())


def write_csv(path: str | Path, rows: Iterable[Iterable[object]]) -> None:
    """Write rows as CSV, whole or not at all."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    with replacing(Path(path)) as file:
        file.write(text.getvalue().encode())
