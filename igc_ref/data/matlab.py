"""What a MATLAB file may hold, made sure of before a general reader obeys it.

A MATLAB 5 file is a header of 128 bytes and then elements: a type, a number of bytes, and so many
bytes. An array is an element (MATRIX) of four elements: flags, shape, name, values. It may stand in
the file as it is, or packed by zlib as the only contents of another element (COMPRESSED). Numbers
are little-endian here, as on every machine of the last twenty years. Values of a class, double
for instance, are kept as the smallest type that holds them, here bytes.
"""

from __future__ import annotations

import os
import struct
import zlib
from math import prod
from typing import BinaryIO

from igc_ref.errors import DataError

__all__ = ["check_arrays"]

INT8, UINT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 2, 5, 6, 14, 15  # types of elements
WIDTHS = {INT8: 1, INT32: 4, UINT32: 4}  # bytes
NUMBERS = range(6, 16)  # classes of arrays: double, single, integers of 8 to 64 bits
COMPLEX = 0x08  # a flag, in the byte after the class
HEADER = 128  # bytes of a file
HEAD = 256  # bytes of an array that are looked at; before its values it has 48 and its shape
CHUNK = 65_536  # bytes read or unpacked at a time


def check_arrays(file: BinaryIO, place: str, shapes: dict[str, tuple[int, ...]]) -> None:
    """Make sure that a MATLAB file holds these arrays of bytes, each once, and nothing else.

    What is packed is unpacked to its end, a piece at a time: its checksum must be right, and how
    much it is must not surprise the reader. Of values nothing else is looked at.

    Parameters
    ----------
    file : binary file
        Open for reading, of any position.
    place : str
        Where it is, for messages.
    shapes : dict of str to tuple of int
        Name and shape of every array.

    Raises
    ------
    DataError
        If the file is of another format or version, is cut off, or holds anything else.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    header = file.read(HEADER)
    if len(header) < HEADER or header[124:] != b"\0\1IM" or b"\0" in header[:4]:
        raise DataError(f"{place} is no MATLAB 5 file of little-endian numbers")
    missing, at = set(shapes), HEADER
    while at < size:
        try:
            name, end = _array(file, at, size, shapes)
        except DataError as error:
            expected = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise DataError(f"{place}, byte {at:,}: {error}; expected are {expected}") from error
        if name not in missing:
            raise DataError(f"{place} has the array {name} twice")
        missing.remove(name)
        at = end
    if missing:
        raise DataError(f"{place} lacks the array {' and '.join(sorted(missing))}")


def _array(
    file: BinaryIO, at: int, size: int, shapes: dict[str, tuple[int, ...]]
) -> tuple[str, int]:
    """Return the name of the array at this place of the file, and where the next one begins."""
    file.seek(at)
    tag = file.read(8)
    if len(tag) < 8:
        raise DataError("the file is cut off")
    kind, count = struct.unpack("<II", tag)
    if at + 8 + count > size:
        raise DataError(f"an element claims {count:,} bytes, {size - at - 8:,} are there")
    if kind == COMPRESSED:
        head, found = _unpacked(file, count, HEAD + max(map(prod, shapes.values())))
    else:
        head, found = tag + file.read(min(count, HEAD - 8)), 8 + count
    return _name(head, found, shapes), at + 8 + count


def _unpacked(file: BinaryIO, count: int, limit: int) -> tuple[bytes, int]:
    """Return the first bytes and the number of bytes of what is packed in the next `count`."""
    machine, head, found = zlib.decompressobj(), b"", 0
    while not machine.eof:
        if not (data := machine.unconsumed_tail):
            data = file.read(min(count, CHUNK))
            count -= len(data)
        try:
            part = machine.decompress(data, CHUNK)
        except zlib.error as error:
            reason = str(error).rpartition(": ")[2]
            raise DataError(f"a packed array is damaged: {reason}") from error
        if not part and not data:
            raise DataError("a packed array is cut off")
        head += part[: HEAD - len(head)]
        found += len(part)
        if found > limit:
            raise DataError(f"an array unpacks to more than {limit:,} bytes")
    return head, found


def _name(head: bytes, size: int, shapes: dict[str, tuple[int, ...]]) -> str:
    """Return the name of the array of so many bytes that begins so, if it is an expected one."""
    kind, total, at, end = _tag(head, 0)
    if kind != MATRIX:
        raise DataError(f"an element of type {kind}, which is no array")
    if size not in (at + total, end):  # with or without padding
        raise DataError(f"an array claims {total:,} bytes, {size - at:,} are there")
    flags, at = _contents(head, at, UINT32)
    dimensions, at = _contents(head, at, INT32)
    raw, at = _contents(head, at, INT8)
    name, shape = raw.decode("latin-1"), tuple(x for (x,) in struct.iter_unpack("<i", dimensions))
    if name not in shapes:
        raise DataError(f"an array called {name[:60]!a}")
    if len(flags) != 8 or flags[0] not in NUMBERS or flags[1] & COMPLEX:
        raise DataError(f"the array {name} holds something other than real numbers")
    if shape != shapes[name]:
        raise DataError(f"the array {name} has shape {shape[:8]}")
    kind, count, at, end = _tag(head, at)
    if kind != UINT8:
        raise DataError(f"the values of {name} are of type {kind}, not bytes ({UINT8})")
    if count != prod(shape) or not at + count <= size <= end:
        raise DataError(f"the array {name} claims {count:,} values in {size - at:,} bytes")
    return name


def _contents(head: bytes, at: int, kind: int) -> tuple[bytes, int]:
    """Return the contents of an element inside an array, and where the next one begins."""
    found, count, begin, end = _tag(head, at)
    if found != kind or begin + count > len(head) or count % WIDTHS[kind]:
        raise DataError("an array does not begin with flags, shape and name")
    return head[begin : begin + count], end


def _tag(head: bytes, at: int) -> tuple[int, int, int, int]:
    """Return type, number of bytes, begin, and end with padding, of an element inside an array."""
    if at + 8 > len(head):
        raise DataError("an array ends before its values")
    kind, count = struct.unpack_from("<II", head, at)
    if small := kind >> 16:  # of at most 4 bytes, which stand in the second half of the tag
        return kind & 0xFFFF, small, at + 4, at + 8
    return kind, count, at + 8, at + 8 + count + -count % 8
