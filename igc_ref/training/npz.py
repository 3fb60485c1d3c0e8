"""Reading an ``.npz`` that somebody else may have made: plain arrays, as `numpy.savez` writes them.

`numpy.load` allocates what a header claims before it looks for the bytes, evaluates headers as
Python, and follows a zip directory that lists one member a thousand times. Here the directory must
account for every byte of the file once, a header is compared with its one allowed form, and no
array is allocated unless all of its bytes are there. So memory stays within the size of the file.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["read_arrays"]

MAX_DIRECTORY = 1 << 20  # bytes: some ten thousand arrays
_END = struct.Struct("<4s4H2LH")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_HEADER = re.compile(
    rb"\{'descr': '([<|](?:f[248]|c8|c16|[iu][1248]|b1|U[1-9]\d{0,7}))', "
    rb"'fortran_order': (False|True), 'shape': \(((?:\d{1,15}, ?)*(?:\d{1,15})?)\), \} *\n"
)


@dataclass(frozen=True)
class _Place:
    """What the zip directory says of one member."""

    name: bytes
    crc: int
    size: int
    offset: int


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an uncompressed ``.npz``, by name.

    Parameters
    ----------
    path : Path
        A file of `numpy.savez`, with numbers, truth values or text; smaller than 4 GiB.

    Returns
    -------
    dict of str to ndarray
        Writable arrays.

    Raises
    ------
    ValueError
        If the file is damaged, or anything but what `numpy.savez` writes. One line says what.
    OSError
        If it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        places = _directory(file, size)
        arrays = {}
        position = 0
        for place in places:
            if place.offset != position:
                raise ValueError("its members overlap, or leave room between them")
            name = place.name.removesuffix(b".npy").decode("ascii")
            arrays[name] = _member(file, place, size)
            position = file.tell()
        if position != size - _END.size - sum(_ENTRY.size + len(p.name) for p in places):
            raise ValueError("it has bytes that belong to no member")
    return arrays


def _directory(file: BufferedReader, size: int) -> list[_Place]:
    """Return the members in the order of the file, if the directory is plain and complete."""
    end = _exactly(file, size - _END.size, _END.size)
    sign, disk, first, here, count, length, start, comment = _END.unpack(end)
    if sign != b"PK\5\6" or disk or first or comment or here != count:
        raise ValueError("it is cut off, or no zip file as numpy writes it")
    if length > MAX_DIRECTORY or start + length != size - _END.size:
        raise ValueError("its zip directory is not where it should be")
    data = _exactly(file, start, length)
    places: dict[bytes, _Place] = {}
    while data:
        if len(data) < _ENTRY.size:
            raise ValueError("its zip directory is cut off")
        fields = _ENTRY.unpack_from(data)
        sign, flags, method, crc, packed, plain = fields[0], *fields[3:5], *fields[7:10]
        names, extra, note, offset = *fields[10:13], fields[16]
        name = data[_ENTRY.size : _ENTRY.size + names]
        if sign != b"PK\1\2" or flags or extra or note or len(name) != names:
            raise ValueError("its zip directory is not as numpy writes it")
        if method or packed != plain:
            raise ValueError("it has compressed members")
        shown = ascii(name[:60].decode("latin-1"))
        if not name.endswith(b".npy") or not _plain(name):
            raise ValueError(f"its member {shown} is no array")
        if name in places:
            raise ValueError(f"its member {shown} is there twice")
        places[name] = _Place(name, crc, plain, offset)
        data = data[_ENTRY.size + names :]
    if len(places) != count:
        raise ValueError("its zip directory has another number of members than it says")
    return sorted(places.values(), key=lambda place: place.offset)


def _plain(name: bytes) -> bool:
    return name.isascii() and name.decode("ascii").isprintable()


def _member(file: BufferedReader, place: _Place, file_size: int) -> npt.NDArray[Any]:
    """Read the array of one member, and leave the file at the member's end."""
    shown = repr(place.name.decode("ascii"))[:80]
    sign, _, flags, method, _, _, crc, _, _, names, extra = _LOCAL.unpack(
        _exactly(file, place.offset, _LOCAL.size)
    )
    name = _exactly(file, place.offset + _LOCAL.size, names)
    plain = sign == b"PK\3\4" and not flags and not method and extra in (0, 20)  # 20: zip64
    if not plain or crc != place.crc or name != place.name:
        raise ValueError(f"the zip header of {shown} contradicts the directory")
    start = place.offset + _LOCAL.size + names + extra
    if start + place.size > file_size:
        raise ValueError(f"{shown} is cut off")
    head = _exactly(file, start, min(10, place.size))
    length = int.from_bytes(head[8:10], "little")
    if head[:8] != b"\x93NUMPY\1\0" or len(head) + length > place.size:
        raise ValueError(f"{shown} is no array")
    head += _exactly(file, start + len(head), length)
    form, shape, order = _form(head[10:], place.size - len(head), shown)
    flat = np.empty(math.prod(shape), form)
    content = flat.view(np.uint8)
    if file.readinto(content.data) != content.size:
        raise ValueError(f"{shown} is cut off")
    if zlib.crc32(content.data, zlib.crc32(head)) != place.crc:
        raise ValueError(f"the checksum of {shown} is wrong")
    return flat.reshape(shape, order=order)


def _form(
    header: bytes, size: int, shown: str
) -> tuple[np.dtype[Any], tuple[int, ...], Literal["C", "F"]]:
    """Return dtype, shape and order that a header states, if the array has so many bytes."""
    found = _HEADER.fullmatch(header)
    if not found:
        raise ValueError(f"{shown} is not an array of numbers or text")
    form = np.dtype(found[1].decode())
    shape = tuple(int(n) for n in found[3].split(b",") if n.strip())
    if math.prod(n for n in shape if n) >= 2**31 * 2**31 or len(shape) > 32:
        raise ValueError(f"{shown} has an impossible shape")
    if (claimed := math.prod(shape) * form.itemsize) != size:
        raise ValueError(f"{shown} claims {claimed:,} bytes and has {size:,}")
    return form, shape, "F" if found[2] == b"True" else "C"


def _exactly(file: BufferedReader, at: int, size: int) -> bytes:
    data = b""
    if at >= 0:
        file.seek(at)
        data = file.read(size)
    if len(data) != size or at < 0:
        raise ValueError("it is empty or cut off")
    return data
