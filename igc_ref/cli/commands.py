"""The command ``igc-ref``: train, eval, params, bench, plot; and the studies."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import igc_ref
from igc_ref import backends, bench, data, plots
from igc_ref.cli import studies
from igc_ref.cli.options import add_network, add_training, suppressing
from igc_ref.errors import IGCError, SpecError, choice, integer
from igc_ref.files import write_csv
from igc_ref.networks.model import build
from igc_ref.report import aligned, say
from igc_ref.spec.block import IGCSpec
from igc_ref.studies.compare import EQUAL, cells, compare, csv_rows, paper_cells, summary
from igc_ref.training import config as recipes
from igc_ref.training import folder as runs
from igc_ref.training.config import TrainConfig
from igc_ref.training.evaluation import evaluate, precise_statistics
from igc_ref.training.session import resume, train
from igc_ref.training.signals import Interrupted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 after a one-line error, or 130 after Ctrl-C."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        command(**options)
    except (IGCError, OSError) as error:
        print(f"igc-ref: error: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"igc-ref: error: not enough memory: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        print(f"igc-ref: {error}", file=sys.stderr)
        return 128 + error.signal
    except KeyboardInterrupt:
        print("igc-ref: interrupted; train --resume RUN continues a run", file=sys.stderr)
        return 130
    return 0


def train_command(
    resume_run: str | None = None, recipe: str | None = None, **settings: Any
) -> None:
    """Train from scratch, or continue a run.

    A recipe gives the settings that are not given otherwise. A run that is continued must have
    them, as it must have whatever else is given.
    """
    if recipe is not None:
        run = TrainConfig() if resume_run is None else runs.read_config(Path(resume_run))
        settings = recipes.recipe(recipe, settings.get("data", run.data)) | settings
    if resume_run is None:
        history = train(TrainConfig(**settings), say)
    else:
        history = resume(resume_run, say, **settings)
    say(f"test accuracy {history.test_accuracy:.2%}; checkpoint and log in {history.run}")


def eval_command(
    run: str, backend: str = "auto", data_dir: str | None = None, precise_bn: bool = False
) -> None:
    """Evaluate a run on its test set."""
    model, config = runs.load_run(run, backend)
    model.backend.prepare(model.dtype, say)
    if precise_bn:
        train_set = data.load(config.data, "train", data_dir or config.data_dir, say)
        precise_statistics(model, train_set)
    test_set = data.load(config.data, "test", data_dir or config.data_dir, say)
    result = evaluate(model, test_set)
    say(
        f"{model.architecture} on {test_set.name}, {len(test_set):,} pictures, "
        f"{model.backend.name} backend: accuracy {result.accuracy:.2%}, loss {result.loss:.4f}"
        + (" (batch statistics estimated anew)" if precise_bn else "")
    )


def params_command(
    num_classes: int = 10,
    compare_all: bool = False,
    equal: str | None = None,
    paper: bool = False,
    csv: str | None = None,
    **settings: Any,
) -> None:
    """Print the table of a network, of it beside others, or of all the paper's networks."""
    if (csv or equal) and not compare_all:
        raise SpecError("--equal and --csv belong to a comparison: give --compare as well")
    if paper:
        say(aligned(paper_cells()))
        return
    architecture = TrainConfig(**settings).architecture(num_classes)
    if not compare_all:
        say(summary(build(architecture, backend="numpy")))
        return
    counted = compare(architecture, (equal or "depth").replace("-", "_"))
    say(aligned(cells(counted)))
    if csv is not None:
        write_csv(csv, csv_rows(counted))


def bench_command(
    contenders: list[str] | None,
    threads: int | None,
    rounds: int,
    json: str | None,
    arch: str | None = None,
    batch_size: int = 64,
    **numbers: Any,
) -> None:
    """Time a block of the user's, or with --arch a training step, for everyone who can run here."""
    threads = bench.available_threads() if threads is None else integer("threads", threads)
    rounds, batch_size = integer("rounds", rounds), integer("batch_size", batch_size)
    case: bench.Case
    if arch is None:
        for name in {"depth", "width", "doubling"} & set(numbers):
            raise SpecError(f"{name}={numbers[name]} belongs to a network: give --arch as well")
        L, M = numbers.pop("L", 4), numbers.pop("M", 8)
        size = integer("size", numbers.pop("size", 32))
        G = integer("L", L) * integer("M", M)
        channels = {"in_channels": G, "out_channels": G}
        case = bench.BlockCase(IGCSpec(**{**channels, **numbers}, L=L, M=M), size, batch_size)
    else:
        for name in set(numbers) - {"depth", "L", "M", "width", "doubling"}:
            raise SpecError(f"{name}={numbers[name]} belongs to a block: leave out --arch")
        config = TrainConfig(arch=arch, batch_size=batch_size, **numbers)
        case = bench.StepCase(config.architecture(num_classes=10), batch_size)
    able = bench.contenders()
    for name in contenders or []:
        choice("contender", name, able)
    say(f"measuring the roofline with {threads} threads, then {case.name}, batch {batch_size}")
    roofline = bench.measure(threads)
    say(f"copy {roofline.bandwidth / 1e9:.1f} GB/s, GEMM {roofline.flops / 1e9:.0f} GFLOP/s")
    comparison = bench.time_case(case, contenders or able, threads, rounds)
    say("\n".join(comparison.lines(roofline)))
    if json is not None:
        bench.write_comparisons(Path(json), [comparison], roofline, threads)


def plot_command(run: str, out: str | None = None) -> None:
    """Draw the learning curves of a run."""
    records, config = runs.read_log(run), runs.read_config(Path(run))
    path = Path(out) if out else Path(run) / "curves.png"
    title = f"{config.architecture(10)} on {config.data}"
    plots.save(plots.draw_curves(records, title), path)
    say(f"curves in {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="igc-ref",
        description="Interleaved group convolutions: train, evaluate, count, time, draw, study.",
    )
    parser.add_argument("--version", action="version", version=f"igc-ref {igc_ref.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)

    add = commands.add_parser("eval", help="evaluate a run on its test set")
    add.add_argument("run", metavar="RUN", help="folder of the run")
    add.add_argument("--data-dir", metavar="DIR", help="where the data lies now")
    add.add_argument("--backend", choices=backends.NAMES, default="auto")
    text = "first estimate batch statistics anew, on training pictures"
    add.add_argument("--precise-bn", action="store_true", help=text)
    add.set_defaults(command=eval_command)

    _add_params(commands)
    _add_bench(commands)

    add = commands.add_parser("plot", help="draw the learning curves of a run")
    add.add_argument("run", metavar="RUN", help="folder of the run")
    add.add_argument("--out", metavar="FILE", help="default RUN/curves.png; may end in .svg")
    add.set_defaults(command=plot_command)

    studies.add_commands(commands)
    return parser


def _add_train(commands: Any) -> None:
    add = suppressing(commands, "train", "train a network; by default a small one on shapes")
    add_network(add)
    add_training(add)
    add.add_argument("--out", metavar="RUN", help="folder of the run; default a new one below runs")
    add.add_argument("--resume", metavar="RUN", dest="resume_run", help="continue this run")
    add.set_defaults(command=train_command)


def _add_params(commands: Any) -> None:
    add = suppressing(commands, "params", "print a network's layers, parameters, multiply-adds")
    add_network(add)
    add.add_argument("--num-classes", type=int, metavar="N", help="default 10")
    text = "beside regular, summation-fusion and Xception nets"
    add.add_argument("--compare", action="store_true", dest="compare_all", help=text)
    equals = [name.replace("_", "-") for name in EQUAL]
    add.add_argument("--equal", choices=equals, help="what they have in common; default depth")
    add.add_argument("--csv", metavar="FILE", help="write the comparison there as well")
    add.add_argument("--paper", action="store_true", help="count all networks of the paper")
    add.set_defaults(command=params_command)


def _add_bench(commands: Any) -> None:
    add = suppressing(commands, "bench", "time a block, or a training step, against others")
    add_network(add, "time a training step of this network; default: a block")
    for name, text in (
        ("in-channels", "default L*M"),
        ("out-channels", "default L*M"),
        ("kernel-size", "default 3"),
        ("stride", "default 1"),
        ("size", "height and width of the pictures; default 32"),
        ("batch-size", "default 64"),
    ):
        add.add_argument(f"--{name}", type=int, metavar="N", help=text)
    add.add_argument("--contenders", nargs="+", default=None, metavar="NAME", help="default: all")
    add.add_argument("--threads", type=int, default=None, metavar="N", help="default: all cores")
    add.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each; default 7")
    add.add_argument("--json", default=None, metavar="FILE", help="write everything there")
    add.set_defaults(command=bench_command)
