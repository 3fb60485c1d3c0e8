"""Hostile files by the thousand: every reader must accept or refuse, and do nothing else.

    python -m tests.stress.hostile --cases 20000 --seed 0

Files of both layouts of CIFAR, archives, pickles and checkpoints are mutated, each case from its
own seed, and read in child processes under guard: see ``hostile_worker``. Prints a
table, and what went wrong with the command that repeats it; fails if anything did.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from igc_ref.report import aligned

KINDS = ("binary file", "python file", "python pickle", "binary archive", "python archive",
         "checkpoint")  # fmt: skip


@dataclass
class Tally:
    """What came of the cases of one kind: how many were accepted, refused or neither."""

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def add(self, result: dict[str, Any]) -> None:
        """Count one case."""
        self.counts["bad" if result["violations"] else result["outcome"]] += 1
        self.seconds = max(self.seconds, result.get("seconds", 0.0))
        self.problems += [f"{self.kind}, case {result['case']}: {v}" for v in result["violations"]]


def run(cases: int, seed: int, kinds: tuple[str, ...] = KINDS, plant: str = "") -> list[Tally]:
    """Run the cases, shared out among the kinds, and return the tally of each."""
    shares = [cases // len(kinds) + (i < cases % len(kinds)) for i in range(len(kinds))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda k, n: _run(k, seed, 0, n, plant), kinds, shares))


def _run(kind: str, seed: int, first: int, stop: int, plant: str = "") -> Tally:
    tally = Tally(kind)
    while first < stop:
        for result in _worker(kind, seed, first, stop, plant):
            tally.add({"case": first, **result})  # without a number: the case that killed it
            first += 1
    return tally


def _worker(kind: str, seed: int, first: int, stop: int, plant: str) -> Iterator[dict[str, Any]]:
    """Yield what a worker prints, and how it died, if it did."""
    command = [sys.executable, "-m", "tests.stress.hostile_worker", kind]
    command += [*map(str, (seed, first, stop)), *([plant] if plant else [])]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1"}
    with (
        tempfile.TemporaryDirectory() as folder,  # where a hostile file would write "owned"
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=said, text=True
        ) as process,
    ):
        assert process.stdout is not None
        yield from map(json.loads, process.stdout)
        if process.wait():
            said.seek(0)
            lines = said.read().strip().splitlines() or [f"exit status {process.returncode}"]
            if lines[-1].startswith("a valid"):
                raise RuntimeError(lines[-1])
            died = f"the process died: {lines[0]} (status {process.returncode})"
            yield {"violations": [died]}


def table(tallies: list[Tally]) -> str:
    """Return the tallies as text."""
    rows = [["kind", "cases", "accepted", "refused", "problems", "worst s"]]
    for t in tallies:
        numbers = t.counts.total(), t.counts["accepted"], t.counts["refused"], len(t.problems)
        rows.append([t.kind, *(f"{n:,}" for n in numbers), f"{t.seconds:.3f}"])
    return aligned(rows)


def main() -> int:
    """Run the cases, print the table and the problems; return 1 if there were any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000, help="in all; default 20,000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, help="of this kind alone")
    parser.add_argument("--case", type=int, metavar="N", help="this case of --kind alone")
    options = parser.parse_args()
    start = time.perf_counter()
    if options.case is not None:
        tallies = [_run(options.kind, options.seed, options.case, options.case + 1)]
    else:
        kinds = (options.kind,) if options.kind else KINDS
        tallies = run(options.cases, options.seed, kinds)
    print(table(tallies))
    problems = [problem for tally in tallies for problem in tally.problems]
    total = sum(tally.counts.total() for tally in tallies)
    print(f"{total:,} cases, seed {options.seed}, {time.perf_counter() - start:.0f} s")
    for problem in problems[:40]:
        print(problem)
    if problems:
        print("repeat with: python -m tests.stress.hostile --kind KIND --case N --seed SEED")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
