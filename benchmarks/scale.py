"""What it costs to share a batch: bytes and seconds of a training step on 1 to 64 nodes.

    python -m benchmarks.scale            # needs the extras numba and mpi
    python -m benchmarks.scale --hashes   # instead run the commands of the page's table of hashes

It measures for about a minute, on two cores that should do nothing else, starts ``mpiexec -n 2``
itself, and writes ``benchmarks/results/scale.json`` and the tables of ``docs/scale.md``.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.gathers import gathers
from igc_ref.backends.numba.backend import NumbaBackend
from igc_ref.bench.record import machine
from igc_ref.files import write_json
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.model import build
from igc_ref.report import markdown, say
from igc_ref.training.loop import training_step
from igc_ref.training.optim import SGD
from igc_ref.training.ranks import World

ROOT = Path(__file__).parents[1]
PAGE, RECORD = ROOT / "docs" / "scale.md", ROOT / "benchmarks" / "results" / "scale.json"
NETWORKS = [Architecture("plain_igc", 20, L=24, M=2), Architecture("resnet_igc", 98, L=24, M=2)]
BATCHES = (64, 1024)  # images; the second has a unit for each of 64 ranks
LINKS = (1, 10, 100)  # Gbit/s
HOP = 20e-6  # seconds that a network adds to a round of messages: a guess, for TCP over Ethernet
SIZES = [4**i for i in range(3, 12)]  # bytes that a rank gives


def step_seconds(a: Any, world: Any = None, threads: int = 1, batch: int = 64, n: int = 9) -> float:
    """Return the seconds of a training step: the median of n after the first."""
    backend, rng, seconds = NumbaBackend(threads), np.random.default_rng(0), []
    if world is not None:
        backend.join(world)
    model = build(a, backend)
    optimiser, labels = SGD(model), rng.integers(0, a.num_classes, batch)
    images = rng.normal(size=(batch, *a.input_shape)).astype("float32")
    with backend.session():
        for _ in range(n + 1):
            start = time.perf_counter()
            x = backend.to_layout(images[backend.share(batch)])
            training_step(model, optimiser, x, labels, 0.01)
            seconds.append(time.perf_counter() - start)
    return median(seconds[-n:])


def rank() -> None:
    """Be one of two ranks: time gathers and steps; rank 0 prints them as JSON."""
    from mpi4py import MPI

    world, gathered = World(MPI.COMM_WORLD), []
    for size in SIZES:
        rows, seconds = np.zeros((1, size), "u1"), []
        for _ in range(40):
            start = time.perf_counter()
            world.allgather(rows, [1, 1])
            seconds.append(time.perf_counter() - start)
        gathered.append(median(seconds))
    two = {str(a): step_seconds(a, world) for a in NETWORKS}
    if world.rank == 0:
        say(json.dumps({"gathered": gathered, "2 ranks": two}))


def measure() -> dict[str, Any]:
    """Measure, and fit what a round of messages and a byte cost between two ranks here."""
    mpiexec = str(Path(sys.executable).with_name("mpiexec"))
    command = [mpiexec, "-n", "2", sys.executable, "-m", "benchmarks.scale", "--rank"]
    found = json.loads(subprocess.run(command, stdout=-1, check=True, cwd=ROOT).stdout)
    weights = 1 / np.array(found["gathered"])  # so that every size counts alike
    found["byte"], found["round"] = np.polyfit(SIZES, found["gathered"], 1, w=weights)
    for threads in (1, 2):
        found[f"{threads} threads"] = {str(a): step_seconds(a, threads=threads) for a in NETWORKS}
    found["gathers"] = {str(a): {str(n): gathers(a, n) for n in BATCHES} for a in NETWORKS}
    return {"machine": machine(1, ("numba", "mpich")), "unit": NumbaBackend.unit, **found}


def predicted(found: Any, name: str, batch: int, p: int, link: float, tree: bool = False) -> float:
    """Return the seconds of a step on p nodes; `link` in bytes/s, infinite within a machine."""
    units, parts = batch // found["unit"], found["gathers"][name][str(batch)]
    calls, size = (sum(numbers) for numbers in zip(*parts.values(), strict=True))
    if tree:  # sums of gradients are halved from round to round, then gathered
        more, gradients = parts["gradients"]
        calls, size = calls + more, size - gradients + 2 * gradients / units
    compute = found["1 threads"][name] * batch / BATCHES[0] * math.ceil(units / p) / units
    latency = calls * math.ceil(math.log2(p)) * (found["round"] + HOP * math.isfinite(link))
    return float(compute + latency + size * (p - 1) / p * (found["byte"] + 1 / link))


def tables(found: Any) -> str:
    """Return the measured part of the page."""
    links = [f"{link} Gbit/s" for link in LINKS]
    sizes = [["MB a step", "batch", "features", "moments", "sums", "gradients", "gathers"]]
    check = [["ms a step", "1 thread", "2 threads", "2 ranks", "2 ranks, by the formula"]]
    cost = [["ms a step", "batch", "nodes", *links, *(f"{link}, tree" for link in links)]]
    for name, by_batch in found["gathers"].items():
        times = [found[key][name] for key in ("1 threads", "2 threads", "2 ranks")]
        times.append(predicted(found, name, BATCHES[0], 2, math.inf))
        check.append([name, *(f"{1e3 * s:.1f}" for s in times)])
        for batch, parts in by_batch.items():
            calls, each = zip(*parts.values(), strict=True)
            sizes.append([name, batch, *(f"{n / 1e6:.2f}" for n in each), str(sum(calls))])
            for p in (n for n in (1, 2, 4, 8, 16, 32, 64) if n <= int(batch) // found["unit"]):
                ways = [(1e9 / 8 * link, tree) for tree in (False, True) for link in LINKS]
                ms = (f"{1e3 * predicted(found, name, int(batch), p, *w):.0f}" for w in ways)
                cost.append([name, batch, str(p), *ms])
    how = "`python -m benchmarks.scale`, {date}, {processor}, numba {numba}, mpich {mpich}:"
    costs = f"{1e6 * found['round']:.1f} µs a round, {1e9 * found['byte']:.2f} ns a byte."
    how = f"{how.format(**found['machine'])} {costs}"
    return "\n\n".join([how, *map(markdown, (sizes, check, cost))])


def rehashed(page: str) -> str:
    """Return the page with the hashes that the commands of its table print now."""
    table = re.compile(r"\| `igc-ref (train .*?)` \| .* \|")
    code = "import sys; from igc_ref.cli import main\nfor line in sys.argv[1:]: main(line.split())"
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"{line} --out {folder}/{n}" for n, line in enumerate(table.findall(page))]
        command = [sys.executable, "-c", code, *lines]
        said = subprocess.run(command, stdout=-1, text=True, check=True, cwd=ROOT).stdout
    found = iter(re.findall("weights ([0-9a-f]{64})", said))
    return table.sub(lambda row: f"| `igc-ref {row[1]}` | `{next(found)}` |", page)


if __name__ == "__main__":
    if "--rank" in sys.argv:
        sys.exit(rank())
    text = PAGE.read_text(encoding="utf-8")
    if "--hashes" in sys.argv:
        text = rehashed(text)
    else:
        write_json(RECORD, found := measure())
        new = f"<!-- measured -->\n{tables(found)}\n<!-- to here -->"
        text = re.sub("<!-- measured -->.*<!-- to here -->", new, text, flags=re.DOTALL)
    PAGE.write_text(text, encoding="utf-8")
