"""The command ``igc-ref``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import igc_ref
from igc_ref.cli import commands, doctor, studies
from igc_ref.errors import IGCError
from igc_ref.training.session import Interrupted

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 after a one-line error, or 130 after Ctrl-C."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        command(**options)
    except (IGCError, OSError) as error:
        print(f"igc-ref: error: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"igc-ref: error: not enough memory: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        print(f"igc-ref: {error}", file=sys.stderr)
        return 128 + error.signal
    except KeyboardInterrupt:
        print("igc-ref: interrupted; train --resume RUN continues a run", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="igc-ref", description="Interleaved group convolutions: train, measure, compare."
    )
    parser.add_argument("--version", action="version", version=f"igc-ref {igc_ref.__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_commands(subparsers)
    studies.add_commands(subparsers)
    doctor.add_commands(subparsers)
    return parser
