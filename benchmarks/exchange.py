"""The same networks here, in ONNX Runtime and in PyTorch: logits, and the cost of a shuffle.

    python -m benchmarks.exchange
    python -m benchmarks.exchange --only igc --rounds 0

Every architecture has random weights and the running statistics of a batch, as after training. The
first table holds the largest difference to our logits, ours by the numpy backend, in float32 and in
float64, for images of the size that the network was designed for. "ORT" is the worst of the six
files: three shuffles, batch norm folded or not. ONNX Runtime has no float64 convolution on a CPU,
so that float64 is computed by ONNX's own reference evaluator; "folded" is with batch norm folded,
without which ONNX's epsilon, a float32, shows.

The second table has milliseconds in ONNX Runtime, medians of calls that take turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
from onnx.reference import ReferenceEvaluator

from igc_ref.bench import available_threads
from igc_ref.exchange import onnx
from igc_ref.networks import BatchNorm
from igc_ref.networks.architecture import ARCHITECTURES, PARTITIONED, Architecture
from igc_ref.networks.model import Model, build
from igc_ref.report import markdown, say

try:
    from igc_ref.exchange.torch import to_torch
except ImportError:
    to_torch = None

DEPTHS = {"plain": 8, "resnet": 8, "imagenet": 18, "igcv3": 54, "densenet": 10}
WAYS = list(product(("reshape", "gather", "composed"), (False, True)))  # shuffle, fold_bn
TIMED = Architecture("plain_igc", 20, L=24, M=2)


def networks() -> list[Architecture]:
    """Return a small network of every architecture."""
    numbers: dict[bool, dict[str, int]] = {True: {"L": 4, "M": 8}, False: {"width": 16}}
    return [
        Architecture(arch, DEPTHS[family], **numbers[unit in PARTITIONED])
        for arch, (family, unit) in ARCHITECTURES.items()
    ]


def trained(architecture: Architecture, seed: int) -> Model:
    """Return a network in float64, each weight a float32, whose batch norms have seen a batch."""
    model, rng = build(architecture, "numpy", "float64", seed), np.random.default_rng(seed)
    for name, array in model.parameters().items():
        if name.endswith("gamma"):
            array[...] = rng.choice([-1, 1], array.shape) * rng.uniform(0.5, 1.5, array.shape)
        elif name.endswith("beta"):
            array[...] = rng.normal(0, 0.3, array.shape)
    for _, layer in model.network.named_layers():
        if isinstance(layer, BatchNorm):
            layer.momentum = 0.0
    model.forward(rng.normal(size=(8, *architecture.input_shape)), train=True)
    state = model.state_dict()
    model.load_state_dict({n: a.astype("float32").astype("float64") for n, a in state.items()})
    return model


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open a file in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def in_torch(model: Model, x: Any) -> Any:
    """Return PyTorch's logits; NaN if PyTorch is not installed."""
    if to_torch is None:
        return np.nan
    import torch

    with torch.no_grad():
        return to_torch(model).eval()(torch.from_numpy(x)).numpy()


def row(architecture: Architecture, path: Path, options: argparse.Namespace) -> list[str]:
    """Compare the logits of one network."""
    exact = trained(architecture, options.seed)
    single = build(architecture, "numpy", "float32")
    single.load_state_dict({n: a.astype("float32") for n, a in exact.state_dict().items()})
    x = np.random.default_rng(options.seed + 1).normal(size=(2, *architecture.input_shape))
    x32 = x.astype("float32")
    x = x32.astype("float64")
    y, y32, found = exact.forward(x), single.forward(x32), []
    for shuffle, fold_bn in WAYS:
        onnx.save(single, path, shuffle=shuffle, fold_bn=fold_bn)
        found.append(session(path, options.threads).run(None, {"images": x32})[0])
    differences = [max(abs(z - y32).max() for z in found), abs(in_torch(single, x32) - y32).max()]
    for fold_bn in (False, True):
        onnx.save(exact, path, fold_bn=fold_bn)
        differences.append(abs(ReferenceEvaluator(str(path)).run(None, {"images": x})[0] - y).max())
    differences.append(abs(in_torch(exact, x) - y).max())
    return [
        str(architecture),
        f"{abs(y).max():.2g}",
        *("-" if np.isnan(d) else f"{d:.1e}" for d in differences),
    ]


def times(folder: Path, options: argparse.Namespace) -> list[list[str]]:
    """Time all ways to write a network in ONNX Runtime."""
    model = trained(TIMED, options.seed)
    single = build(TIMED, "numpy", "float32")
    single.load_state_dict({n: a.astype("float32") for n, a in model.state_dict().items()})
    images = {N: np.zeros((N, *TIMED.input_shape), "float32") for N in options.batch}
    runs, rows = [], []
    for shuffle, fold_bn in WAYS:
        path = folder / f"{shuffle}{fold_bn}.onnx"
        onnx.save(single, path, shuffle=shuffle, fold_bn=fold_bn)
        runs.append(session(path, options.threads))
        size = f"{path.stat().st_size / 1e6:.2f}"
        rows.append([shuffle, "folded" if fold_bn else "-", size])
    for x in images.values():
        seconds: list[list[float]] = [[] for _ in runs]
        for _ in range(options.rounds + 1):
            for run, own in zip(runs, seconds, strict=True):
                start = time.perf_counter()
                run.run(None, {"images": x})
                own.append(time.perf_counter() - start)
        for cells, own in zip(rows, seconds, strict=True):
            cells.append(f"{median(own[1:]) * 1e3:.2f}")
    return [["shuffle", "batch norm", "MB", *(f"N = {N}, ms" for N in images)], *rows]


def main() -> None:
    """Read the command line, compare, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--only", default="", metavar="WORD", help="networks with this in their names")
    add("--batch", type=int, nargs="+", default=[64, 1], metavar="N", help="of the times")
    add("--rounds", type=int, default=21, help="timed calls of each; 0: no times")
    add("--threads", type=int, default=available_threads())
    add("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        header = ["network", "largest logit", "ORT float32", "PyTorch float32"]
        header += ["ONNX float64", "the same, folded", "PyTorch float64"]
        chosen = [a for a in networks() if options.only in str(a)]
        say(markdown([header, *(row(a, Path(folder, "a.onnx"), options) for a in chosen)]))
        if options.rounds:
            say(
                f"\n{TIMED} in ONNX Runtime {onnxruntime.__version__}, {options.threads} threads:\n"
            )
            say(markdown(times(Path(folder), options)))


if __name__ == "__main__":
    main()
