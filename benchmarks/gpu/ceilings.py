"""Section ``floors``: what this card can do at best, how close we are, and where the time goes.

The kernels of a training step are timed one by one with events. The host would be too slow for
that (an event pair would time its launches), so the stream waits in a spinning kernel until all
launches of the step are queued.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.gpu import ours
from benchmarks.gpu.clock import CupyClock, only, ratio
from benchmarks.gpu.floors import BANDWIDTH, FLOPS, block_floors, cases, step_floors
from benchmarks.gpu.record import Section, say, table
from benchmarks.gpu.steps import NETWORKS, TINY
from igc_ref.networks.architecture import Architecture

CHAINS, ROUNDS, THREADS = 16, 2048, 256
SOURCE = r"""
extern "C" __global__ void fma(float* y, float a, float b) {
    float x[16];
    for (int i = 0; i < 16; ++i) x[i] = threadIdx.x + i;
    for (int k = 0; k < 2048; ++k)
        #pragma unroll
        for (int i = 0; i < 16; ++i) x[i] = fmaf(x[i], a, b);
    float sum = 0;
    for (int i = 0; i < 16; ++i) sum += x[i];
    if (sum == 12345.678f) y[0] = sum;
}
extern "C" __global__ void copy(float4* y, const float4* x, long long n) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    for (; i < n; i += (long long)gridDim.x * blockDim.x) y[i] = x[i];
}
extern "C" __global__ void spin(long long cycles) {
    long long start = clock64();
    while (clock64() - start < cycles) {}
}
"""


def section(section: Section, options: Any) -> None:
    """Measure the ceilings, print the floors beside what section ``blocks`` measured, profile."""
    ceilings = {"bandwidth": BANDWIDTH, "flops": FLOPS}
    if not options.emulate:
        ceilings |= section.item("ceilings", measure, 10) or {}
    rates = {k: float(ceilings[k]) for k in ("bandwidth", "flops")}
    say(f"copy {rates['bandwidth'] / 1e12:.2f} TB/s, FMA {rates['flops'] / 1e12:.1f} TFLOP/s")
    blocks = section.record.section("blocks")
    say(floors_table(blocks, options, rates))
    floors = {c.name: vars(block_floors(c, **rates)) for c in _all(options)}
    section.item("floors", lambda: floors)
    steps = section.record.section("steps")
    networks = TINY if options.tiny else NETWORKS
    for a in networks:
        least = step_floors(a, options.batch, **rates)
        times = steps.get(str(a), {}).get("times", {})
        us = only(times, "ours float32")
        ms = None if us is None else us / 1e3
        say(f"{a}: floors {least} ms, measured {ms} ms")
        section.item(f"floors {a}", lambda f=least, ms=ms: f | {"measured": ms})
    for a in (a for a in networks if a.depth < 50):  # more launches than a stream queues
        result = section.item(f"kernels {a}", lambda a=a: profile(a, options), 30)
        if result:
            say(f"\n{a}, N = {options.batch}: kernel by kernel", kernel_table(result))


def _all(options: Any) -> list[Any]:
    return cases(options.batch, options.tiny)


def measure() -> dict[str, Any]:
    """Measure copy bandwidth, by the driver and by a kernel, and the float32 rate."""
    import cupy

    module = cupy.RawModule(code=SOURCE, options=("-std=c++17",))
    sms = cupy.cuda.Device().attributes["MultiProcessorCount"]
    stream, clock = cupy.cuda.Stream(non_blocking=True), CupyClock()
    with stream:
        x = cupy.arange(1 << 30, dtype="float32")  # 4 GiB
        y = cupy.empty_like(x)
        quads, copy = np.int64(x.size // 4), module.get_function("copy")
        fma, grid = module.get_function("fma"), 32 * sms
        a, b = np.float32(0.999), np.float32(1.5)
        runs: dict[str, Callable[[], object]] = {
            "driver copy": lambda: y.data.copy_from_device_async(x.data, x.nbytes, stream),
            "kernel copy": lambda: copy((sms * 16,), (512,), (y, x, quads)),
            "fma": lambda: fma((grid,), (THREADS,), (y, a, b)),
        }
        seconds = {}
        for name, run in runs.items():
            clock.times(run, 3)
            seconds[name] = float(np.median(clock.times(run, 15)))
        right = bool((x[-1000:] == y[-1000:]).all())
    operations = 2 * CHAINS * ROUNDS * THREADS * grid
    copies = {name: 2 * x.nbytes / seconds[name] for name in ("driver copy", "kernel copy")}
    return {
        "bandwidth": max(copies.values()), "flops": operations / seconds["fma"],
        "seconds of each": seconds, **copies, "copied": right, "multiprocessors": sms,
    }  # fmt: skip


def floors_table(blocks: dict[str, Any], options: Any, rates: dict[str, float]) -> str:
    """Return GPU.md's table at these rates, with the measured times and measured/floor."""
    rows = []
    for case in _all(options):
        f, result = block_floors(case, **rates), blocks.get(case.name, {})
        measured = [only(result.get(v, {}), "ours float32") for v in ours.VARIANTS]
        over = [ratio(m, getattr(f, v)) for m, v in zip(measured, ours.VARIANTS, strict=True)]
        numbers = (f.gigaflops, f.memory, f.fma, f.weights, f.fused, f.training)
        rows.append([case.name, *numbers, *measured, *over])
    head = ["us at best", "GF", "memory", "FMA", "weights", "fused back", "training"]
    return table([*head, "forward", "both", "training", "f/floor", "b/floor", "t/floor"], rows)


class Profile:
    """Times every launch of a backend's kernels; stands in for ``backend.kernels.launch``."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.inner = backend, backend.kernels.launch
        self.launches: list[tuple[str, Any, Any, tuple[Any, ...]]] = []
        self.on = False

    def __call__(self, *arguments: Any, **options: Any) -> None:
        """Launch; if `on`, between two events."""
        if not self.on:
            return self.inner(*arguments, **options)
        names = ("file", "name", "grid", "threads", "arguments", "macros", "shared_bytes")
        values = {**dict(zip(names, arguments, strict=False)), **options}
        start, stop = _event(self.backend), _event(self.backend)
        start.record()
        self.inner(*arguments, **options)
        stop.record()
        key = (values["file"], values["name"], *values["macros"].items())
        shape = (values["grid"], values["threads"], values.get("shared_bytes", 0))
        self.launches.append((label(values["name"], values["macros"]), start, stop, (key, shape)))
        return None


class _NoEvent:
    """On the emulator there is nothing to time."""

    def record(self) -> None:
        """Do nothing."""


def _event(backend: Any) -> Any:
    if backend.xp is np:
        return _NoEvent()
    import cupy

    return cupy.cuda.Event()


def label(name: str, macros: Any) -> str:
    """Name a kernel and what it is specialised for."""
    if "SLABS" not in macros:
        return name
    m = macros
    kind = f"L{m['SLABS']} M{m['M']}" if m["SECONDARY"] else "conv"
    flags = " ".join(f.lower() for f in ("RULE", "DERIVE", "SUMS", "DX") if m.get(f))
    tile = " ".join(f"{k}{m[k]}" for k in ("PX", "MS", "NP", "PXD", "IS") if k in m)
    size = f"{m['SLABS'] * m['I']}-{m['O'] * m['SLABS']} {m['K']}x{m['K']}/{m['S']} {m['H']}"
    return f"{name} {kind} {size} [{flags}] {tile}"


def profile(a: Architecture, options: Any, steps: int = 5) -> dict[str, Any]:
    """Time the kernels of some uncaptured steps; return median microseconds, and resources."""
    backend = ours.make_backend(options.emulate, capture=False)
    hook = backend.kernels.launch = Profile(backend)
    with backend.session():
        step = ours.OurStep(backend, a, options.batch, max(steps, 2))
        step.begin()
        rows: dict[str, list[list[float]]] = {}
        about: dict[str, Any] = {}
        for _ in range(steps):
            hook.launches.clear()
            _hold(backend)
            hook.on = True
            step.step()
            hook.on = False
            for key, times in _collect(hook).items():
                rows.setdefault(key, []).append(times)
        for name, _, _, (key, shape) in hook.launches:
            about[name] = _resources(backend, key, shape)
    medians = {name: np.median(np.array(times), axis=0) for name, times in rows.items()}
    return {
        "kernels": {
            name: {"calls": len(times), "us": float(times.sum()), **about.get(name, {})}
            for name, times in sorted(medians.items(), key=lambda item: -item[1].sum())
        }
    }


def _hold(backend: Any) -> None:
    """Keep the stream busy while a step is queued: about 60 ms."""
    if backend.xp is not np:
        import cupy

        spin = cupy.RawModule(code=SOURCE, options=("-std=c++17",)).get_function("spin")
        cupy.cuda.get_current_stream().synchronize()
        spin((1,), (1,), (np.int64(100_000_000),))


def _collect(hook: Profile) -> dict[str, list[float]]:
    """Return microseconds of each launch of a step by label, in order."""
    found: dict[str, list[float]] = {}
    if hook.launches and not isinstance(hook.launches[-1][2], _NoEvent):
        hook.launches[-1][2].synchronize()
    for name, start, stop, _ in hook.launches:
        found.setdefault(name, []).append(_elapsed(start, stop))
    return found


def _elapsed(start: Any, stop: Any) -> float:
    if isinstance(start, _NoEvent):
        return 0.0
    import cupy

    return float(cupy.cuda.get_elapsed_time(start, stop)) * 1e3


def _resources(backend: Any, key: Any, shape: Any) -> dict[str, Any]:
    """Return registers, local memory, and the CUDA blocks that an SM holds at a time."""
    grid, threads, shared = shape
    found: dict[str, Any] = {"grid": list(grid), "threads": threads, "shared": shared}
    try:
        import cupy

        kernel = backend.kernels._functions[key]
        found |= {"registers": kernel.num_regs, "local": kernel.local_size_bytes}
        occupancy = cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor
        found["blocks an SM"] = occupancy(kernel.kernel.ptr, threads, shared)
    except Exception as error:
        found["unknown"] = f"{type(error).__name__}: {error}"[:200]
    return found


def kernel_table(result: dict[str, Any]) -> str:
    """Return kernels by their share of the step."""
    kernels = result["kernels"]
    total = sum(k["us"] for k in kernels.values()) or 1.0
    columns = ("grid", "threads", "shared", "registers", "local", "blocks an SM")
    rows = [
        [name, k["calls"], k["us"], k["us"] / k["calls"], f"{k['us'] / total:.1%}"]
        + [k.get(column) for column in columns]
        for name, k in kernels.items()
    ]
    rows.append(["total", sum(k["calls"] for k in kernels.values()), total, *[None] * 8])
    return table(["kernel", "calls", "us", "us each", "share", *columns], rows)
