"""The errors a user can meet, and the validators that raise them.

Each message names the offending value and what is allowed.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

KernelSize = int | tuple[int, int]  # of a convolution: k, or (kh, kw)
Axes = tuple[int, ...] | str  # a shape, or the names of its axes, as "(out, in/groups, kh, kw)"
MAX_INTEGER = 2**31 - 1
MAX_SIDE = 999  # of a network's kernels: more than any image that is trained on
MISREAD = (np.ma.MaskedArray, np.matrix)  # kinds of arrays on which @ and sums mean something else
MAX_MESSAGE = 3000  # characters: what is said of a failed download may have 2000


class IGCError(Exception):
    """Base of every error that the command line prints as one line, whatever the message quotes."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message, MAX_MESSAGE))


class SpecError(IGCError, ValueError):
    """A block, a network or a training configuration that cannot exist."""


class DataError(IGCError, ValueError):
    """A data set that is missing, damaged or not what its name says."""


class BackendError(IGCError, RuntimeError):
    """A backend that was asked for and cannot run on this machine."""


class CheckpointError(IGCError, ValueError):
    """A checkpoint that is missing, damaged or of another network."""


class TrainingError(IGCError, ArithmeticError):
    """A run that cannot go on: its loss is no longer a finite number."""


class Interrupted(KeyboardInterrupt):
    """A run was asked to end and has saved its state.

    Attributes
    ----------
    signal : int
        SIGINT, SIGTERM, SIGHUP or SIGPIPE.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal = signal_number


def divides(name: str, divisor: int, whole_name: str, whole: int) -> int:
    """Return whole/divisor, or raise a SpecError that names both if that is no integer."""
    if whole % integer(name, divisor):
        raise SpecError(f"{whole_name}={whole} is not divisible by {name}={divisor}")
    return whole // int(divisor)


def choice(
    name: str, value: object, allowed: Collection[str], error: type[IGCError] = SpecError
) -> str:
    """Return `value` as a str if it, or the text of an integer, is one of these, or raise `error`.

    The message names what is allowed.
    """
    if type(value) is int or isinstance(value, np.integer):
        value = text if (text := shown(int(value))) in allowed else value
    if not isinstance(value, str) or value not in allowed:
        raise error(f"{name}={shown(value)} is unknown; choose one of {', '.join(allowed)}")
    return str(value)


def user_path(name: str, given: object) -> Path:
    """Return a path that a user gave, ``~`` replaced by the home folder.

    A SpecError if it is empty, no path, or has a control character: messages are lines.
    """
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else ""
    if not text or min(text) < " ":
        raise SpecError(f"{name}={shown(given)} is not a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise SpecError(f"{name}={shown(given)}: there is no such home folder") from None


def integer(name: str, value: object, minimum: int = 1, maximum: int = MAX_INTEGER) -> int:
    """Return `value` as an int from `minimum` to `maximum`, or raise a SpecError."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = minimum - 1
    if isinstance(value, bool) or number < minimum:
        raise SpecError(f"{name}={shown(value)} is not an integer of at least {minimum}")
    if number > maximum:
        raise SpecError(f"{name}={shown(number)} is too large; at most {maximum} is allowed")
    return number


def odd_sizes(name: str, value: object) -> tuple[int, ...]:
    """Return one odd integer, or several (as text, with commas between them), as a tuple.

    A SpecError if it is anything else.

    Examples
    --------
    >>> odd_sizes("kernel_sizes", 3), odd_sizes("kernel_sizes", "3,5")
    ((3,), (3, 5))
    """
    many = value.split(",") if isinstance(value, str) else value
    many = many if isinstance(many, tuple | list) else np.atleast_1d(np.asarray(many)).tolist()
    try:
        sizes = tuple(integer(name, int(n) if isinstance(n, str) else n) for n in many)
    except ValueError:  # a SpecError is one
        sizes = ()
    if not sizes or min(n % 2 for n in sizes) == 0 or max(sizes) > MAX_SIDE:
        raise SpecError(
            f"{name}={shown(value)} is not allowed; it must be an odd number of at most {MAX_SIDE}"
            ", or several with commas between them, such as 3,5,7"
        )
    return sizes


def int_or_pair(name: str, value: object) -> KernelSize:
    """Return the size of a kernel: an int k, or a pair (kh, kw) if they differ.

    A SpecError if it is neither an integer of at least 1 nor a pair of such.

    Examples
    --------
    >>> int_or_pair("kernel_size", (3, 3)), int_or_pair("kernel_size", [1, 5])
    (3, (1, 5))
    """
    if not isinstance(value, tuple | list):
        return integer(name, value)
    if len(value) != 2:
        raise SpecError(f"{name}={shown(value)} is not an integer or a pair (kh, kw)")
    kh, kw = (integer(f"{name}[{axis}]", side) for axis, side in enumerate(value))
    return kh if kh == kw else (kh, kw)


def kernel_pair(kernel_size: object) -> tuple[int, int]:
    """Return height and width of a kernel, (kh, kw), of an int or a pair; see `int_or_pair`."""
    k = int_or_pair("kernel_size", kernel_size)
    return k if isinstance(k, tuple) else (k, k)


def shown(value: object) -> str:
    """Return a value as a message quotes it."""
    try:
        return one_line(repr(value))
    except ValueError:  # Python refuses to write out an integer of thousands of digits
        return f"<{type(value).__name__} of thousands of digits>"


def kind_of(value: object) -> str:
    """Return the full name of a value's type, for a message."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def instance(name: str, value: object, kind: type) -> None:
    """Raise a TypeError that names its type unless `value` is of this kind."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {kind_of(value)}; {kind.__name__} is needed")


def is_array(value: object, kind: type = np.ndarray) -> bool:
    """Return whether this is an array of a library; not a masked one, and no ``numpy.matrix``."""
    return isinstance(value, kind) and not isinstance(value, MISREAD)


@lru_cache(maxsize=4096)
def fits(shape: tuple[int, ...], axes: Axes) -> bool:
    """Return whether a shape is this one, or has such axes: equal names are equal numbers.

    Examples
    --------
    >>> fits((6, 2, 3, 3), "(out, 2, k, k)"), fits((6, 2, 3, 4), "(out, 2, k, k)")
    (True, False)
    """
    if not isinstance(axes, str):
        return shape == axes
    wanted, named = axes.strip("(,)").split(", "), dict[str, int]()
    return len(shape) == len(wanted) and all(
        size == (int(axis) if axis.isdigit() else named.setdefault(axis, size))
        for axis, size in zip(wanted, shape, strict=True)
    )


def arrays(axes: Axes = "", /, **values: Any) -> None:
    """Raise unless these are NumPy arrays of numbers, of this shape if one is given: see `fits`."""
    for name, value in values.items():
        if not is_array(value):
            raise TypeError(f"{name} is {kind_of(value)}; numpy.ndarray is needed")
        if value.dtype.char not in np.typecodes["AllInteger"] + "fdFD":
            raise TypeError(f"{name} is {value.dtype}; float64, complex128 or integers are needed")
        if axes and not fits(value.shape, axes):
            raise SpecError(f"{name} has shape {value.shape}; {axes} is needed")


def finite(name: str, array: Any) -> None:
    """Raise a SpecError if a number is not finite, or so great that a norm might not be."""
    greatest = float(np.abs(array).max())
    if not greatest < 1e300:
        raise SpecError(f"{name} holds numbers that are not finite, or not below 1e300: {greatest}")


def one_line(text: object, limit: int = 200) -> str:
    """Return any text as one printable line; of a longer one than `limit`, both ends.

    Examples
    --------
    >>> one_line("0123456789" * 99, limit=20)
    '0123456789 ... 56789'
    """
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text).strip())
    end = limit // 4
    return line if len(line) <= limit else f"{line[: limit - end - 5]} ... {line[-end:]}"


def describe(error: BaseException, limit: int = 1000) -> str:
    r"""Return an error's text in one line, after its type if it is not one of ours.

    Examples
    --------
    >>> describe(ImportError("no library\nof this name"))
    'ImportError: no library of this name'
    """
    kind = "" if isinstance(error, IGCError | Interrupted) else f"{type(error).__name__}: "
    return one_line(kind + " ".join(str(error).split()), limit)
