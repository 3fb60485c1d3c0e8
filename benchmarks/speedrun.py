"""What each ingredient of the recipe ``speedrun`` brings, and the seconds to an accuracy.

    python -m benchmarks.speedrun ablate --data-dir DIR --backend numba --out FOLDER --seeds 0,1,2
    python -m benchmarks.speedrun time --data-dir DIR --target 0.80 --out FOLDER --arch plain
    python -m benchmarks.speedrun write

The first two train what is missing in FOLDER; runs that were interrupted are resumed. Finished ones
go into ``benchmarks/results/speedrun.json``, from which the third writes ``docs/speedrun.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.paper.statistics import Estimate, difference, estimate, points
from benchmarks.runs import ROOT, Record, places, read, trained, write_page
from igc_ref import data
from igc_ref.cli.options import NETWORK, add_settings
from igc_ref.networks.builder import cost
from igc_ref.report import markdown
from igc_ref.training.checkpoint import reached
from igc_ref.training.config import TrainConfig, recipe

PAGE, RECORD = ROOT / "docs" / "speedrun.md", ROOT / "benchmarks" / "results" / "speedrun.json"
ALL, NETWORK_8 = "all", {"arch": "plain_igc", "depth": 8, "L": 24, "M": 2}
INGREDIENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # switched on, and off
    "label smoothing 0.1": ({"label_smoothing": 0.1}, {"label_smoothing": 0.0}),
    "alternating flip": ({"mirror": "alternating"}, {"mirror": "random"}),
    "mirror images in tests": ({"test_mirror": True}, {"test_mirror": False}),
    "batches of 256 at rate 0.4": (
        {"batch_size": 256, "lr": 0.4},
        {"batch_size": 128, "lr": 0.2},
    ),
    "batch norm's momentum 0.9, not the authors'": ({"bn_momentum": 0.9}, {"bn_momentum": None}),
}

HEAD = """# Seconds to accuracy

What shortens training on CIFAR-10 elsewhere ([arXiv:2404.00498](https://arxiv.org/abs/2404.00498)),
switched on and off here, and how long networks take to 80 % on two cores. `python -m
benchmarks.speedrun write` writes this page from [its record](../benchmarks/results/speedrun.json);
a test keeps it so. Accuracies are of the last epoch, on the test set; CIFAR-10 is a JPEG re-encoded
copy, not the published files.

## Ingredients

`--recipe fast` with all of them, and without one at a time, by the same seeds. The difference to
"all" is in percentage points, with its 95 % t-interval: an ingredient *helps* if its absence lowers
the accuracy, and is *undecided* if the interval holds 0.
"""
KEPT = """\
`--recipe speedrun` is `fast` in {epochs} epochs, tested with mirror images. A run without a hash
was on a machine that was handed back before its checkpoints were
fetched; its accuracies are from its log, to 0.1 %.
"""
TIME = """## Minutes to an accuracy

`igc-ref train --recipe speedrun --until 0.80`: minutes of training, without tests, checkpoints
after an epoch and the compilation before the first step. The mean over the seeds that reached it;
in brackets the shortest and the longest.

90 % was not reached. The nearest, from the log of that H100: 88.3 % with `--arch resnet_igc --depth
20 -L 48 -M 2` (439,402 parameters), all ingredients, 16 epochs, seed 0; not timed on two cores.
"""
WHERE = """## Where and when

Each run with the head of the SHA-256 of its weights.
"""


def ways(name: str, epochs: int | None = None) -> dict[str, dict[str, Any]]:
    """Return recipe ``fast`` with all ingredients, with all but one, and with none."""
    none = recipe("fast", name) | {"epochs": epochs or recipe("speedrun", name)["epochs"]}
    full = none | {k: v for on, _ in INGREDIENTS.values() for k, v in on.items()}
    without = {f"without {name}": full | off for name, (_, off) in INGREDIENTS.items()}
    return {ALL: full, **without, "recipe fast": none}


def ablate(record: Record, given: dict[str, Any], seeds: list[int], out: Path) -> None:
    """Train every way with every seed; a seed is complete before the next begins."""
    for seed in seeds:
        for way, settings in ways(given["data"], given.get("epochs")).items():
            config = TrainConfig(**settings | given, seed=seed)
            trained(RECORD, record, config, out, "ablate", way)


def time(record: Record, given: dict[str, Any], seeds: list[int], out: Path, target: float) -> None:
    """Train until a test accuracy; a run for a higher one continues that for a lower one."""
    for seed in seeds:
        settings = recipe("speedrun", given["data"]) | given
        config = TrainConfig(**settings, seed=seed, until=target)
        trained(RECORD, record, config, out, f"until {target}", "speedrun")


def groups(record: Record, ablation: bool) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Return the runs that may be compared: of one network, data set, length and backend."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in record.values():
        if (run["kind"] == "ablate") == ablation:
            c = run["config"]
            key = run["network"], c["data"], c["epochs"], c["backend"], c.get("until", 0.0)
            found.setdefault(key, []).append(run)
    return dict(sorted(found.items()))


def ingredients(runs: list[dict[str, Any]]) -> str:
    """Return the table of one group of the ablation."""
    by_way: dict[str, dict[int, float]] = {}
    for run in runs:
        seed, last = run["config"]["seed"], run["records"][-1]
        by_way.setdefault(run["way"], {})[seed] = 100 * last["test_accuracy"]
    rows = [["ingredients", "seeds", "mean, %", "sd", "less all", "what is left out"]]
    for way in sorted(by_way, key=lambda w: (w != ALL, w)):
        found, change = estimate(list(by_way[way].values())), None
        if way != ALL:
            change = difference(by_way[way], by_way.get(ALL, {}))
        sd = "" if found.sd is None else f"{found.sd:.2f}"
        row = [way, str(found.count), f"{found.mean:.2f}", sd]
        rows.append([*row, points(change) if change else "", verdict(change) if change else ""])
    return markdown(rows)


def verdict(change: Estimate) -> str:
    """Say what something does, from the `Estimate` of the change without it."""
    if change.half is None or abs(change.mean) <= change.half:
        return "undecided"
    return "helps" if change.mean < 0 else "hurts"


def seconds(run: Mapping[str, Any]) -> float | None:
    """Return the seconds of training up to the run's target, or None if it was not reached."""
    last = reached(TrainConfig.from_dict(run["config"]), run["records"])
    upto = run["records"][: int(last["epoch"])] if last else []
    return sum(record["seconds"] for record in upto) or None


def times(record: Record) -> str:
    """Return the table of seconds to accuracy."""
    header = "network", "parameters", "until", "epochs", "batch", "backend", "seeds that reached it"
    rows = [[*header, "minutes"]]
    for (network, name, epochs, backend, until), runs in groups(record, ablation=False).items():
        c = runs[0]["config"]
        architecture = TrainConfig.from_dict(c).architecture(data.NUM_CLASSES[name])
        minutes = [s / 60 for s in map(seconds, runs) if s is not None]
        shown = "-"
        if minutes:
            shown = f"{mean(minutes):.1f} ({min(minutes):.1f} to {max(minutes):.1f})"
        rows.append([
            f"{network}, {name}", f"{cost(architecture).parameters:,}", f"{until:.0%}",
            str(epochs), str(c["batch_size"]), backend, f"{len(minutes)} of {len(runs)}", shown,
        ])  # fmt: skip
    return markdown(rows) if len(rows) > 1 else "No run yet."


def page(record: Record) -> str:
    """Return the text of ``docs/speedrun.md``."""
    tables = [
        f"{network}, {name}, {epochs} epochs, {backend}:\n\n{ingredients(runs)}\n"
        for (network, name, epochs, backend, _), runs in groups(record, ablation=True).items()
    ] or ["No run yet.\n"]
    kept = KEPT.format(epochs=recipe("speedrun", "cifar10")["epochs"])
    return (
        "\n".join(
            [HEAD, *tables, kept, TIME, times(record) + "\n", WHERE, *places(record)]
        ).rstrip()
        + "\n"
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speedrun", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("write", help="write the page from the record")
    for name in ("ablate", "time"):
        add = commands.add_parser(name, argument_default=argparse.SUPPRESS)
        add.add_argument("--out", required=True, type=Path, metavar="DIR", help="for the runs")
        add.add_argument("--seeds", default="0", metavar="N,N", help="default 0")
        if name == "time":
            add.add_argument("--target", required=True, type=float, metavar="X")
            add_settings(add, ("batch_size", "lr"))
        add_settings(add, (*NETWORK, "data", "data_dir", "data_size", "backend", "epochs"))
    given: dict[str, Any] = vars(parser.parse_args(arguments))
    if (command := given.pop("command")) == "write":
        return write_page(PAGE, page(read(RECORD)))
    network = {} if "arch" in given else NETWORK_8
    given = {"data": "cifar10", "backend": "numba"} | network | given
    seeds = [int(seed) for seed in given.pop("seeds").split(",")]
    more: dict[str, Any] = {name: given.pop(name) for name in ("out", "target") if name in given}
    (ablate if command == "ablate" else time)(read(RECORD), given, seeds, **more)


if __name__ == "__main__":
    main()
