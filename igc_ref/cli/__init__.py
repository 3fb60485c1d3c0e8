"""The command ``igc-ref``. `main` imports the rest of it, so that it also answers Ctrl-C then."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from igc_ref import __version__

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 after a one-line error, or 128 + a signal's number.

    A command line that cannot be read ends the program with exit status 2.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - None if it was closed
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    form, warnings.formatwarning = warnings.formatwarning, _warning
    try:
        return _run(arguments)
    except BrokenPipeError:  # the reader has gone, as after `| head`
        for stream in (sys.stdout, sys.stderr):  # at exit, Python would try again and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 128 + 13  # SIGPIPE, which Windows does not name
    finally:
        warnings.formatwarning = form


def _warning(message: object, *_: object, **__: object) -> str:
    """Return a warning as the command prints it: one line, without a line of source text."""
    from igc_ref.errors import one_line

    return f"igc-ref: warning: {one_line(message, 2000)}\n"


def _run(arguments: Sequence[str] | None) -> int:
    try:
        from igc_ref.errors import IGCError, one_line

        options = vars(_parser().parse_args(arguments))
        options.pop("command")(**options)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as stop:
        print(f"igc-ref: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 128 + int(getattr(stop, "signal", signal.SIGINT))
    except (IGCError, OSError, MemoryError) as error:
        text = str(error)
        if isinstance(error, MemoryError):
            text = f"not enough memory: {error}"
        elif isinstance(error, OSError) and error.filename:
            text = f"cannot use {error.filename}: {error.strerror}"
        print(f"igc-ref: error: {one_line(text, 2000)}", file=sys.stderr)
        return 1
    finally:
        sys.stdout.flush()
    return 0


def _parser() -> Any:
    from igc_ref.cli import commands, doctor, exchange, studies
    from igc_ref.cli.options import Parser

    text = "Interleaved group convolutions: train, measure, compare."
    parser = Parser(prog="igc-ref", description=text)
    parser.add_argument("--version", action="version", version=f"igc-ref {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (commands, exchange, studies, doctor):
        group.add_commands(subparsers)
    return parser
