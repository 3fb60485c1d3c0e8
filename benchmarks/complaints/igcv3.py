"""IGCV3-D's parameters and multiply-adds, counted, against what is published."""

import math
from typing import Any

from benchmarks.complaints.timing import Answer, Script
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import BOTTLENECKS, PUBLISHED_HEAD, cost, igcv3_blocks
from igc_ref.report import aligned

STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of each stage's first block, for 224x224: the authors' definition
PUBLISHED = {  # what: figure, unit of its last digit, where
    "parameters, 1000 classes": (3.5e6, 1e5, "README"),
    "parameters, 1000 classes, imgclsmob": (3_491_688, 1, "imgclsmob"),
    "multiply-adds, 224x224": (318e6, 1e6, "ShuffleNet V2"),
    "multiply-adds, 224x224, imgclsmob": (340.79e6, 1e4, "imgclsmob"),
    "parameters, 10 classes": (2.4e6, 1e5, "README"),
    "parameters, 100 classes": (2.4e6, 1e5, "README"),
    "parameters, 10 classes, with running statistics": (2.4e6, 1e5, "README"),
    "parameters, 100 classes, with running statistics": (2.4e6, 1e5, "README"),
}


def network(classes: int) -> Architecture:
    """Return IGCV3-D 1.0."""
    return Architecture("igcv3", 99, width=32, num_classes=classes)


def multiply_adds() -> int:
    """Count the multiply-adds of all convolutions and the linear layer for 224x224."""
    size, blocks = 112, igcv3_blocks(network(1000))
    total = 27 * 32 * size**2
    for (_, _, count, _), stride in zip(BOTTLENECKS, STRIDES, strict=True):
        for block in range(2 * count if count > 1 else 1):
            expand, depthwise, project = (math.prod(f.weight_shape) for f in next(blocks).factors)
            total += expand * size**2
            size //= stride if block == 0 else 1
            total += (depthwise + project) * size**2
    return total + BOTTLENECKS[-1][1] * PUBLISHED_HEAD * size**2 + PUBLISHED_HEAD * 1000


def measure() -> dict[str, Any]:
    """Count everything of which a figure is published."""
    channels = [2 * spec.hidden + spec.out_channels for spec in igcv3_blocks(network(10))]
    statistics = 2 * (32 + sum(channels) + PUBLISHED_HEAD)  # a mean and a variance for each
    found = {}
    for what in PUBLISHED:
        if what.startswith("parameters"):
            parameters = cost(network(int(what.split()[1]))).parameters
            found[what] = parameters + ("running" in what) * statistics
        else:
            found[what] = multiply_adds()
    return found


def agrees(what: str, counted: int) -> bool:
    """Whether the published figure is the counted one, rounded."""
    figure, unit, _ = PUBLISHED[what]
    return abs(counted - figure) <= unit / 2


def lines(found: Any) -> list[str]:
    """Return what is printed."""
    rows = [["IGCV3-D 1.0", "published", "by", "counted", "ratio", "agrees"]]
    for what, counted in found.items():
        figure, _, where = PUBLISHED[what]
        verdict = "yes" if agrees(what, counted) else "no"
        rows.append(
            [what, f"{figure:,.0f}", where, f"{counted:,}", f"{counted / figure:.3f}", verdict]
        )
    return [aligned(rows)]


def answer(found: Any) -> Answer:
    """Return the row of the table."""
    wrong = [what for what, counted in found.items() if not agrees(what, counted)]
    ratios = "; ".join(f"{what}: {found[what] / PUBLISHED[what][0]:.3f}" for what in wrong)
    right = len(found) - len(wrong)
    return Answer(
        f"{right} of {len(found)} published figures are a count, rounded; no accuracy was checked",
        f"for {len(wrong)} figures",
        f"counted against published, where they differ: {ratios}",
    )


SCRIPT = Script(
    "IGCV3's numbers cannot be reproduced",
    "[IGCV3#7](https://github.com/homles11/IGCV3/issues/7)",
    measure,
    lines,
    answer,
)
