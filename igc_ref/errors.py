"""The errors a user can meet, and the validators that raise them.

Each message names the offending value and what is allowed.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Collection
from pathlib import Path

MAX_INTEGER = 2**31 - 1


class IGCError(Exception):
    """Base of every error that the command line prints as one line."""


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


def divides(name: str, divisor: int, whole_name: str, whole: int) -> None:
    """Raise a SpecError that names both numbers unless one divides the other."""
    if whole % divisor:
        raise SpecError(f"{whole_name}={whole} is not divisible by {name}={divisor}")


def choice(
    name: str, value: object, allowed: Collection[str], error: type[IGCError] = SpecError
) -> None:
    """Raise `error`, naming `value` and what is allowed, unless it is one of these."""
    if value not in allowed:
        raise error(f"{name}={value!r} is unknown; choose one of {', '.join(allowed)}")


def integer(name: str, value: object, minimum: int = 1, maximum: int = MAX_INTEGER) -> int:
    """Return `value` as an int from `minimum` to `maximum`, or raise a SpecError."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = minimum - 1
    if isinstance(value, bool) or number < minimum:
        raise SpecError(f"{name}={value!r} is not an integer of at least {minimum}")
    if number > maximum:
        # Python refuses to write out an integer of thousands of digits.
        shown = str(number) if number < 2**64 else f"2**{number.bit_length() - 1} or more"
        raise SpecError(f"{name}={shown} is too large; at most {maximum} is allowed")
    return number


def user_path(name: str, given: object) -> Path:
    """Return a path that a user gave, ``~`` replaced by the home folder.

    A SpecError if it is empty, no path, or has a control character: messages are lines.
    """
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else ""
    if not text or min(text) < " ":
        raise SpecError(f"{name}={given!r} is not a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise SpecError(f"{name}={text!r}: there is no such home folder") from None


def one_line(text: object, limit: int = 200) -> str:
    """Return a text that a file or a server may have written as one short, printable line.

    Examples
    --------
    >>> one_line("long " * 99, limit=9)
    'long long'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text).strip())[:limit]


def describe(error: Exception, limit: int = 1000) -> str:
    r"""Return an error's type and text in one line: a broken library's text may have many.

    Examples
    --------
    >>> describe(ImportError("no library\nof this name"))
    'ImportError: no library of this name'
    """
    return one_line(f"{type(error).__name__}: {' '.join(str(error).split())}", limit)
