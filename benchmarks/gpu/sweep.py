"""Item ``tiles``: the ten most promising tiles of every block shape and pass.

Each is compiled, compared with the first one in its results, and timed.

A block runs in training form (``training`` of items ``blocks``): one pass with each tile in turn,
the other one with its own. Times are of one kernel, by events, which add about 3 us to each.

    python -m benchmarks.gpu --only tiles --json FILE
    python -m benchmarks.gpu.sweep FILE

The second command renews ``igc_ref/backends/cupy/tiles.json`` from the record of a card, and prints
it. A shape gets an entry if its best tile is more than 2 % faster than the cost model's choice, and
loses it otherwise; shapes that the record does not have keep theirs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu import blocks, ours
from benchmarks.gpu.profile import TimedKernels, hold
from benchmarks.gpu.sections import STATUS, Record, Section
from igc_ref.backends.cupy import tiles
from igc_ref.backends.cupy.geometry import Geometry, of_block
from igc_ref.backends.cupy.kernels import Kernels
from igc_ref.backends.cupy.tiles import Tile
from igc_ref.bench import BlockCase
from igc_ref.bench.record import available_threads
from igc_ref.errors import describe
from igc_ref.files import replacing
from igc_ref.report import say

COUNT, TINY_COUNT = 10, 2  # tiles of a shape and pass
ALIKE = 3  # of them with the same PX, MS and NP, unless there are no others
LIMIT = 1e-5  # of the difference from the first tile's result, relative
GAIN = 1.02  # what an entry of the table must be better by
SETS = 2  # of inputs
COMPARED = 16  # images of a batch


def section(section: Section, _: str, options: Any) -> None:
    """Sweep all shapes; first those whose kernels take most of a training step."""
    backend = ours.make_backend(options.emulate)
    backend.kernels = TimedKernels(backend.device)
    cases = blocks.cases(options.batch, options.tiny)
    jobs = [(case, backward) for backward in (True, False) for case in cases]
    # L24M2 before L4M8; strided blocks come once in a network, the others several times.
    jobs.sort(key=lambda job: (not job[1], -job[0].spec.L, job[0].spec.stride))
    block = cache(partial(ours.OurBlock, backend, sets=SETS))  # one for both passes
    with backend.session():
        for case, backward in jobs:
            name = f"{case.name} {'backward' if backward else 'forward'}"
            section.item(name, partial(sweep, backend, block, case, backward, options))


def promising(g: Geometry, backward: bool, count: int, shared: int) -> list[Tile]:
    """Return the cost model's choice, the table's if there is one, and the next ones by cost."""
    found = list(tiles.candidates(g, backward, backward, shared=shared))
    found.sort(key=lambda tile: tiles.cost(g, tile))
    chosen = tiles.choose(g, backward, backward, shared=shared)
    picked = found[:1] + [tile for tile in found[1:] if tile == chosen]
    for tile, most in [(tile, most) for most in (ALIKE, count) for tile in found]:
        alike = [other for other in picked if other.shares[:3] == tile.shares[:3]]
        if len(picked) < count and len(alike) < most and tile not in picked:
            picked.append(tile)
    return picked


def sweep(
    backend: Any, block: Any, case: BlockCase, backward: bool, options: Any
) -> dict[str, Any]:
    """Compile, compare and time the tiles of one shape and pass; `block` makes an `OurBlock`."""
    g = of_block(case.spec, case.batch_size, case.size, case.size)
    assert g is not None
    count = TINY_COUNT if options.tiny else COUNT
    found = promising(g, backward, count, backend.device.shared_bytes)
    own, choose = block(case), type(backend)._tile

    def run(tile: Tile, i: int = 0) -> Any:
        def forced(g: Geometry, backward: bool, dx: bool) -> Tile | None:
            return tile if backward == tile.backward else choose(backend, g, backward, dx)

        backend._tile = forced
        return own.training(i)

    try:
        compile_ahead(backend, [partial(run, tile) for tile in found], options)
        rows, right = compare(backend, found, run)
        runnable = [tile for tile, row in zip(found, rows, strict=True) if "failed" not in row]
        timed = iter(timings(backend, runnable, run, options))
        rows = [row if "failed" in row else row | next(timed) for row in rows]
    finally:
        vars(backend).pop("_tile", None)
    ours.alive(options.emulate)
    key = tiles.table_key(g, backward, backward, 4)
    return {"key": key, "N": g.N, "tiles": rows, "passed": right}


class Collected(Kernels):
    """Notes what is to be launched, and launches nothing."""

    def __init__(self, device: Any) -> None:
        super().__init__(device)
        self.wanted: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def launch(
        self, file: str, name: str, grid: Any, threads: int, arguments: Any, macros: Any,
        shared_bytes: int = 0,
    ) -> None:  # fmt: skip
        """Note a kernel; see `Kernels.launch`."""
        del grid, threads, arguments
        self.wanted[(file, name, *macros.items())] = (file, name, macros, shared_bytes)


def compile_ahead(backend: Any, runs: Sequence[Any], options: Any) -> None:
    """Compile on all cores what runs will launch; what does not compile fails when it is run."""
    kernels, note = backend.kernels, Collected(backend.device)
    backend.kernels = note
    try:
        for run in runs:
            run()
    finally:
        backend.kernels = kernels

    ours.alive(options.emulate)  # its own kernels are compiled once, not in every thread

    def build(wanted: tuple[Any, ...]) -> None:
        ours.alive(options.emulate)  # a new thread has no CUDA context before its first call
        kernels.compiled(*wanted)

    with ThreadPoolExecutor(available_threads()) as pool:
        wait([pool.submit(build, wanted) for wanted in note.wanted.values()])


def compare(backend: Any, found: list[Tile], run: Any) -> tuple[list[dict[str, Any]], bool]:
    """Run every tile once; return a row for each, and whether all results agree."""
    rows: list[dict[str, Any]] = []
    first: list[Any] = []
    for tile in found:
        row: dict[str, Any] = {"tile": list(tile.shares), "stages": tile.stages}
        row |= {"threads": tile.threads, "shared": tile.shared_bytes, "estimate": tile.registers}
        rows.append(row)
        try:
            values = results(backend, run(tile))
        except Exception as error:
            row["failed"] = describe(error)
            ours.alive(backend.name == "emulated")
            continue
        first = first or values
        pairs = zip(values, first, strict=True)
        # NaN is the greatest: max() would lose it.
        row["differs"] = float(
            np.max([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs])
        )
    return rows, all(row.get("differs", 1) <= LIMIT for row in rows)


def results(backend: Any, of_training: Any) -> list[Any]:
    """Return what both passes wrote, of some images, in float64."""
    z, _, (dx, *gradients) = of_training
    step = max(1, z.shape[1] // COMPARED)
    arrays = [batch.data[:, ::step] for batch in (z, dx)]
    arrays += [z.pending.table, dx.sums.values, *gradients]  # the sums of all CUDA blocks
    found = [backend.to_numpy(array).astype("float64") for array in arrays]
    found[3] = found[3].sum(0)
    return found


def timings(backend: Any, found: list[Tile], run: Any, options: Any) -> list[dict[str, Any]]:
    """Let tiles take turns; return microseconds of the kernel, and its resources."""
    kernels, seconds, about = backend.kernels, [], []
    kernel = "block_backward" if any(tile.backward for tile in found) else "block_forward"
    kernels.clock = ours.clock(options.emulate)
    try:
        for _ in range(options.rounds):
            kernels.launches.clear()
            if not options.emulate:
                hold()
            for tile in found:
                for i in range(SETS):
                    run(tile, i)
            own = [launch for launch in kernels.launches if launch[0].startswith(kernel)]
            times = [kernels.clock.seconds(start, stop) for _, start, stop, _ in own]
            seconds.append(np.reshape(times, (len(found), SETS)))
            about = [launch[3] for launch in own[::SETS]]
    finally:
        kernels.clock = None
        kernels.launches.clear()
    samples = np.concatenate(seconds, axis=1) * 1e6
    return [
        {"us": float(np.median(row)), "least": float(row.min()), **more}
        for row, more in zip(samples, about, strict=True)
    ]


def renew(record: Record, path: Path) -> str:
    """Return the table at `path` as a card's record makes it."""
    machine = record.values["machine"]
    if not machine.get("card"):
        raise SystemExit(f"{record.path}: no card was found when it was made")
    where = {"card": machine["card"].split(",")[0], "date": machine["date"]}
    content = json.loads(path.read_text(encoding="utf-8"))
    entries = content["tiles"]
    for name, item in record.items("tiles").items():
        if STATUS & set(item) or not item["passed"]:
            say(f"left out: {name}")
            continue
        chosen, best = item["tiles"][0], min(item["tiles"], key=lambda row: row["us"])
        entries.pop(item["key"], None)
        if chosen["us"] > GAIN * best["us"]:
            times = {"us": round(best["us"], 1), "chosen_us": round(chosen["us"], 1)}
            entries[item["key"]] = {"tile": best["tile"], "N": item["N"], **times, **where}
    lines = [f"{json.dumps(key)}: {json.dumps(entries[key])}" for key in sorted(entries)]
    inside = ",\n".join(lines)
    return f'{{\n"about": {json.dumps(content["about"])},\n"tiles": {{\n{inside}\n}}\n}}\n'


def main(arguments: Sequence[str], path: Path = tiles.TABLE) -> None:
    """Renew the table from records, one after the other."""
    for name in arguments:
        text = renew(Record(Path(name)), path)
        with replacing(path) as file:
            file.write(text.encode())
    say(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(sys.argv[1:])
