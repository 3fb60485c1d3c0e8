"""What 1 to 64 cores would get of a training step of the numba backend, by count and simulation.

    python -m benchmarks.cores --batch 64
    python -m benchmarks.cores --only plain_igc --constants SPANS=8 ROWS=2

Steps run here on one thread. Every call of `Team.run` is timed, by the thread's own clock; the rest
of the step is its *serial part*. A plan says how a convolution is cut into pieces. A piece's share
of the call's time is its share of the multiply-adds and of the numbers read and written, with the
rows that its neighbours read and compute as well. In the simulation Python starts one thread after
the other, each takes the next piece when it is free, and no call is faster than its arrays cross
the memory of a socket.

The table says how many times as fast as one core n cores are. "measured" is this machine, with all
its cores, beside the simulation of as many. The last columns say which shares of a step are lost to
the serial part, to too few or unequal pieces, to the start of threads, and to the memory.
"""

from __future__ import annotations

import argparse
import heapq
import time
from itertools import chain
from statistics import median
from typing import Any

import numpy as np

from igc_ref.backends.numba import convolve, plan
from igc_ref.backends.numba.backend import NumbaBackend
from igc_ref.backends.numba.threads import Team
from igc_ref.bench import available_threads
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.model import build
from igc_ref.report import markdown, say
from igc_ref.training.optim import SGD

NETWORKS = [
    Architecture("plain_igc", 20, L=24, M=2),
    Architecture("plain_igc", 20, L=4, M=8),
    Architecture("resnet_igc", 50, L=24, M=2),
    Architecture("plain", 20, width=16),
    Architecture("imagenet_igc", 18, L=4, M=32),
]
CORES = (1, 2, 4, 8, 16, 32, 64)
NUMBER = 12  # multiply-adds in the time in which a number is read or written: a guess
MOST = 10_000_000  # numbers in a batch of images, or the step needs more than 16 GB


class Recorder(Team):
    """A team that notes every call: its sizes, its pieces' work, its arrays' bytes, its seconds."""

    def run(self, kernel: Any, pieces: int, *arguments: Any) -> None:
        """See `Team`."""
        start = time.thread_time()
        super().run(kernel, pieces, *arguments)
        seconds = time.thread_time() - start
        g = next((a for a in arguments if isinstance(a, plan.Sizes)), None)
        flat = chain.from_iterable(a if isinstance(a, tuple) else [a] for a in arguments)
        arrays = {id(a): a.nbytes for a in flat if isinstance(a, np.ndarray)}
        work = np.ones(pieces) if g is None else pieces_of(g, kernel is convolve.backward)
        self.calls.append((g, work, sum(arrays.values()), seconds))


def pieces_of(g: plan.Sizes, backward: bool) -> Any:
    """Return the work of every piece of a convolution, in multiply-adds."""
    rows = np.diff(np.arange(g.spans + 1) * g.rows // g.spans)
    made = rows * g.L * g.out * g.columns * g.lanes  # numbers of x'
    above = np.maximum(0, g.k - g.stride) * -(-rows // g.band)  # read again by every band
    read = (rows * g.stride + above) * g.L * g.inp * g.W * g.lanes
    primary = g.inp * g.k**2 / (2 if g.tiles else 1)  # Winograd's transform halves it
    if backward:
        again = primary if g.M and not g.kept_plane else 0
        halo = made * (rows + g.above + g.below) / rows * (g.mix + 3 * NUMBER)
        work = made * (2 * primary + again + g.mix) + read * 2 * NUMBER + halo
    else:
        work = made * (primary + g.mix + NUMBER) + read * NUMBER
    return np.tile(work, g.blocks)


def makespan(pieces: Any, cores: int, start: float) -> float:
    """Return when the last piece is done: threads take one after the other from their start on."""
    free = [i * start for i in range(min(cores, len(pieces)))]
    for piece in pieces:
        heapq.heapreplace(free, free[0] + piece)
    return max(free, default=0.0)


def simulate(calls: Any, serial: float, cores: int, start: float, speed: float) -> list[float]:
    """Return the seconds of a step: ideal, and with serial part, pieces, start, memory added."""
    total = sum(seconds for *_, seconds in calls)
    added = [(total + serial) / cores, serial + total / cores, serial, serial, serial]
    for _, work, size, seconds in calls:
        pieces = work / work.sum() * seconds
        took = makespan(pieces, cores, start)
        added[2] += makespan(pieces, cores, 0.0)
        added[3] += took
        added[4] += max(took, min(seconds, size / speed))
    return added


def steps(a: Architecture, batch: int, threads: int, count: int) -> tuple[Any, float, float]:
    """Take steps; return their calls, the serial part and the whole, the least seconds of each."""
    backend, rng = NumbaBackend(threads), np.random.default_rng(0)
    backend.team = team = Recorder(threads)
    model = build(a, backend)
    optimiser, labels = SGD(model), rng.integers(0, a.num_classes, batch)
    x = rng.normal(size=(batch, *a.input_shape)).astype("float32")
    found, serial, whole = [], [], []
    with backend.session():
        for _ in range(count + 1):
            team.calls, start, own = [], time.perf_counter(), time.thread_time()
            *_, dlogits = backend.loss(model.forward(x, train=True), labels)
            model.backward(dlogits)
            optimiser.step(0.01)
            serial.append(time.thread_time() - own - sum(call[-1] for call in team.calls))
            whole.append(time.perf_counter() - start)
            found.append(team.calls)
    least = [(*same[0][:-1], min(c[-1] for c in same)) for same in zip(*found[1:], strict=True)]
    return least, min(serial[1:]), min(whole[1:])


def start_seconds(threads: int = 32) -> float:
    """Return the seconds that a thread takes to start: a call with nothing to do, measured."""
    seconds = []
    for count in (2, threads):
        team, found = Team(threads), []
        for _ in range(200):
            begin = time.perf_counter()
            team.run(lambda *_: None, count)
            found.append(time.perf_counter() - begin)
        seconds.append(median(found))
    return (seconds[1] - seconds[0]) / (threads - 2)


def row(a: Architecture, batch: int, start: float, options: argparse.Namespace) -> list[str]:
    """Measure and simulate one network's step."""
    calls, serial, _ = steps(a, batch, 1, options.rounds)
    serial = serial if options.serial is None else options.serial / 1e3
    found = {n: simulate(calls, serial, n, start, 1e9 * options.bandwidth) for n in CORES}
    one, (*_, real) = found[1][-1], steps(a, batch, available_threads(), options.rounds)
    pieces = {g.y.height: g.blocks * g.spans for g, *_ in calls if g}
    lost = (" ".join(f"{p:.0%}" for p in np.diff(found[n]) / found[n][-1]) for n in CORES[-3:])
    return [
        f"{a}, {batch}", ", ".join(f"{h}: {n}" for h, n in pieces.items()), f"{one * 1e3:.1f}",
        f"{serial * 1e3:.1f}", *(f"{one / found[n][-1]:.1f}" for n in CORES[1:]),
        f"{one / real:.1f}", *lost,
    ]  # fmt: skip


def main() -> None:
    """Read the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--only", default="", metavar="WORD", help="networks with this in their names")
    add("--batch", type=int, nargs="+", default=[1, 16, 64, 256], metavar="N")
    add("--rounds", type=int, default=7, help="steps, of which the fastest counts")
    add("--serial", type=float, metavar="MS", help="serial part of a step; default: as measured")
    add("--bandwidth", type=float, default=200, metavar="GB/s", help="default %(default)s")
    add("--constants", nargs="*", default=[], metavar="NAME=N", help="of numba/plan.py: SPANS=8")
    options = parser.parse_args()
    for name, value in (pair.split("=") for pair in options.constants):
        setattr(plan, name, int(value))
    start = start_seconds()
    rows = [["step of", "pieces by height", "1 core ms", "serial ms", *map(str, CORES[1:]),
             f"{available_threads()} measured", *(f"lost on {n}" for n in CORES[-3:])]]  # fmt: skip
    for a in (a for a in NETWORKS if options.only in str(a)):
        batches = (N for N in options.batch if N * np.prod(a.input_shape) <= MOST)
        rows += (row(a, batch, start, options) for batch in batches)
    say(markdown(rows))
    say("lost to: serial part, pieces, start of threads, memory")
    say(f"start of a thread {start * 1e6:.1f} us, memory {options.bandwidth:g} GB/s")


if __name__ == "__main__":
    main()
