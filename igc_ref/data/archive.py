"""Reading a few files out of a ``.tar.gz`` in one pass: nothing is extracted to the disk.

`tarfile` parses the archive; only the contents of regular members of the wanted names are read, so
links, devices and paths that lead elsewhere have nothing to act on.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from igc_ref.errors import DataError, one_line

CHUNK = 1 << 18  # bytes


class Entry(NamedTuple):
    """A file of a data set, read from a folder or from an archive."""

    place: str  # where it is, for messages
    name: str  # its own, without folders
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
    too_large = DataError(f"it unpacks to more than {total:,} bytes")
    with gzip.open(path) as unpacked:
        try:
            with tarfile.open(fileobj=unpacked, mode="r:") as archive:
                for member in archive:
                    if archive.offset > total:  # where the next member begins
                        raise too_large
                    inner, _, name = member.name.removeprefix("./").rpartition("/")
                    if not member.isreg() or inner != folder or name not in limits:
                        continue
                    if name not in wanted:
                        raise DataError(f"there are two members {member.name}")
                    check_size(member.size, wanted.pop(name), member.name)
                    content = archive.extractfile(member).read()  # type: ignore[union-attr]
                    yield Entry(f"{path}: {member.name}", name, content)
            while unpacked.read(CHUNK):  # on to the checksum
                if unpacked.tell() > total:
                    raise too_large
        except Exception as error:  # a damaged archive makes tarfile and gzip fail in many ways
            raise DataError(f"{path} is damaged or no .tar.gz: {one_line(error)}") from error


def check_size(size: int, limit: int, place: object) -> None:
    """Raise a DataError if a file has more than `limit` bytes."""
    if size > limit:
        raise DataError(f"{place} has {size:,} bytes; at most {limit:,} are expected")
