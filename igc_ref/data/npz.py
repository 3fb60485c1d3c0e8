"""Reading an ``.npz`` that somebody else may have made: plain arrays, as `numpy.savez` writes them.

`numpy.load` allocates what a header claims before it looks for the bytes. Here no array is
allocated unless all of its bytes are in the file, so memory stays within the size of the file.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

LONGEST_HEADER = 512  # bytes; NumPy parses it as Python, and writes about 120


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an uncompressed ``.npz``, by name.

    Parameters
    ----------
    path : Path
        A file of `numpy.savez`, with numbers, truth values or text.

    Returns
    -------
    dict of str to ndarray
        Writable arrays.

    Raises
    ------
    ValueError
        If the file is damaged, or holds compressed members, Python objects or anything but arrays
        as `numpy.savez` writes them.
    OSError
        If it cannot be read.
    """
    with path.open("rb") as stream:
        try:
            return _arrays(stream, path.stat().st_size)
        except Exception as error:  # a damaged file makes zipfile and NumPy fail in many ways
            raise ValueError(f"{type(error).__name__}: {error}") from error


def _arrays(stream: BinaryIO, size: int) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an open file of `size` bytes."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    with zipfile.ZipFile(stream) as archive, warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy warns of headers that it does not write itself
        members = archive.infolist()
        if any(m.compress_type or m.compress_size != m.file_size for m in members):
            raise ValueError("it has compressed members; numpy.savez writes none")
        if sum(member.file_size for member in members) > size:
            raise ValueError("its members claim more bytes than it has")
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name == member.filename or name in arrays:
                raise ValueError(f"its member {name!r} is no array, or is there twice")
            with archive.open(member) as file:
                arrays[name] = _array(file, member.file_size, name)  # type: ignore[arg-type]
    return arrays


def _array(file: zipfile.ZipExtFile, size: int, name: str) -> npt.NDArray[Any]:
    """Read one array; reading to its last byte makes `zipfile` verify the checksum."""
    if npy.read_magic(file) != (1, 0):
        raise ValueError(f"{name!r} has another version of NumPy's format than 1.0")
    shape, fortran, dtype = npy.read_array_header_1_0(file, max_header_size=LONGEST_HEADER)
    if dtype.kind not in "biufcU" or not dtype.isnative:
        raise ValueError(f"{name!r} is not an array of numbers or text, but of {dtype}")
    claimed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed != there or any(n < 0 for n in shape):
        raise ValueError(f"{name!r} of shape {shape} claims {claimed:,} bytes and has {there:,}")
    flat = np.empty(math.prod(shape), dtype)
    if file.readinto(flat.view(np.uint8).data) != there or file.read(1):
        raise ValueError(f"{name!r} is cut off")
    return flat.reshape(shape, order="F" if fortran else "C")
