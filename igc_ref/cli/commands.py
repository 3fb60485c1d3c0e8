"""The commands ``train``, ``hash``, ``eval``, ``predict``, ``params``, ``bench``, ``plot``."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from igc_ref import bench, plots
from igc_ref.bench.harness import TORCH
from igc_ref.bench.rivals import RIVALS
from igc_ref.cli.options import NETWORK, add_command, add_run, add_settings, add_training
from igc_ref.data import read_image
from igc_ref.errors import CheckpointError, SpecError, choice, integer, one_line, user_path
from igc_ref.files import writable, write_csv
from igc_ref.networks.architecture import ARCHITECTURES
from igc_ref.networks.model import build
from igc_ref.report import aligned, say
from igc_ref.spec.block import IGCSpec
from igc_ref.studies import compare as counts
from igc_ref.training import config as recipes
from igc_ref.training import folder as runs
from igc_ref.training import ranks
from igc_ref.training.config import TrainConfig
from igc_ref.training.evaluation import bits_per_byte, evaluate, interval, precise_statistics
from igc_ref.training.session import resume, train

PARTITIONS = {
    "L": "primary partitions; default 4, with --arch only if M is not given either",
    "M": "secondary partitions; default 8, with --arch only if L is not given either",
}
BLOCK = {
    "in_channels": "of a block: channels of its input; default L*M",
    "out_channels": "of a block: channels of its output; default L*M",
    "kernel_size": "of a block: height and width of its kernel; default 3",
    "stride": "of a block: its stride; default 1",
    "size": "of a block: height and width of its images; default 32",
}


def add_commands(commands: Any) -> None:
    """Add the commands of this file to the command line."""
    add = add_command(commands, train_command)
    add_training(add)
    add.add_argument("--resume", metavar="RUN", dest="resume_run", help="continue this run")

    add = add_command(commands, hash_command)
    add.add_argument("folders", metavar="RUN", nargs="+", help="folder of a run")

    add = add_command(commands, eval_command)
    add_run(add, "folder of the run")
    text = "first estimate the statistics of batch norm anew, on training images"
    add.add_argument("--precise-bn", action="store_true", help=text)
    text = "print the confusion matrix, and draw it into RUN/confusion.png"
    add.add_argument("--confusion", action="store_true", help=text)

    add = add_command(commands, predict_command)
    add.add_argument("run", metavar="RUN", help="folder of the run")
    text = "PNG or JPEG; resized to cover the size that was trained on, and its middle taken"
    add.add_argument("files", metavar="FILE", nargs="+", help=text)
    add.add_argument("--top", type=int, metavar="K", help="most probable classes; default 1")
    add.add_argument("--csv", metavar="FILE", help="write the table to this file instead")
    add_settings(add, ["backend"])

    add = add_command(commands, params_command)
    add_settings(add, NETWORK)
    add.add_argument("--num-classes", type=int, metavar="N", help="classes; default 10")
    text = "channels of the images or sequences; default 3"
    add.add_argument("--in-channels", type=int, metavar="N", help=text)
    text = "print one line a network: this IGC network beside regular, fusion and Xception ones"
    add.add_argument("--compare", action="store_true", help=text)
    equals = [name.replace("_", "-") for name in counts.EQUAL]
    text = "in what the compared networks are equal; default depth"
    add.add_argument("--equal", choices=equals, help=text)
    add.add_argument("--csv", metavar="FILE", help="write the comparison to this file as well")
    text = "count all networks of the paper; goes with no other option"
    add.add_argument("--paper", action="store_true", help=text)

    _add_bench(commands)

    add = add_command(commands, plot_command)
    add.add_argument("run", metavar="RUN", help="folder of the run")
    text = "file of the figure, may end in .svg; default RUN/curves.png"
    add.add_argument("--out", metavar="FILE", help=text)


def _add_bench(commands: Any) -> None:
    add = add_command(commands, bench_command)
    text = "time a training step of this kind of network; without it, a block is timed"
    add.add_argument("--arch", choices=tuple(ARCHITECTURES), help=text)
    add_settings(add, ("depth", "width", "doubling"), "with --arch: ")
    for name, text in PARTITIONS.items():
        add.add_argument(f"-{name}", type=int, metavar="N", help=text)
    for name, text in {**BLOCK, "batch_size": "images in a batch; default 64"}.items():
        add.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=text)
    text = f"some of numpy, numba, {', '.join(map(repr, (*TORCH, *RIVALS)))}; default all that can"
    add.add_argument("--contenders", nargs="+", metavar="NAME", help=text)
    text = "threads to compute with, at most one a core; default all cores"
    add.add_argument("--threads", type=int, metavar="N", help=text)
    add.add_argument("--rounds", type=int, metavar="N", help="turns of each contender; default 7")
    add.add_argument("--json", metavar="FILE", help="write all measurements to this file")


def train_command(resume_run: str | None = None, recipe: str | None = None, **given: Any) -> None:
    """Train a network; by default a small one on shapes.

    A recipe gives the settings that are not given otherwise. A run that is continued must have
    the settings that are given, by option or by recipe.
    """
    with ranks.together(say, quiet=True) as (_, report):
        if recipe is not None:
            run = TrainConfig() if resume_run is None else runs.read_config(resume_run)
            given = recipes.recipe(recipe, given.get("data", run.data)) | given
        if resume_run is None:
            history = train(TrainConfig(**given), report)
        else:
            history = resume(resume_run, report, **given)
        report(f"test accuracy {history.test_accuracy:.2%}; checkpoint and log in {history.run}")


def hash_command(folders: list[str]) -> None:
    """Print the SHA-256 of the weights of runs, a line each, as sha256sum does of files."""
    lines = []
    for folder in folders:
        model, saved = runs.load_run(folder, "numpy", warnings.warn)  # on stderr
        more = "" if saved.finished else f", {saved.progress}"
        lines.append(f"{model.sha256()}  {folder}{more}")
    say("\n".join(lines))


def eval_command(
    run: str,
    backend: str = "auto",
    data_dir: str | None = None,
    precise_bn: bool = False,
    confusion: bool = False,
) -> None:
    """Evaluate a run on its test set."""
    model, saved = runs.load_run(run, backend, say)
    config = saved.config
    model.backend.prepare(model.dtype, say)
    place = config.data_dir if data_dir is None else data_dir
    if precise_bn:
        precise_statistics(model, runs.load_set(saved, "train", place, say))
    test_set = runs.load_test_set(saved, place, say)
    result = evaluate(model, test_set, mirror=config.test_mirror)
    low, high = interval(result.accuracy, len(test_set))
    say(
        f"{model.architecture} on {test_set.name}, {len(test_set):,} images, "
        f"{model.backend.name} backend, {saved.progress}: "
        f"accuracy {result.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}), "
        f"loss {result.loss:.4f}"
        + (f", {bits_per_byte(result.loss)}" if config.data == "text" else "")
        + (" (batch statistics estimated anew)" if precise_bn else "")
        + (" (with mirror images)" if config.test_mirror else "")
    )
    if confusion:
        classes, path = test_set.classes, user_path("run", run) / "confusion.png"
        rows = [["truth \\ answer", *map(str, range(len(classes))), "recall"]]
        for number, counted in enumerate(result.confusion.tolist()):
            recall = f"{counted[number] / max(1, sum(counted)):.1%}"
            rows.append([f"{number} {one_line(classes[number])}", *map(str, counted), recall])
        say(aligned(rows))
        plots.save(plots.draw_confusion(result.confusion, classes), path)
        say(f"figure in {path}")


def predict_command(
    run: str, files: list[str], top: int = 1, csv: str | None = None, backend: str = "auto"
) -> None:
    """Predict the classes of image files."""
    if csv is not None and not csv.endswith(".csv"):  # --csv A.png B.png would lose an image
        raise SpecError(f"csv={csv} must end in .csv")
    path = None if csv is None else writable(user_path("csv", csv))
    model, saved = runs.load_run(run, backend, say)
    if saved.metadata.size[0] == 1 or model.architecture.in_channels != 3:
        raise SpecError(f"{run} classifies sequences of {saved.config.data}; predict reads images")
    images = [read_image(user_path("file", name), saved.metadata.size) for name in files]
    model.backend.prepare(model.dtype, say)
    answers = zip(files, model.predict(np.stack(images)).top(top), strict=True)
    rows = [[file, one_line(name), f"{p:.6f}"] for file, best in answers for name, p in best]
    rows = [["file", "class", "probability"], *rows]
    if path is None:
        say(aligned(rows, left=2))
    else:
        write_csv(path, rows)


def params_command(paper: bool = False, **options: Any) -> None:
    """Print a network's layers, parameters, multiply-adds."""
    if not paper:
        _count(**options)
    elif options:
        raise SpecError(f"--paper takes no other options: leave out {', '.join(options)}")
    else:
        say(aligned(counts.paper_cells()))


def _count(
    num_classes: int = 10,
    in_channels: int = 3,
    compare: bool = False,
    equal: str | None = None,
    csv: str | None = None,
    **settings: Any,
) -> None:
    """Print one network, or a comparison."""
    if not (csv is None and equal is None) and not compare:
        raise SpecError("--equal and --csv belong to a comparison: give --compare as well")
    architecture = TrainConfig(**settings).architecture(num_classes, in_channels)
    if not compare:
        say(counts.summary(build(architecture, backend="numpy")))
        return
    path = None if csv is None else writable(user_path("csv", csv))
    counted = counts.compare_networks(architecture, (equal or "depth").replace("-", "_"))
    say(aligned(counts.cells(counted)))
    if path is not None:
        write_csv(path, counts.csv_rows(counted))


def bench_command(
    contenders: list[str] | None = None,
    threads: int | None = None,
    rounds: int = 7,
    batch_size: int = 64,
    json: str | None = None,
    **numbers: Any,
) -> None:
    """Time a block, or with --arch a training step, against other implementations."""
    most = bench.available_threads()
    threads = most if threads is None else integer("threads", threads, maximum=most)
    rounds, batch_size = integer("rounds", rounds), integer("batch_size", batch_size)
    make = _step_case if "arch" in numbers else _block_case
    case: bench.Case = make(batch_size, **numbers)
    able = bench.contenders(case)
    for name in contenders or []:
        choice("contender", name, able)
    path = None if json is None else writable(user_path("json", json))
    say(f"measuring the roofline with {threads} threads, then {case.name}, batch {batch_size}")
    roofline = bench.measure(threads)
    say(f"copy {roofline.bandwidth / 1e9:.1f} GB/s, GEMM {roofline.flops / 1e9:.0f} GFLOP/s")
    comparison = bench.time_case(case, contenders or able, threads, rounds)
    say("\n".join(comparison.lines(roofline)))
    if path is not None:
        bench.write_comparisons(path, [comparison], roofline, threads)


def _block_case(
    batch_size: int, L: int = 4, M: int = 8, size: int = 32, **numbers: int
) -> bench.BlockCase:
    for name in set(NETWORK) & set(numbers):
        raise SpecError(f"{name}={numbers[name]} belongs to a network: give --arch as well")
    G = integer("L", L) * integer("M", M)
    spec = IGCSpec(**{"in_channels": G, "out_channels": G, **numbers}, L=L, M=M)
    return bench.BlockCase(spec, integer("size", size), batch_size)


def _step_case(batch_size: int, **numbers: Any) -> bench.StepCase:
    for name in set(BLOCK) & set(numbers):
        raise SpecError(f"{name}={numbers[name]} belongs to a block: leave out --arch")
    return bench.StepCase(TrainConfig(**numbers).architecture(), batch_size)


def plot_command(run: str, out: str | None = None) -> None:
    """Draw the learning curves of a run."""
    path = user_path("run", run) / "curves.png" if out is None else user_path("out", out)
    saved = runs.load_newest(run, say)
    if saved is None or not saved.records:
        raise CheckpointError(f"{run} has finished no epoch yet: there is nothing to draw")
    title = f"{saved.architecture} on {saved.config.data}"
    plots.save(plots.draw_curves(saved.records, title), path)
    say(f"curves in {path}")
