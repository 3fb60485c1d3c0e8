"""Reading a pickle without obeying it: numbers, text, lists, dicts and uint8 arrays, no more.

The python layout of CIFAR is a pickle, and a pickle is a program that may call whatever it names.
Python's own `pickle.Unpickler` runs the program here, but every name in it is answered by a
stand-in. It imports nothing and calls nothing that the file names: it checks its arguments against
the few forms that such files have, and raises for any other.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.errors import DataError, describe

_NAMES = {
    "numpy.core.multiarray._reconstruct": "_reconstruct",
    "numpy._core.multiarray._reconstruct": "_reconstruct",
    "numpy.core.numeric._frombuffer": "_frombuffer",
    "numpy._core.numeric._frombuffer": "_frombuffer",
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
}


class _StandIn:
    """Answers a name in the file, or is the dtype uint8 or an array that the file then makes."""

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: npt.NDArray[np.uint8] | None = None) -> None:
        self.name, self.value = name, value

    def __call__(self, *arguments: object) -> object:
        """Check the arguments, and do what the name would do."""
        match self.name, arguments:
            case "_reconstruct", (_StandIn(name="ndarray"), (0,), "b" | b"b"):
                return _StandIn("array")  # its value comes as its state
            case "_frombuffer", (
                bytes() | bytearray() as raw, _StandIn(name="uint8"), shape, "C" | "F" as order,
            ):  # fmt: skip
                return _StandIn("array", _array(bytes(raw), shape, order == "F"))
            case "dtype", ("u1" | b"u1" | "|u1" | b"|u1", 0, 1):
                return _StandIn("uint8")
            case "encode", (str(text), "latin1" | "latin-1"):  # bytes, as Python 3 saves them
                return text.encode("latin-1")
        raise DataError(f"the pickle calls {self.name} with arguments that no CIFAR file has")

    def __setstate__(self, state: object) -> None:
        match self.name, state:
            case "uint8", (3, "|" | b"|", None, None, None, -1, -1, 0):
                pass
            case "array", (1, shape, _StandIn(name="uint8"), 0 | 1 as fortran, bytes(raw)):
                self.value = _array(raw, shape, bool(fortran))
            case _:
                raise DataError(f"the pickle sets a state of {self.name} that no CIFAR file has")


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
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if opcode.name.startswith("EXT"):  # may be answered from a cache, not by `find_class`
                raise DataError(f"the pickle uses the opcode {opcode.name}")
            if opcode.name.endswith("PUT") and int(argument or 0) > count:  # would fill the memory
                raise DataError(f"damaged pickle: value {count:,} is remembered as {argument:,}")
        value: Any = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way, MemoryError among them
        raise DataError(f"damaged pickle: {describe(error, 200)}") from error
    if isinstance(value, dict):
        return {key: _finished(item) for key, item in value.items()}
    return _finished(value)


def _finished(value: object) -> object:
    """Return an array for its stand-in."""
    if isinstance(value, _StandIn) and value.name == "array":
        if value.value is None:
            raise DataError("damaged pickle: an array is announced, but its bytes never come")
        return value.value
    return value


def _array(raw: bytes, shape: Any, fortran: bool) -> npt.NDArray[np.uint8]:
    array = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
    if array.shape != shape:  # it had a -1
        raise DataError(f"damaged pickle: an array of {len(raw):,} bytes has an impossible shape")
    return array
