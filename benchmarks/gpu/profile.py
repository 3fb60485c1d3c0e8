"""Item ``floors``: what the card can do at best, and where the time of a step goes.

The kernels of a training step are timed one by one with events. The host would be too slow for
that (an event pair would time its launches), so the stream waits in a spinning kernel until all
launches of the step are queued.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks.gpu import ours
from benchmarks.gpu.floors import ceilings
from benchmarks.gpu.sections import Section
from benchmarks.gpu.steps import networks
from igc_ref.backends.cupy.kernels import Kernels
from igc_ref.bench.clock import Clock
from igc_ref.errors import describe
from igc_ref.networks.architecture import Architecture

STEPS = 5
SPIN_CYCLES = 100_000_000  # about 60 ms
SPIN = r"""
extern "C" __global__ void spin(long long cycles) {
    long long start = clock64();
    while (clock64() - start < cycles) {}
}
"""


def section(section: Section, _: str, options: Any) -> None:
    """Measure the ceilings, then the kernels of two networks: a third has too many for a stream."""
    ceilings(section, options)
    for a in dict.fromkeys(networks(options)[:2]):
        section.item(f"kernels {a}", partial(profile, a, options))


class TimedKernels(Kernels):
    """Kernels whose launches are timed one by one, once they have a clock.

    Attributes
    ----------
    clock : Clock or None
    launches : list
        Of each launch: its label, the marks before and after it, what is known of the kernel.
    """

    clock: Clock | None = None

    def __init__(self, device: Any) -> None:
        super().__init__(device)
        self.launches: list[tuple[str, Any, Any, dict[str, Any]]] = []

    def launch(
        self, file: str, name: str, grid: Any, threads: int, arguments: Any, macros: Any,
        shared_bytes: int = 0,
    ) -> None:  # fmt: skip
        """Queue a kernel; see `Kernels.launch`."""
        start = self.clock and self.clock.mark()
        super().launch(file, name, grid, threads, arguments, macros, shared_bytes)
        if self.clock is not None:
            stop, kernel = self.clock.mark(), self.compiled(file, name, macros)
            about = {"grid": list(grid), "threads": threads, "shared": shared_bytes}
            about |= resources(kernel, threads, shared_bytes)
            self.launches.append((label(name, macros), start, stop, about))


def resources(kernel: Any, threads: int, shared_bytes: int) -> dict[str, Any]:
    """Return registers, local memory, and the CUDA blocks that an SM holds at a time."""
    try:
        import cupy

        occupancy = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor
        blocks = occupancy(kernel.kernel.ptr, threads, shared_bytes)
        registers, local = kernel.num_regs, kernel.local_size_bytes
        return {"registers": registers, "local": local, "blocks an SM": blocks}
    except Exception as error:
        return {"unknown": describe(error)}


def label(name: str, macros: Any) -> str:
    """Name a kernel and what it is specialised for."""
    if "SLABS" not in macros:
        return name
    m = macros
    kind = f"L{m['SLABS']} M{m['M']}" if m["SECONDARY"] else "conv"
    flags = " ".join(f.lower() for f in ("RULE", "DERIVE", "SUMS", "DX") if m.get(f))
    tile = " ".join(f"{k}{m[k]}" for k in ("PX", "MS", "NP", "PXD", "IS") if k in m)
    size = f"{m['SLABS'] * m['I']}-{m['O'] * m['SLABS']} {m['KH']}x{m['KW']}/{m['S']} {m['H']}"
    return f"{name} {kind} {size} [{flags}] {tile}"


def profile(a: Architecture, options: Any) -> dict[str, Any]:
    """Time the kernels of some uncaptured steps; return median microseconds, and resources."""
    backend = ours.make_backend(options.emulate, capture=False)
    kernels = backend.kernels = TimedKernels(backend.device)
    seconds = []
    with backend.session():
        own = ours.OurStep(backend, a, options.batch, STEPS)
        own.begin()
        clock = kernels.clock = ours.clock(options.emulate)
        for _ in range(STEPS):
            kernels.launches.clear()
            if not options.emulate:
                hold()
            own.run_one()
            seconds.append([clock.seconds(start, stop) for _, start, stop, _ in kernels.launches])
    found: dict[str, dict[str, Any]] = {}
    for (name, _, _, about), median in zip(kernels.launches, np.median(seconds, 0), strict=True):
        entry = found.setdefault(name, {"calls": 0, "us": 0.0, **about})
        entry["calls"], entry["us"] = entry["calls"] + 1, entry["us"] + float(median) * 1e6
    return {"kernels": dict(sorted(found.items(), key=lambda item: -item[1]["us"]))}


def hold() -> None:
    """Keep the stream busy while a step is queued."""
    import cupy

    spin = cupy.RawModule(code=SPIN, options=("-std=c++17",)).get_function("spin")
    cupy.cuda.get_current_stream().synchronize()
    spin((1,), (1,), (np.int64(SPIN_CYCLES),))
