"""Reading of a pickle without obeying it: numbers, text, lists, dicts and uint8 arrays, no more.

The python layout of CIFAR is a pickle, and a pickle is a program that may call whatever it names.
Here a name stands for nothing: `numpy.dtype` in a file is a label on our own stack, and the few
calls that such files make are recognised by their form and carried out by the code below. The
opcodes, their number and the text they may copy are limited, so the memory is too.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.errors import DataError

__all__ = ["load_pickle"]

MAX_OPCODES = 1_000_000  # CIFAR-100, saved again by Python 3, takes 10 for each of 50,000 pictures

_NAMES = {
    "numpy.core.multiarray._reconstruct": "_reconstruct",
    "numpy._core.multiarray._reconstruct": "_reconstruct",
    "numpy.core.numeric._frombuffer": "_frombuffer",
    "numpy._core.numeric._frombuffer": "_frombuffer",
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
}

# What Python's own handlers do safely: they push a value, build a tuple or list, or use the memo.
# fmt: off
_PLAIN = {
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE",
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINBYTES", "SHORT_BINBYTES", "TUPLE", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "LIST", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "GLOBAL", "STACK_GLOBAL",
    "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET",
}
# fmt: on


@dataclass(frozen=True)
class _Global:
    """A name the file mentions; it is not callable and leads nowhere."""

    name: str


@dataclass(frozen=True)
class _DType:
    """The one element type there is, uint8."""


@dataclass
class _Array:
    """An array that the file has announced, and its value once the file has given it."""

    value: npt.NDArray[np.uint8] | None = None


def load_pickle(data: bytes) -> object:
    """Read a pickle of the kind that the python layout of CIFAR consists of.

    Parameters
    ----------
    data : bytes
        The whole file, written by Python 2 or 3 in any protocol. Text of Python 2 stays bytes.

    Returns
    -------
    object
        Numbers, text, lists, tuples and dicts as they were saved. An array, alone or as a value of
        the outermost dict, is a read-only uint8 ndarray.

    Raises
    ------
    DataError
        If the pickle is damaged, or names or does anything that these files do not.
    """
    source = io.BytesIO(data)
    try:
        value: object = _Unpickler(source, text_limit=len(data)).load()
    except DataError:
        raise
    except Exception as error:  # damage makes the handlers fail in as many ways as they have lines
        raise DataError(
            f"damaged pickle: {type(error).__name__} at byte {source.tell():,} of {len(data):,}"
        ) from error
    if isinstance(value, dict):
        return {key: _finished(item) for key, item in value.items()}
    return _finished(value)


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


class _Unpickler(pickle._Unpickler):
    """Python's unpickler, with names that mean nothing and handlers that check first.

    It is the one written in Python: the C one sizes its memo by the largest index in the file, so
    that seven bytes of LONG_BINPUT make it ask for gigabytes.
    """

    stack: list[Any]  # these four are the base class's
    read: Callable[[int], bytes]
    append: Callable[[object], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, source: io.BytesIO, text_limit: int) -> None:
        super().__init__(source, encoding="bytes")
        self.opcodes_left = MAX_OPCODES
        self.text_left = text_limit

    def find_class(self, module: str, name: str) -> _Global:
        known = _NAMES.get(f"{module}.{name}")
        if known is None:
            refused = f"{module[:60]}.{name[:60]}"
            raise DataError(f"the pickle names {refused!a}; allowed are {', '.join(_NAMES)}")
        return _Global(known)

    def load_reduce(self) -> None:
        """REDUCE: a call, recognised by its form."""
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def _call(self, function: object, args: object) -> object:
        match function, args:
            case _Global("_reconstruct"), (_Global("ndarray"), (0,), "b" | b"b"):
                return _Array()
            case _Global("_frombuffer"), (bytes(raw), _DType(), shape, ("C" | "F") as order):
                return _Array(_array(raw, shape, order))
            case _Global("dtype"), ("u1" | b"u1" | "|u1" | b"|u1", 0, 1):
                return _DType()
            case _Global("encode"), (str(text), "latin1" | "latin-1"):
                self.text_left -= len(text)  # one text encoded many times would fill the memory
                if self.text_left < 0:
                    raise DataError("the pickle encodes more text than it holds")
                return text.encode("latin-1")
            case _Global(name), _:
                raise DataError(f"the pickle calls {name} with arguments that no CIFAR file has")
        raise DataError("the pickle calls something that is not a function")

    def load_build(self) -> None:
        """BUILD: the state of a dtype, which must be uint8's, or the contents of an array."""
        state = self.stack.pop()
        match self.stack[-1], state:
            case _DType(), (3, "|" | b"|", None, None, None, -1, -1, 0):
                pass
            case _Array() as array, (1, shape, _DType(), 0 | 1 as fortran, bytes(raw)):
                array.value = _array(raw, shape, "F" if fortran else "C")
            case _:
                raise DataError("the pickle sets a state that is not that of a uint8 array")

    def load_bytearray8(self) -> None:
        """BYTEARRAY8: what is there, where Python's handler first allocates what is claimed."""
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    def load_dict(self) -> None:
        """DICT: the items since the mark."""
        items = self.pop_mark()
        self.append({})
        self._fill(items)

    def load_setitem(self) -> None:
        """SETITEM: one item."""
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([key, value])

    def load_setitems(self) -> None:
        """SETITEMS: the items since the mark."""
        self._fill(self.pop_mark())

    def _fill(self, items: list[Any]) -> None:
        # Keys are text alone: to hash a tuple nested a million deep overflows the C stack.
        target = self.stack[-1]
        if type(target) is not dict or not all(isinstance(key, (str, bytes)) for key in items[::2]):
            raise DataError("the pickle fills something other than a dict with text for keys")
        target.update(zip(items[::2], items[1::2], strict=True))


def _metered(handler: Callable[[Any], None]) -> Callable[[_Unpickler], None]:
    def run(machine: _Unpickler) -> None:
        machine.opcodes_left -= 1
        if machine.opcodes_left < 0:
            raise DataError(f"the pickle has more than {MAX_OPCODES:,} opcodes")
        handler(machine)

    return run


def _refusing(name: str) -> Callable[[_Unpickler], None]:
    def run(_: _Unpickler) -> None:
        raise DataError(f"the pickle uses the opcode {name}, which no CIFAR file needs")

    return run


def _handlers() -> dict[int, Callable[[Any], None]]:
    own = {
        "REDUCE": _Unpickler.load_reduce,
        "BUILD": _Unpickler.load_build,
        "BYTEARRAY8": _Unpickler.load_bytearray8,
        "DICT": _Unpickler.load_dict,
        "SETITEM": _Unpickler.load_setitem,
        "SETITEMS": _Unpickler.load_setitems,
    }
    table: dict[int, Callable[[Any], None]] = {}
    for opcode in pickletools.opcodes:
        code = ord(opcode.code)
        if opcode.name in own:
            table[code] = _metered(own[opcode.name])
        elif opcode.name in _PLAIN:
            table[code] = _metered(pickle._Unpickler.dispatch[code])
        else:
            table[code] = _refusing(opcode.name)
    return table


_Unpickler.dispatch = _handlers()
