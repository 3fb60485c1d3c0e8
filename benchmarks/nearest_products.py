"""How near `nearest_product` comes to the nearest product of three factors.

    python -m benchmarks.nearest_products

The factors are split off one at a time: the error is at most √2 times the least one. For
random kernels, a row for each K and S = k*k: the error over that of the best of several fits of all
three factors together (alternating least squares: from the result itself and from random weights),
and over the proved lower bound. The best fit is no proof of the least error: it may be less still.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from igc_ref.reference import nearest_product
from igc_ref.report import markdown, say
from igc_ref.spec import IGCV2Spec

CASES = (((2, 2, 2), 1), ((2, 2, 2), 3), ((3, 3, 3), 1), ((2, 3, 4), 1))  # K and k
# Digits: xed of the output, pq of the input, i its channels in a group and taps.
AXES, WAYS = ("pqdi", "dpeq", "edxp"), "pqdi,dpeq,edxp->xedpqi"


def fit(kernel: Any, weights: Sequence[Any], spec: IGCV2Spec, rounds: int) -> float:
    """Improve three factors in turns by least squares; return the relative error at the end."""
    K1, K2, K3 = spec.K
    T = kernel.reshape(K3, K2, K1, K3, K2, -1)
    shapes = (K3, K2, K1, -1), (K1, K3, K2, K2), (K2, K1, K3, K3)
    W = [weight.reshape(shape) for weight, shape in zip(weights, shapes, strict=True)]
    for _ in range(rounds):
        for i, axes in enumerate(AXES):
            ways = np.einsum(WAYS, *(np.ones_like(w) if j == i else w for j, w in enumerate(W)))
            W[i] = np.einsum(f"xedpqi,xedpqi->{axes}", T, ways)
            W[i] /= np.einsum(f"xedpqi,xedpqi->{axes}", ways, ways)
    return float(np.linalg.norm(T - np.einsum(WAYS, *W)) / np.linalg.norm(T))


def row(K: tuple[int, ...], k: int, options: argparse.Namespace) -> list[str]:
    """Approximate random kernels of one shape; return a row of the table."""
    spec, rng = IGCV2Spec(math.prod(K), math.prod(K), K, k), np.random.default_rng(options.seed)
    shapes = [factor.weight_shape for factor in spec.factors]
    to_best, to_bound = [], []
    for _ in range(options.kernels):
        kernel = rng.normal(size=spec.composed_shape)
        found = nearest_product(kernel, spec)
        starts = [found.weights]
        starts += [tuple(rng.normal(size=s) for s in shapes) for _ in range(options.starts)]
        to_best.append(found.error / min(fit(kernel, w, spec, options.rounds) for w in starts))
        to_bound.append(found.error / found.bound)
    return [
        str(K), str(k * k), f"{np.median(to_best):.3f}", f"{max(to_best):.3f}",
        f"{np.median(to_bound):.2f}", f"{max(to_bound):.2f}",
    ]  # fmt: skip


def main() -> None:
    """Read the command line, approximate, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--kernels", type=int, default=100)
    add("--starts", type=int, default=30, help="random ones, beside the result itself")
    add("--rounds", type=int, default=100)
    add("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = [["K", "S", "error / best, median", "greatest", "error / bound, median", "greatest"]]
    say(markdown(rows + [row(K, k, options) for K, k in CASES]))


if __name__ == "__main__":
    main()
