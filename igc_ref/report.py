"""Lines and tables of text: for the terminal, for a list, for a document, or for nobody."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

Report = Callable[[str], None]


def silent(line: str) -> None:
    """Report nothing."""


def say(line: str) -> None:
    """Print a line at once, also into a pipe; what the terminal cannot show is escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def progress_bar() -> type[Any]:
    """Return tqdm's bar without the thread that would redraw it: a browser has no threads."""
    from tqdm import tqdm  # here: slow to import

    return type("Bar", (tqdm,), {"monitor_interval": 0})


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Lay rows out in columns: the first, or the first `left`, to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out as a Markdown table, the first row its header, numbers to the right."""
    header, *body = (f"| {' | '.join(row)} |" for row in rows)
    rule = "|---|"
    for _, *column in list(zip(*rows, strict=True))[1:]:
        numbers = all(cell.lstrip("*")[:1] in "+-0123456789" for cell in column)
        rule += "---:|" if numbers else "---|"
    return "\n".join([header, rule, *body])
