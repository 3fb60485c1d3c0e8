"""Lines for the person at the terminal."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Print a line at once, also into a pipe; what the terminal cannot show is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)
