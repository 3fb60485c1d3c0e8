"""What the card at hand can do at best, measured, and the least times that this leaves.

A block of N images reads its input once and writes its output once; its fused backward pass reads
x and the gradient and writes dx. In *training* it has batch norm and ReLU as well, fused: then the
backward pass reads the block's own output too. A block's backward pass computes y once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.gpu import ours
from benchmarks.gpu.sections import Record, Section
from igc_ref.bench import BlockCase, Roofline, StepCase, measure
from igc_ref.networks.architecture import Architecture

CHAINS, ROUNDS, THREADS = 16, 2048, 256
SOURCE = r"""  // fma is a name of CUDA's own
extern "C" __global__ void fma_rate(float* y, float a, float b) {
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
"""


def ceilings(section: Section, options: Any) -> None:
    """Measure the roofline of this card."""
    section.item("ceilings", measure_host if options.emulate else measure_card)


def roofline_of(record: Record) -> Roofline | None:
    """Return the roofline that a record holds, or None."""
    found = record.items("floors").get("ceilings", {})
    return Roofline(found["bandwidth"], found["flops"]) if "flops" in found else None


def measure_host() -> dict[str, Any]:
    """Measure this CPU, for a rehearsal."""
    return measure(threads=1, size=256, megabytes=8)._asdict()


def measure_card() -> dict[str, Any]:
    """Measure copy bandwidth, by the driver and by a kernel, and the float32 rate."""
    import cupy

    module = cupy.RawModule(code=SOURCE, options=("-std=c++17",))
    sms = cupy.cuda.Device().attributes["MultiProcessorCount"]
    stream, clock = cupy.cuda.Stream(non_blocking=True), ours.clock(emulate=False)
    with stream:
        x = cupy.arange(1 << 30, dtype="float32")  # 4 GiB
        y = cupy.empty_like(x)
        quads, copy = np.int64(x.size // 4), module.get_function("copy")
        fma, grid = module.get_function("fma_rate"), 32 * sms
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


def block_floors(case: BlockCase, roofline: Roofline | None) -> dict[str, float]:
    """Return the floors of a block in microseconds; of an unknown card, none.

    ``memory`` and ``fma`` are the forward pass's, ``fused`` is the backward pass without batch
    norm; ``forward``, ``both`` and ``training`` are the variants that are timed.
    """
    if roofline is None:
        return {}
    (work,) = case.works()
    forward, fused = work.forward(), work.backward(norm=False, recompute=True)
    seconds = _by_both(roofline, [forward]) | {
        "fused": roofline.seconds(fused),
        "forward": roofline.seconds(forward),
        "both": roofline.seconds(forward, fused),
        "training": roofline.seconds(forward, work.backward(recompute=True)),
    }
    return {name: value * 1e6 for name, value in seconds.items()}


def step_floors(a: Architecture, batch: int, roofline: Roofline | None) -> dict[str, float]:
    """Return microseconds of a step: by memory, by FMA, and the sum of the greater a pass."""
    if roofline is None:
        return {}
    works = StepCase(a, batch).works()
    passes = [w.forward() for w in works]
    passes += [w.backward(dx=i > 0, recompute=True) for i, w in enumerate(works)]
    seconds = _by_both(roofline, passes) | {"greater": roofline.seconds(*passes)}
    return {name: value * 1e6 for name, value in seconds.items()}


def _by_both(roofline: Roofline, passes: list[Any]) -> dict[str, float]:
    """Return the seconds that memory alone leaves, and arithmetic alone."""
    return {
        "memory": roofline._replace(flops=float("inf")).seconds(*passes),
        "fma": roofline._replace(bandwidth=float("inf")).seconds(*passes),
    }
