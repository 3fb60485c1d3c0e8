"""What closed partitions save at evaluation on numba: one image and a batch, beside multiply-adds.

``python -m benchmarks.gates [--threads T] [--rounds R] [--size PIXELS]``. Blocks take turns; each
time is the median of the rounds. "computed" is the share of the primary partitions, of all blocks
of images, that numba computes: of one image keep/L, of a batch those that one of the 8 or 16
images that lie side by side keeps. Inputs and weights are random (seed 0), so images of a batch
agree about partitions only by chance.
"""

from __future__ import annotations

import argparse
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from igc_ref.backends.numba.backend import NumbaBackend
from igc_ref.bench.clock import Clock
from igc_ref.networks import IGC, GatedIGC
from igc_ref.networks.layer import Layer
from igc_ref.report import aligned
from igc_ref.spec.block import IGCSpec

SIZES = (4, 8), (8, 8), (24, 2)
BATCHES = 1, 64


def layers(backend: NumbaBackend, spec: IGCSpec) -> dict[str, Layer]:
    """Return the block: without gates; one a channel; one a partition, keep L, L/2 and L/4."""

    def options() -> dict[str, Any]:
        return {"rng": np.random.default_rng(0), "dtype": "float32"}

    found: dict[str, Layer] = {"none": IGC(backend, spec, **options())}
    found["channels"] = GatedIGC(backend, spec, "channels", **options())
    for part in (1, 2, 4):
        keep = spec.L // part
        found[f"keep {keep}"] = GatedIGC(backend, spec, "partitions", keep, **options())
    return found


def computed(backend: NumbaBackend, layer: Layer, x: Any) -> float:
    """Return the share of partitions that some image of a block keeps."""
    if not isinstance(layer, GatedIGC) or layer.keep is None:
        return 1.0
    means, _ = backend.global_average_pool(x)
    is_open = layer.children["gate"].forward(means) != 0  # (N, L)
    together = layer.forward(x).layout.together
    return float(
        np.mean([is_open[n : n + together].any(0) for n in range(0, len(means), together)])
    )


def main() -> None:
    """Print a line for every block, gate and batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("threads", 1), ("rounds", 50), ("size", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    a = parser.parse_args()
    backend, rng = NumbaBackend(a.threads), np.random.default_rng(0)
    table = [("block", "gate", "images", "multiply-adds", "computed", "ms", "of the first")]
    specs = [IGCSpec.square(L, M) for L, M in SIZES]
    specs += [IGCSpec(L * M, 2 * L * M, L, M, stride=2) for L, M in SIZES]  # a residual stage's
    for spec in specs:
        blocks, shape = layers(backend, spec), (spec.in_channels, a.size, a.size)
        for N in BATCHES:
            x = backend.to_layout(rng.normal(size=(N, *shape)).astype("float32"))
            times: dict[str, list[float]] = {name: [] for name in blocks}
            for _ in range(a.rounds + 3):
                for name, layer in blocks.items():
                    times[name] += Clock().times(partial(layer.forward, x), 1)
            ms = {name: 1e3 * median(each[3:]) for name, each in times.items()}
            for name, layer in blocks.items():
                adds = sum(row.multiply_adds for row in layer.rows(shape))
                share, ratio = computed(backend, layer, x), ms[name] / ms["none"]
                numbers = f"{adds:,}", f"{share:.0%}", f"{ms[name]:.3f}", f"{ratio:.2f}"
                table.append((str(spec), name, str(N), *numbers))
    print(aligned(table))


if __name__ == "__main__":
    main()
