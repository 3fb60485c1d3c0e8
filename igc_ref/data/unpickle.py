"""Reading a pickle without obeying it: numbers, text, lists, dicts and uint8 arrays, no more.

The python layout of CIFAR is a pickle, and a pickle is a program that may call whatever it names.
Python's own `pickle.Unpickler` runs the program here, but every name in it is answered by one of
the stand-ins below. They import nothing and call nothing that the file names: they check their
arguments against the few forms that such files have, and raise for any other.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.errors import DataError, one_line

__all__ = ["load_pickle"]

_NAMES = {
    "numpy.core.multiarray._reconstruct": "_reconstruct",
    "numpy._core.multiarray._reconstruct": "_reconstruct",
    "numpy.core.numeric._frombuffer": "_frombuffer",
    "numpy._core.numeric._frombuffer": "_frombuffer",
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
}


class _DType:
    """The one element type there is, uint8."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        if state not in ((3, "|", *[None] * 3, -1, -1, 0), (3, b"|", *[None] * 3, -1, -1, 0)):
            raise DataError("the pickle sets the state of a dtype that is not uint8")


class _Array:
    """An array that the file has announced, and its value once the file has given it."""

    __slots__ = ("value",)

    def __init__(self, value: npt.NDArray[np.uint8] | None = None) -> None:
        self.value = value

    def __setstate__(self, state: object) -> None:
        match state:
            case (1, shape, _DType(), 0 | 1 as fortran, bytes(raw)):
                self.value = _array(raw, shape, "F" if fortran else "C")
            case _:
                raise DataError("the pickle sets a state that is not that of a uint8 array")


class _StandIn:
    """Answers a name in the file; a call checks its arguments and does what the name would do."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: object) -> object:
        match self.name, arguments:
            case "_reconstruct", (_StandIn(name="ndarray"), (0,), "b" | b"b"):
                return _Array()
            case "_frombuffer", (bytes() | bytearray() as raw, _DType(), shape, "C" | "F" as order):
                return _Array(_array(bytes(raw), shape, order))
            case "dtype", ("u1" | b"u1" | "|u1" | b"|u1", 0, 1):
                return _DType()
            case "encode", (str(text), "latin1" | "latin-1"):  # bytes, as Python 3 saves them
                return text.encode("latin-1")
        raise DataError(f"the pickle calls {self.name} with arguments that no CIFAR file has")

    def __setstate__(self, state: object) -> None:
        raise DataError(f"the pickle sets a state of {self.name}")


class _Unpickler(pickle.Unpickler):
    """Python's unpickler, which gets a stand-in for every name that it knows, and no other."""

    def find_class(self, module: str, name: str) -> _StandIn:
        known = _NAMES.get(f"{module}.{name}")
        if known is None:
            refused = f"{module[:60]}.{name[:60]}"
            raise DataError(f"the pickle names {refused!a}; allowed are {', '.join(_NAMES)}")
        return _StandIn(known)


def load_pickle(data: bytes) -> object:
    """Read a pickle of the kind that the python layout of CIFAR consists of.

    Parameters
    ----------
    data : bytes
        The whole file, written by Python 3 in any protocol or by Python 2 in protocol 1 or 2,
        whose text stays bytes.

    Returns
    -------
    object
        Numbers, text, lists, tuples and dicts as they were saved. An array, alone or as a value of
        the outermost dict, is a read-only uint8 ndarray.

    Raises
    ------
    DataError
        If the pickle is damaged, or names or calls anything that these files do not.

    Examples
    --------
    >>> load_pickle(pickle.dumps({"labels": [3, 8]}))
    {'labels': [3, 8]}
    """
    try:
        _check_opcodes(data)
        value: Any = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way, MemoryError among them
        reason = one_line(f"{type(error).__name__}: {error}")
        raise DataError(f"damaged pickle: {reason}") from error
    if isinstance(value, dict):
        return {key: _finished(item) for key, item in value.items()}
    return _finished(value)


def _check_opcodes(data: bytes) -> None:
    """Refuse what makes Python's unpickler allocate memory on a claim, or look names up elsewhere.

    `pickletools` itself raises if a text is shorter than it claims to be.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name.startswith("EXT"):
            raise DataError(f"the pickle uses the opcode {opcode.name}")
        if opcode.name.endswith("PUT") and int(argument or 0) > count:  # it sizes the memo
            raise DataError(f"damaged pickle: value {count:,} is remembered as {argument:,}")


def _finished(value: object) -> object:
    if not isinstance(value, _Array):
        return value
    if value.value is None:
        raise DataError("damaged pickle: an array is announced, but its bytes never come")
    return value.value


def _array(raw: bytes, shape: object, order: str) -> npt.NDArray[np.uint8]:
    sizes = shape if isinstance(shape, tuple) and len(shape) <= 4 else (-1,)
    if not all(isinstance(n, int) and 0 <= n <= len(raw) for n in sizes):
        raise DataError(f"damaged pickle: an array of {len(raw):,} bytes has an impossible shape")
    if math.prod(sizes) != len(raw):
        raise DataError(f"damaged pickle: an array of shape {sizes} has {len(raw):,} bytes")
    return np.frombuffer(raw, np.uint8).reshape(sizes, order="F" if order == "F" else "C")
