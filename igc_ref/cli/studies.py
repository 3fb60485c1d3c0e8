"""The commands ``igc-ref sweep`` and ``igc-ref compress``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from igc_ref import backends
from igc_ref.cli.options import add_training, suppressing
from igc_ref.errors import SpecError
from igc_ref.report import aligned, say
from igc_ref.studies.compress import RESULT, compress, summary_cells
from igc_ref.studies.sweep import COSTS, CSV, PICTURE, Sweep
from igc_ref.training import config as recipes
from igc_ref.training.config import TrainConfig


def sweep_command(
    out: str,
    budget: int,
    what: str = COSTS[0],
    tolerance: float = 0.05,
    depths: str = "8",
    seeds: str = "0",
    recipe: str | None = None,
    **training: Any,
) -> None:
    """Train every (L, M) near a budget."""
    if recipe is not None:
        training = recipes.recipe(recipe, training.get("data", TrainConfig.data)) | training
    plan = Sweep(
        TrainConfig(**training),
        out,
        budget,
        what.replace("-", "_"),
        tolerance,
        depths=_numbers("depths", depths),
        seeds=_numbers("seeds", seeds),
    )
    plan.run(say)
    say(f"table and picture in {Path(out) / CSV} and {Path(out) / PICTURE}")


def compress_command(run: str, out: str, **options: Any) -> None:
    """Turn a trained regular network into an IGC network."""
    result = compress(run, out=out, report=say, **options)
    say(aligned(summary_cells(result)))
    say(f"all numbers in {Path(out) / RESULT}")


def _numbers(name: str, text: str) -> list[int]:
    """Read numbers with commas between them."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise SpecError(f"{name}={text!r} is not allowed: numbers with commas between") from None


def add_commands(commands: Any) -> None:
    """Add the studies to the command line."""
    _add_sweep(commands)
    _add_compress(commands)


def _add_sweep(commands: Any) -> None:
    add = suppressing(commands, "sweep", "train every (L, M) of nearly one cost")
    add.add_argument("--budget", type=int, required=True, metavar="N", help="cost of a network")
    add.add_argument(
        "--what", choices=[name.replace("_", "-") for name in COSTS], help="default parameters"
    )
    add.add_argument(
        "--tolerance", type=float, metavar="X", help="part of the budget; default 0.05"
    )
    add.add_argument("--depths", metavar="N,N", help="default 8; the budget is of the first")
    add.add_argument("--seeds", metavar="N,N", help="default 0")
    add.add_argument("--out", required=True, metavar="DIR", help="for the runs; resumed if there")
    add.add_argument("--arch", choices=("plain_igc", "resnet_igc"), help="default plain_igc")
    add_training(add, seed=False)
    add.set_defaults(command=sweep_command)


def _add_compress(commands: Any) -> None:
    add = suppressing(commands, "compress", "turn a trained regular net into an IGC net")
    add.add_argument("run", metavar="RUN", help="folder of the regular network's run")
    add.add_argument("-L", type=int, required=True, metavar="N", help="primary partitions")
    add.add_argument("-M", type=int, required=True, metavar="N", help="L*M is the run's width")
    add.add_argument("--out", required=True, metavar="DIR", help="for the runs; resumed if there")
    add.add_argument("--epochs", type=int, metavar="N", help="of fine-tuning; default 2")
    add.add_argument("--lr", type=float, metavar="X", help="its peak rate; default the run's")
    add.add_argument("--backend", choices=backends.NAMES, help="default auto")
    add.add_argument("--data-dir", metavar="DIR", help="where the data lies now")
    add.set_defaults(command=compress_command)
