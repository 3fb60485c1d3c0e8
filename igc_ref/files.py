"""Writing files so that a reader sees the old one or the new one, never half of one; locks."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

# What a file system says that has no fsync of this kind, or no locks; EBADF: WASI, of a folder.
UNSUPPORTED = {
    errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF,
}  # fmt: skip


def writable(path: Path, make_folder: bool = False) -> Path:
    """Return the path of a file to write; an OSError, before any work, if it cannot be written."""
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    if not (path.is_fifo() and os.access(path, os.W_OK)):  # to open a pipe may take for ever
        with suppress(RuntimeError), replacing(path):
            raise RuntimeError("only tried: nothing is replaced")
    return path


@contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its place once it is wholly on the disk.

    If writing fails, `path` stays as it was and the temporary file is removed. Of a link, the file
    that it names is replaced. A device, a pipe and ``/dev/stdout`` are written to.

    Parameters
    ----------
    path : Path
    keep : Path, optional
        Becomes what `path` was before. At every moment `path` or `keep` is whole.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(target.name + ".partial")
    own_output = str(target) == os.path.realpath("/dev/stdout")
    is_stream = own_output or (path.exists() and not path.is_file())
    try:
        if is_stream:
            with open(path, "ab") as file:
                yield file
            return
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            _sync(file.fileno())
        if keep is not None and target.exists():
            os.replace(target, keep)
        os.replace(temporary, target)
        with suppress(PermissionError):  # Windows opens no folder, nor do some network drives
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                _sync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a failed write does not say of what
            error.filename = str(path)
        raise
    finally:
        if not is_stream:  # what has this name beside a pipe or a device is somebody's
            with suppress(OSError):
                temporary.unlink()


def _sync(descriptor: int) -> None:
    """Make sure that a file, or a folder's names, survives a power cut, where that can be."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def locked(
    path: Path, timeout: float, report: Callable[[str], None]
) -> AbstractContextManager[object]:
    """Take a lock, held until the context ends; a TimeoutError after `timeout` seconds.

    The system releases the lock when the process ends, however it ends; the file stays. On a file
    system without locks, `report` says so and there is none.
    """
    with warnings.catch_warnings(action="ignore"):  # it warns that a browser has no locks
        # Imported here: a machine lent for timings may not have it.
        from filelock import FileLock, SoftFileLock

    try:
        if FileLock is SoftFileLock:  # a file that would outlive a killed process
            raise NotImplementedError
        return FileLock(path).acquire(timeout=timeout)
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in UNSUPPORTED:
            raise
        report(f"{path.parent} cannot be locked here: use it from one process at a time")
        return nullcontext()


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
