"""Lines of text about what is going on: to a terminal, to a list, or to nobody."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Report", "silent"]

Report = Callable[[str], None]


def silent(line: str) -> None:
    """Report nothing."""
