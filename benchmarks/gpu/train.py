"""Section ``train``: CIFAR-10 through `igc_ref.train`, and the same run in PyTorch.

The recipe: plain_igc-20 L24M2, batch 128, one-cycle learning rate with peak 0.2 (linear, 25 %
warm-up), weight decay 5e-4, Nesterov momentum 0.9, pad-crop-mirror, seed 0. PyTorch starts from the
same weights and sees the same pictures in the same order, cut and mirrored alike, on the GPU,
channels_last with cuDNN's search, TF32 as PyTorch allows it by default (convolutions). It differs
in that its running variance is the unbiased one. It runs eagerly: its time an epoch is not the best
that PyTorch can do (section ``steps`` measures that), its accuracy is what this run is for.
"""

from __future__ import annotations

import math
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.record import Section, say
from igc_ref import TrainConfig
from igc_ref.training.loop import Trainer
from igc_ref.training.session import train

BATCH, TINY_BATCH = 128, 16


def recipe(options: Any, epochs: int, **changes: Any) -> TrainConfig:
    """Return the settings of the run."""
    settings: dict[str, Any] = {
        "arch": "plain_igc", "depth": 20, "L": 24, "M": 2, "data": "cifar10",
        "data_dir": options.data_dir, "backend": "cupy", "epochs": epochs, "batch_size": BATCH,
        "lr": 0.2, "schedule": "onecycle", "weight_decay": 5e-4, "seed": 0,
    }  # fmt: skip
    if options.tiny:
        settings |= {"depth": 5, "L": 2, "M": 2, "data": "shapes", "data_dir": None}
        settings |= {"backend": "numpy", "batch_size": TINY_BATCH}
    return TrainConfig(**settings | changes)


def section(section: Section, options: Any) -> None:
    """Train ours, then PyTorch's, for the same number of epochs."""
    if options.data_dir is None and not options.tiny:
        say("train: skipped, --data-dir DIR says where CIFAR-10 lies")
        return
    epochs = options.epochs
    if options.minutes:
        found = section.item("probe", lambda: probe(options), 40)
        if found:
            epochs = max(2, int(options.minutes * 60 / found["seconds an epoch, both"]))
            say(f"{options.minutes} minutes are {epochs} epochs of both: {found}")
    runs = {"ours": lambda: our_run(recipe(options, epochs))}
    if options.float16 and not options.tiny:
        half = recipe(options, epochs, storage="float16")
        runs["ours float16"] = lambda: our_run(half)
    if options.torch and find_spec("torch"):
        runs["torch"] = lambda: torch_run(recipe(options, epochs), options)
    for name, f in runs.items():
        result = section.item(name, f, 30)
        if result:
            say(
                f"train {name}: test accuracy {result['test_accuracy']:.2%} after {epochs} epochs, "
                f"{result['seconds an epoch']:.2f} s an epoch (median; training alone)"
            )


def probe(options: Any) -> dict[str, Any]:
    """Time the last of two epochs of each: the first one compiles."""
    mine = our_run(recipe(options, 2))["records"][-1]["seconds"]
    theirs = 0.0
    if options.torch and find_spec("torch"):
        theirs = torch_run(recipe(options, 2), options)["records"][-1]["seconds"]
    both = 1.3 * (mine * (1 + options.float16) + theirs)  # with the test pictures
    return {"seconds an epoch, both": both, "ours": mine, "torch": theirs}


def our_run(config: TrainConfig) -> dict[str, Any]:
    """Train through the public function; return its records."""
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        say(f"  {line}")

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        history = train(_in(config, Path(folder) / "run"), report)
        seconds = time.perf_counter() - start
    return _result(history.records, seconds) | {"lines": lines}


def _in(config: TrainConfig, folder: Path) -> TrainConfig:
    return TrainConfig(**{**config.to_dict(), "out": str(folder)})


def _result(records: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    return {
        "test_accuracy": records[-1]["test_accuracy"], "records": records,
        "seconds an epoch": float(np.median([r["seconds"] for r in records])),
        "seconds of all": seconds,
    }  # fmt: skip


def torch_run(config: TrainConfig, options: Any) -> dict[str, Any]:
    """Train PyTorch's twin on the same pictures; return records like ours."""
    from benchmarks.gpu import rivals_train

    trainer = Trainer(TrainConfig(**{**config.to_dict(), "backend": "numpy", "storage": "float32"}))
    rival = rivals_train.Rival(trainer, options.device)
    records = []
    start = time.perf_counter()
    for epoch in range(1, config.epochs + 1):
        begin = time.perf_counter()
        trained = rival.epoch(epoch)
        seconds = time.perf_counter() - begin
        tested = rival.evaluate()
        if not math.isfinite(trained["train_loss"]):
            raise ValueError(f"PyTorch's loss is {trained['train_loss']}")
        records.append({"epoch": epoch, **trained, **tested, "seconds": seconds})
        say(f"  torch {records[-1]}")
    return _result(records, time.perf_counter() - start)
