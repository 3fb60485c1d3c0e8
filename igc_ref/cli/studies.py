"""The commands ``sweep``, ``search`` and ``compress``, and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from igc_ref import plots
from igc_ref.cli.options import NETWORK, add_command, add_run, add_training
from igc_ref.errors import SpecError
from igc_ref.report import aligned, say
from igc_ref.studies import workers
from igc_ref.studies.compress import RESULT, compress, summary_cells
from igc_ref.studies.search import BY, REPORT, Search
from igc_ref.studies.sweep import COSTS, CSV, PICTURE, Sweep
from igc_ref.training import config, ranks
from igc_ref.training.config import TrainConfig

IGC_ARCHS, ARCH = ("plain_igc", "resnet_igc"), "kind of network; default plain_igc"
OF_RUNS = "folder for the runs; what is there already is not trained again"


def add_commands(commands: Any) -> None:
    """Add the commands of this file to the command line."""
    add = add_command(commands, sweep_command)
    add.add_argument("--budget", type=int, required=True, metavar="N", help="cost of a network")
    costs = [name.replace("_", "-") for name in COSTS]
    add.add_argument("--what", choices=costs, help="what the budget counts; default parameters")
    text = "allowed distance from the budget, as a part of it; default 0.05"
    add.add_argument("--tolerance", type=float, metavar="X", help=text)
    text = "numbers of layers, the budget is of the first; default 8"
    add.add_argument("--depths", metavar="N,N", help=text)
    add.add_argument("--seeds", metavar="N,N", help="seeds of the runs; default 0")
    add.add_argument("--out", required=True, metavar="DIR", help=OF_RUNS)
    text = "processes of this machine that train, and share out its cores; default 1"
    add.add_argument("--jobs", type=int, metavar="N", help=text)
    text = "let Slurm train: sbatch's options, as partition=gpu,time=60 (minutes; needed)"
    add.add_argument("--slurm", metavar="NAME=VALUE,...", help=text)
    add.add_argument("--arch", choices=IGC_ARCHS, help=ARCH)
    add_training(add, without={*NETWORK, "seed", "out"})

    _add_search(commands)

    add = add_command(commands, compress_command)
    add_run(add, "folder of the regular network's run")
    add.add_argument("-L", type=int, required=True, metavar="N", help="primary partitions")
    text = "secondary partitions; L*M must be the network's width"
    add.add_argument("-M", type=int, required=True, metavar="N", help=text)
    add.add_argument("--out", required=True, metavar="DIR", help=OF_RUNS)
    add.add_argument("--epochs", type=int, metavar="N", help="epochs of fine-tuning; default 2")
    text = "fine-tune once more, with the regular network as teacher"
    add.add_argument("--distil", action="store_true", help=text)
    text = "peak learning rate of fine-tuning; default the run's"
    add.add_argument("--lr", type=float, metavar="X", help=text)


def _add_search(commands: Any) -> None:
    add = add_command(commands, search_command)
    add.add_argument("--budget", type=float, required=True, metavar="N", help="greatest cost")
    text = "what the budget is of; default parameters; milliseconds: of a forward pass of a batch"
    add.add_argument("--by", choices=[name.replace("_", "-") for name in BY], help=text)
    text = "networks to train in all, also those that are trained already; default 30"
    add.add_argument("--trials", type=int, metavar="N", help=text)
    text = "how far below the budget a network may be, as a part of it; default 0.5"
    add.add_argument("--tolerance", type=float, metavar="X", help=text)
    add.add_argument("--depths", metavar="N,N", help="numbers of layers; default 8")
    text = "folder of the search; another process with the same one takes part in it"
    add.add_argument("--out", required=True, metavar="DIR", help=text)
    add.add_argument("--arch", choices=IGC_ARCHS, help=ARCH)
    add_training(add, without={*NETWORK, "until", "out"} - {"norm", "dims"})


def sweep_command(
    out: str,
    budget: int,
    what: str = COSTS[0],
    tolerance: float = 0.05,
    depths: str = "8",
    seeds: str = "0",
    recipe: str | None = None,
    jobs: int = 1,
    slurm: str | None = None,
    **training: Any,
) -> None:
    """Train every (L, M) that costs about the same."""
    plan = Sweep(
        _training(recipe, training),
        out,
        budget,
        what.replace("-", "_"),
        tolerance,
        depths=_numbers("depths", depths),
        seeds=_numbers("seeds", seeds),
    )
    folder = Path(plan.folder)
    figure = f"figure in {folder / PICTURE}" if plots.available() else "no figure: no matplotlib"
    with ranks.together(say, quiet=True) as (_, report):
        executor = None if slurm is None else workers.slurm(folder / "slurm", slurm)
        plan.run(report, jobs, executor)
        report(f"table in {folder / CSV}, {figure}")


def search_command(
    out: str,
    budget: float,
    by: str = BY[0],
    depths: str = "8",
    recipe: str | None = None,
    trials: int = 30,
    tolerance: float = 0.5,
    **training: Any,
) -> None:
    """Search for the best IGC network within a budget."""
    run, numbers = _training(recipe, training), _numbers("depths", depths)
    search = Search(run, out, budget, by.replace("-", "_"), trials, tolerance, numbers)
    search.run(say)
    say(f"report in {search.path / REPORT}")


def _training(recipe: str | None, given: dict[str, Any]) -> TrainConfig:
    """Return the settings of all runs: what is given, and the others of a recipe."""
    of = {} if recipe is None else config.recipe(recipe, given.get("data", TrainConfig.data))
    return TrainConfig(**of | given)


def _numbers(name: str, text: str) -> list[int]:
    """Read numbers with commas between them."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise SpecError(f"{name}={text!r} is not allowed: numbers with commas between") from None


def compress_command(run: str, out: str, **options: Any) -> None:
    """Turn a trained regular network into an IGC network."""
    result = compress(run, out=out, report=say, **options)
    say(aligned(summary_cells(result)))
    say(f"all numbers in {Path(out) / RESULT}")
