"""What each ingredient of the recipe ``speedrun`` brings, and the seconds to an accuracy.

    python -m benchmarks.speedrun ablate --data-dir DIR --backend numba --out FOLDER --seeds 0,1,2
    python -m benchmarks.speedrun time --data-dir DIR --target 0.80 --out FOLDER --arch plain
    python -m benchmarks.speedrun write

The first two train what is missing in FOLDER; runs that were interrupted are resumed. Finished ones
go into ``benchmarks/results/speedrun.json``, from which the third writes ``docs/speedrun.md``.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from igc_ref import data
from igc_ref.bench.record import available_threads, machine, output
from igc_ref.cli.options import NETWORK, add_settings
from igc_ref.files import replacing, write_json
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import cost
from igc_ref.report import markdown, say
from igc_ref.training.checkpoint import reached
from igc_ref.training.config import TrainConfig, recipe
from igc_ref.training.session import run_to_end

ROOT = Path(__file__).parents[1]
PAGE, RECORD = ROOT / "docs" / "speedrun.md", ROOT / "benchmarks" / "results" / "speedrun.json"
PATHS = ("out", "data_dir")  # of one machine; not recorded
FULL, NETWORK_20 = "the recipe", {"arch": "plain_igc", "depth": 20, "L": 24, "M": 2}
Record = dict[str, dict[str, Any]]

HEAD = """# Seconds to accuracy

What each ingredient of `--recipe speedrun` brings, and how long networks take to 80 % and 90 % with
it. `python -m benchmarks.speedrun write` writes this page from
[its record](../benchmarks/results/speedrun.json); a test keeps it so. Accuracies are of the last
epoch, on the test set; CIFAR-10 is a JPEG re-encoded copy, not the published files.

## Ingredients

The recipe with one thing changed, by the same seeds. *Against the recipe* is the mean difference by
seed, in percentage points, with its 95 % t-interval: what has 0 in it is undecided.
"""
TIME = """## Minutes to an accuracy

`igc-ref train --recipe speedrun --until TARGET`: minutes of training, without tests, checkpoints
after an epoch and the compilation before the first step. The mean over the seeds that reached the
target; in brackets the shortest and the longest.
"""
WHERE = """## Where and when

Each run with the head of the SHA-256 of its weights.
"""


def ways(name: str, epochs: int | None = None) -> dict[str, dict[str, Any]]:
    """Return the recipe for a data set, without one ingredient at a time, and ``fast`` as short."""
    full = recipe("speedrun", name) | ({} if epochs is None else {"epochs": epochs})
    half = {"batch_size": full["batch_size"] // 2, "lr": full["lr"] / 2}
    return {
        FULL: full,
        "no label smoothing": full | {"label_smoothing": 0.0},
        "mirrored at random": full | {"mirror": "random"},
        "tested without mirror images": full | {"test_mirror": False},
        f"batch {half['batch_size']}, rate {half['lr']}": full | half,
        "the authors' momentum of batch norm": full | {"bn_momentum": None},
        "recipe fast": recipe("fast", name) | {"epochs": full["epochs"]},
    }


def trained(record: Record, kind: str, config: TrainConfig, out: Path, way: str) -> None:
    """Train a run, or what is left of it, unless it is recorded; record it with where and how."""
    network = str(config.architecture(data.NUM_CLASSES[config.data]))
    words = f"{network} {config.data} {way} {config.epochs} seed{config.seed}"
    folder = re.sub(r"[^\w.]+", "-", words)
    name = f"{kind} {folder}"
    settings = {n: v for n, v in config.to_dict().items() if n not in PATHS and v is not None}
    if record.get(name, {}).get("config") == settings:
        return
    where = machine(available_threads())
    if config.backend == "cupy":
        where["card"] = output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    history = run_to_end(replace(config, out=str(out / folder)), say)
    record[name] = {
        "kind": kind, "way": way, "network": network, "config": settings,
        "records": history.records, "sha256": history.sha256, "machine": where,
    }  # fmt: skip
    write_json(RECORD, {"runs": dict(sorted(record.items()))})


def ablate(record: Record, given: dict[str, Any], seeds: list[int], out: Path) -> None:
    """Train every way with every seed; a seed is complete before the next begins."""
    for seed in seeds:
        for way, settings in ways(given["data"], given.get("epochs")).items():
            trained(record, "ablate", TrainConfig(**settings | given, seed=seed), out, way)


def time(record: Record, given: dict[str, Any], seeds: list[int], out: Path, target: float) -> None:
    """Train until a test accuracy; a run for a higher one continues that for a lower one."""
    for seed in seeds:
        settings = recipe("speedrun", given["data"]) | given
        config = TrainConfig(**settings, seed=seed, until=target)
        trained(record, f"until {target}", config, out, "speedrun")


def groups(record: Record, ablation: bool) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Return the runs that may be compared: of one network, data set, length and backend."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in record.values():
        if (run["kind"] == "ablate") == ablation:
            c = run["config"]
            key = run["network"], c["data"], c["epochs"], c["backend"], c.get("until", 0.0)
            found.setdefault(key, []).append(run)
    return dict(sorted(found.items()))


def interval(differences: list[float]) -> str:
    """Write the mean of differences, in points, with its 95 % t-interval."""
    if (n := len(differences)) < 2:
        return "".join(f"{d:+.2f} (one seed)" for d in differences)
    mean = np.mean(differences)
    half = t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / math.sqrt(n)
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"


def ingredients(runs: list[dict[str, Any]]) -> str:
    """Return the table of one group of the ablation."""
    by_way: dict[str, dict[int, float]] = {}
    for run in runs:
        seed, last = run["config"]["seed"], run["records"][-1]
        by_way.setdefault(run["way"], {})[seed] = 100 * last["test_accuracy"]
    full, rows = by_way.get(FULL, {}), [["changed", "seeds", "mean, %", "sd", "against the recipe"]]
    for way in sorted(by_way, key=lambda w: (w != FULL, w)):
        found = by_way[way]
        sd = f"{np.std(list(found.values()), ddof=1):.2f}" if len(found) > 1 else "-"
        against = [a - full[seed] for seed, a in found.items() if seed in full and way != FULL]
        mean = f"{np.mean(list(found.values())):.2f}"
        rows.append([way, str(len(found)), mean, sd, interval(against)])
    return markdown(rows)


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
        sizes = c.get("L"), c.get("M"), c.get("width"), data.NUM_CLASSES[name]
        count = cost(Architecture(c["arch"], c["depth"], *sizes, c["doubling"])).parameters
        minutes = [s / 60 for s in map(seconds, runs) if s is not None]
        shown = "-"
        if minutes:
            shown = f"{np.mean(minutes):.1f} ({min(minutes):.1f} to {max(minutes):.1f})"
        rows.append([
            f"{network}, {name}", f"{count:,}", f"{until:.0%}", str(epochs), str(c["batch_size"]),
            backend, f"{len(minutes)} of {len(runs)}", shown,
        ])  # fmt: skip
    return markdown(rows) if len(rows) > 1 else "No run yet."


def places(record: Record) -> Iterator[str]:
    """Yield a line for every machine, day and commit."""
    found: dict[str, list[str]] = {}
    for name, run in record.items():
        m = run["machine"]
        device = m.get("card") or f"{m['processor']}, {m['threads']} cores"
        line = f"commit {m['commit']}, {m['date']}, {device}, numba {m['numba']}"
        found.setdefault(line, []).append(f"`{name}` {run['sha256'][:16]}")
    for line, names in found.items():
        yield f"* {line}: {', '.join(names)}"


def page(record: Record) -> str:
    """Return the text of ``docs/speedrun.md``."""
    tables = [
        f"{network}, {name}, {epochs} epochs, {backend}:\n\n{ingredients(runs)}\n"
        for (network, name, epochs, backend, _), runs in groups(record, ablation=True).items()
    ] or ["No run yet.\n"]
    return (
        "\n".join([HEAD, *tables, TIME, times(record) + "\n", WHERE, *places(record)]).rstrip()
        + "\n"
    )


def read() -> Record:
    """Return the recorded runs by name."""
    return json.loads(RECORD.read_text())["runs"] if RECORD.exists() else {}


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
        with replacing(PAGE) as file:
            file.write(page(read()).encode())
        return
    network = {} if "arch" in given else NETWORK_20
    given = {"data": "cifar10", "backend": "numba"} | network | given
    seeds = [int(seed) for seed in str(given.pop("seeds")).split(",")]
    more: dict[str, Any] = {name: given.pop(name) for name in ("out", "target") if name in given}
    (ablate if command == "ablate" else time)(read(), given, seeds, **more)


if __name__ == "__main__":
    main()
