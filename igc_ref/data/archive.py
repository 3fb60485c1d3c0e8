"""Reading a few files out of a ``.tar.gz`` as a stream: nothing is extracted to the disk.

`tarfile` parses the archive; only the contents of regular members of the wanted names are read, so
links, devices and paths that lead elsewhere have nothing to act on.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from igc_ref.errors import DataError, one_line

__all__ = ["Entry", "in_archive"]

CHUNK = 1 << 18  # bytes


@dataclass(frozen=True)
class Entry:
    """A file of a data set, read from a folder or from an archive.

    Parameters
    ----------
    place : str
        Where it is, for messages.
    name : str
        Its own name, without folders.
    content : bytes
    """

    place: str
    name: str
    content: bytes


def in_archive(path: Path, folder: str, limits: dict[str, int], total: int) -> Iterator[Entry]:
    """Go through a whole archive and yield the wanted files.

    Parameters
    ----------
    path : Path
        The ``.tar.gz``.
    folder : str
        Folder inside the archive that the files must be in.
    limits : dict of str to int
        Names of the wanted files, each with the greatest size in bytes that is allowed.
    total : int
        Bytes that the whole archive may unpack to.

    Yields
    ------
    Entry
        In the order of the archive. After the last one, gzip's checksum has been verified.

    Raises
    ------
    DataError
        If the archive is damaged, cut off or too large, or has a wanted file twice.
    """
    wanted = dict(limits)
    with gzip.open(path) as unpacked:
        stream = _Limited(unpacked, total)
        try:
            with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as archive:  # type: ignore[call-overload]
                for member in archive:
                    inner, _, name = member.name.removeprefix("./").rpartition("/")
                    if not member.isreg() or inner != folder or name not in limits:
                        continue
                    if name not in wanted:
                        raise DataError(f"there are two members {member.name}")
                    check_size(member.size, wanted.pop(name), member.name)
                    yield Entry(f"{path}: {member.name}", name, archive.extractfile(member).read())
            while stream.read(CHUNK):  # on to the checksum
                pass
        except Exception as error:  # a damaged archive makes tarfile and gzip fail in many ways
            raise DataError(f"{path} is damaged or no .tar.gz: {one_line(error)}") from error


def check_size(size: int, limit: int, place: object) -> None:
    """Raise a DataError if a file has more than `limit` bytes."""
    if size > limit:
        raise DataError(f"{place} has {size:,} bytes; at most {limit:,} are expected")


class _Limited:
    """A stream that refuses to yield more than `limit` bytes in all."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self.stream, self.limit, self.left = stream, limit, limit

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise DataError(f"it unpacks to more than {self.limit:,} bytes")
        return data
