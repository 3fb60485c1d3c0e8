"""Networks of other forms beside plain_igc-20 L24M2, at about its parameters, on CIFAR-10.

    python -m benchmarks.forms train --data-dir DIR --backend numba --out FOLDER --seeds 0,1
    python -m benchmarks.forms write

The first trains what is missing in FOLDER; runs that were interrupted are resumed. Finished ones go
into ``benchmarks/results/forms.json``, from which the second writes ``docs/forms.md``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.paper.statistics import Estimate, difference, points
from benchmarks.runs import ROOT, Record, places, read, trained, write_page
from igc_ref import data
from igc_ref.cli.options import add_settings
from igc_ref.networks.builder import cost
from igc_ref.report import markdown
from igc_ref.training.config import TrainConfig

PAGE, RECORD = ROOT / "docs" / "forms.md", ROOT / "benchmarks" / "results" / "forms.json"
BASE, DISTILLED, TEACHER = "the paper's block", "the paper's block, distilled", "its teacher"
L24M2: dict[str, Any] = {"arch": "plain_igc", "depth": 20, "L": 24, "M": 2}
FORMS: dict[str, dict[str, Any]] = {
    BASE: L24M2,
    "kernels of 3 and 5": L24M2 | {"L": 16, "kernel_sizes": (3, 5)},
    "gated channels": L24M2 | {"L": 21, "gate": "channels"},
    "gated partitions, half of them kept": L24M2 | {"L": 20, "gate": "partitions", "keep": 10},
    "DenseNet-BC of IGC blocks": {"arch": "densenet_bc_igc", "depth": 22, "L": 8, "M": 5},
    "the search's best form": L24M2 | {"L": 40, "M": 1, "kernel_sizes": (3, 5)},
    TEACHER: {"arch": "plain", "depth": 20, "width": 18},
    DISTILLED: L24M2,
}
EPOCHS = 10

HEAD = """# Other forms of the block

Networks whose blocks have several kernel sizes, gates that depend on the image, or dense
connections, each with about the parameters of plain_igc-20 L24M2; and that network taught by a
larger one. `--recipe fast` in fewer epochs; the test accuracy of the last epoch, in percent.
CIFAR-10 is a JPEG re-encoded copy, not the published files. A difference has its 95 % t-interval
over the seeds, and is *undecided* if that holds 0; two seeds decide nothing but large ones.

The search's best form is that of [a search](../benchmarks/results/search/report.md) at depth 8,
with the greatest L that L24M2's parameters allow at depth 20: `igc-ref search --data cifar10
--recipe fast --budget 48442 --tolerance 0.1 --trials 20 --epochs 5 --data-size 20000 --batch-size
64 --backend numba` (seed 0; commit c3bd456, 2026-11-27, 2 cores of an AMD EPYC). It ended 14 of the
20 networks early, 11 of them after one epoch, when accuracies still jump; the intervals of the six
that finished overlap.

`python -m benchmarks.forms write` writes this page from [its
record](../benchmarks/results/forms.json); a test keeps it so.
"""
MULTIPLY_ADDS = """\
Multiply-adds are of the evaluation of one image: of gated partitions only the kept ones are
computed.
"""
WHERE = """## Where and when

Each run with the head of the SHA-256 of its weights.
"""


def train(record: Record, given: dict[str, Any], seeds: list[int], out: Path) -> None:
    """Train every form with every seed; a seed is complete before the next begins."""
    for seed in seeds:
        folders: dict[str, Path] = {}
        for form, settings in FORMS.items():
            config = TrainConfig.recipe(
                "fast", **{"data": "cifar10", "epochs": EPOCHS} | given | settings, seed=seed
            )
            if form == DISTILLED:
                config = replace(config, teacher=str(folders[TEACHER]))
            folders[form] = out / trained(RECORD, record, config, out, "form", form)


def rows(record: Record) -> list[list[str]]:
    """Return the table of accuracies as text, a header first."""
    header = "form", "network", "parameters", "multiply-adds", "by seed", "mean"
    found = [[*header, f"less {BASE}", "verdict"]]
    by_form: dict[str, dict[int, float]] = {form: {} for form in FORMS}
    architectures = {}
    for run in record.values():
        config = TrainConfig.from_dict(run["config"])
        by_form[run["way"]][config.seed] = 100 * run["records"][-1]["test_accuracy"]
        architectures[run["way"]] = config.architecture(data.NUM_CLASSES[config.data])
    for form, accuracies in by_form.items():
        if not accuracies:
            continue
        costs = [f"{number:,}" for number in cost(architectures[form])]
        seeds = ", ".join(f"{seed}: {a:.2f}" for seed, a in sorted(accuracies.items()))
        line = [form, str(architectures[form]), *costs, seeds, f"{mean(accuracies.values()):.2f}"]
        change = None if form in (BASE, TEACHER) else difference(accuracies, by_form[BASE])
        found.append([*line, *([points(change), verdict(change)] if change else ["", ""])])
    return found


def verdict(change: Estimate) -> str:
    """Say what a form is, from the `Estimate` of its difference to the paper's block."""
    if change.half is None or abs(change.mean) <= change.half:
        return "undecided"
    return "better" if change.mean > 0 else "worse"


def page(record: Record) -> str:
    """Return the text of ``docs/forms.md``."""
    table = markdown(rows(record)) + "\n\n" + MULTIPLY_ADDS if record else "No run yet.\n"
    return "\n".join([HEAD, table, WHERE, *places(record)]).rstrip() + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forms", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("write", help="write the page from the record")
    add = commands.add_parser("train", argument_default=argparse.SUPPRESS)
    add.add_argument("--out", required=True, type=Path, metavar="DIR", help="for the runs")
    add.add_argument("--seeds", default="0,1", metavar="N,N", help="default 0,1")
    add_settings(add, ("data", "data_dir", "data_size", "backend", "epochs"))
    given: dict[str, Any] = vars(parser.parse_args(arguments))
    if given.pop("command") == "write":
        return write_page(PAGE, page(read(RECORD)))
    seeds = [int(seed) for seed in given.pop("seeds").split(",")]
    out = given.pop("out")
    train(read(RECORD), given, seeds, out)


if __name__ == "__main__":
    main()
