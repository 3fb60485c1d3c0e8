"""Reading a ``.tar.gz`` as a stream: nothing is unpacked to the disk, nothing in it is believed.

An own reader of some hundred lines, since the standard one keeps extended headers of any size in
memory and follows what they say. This one knows regular files and folders; anything else in an
archive is a reason to refuse it. How much it unpacks to is limited beforehand, and a caller that
reads to the end has had the checksum of the whole stream checked.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from igc_ref.data.published import SMALL_FILE
from igc_ref.errors import DataError

__all__ = ["Entry", "Stream", "in_archive"]

BLOCK = 512  # bytes; of a tar header, and what a member is padded to
CHUNK = 65_536  # bytes read or unpacked at a time
MAX_MEMBERS = 64  # the published ones have 5 to 9

_REFUSED = {
    "1": "a hard link",
    "2": "a symbolic link",
    "3": "a character device",
    "4": "a block device",
    "6": "a pipe",
    "7": "a contiguous file",
    "S": "a sparse file",
    "L": "a GNU long name",
    "K": "a GNU long link",
}
# Of an extended (PAX) header, what says nothing about name, size or kind of the member.
_PAX_IGNORED = ("mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment")
_PAX_PREFIXES = ("LIBARCHIVE.", "SCHILY.xattr.", "SCHILY.fflags", "SCHILY.acl.")


class Stream(Protocol):
    """What a reader needs of an open file."""

    def read(self, size: int, /) -> bytes:
        """Return `size` bytes, or fewer at the end."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill a buffer; return how much of it was filled."""


@dataclass
class Entry:
    """A file of a data set, in a folder or in an archive, to be read once from its beginning.

    Parameters
    ----------
    place : str
        Where it is, for messages.
    name : str
        Its own name, without folders.
    size : int
        Bytes that it claims to have.
    stream : Stream
        Its contents; in an archive good only until the next entry is asked for.
    """

    place: str
    name: str
    size: int
    stream: Stream


def in_archive(path: Path, folder: str, names: tuple[str, ...], limit: int) -> Iterator[Entry]:
    """Go through an archive and yield those of its files that are asked for.

    Parameters
    ----------
    path : Path
        The ``.tar.gz``.
    folder : str
        Folder inside the archive that the files must be in.
    names : tuple of str
        Names of the files; others are passed over.
    limit : int
        Bytes that the archive may unpack to.

    Yields
    ------
    Entry
        In the order of the archive, each name at most once.

    Raises
    ------
    DataError
        If the archive is damaged, cut off or too large, or has members that a data set has not.
        Whoever stops before the end has not had all of it checked.
    """
    size = path.stat().st_size
    if size > limit:
        raise DataError(f"{path} has {size:,} bytes; it may unpack to {limit:,} at most")
    with path.open("rb") as file:
        source = _Gunzip(file, path, limit)
        for name, member in _members(source, path):
            inner, _, last = name.rpartition("/")
            if inner == folder and last in names:
                yield Entry(f"{path}: {name}", last, member.left, member)


class _Gunzip:
    """The contents of a gzip file of one member, up to a limit."""

    def __init__(self, file: BinaryIO, path: Path, limit: int) -> None:
        self.file, self.path, self.limit = file, path, limit
        self.left = limit
        self.machine = zlib.decompressobj(wbits=31)  # 31: with gzip's header and checksum

    def some(self, most: int) -> bytes:
        """Return 1 to `most` bytes; none at the end."""
        machine = self.machine
        while not machine.eof:
            data = machine.unconsumed_tail or self.file.read(CHUNK)
            try:
                part = machine.decompress(data, min(most, CHUNK))
            except zlib.error as error:
                reason = str(error).rpartition(": ")[2]
                raise DataError(f"{self.path} is damaged or no gzip file: {reason}") from error
            if part:
                self.left -= len(part)
                if self.left < 0:
                    raise DataError(f"{self.path} unpacks to more than {self.limit:,} bytes")
                return part
            if not data and not machine.eof:
                raise DataError(f"{self.path} is empty or cut off")
        if machine.unused_data or self.file.read(1):
            raise DataError(f"{self.path} has further bytes after the end of its gzip stream")
        return b""

    def exactly(self, size: int) -> bytes:
        """Return `size` bytes."""
        parts = []
        while size > 0:
            part = self.some(size)
            if not part:
                raise DataError(f"{self.path} ends in the middle of a member")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Pass over `size` bytes."""
        while size > 0:
            size -= len(self.exactly(min(size, CHUNK)))


class _Member:
    """The contents of one member; no more than it claims, and no less."""

    def __init__(self, source: _Gunzip, size: int) -> None:
        self.source, self.left = source, size

    def read(self, size: int, /) -> bytes:
        data = self.source.exactly(min(size, self.left))
        self.left -= len(data)
        return data

    def readinto(self, buffer: memoryview, /) -> int:
        data = self.read(buffer.nbytes)
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)


def _members(source: _Gunzip, path: Path) -> Iterator[tuple[str, _Member]]:
    """Yield name and contents of every regular file, and check everything else."""
    seen: set[str] = set()
    for _ in range(MAX_MEMBERS):
        block = source.exactly(BLOCK)
        if not any(block):
            break
        name, size, kind = _header(block, path)
        if kind in "xg":
            _check_pax(source, size, path)
        elif kind == "5" or name.endswith("/"):
            if size:
                raise DataError(f"{path}: the folder {name!r} claims {size:,} bytes")
        else:
            if name in seen:
                raise DataError(f"{path}: there are two members {name!r}")
            seen.add(name)
            member = _Member(source, size)
            yield name, member
            source.skip(member.left)
        source.skip(-size % BLOCK)
    else:
        raise DataError(f"{path} has more than {MAX_MEMBERS} members")
    while rest := source.some(CHUNK):
        if any(rest):
            raise DataError(f"{path} has further bytes after the end of its tar archive")


def _header(block: bytes, path: Path) -> tuple[str, int, str]:
    """Return name, size and kind of a member, if they are what a data set may have."""
    if sum(block[:148]) + 8 * 32 + sum(block[156:]) != _octal(block[148:156]):
        raise DataError(f"{path} is damaged or no tar archive: a header's checksum is wrong")
    name = block[:100].split(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345] != 0:
        name = block[345:500].split(b"\0")[0] + b"/" + name
    text, kind = name.decode("latin-1"), chr(block[156] or 48)
    shown = ascii(text[:100])
    if kind not in "05xg":
        raise DataError(f"{path}: {shown} is {_REFUSED.get(kind, f'of kind {kind!a}')}")
    if not (text.isascii() and text.isprintable()):
        raise DataError(f"{path}: the name {shown} is not plain text")
    if kind in "05" and (text.startswith("/") or ".." in text.split("/") or not text):
        raise DataError(f"{path}: the name {shown} leads out of the archive")
    size = _octal(block[124:136])
    if size is None:
        raise DataError(f"{path}: {shown} has no sensible size")
    return text.removeprefix("./") if text != "./" else text, size, kind


def _octal(field: bytes) -> int | None:
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else None


def _check_pax(source: _Gunzip, size: int, path: Path) -> None:
    """Pass over an extended header that only says what does not matter here."""
    if size > SMALL_FILE:
        raise DataError(f"{path} has an extended header of {size:,} bytes")
    data = source.exactly(size)
    while data:
        digits, _, _ = data[:8].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        key, equals, _ = data[len(digits) + 1 : length].partition(b"=")
        if not equals or length > len(data) or data[length - 1 : length] != b"\n":
            raise DataError(f"{path} has a damaged extended header")
        text = key.decode("latin-1")
        if text not in _PAX_IGNORED and not text.startswith(_PAX_PREFIXES):
            raise DataError(f"{path} has an extended header with {text[:60]!a}")
        data = data[length:]
