"""``docs/paper.md`` and its figures, from the record alone."""

from benchmarks.paper.claims import (
    PLAIN_20,
    claims,
    reached,
    runs_of,
    sweep_means,
    sweep_results,
)
from benchmarks.paper.published import EPOCHS
from igc_ref import data, plots
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import cost
from igc_ref.report import markdown
from igc_ref.studies.compare import cells, compare_networks, paper_cells
from igc_ref.studies.compress import summary_cells
from igc_ref.studies.sweep import Result

HEAD = """# The paper, checked

Zhang, Qi, Xiao, Wang: *Interleaved Group Convolutions for Deep Neural Networks*, ICCV 2017, arXiv:1707.02725. Every claim
that can be checked on a small machine, with the command that checks it, our figure, theirs, and what follows. This file is
written by `python -m benchmarks.paper write` from [benchmarks/results/paper.json](../benchmarks/results/paper.json) and from the
code; a test keeps it so.

**How far this goes.** The images are CIFAR-10, JPEG re-encoded, not the published files. The runs are short: where the paper
trains for {paper_epochs} epochs, these took {epochs}, with the settings of `--recipe fast --bn-momentum paper` otherwise (one-cycle, peak 0.2,
batch 128, weight decay 5e-4, pad, crop and mirror; the authors' momentum of batch norm). A claim about {paper_epochs} epochs that is
"not seen" in so few is not refuted, one that is "seen" not proved.

**Which accuracy.** The authors' plain networks average batch statistics with momentum 0.99. After a short run these averages still
belong to earlier weights, and the networks differ in how much that hurts them. So each run is evaluated twice: as
logged, and with the statistics estimated anew on 10,000 training images (`igc-ref eval RUN --precise-bn`; no weight changes).
Verdicts compare the latter.
"""


def document(record):
    """Return the text of ``docs/paper.md``."""
    epochs = sorted({run["config"]["epochs"] for run in record["runs"].values()})
    parts = [
        HEAD.format(paper_epochs=EPOCHS, epochs=_or(epochs)),
        "## Claims\n",
        markdown([("claim", "command", "ours", "the paper's", "verdict"), *claims(record)]),
        "\nFLOPs are multiply-adds; a figure counts as agreeing if it is the published one rounded "
        "or cut off.\n",
        "## Parameters and multiply-adds\n\n`igc-ref params --paper`, for one image:\n",
        markdown(paper_cells()),
        "\nThe published ImageNet table gives 8.61M, 11.329M, 11.205M, 11.151M and 11.333M. Counted "
        "from the authors' own definition files, only the first is right.\n",
        "## Beside other networks of the same depth, and of the same cost\n",
        _compared(),
        "## Plain networks of depth 20\n",
        _plain(record),
        "## L against M at one budget\n",
        _sweep(record),
        "## A trained network, compressed\n",
        _compressed(record),
        "## Where and when\n",
        _where(record),
    ]
    return "\n".join(parts).rstrip() + "\n"


def draw(record, folder):
    """Draw the figures of the document."""
    curves = {
        network: runs_of(record, network)[0]["records"]
        for network in PLAIN_20
        if runs_of(record, network)
    }
    plots.save(plots.draw_rivals(curves, _curve_title(record)), folder / "paper-plain20.svg")
    results = [
        Result(L, M, L * M, 8, seed, 0, 0, 0, accuracy.precise)
        for L, M, seed, accuracy in sweep_results(record)
    ]
    if results:
        title = "plain_igc-8 of about 48,442 parameters, CIFAR-10 (JPEG re-encoded)"
        plots.save(plots.draw_sweep(results, title), folder / "paper-sweep.svg")


def _compared():
    ours = Architecture("plain_igc", 20, 24, 2)
    return (
        "`igc-ref params --compare --depth 20 -L 24 -M 2`:\n\n" + markdown(cells(compare_networks(ours)))
        + "\n\nand with `--equal parameters`:\n\n" + markdown(cells(compare_networks(ours, "parameters")))
        + "\n"
    )  # fmt: skip


def _plain(record):
    rows = [
        (
            "network",
            "parameters",
            "multiply-adds",
            "seed",
            "epochs",
            "train",
            "test, as logged",
            "test, statistics anew",
        )
    ]
    for network in PLAIN_20:
        for run in runs_of(record, network):
            counted, test = cost(_architecture(run)), reached(run)
            rows.append((
                network, f"{counted.parameters:,}", f"{counted.multiply_adds:,}",
                str(run["config"]["seed"]), str(run["config"]["epochs"]),
                f"{100 * run['records'][-1]['train_accuracy']:.2f} %",
                f"{100 * test.logged:.2f} %", f"{100 * test.precise:.2f} %",
            ))  # fmt: skip
    return (
        markdown(rows)
        + "\n\nThe train accuracy is that of the last epoch's augmented images, in training mode.\n\n"
        "![Accuracy of plain networks of depth 20 against epochs](paper-plain20.svg)\n\n"
        "The test accuracy is drawn as logged: while the learning rate is high it shows how far the averages lag.\n\n"
        "    igc-ref train --arch plain_igc --depth 20 -L 24 -M 2 --data cifar10 --data-dir DIR \\\n"
        "        --recipe fast --bn-momentum paper --epochs 5 --seed 0 --backend numba\n\nand so on for the others.\n"
    )


def _sweep(record):
    results = sweep_results(record)
    means, _ = sweep_means(record)
    if not means:
        return "No run.\n"
    best = max(means, key=means.get)
    seeds = ",".join(str(seed) for seed in sorted({seed for *_, seed, _ in results}))
    rows = [
        (
            "setting",
            "width",
            "parameters",
            "multiply-adds",
            "L/(M·S)",
            "as logged, by seed",
            "statistics anew, by seed",
            "mean",
        )
    ]
    for L, M in sorted(means):
        counted = cost(Architecture("plain_igc", 8, L, M))
        found = [r[3] for r in results if r[:2] == (L, M)]
        star = "**" if best == (L, M) else ""
        rows.append((
            f"L{L}M{M}", str(L * M), f"{counted.parameters:,}", f"{counted.multiply_adds:,}",
            f"{L / (9 * M):.2f}", ", ".join(f"{100 * a.logged:.2f}" for a in found),
            ", ".join(f"{100 * a.precise:.2f}" for a in found),
            f"{star}{100 * means[L, M]:.2f} %{star}",
        ))  # fmt: skip
    return (
        "For every M the L whose network costs nearest to 48,442 parameters, the cost of the paper's "
        "L24M2. L = 1 is a regular convolution with a scale a channel; M = 1 is the Xception block, in "
        f"the first stage (M doubles with the width). {_sweep_epochs(record)} epochs.\n\n" + markdown(rows)
        + "\n\n![Accuracy and width against L and M](paper-sweep.svg)\n\n"
        f"    igc-ref sweep --budget 48442 --depths 8 --seeds {seeds} --data cifar10 --data-dir DIR \\\n"
        f"        --recipe fast --bn-momentum paper --epochs {_sweep_epochs(record)} --backend numba \\\n"
        "        --out sweep-8\n"
    )  # fmt: skip


def _sweep_epochs(record):
    return next(r["config"]["epochs"] for n, r in record["runs"].items() if n.startswith("sweep"))


def _compressed(record):
    if not record["compress"]:
        return "No run.\n"
    parts = []
    for name, result in sorted(record["compress"].items()):
        errors = [
            ("layer", "relative error"),
            *((n, f"{e:.3f}") for n, e in result["errors"].items()),
        ]
        network = _architecture({"config": result["run"]})
        parts.append(
            f"`igc-ref compress RUN -L {result['L']} -M {result['M']} --epochs {result['epochs']} "
            f"--out {name}`, where RUN is {network}. [compress.md](compress.md) says why the "
            f"nearest IGC has a closed form.\n\n{markdown(summary_cells(result))}\n\n"
            f"{_precise_after(record, name)}{markdown(errors)}\n"
        )
    return "\n".join(parts)


def _precise_after(record, name):
    """Say what the last two rows are with batch statistics estimated anew, if that is recorded."""
    runs = [record["runs"].get(f"{name}/{kind}") for kind in ("finetuned", "scratch")]
    if None in runs:
        return ""
    tuned, scratch = (f"{100 * reached(run).precise:.2f} %" for run in runs)
    return (
        "The last two rows are as logged. With batch statistics estimated anew they are "
        f"{tuned} and {scratch}.\n\n"
    )


def _where(record):
    found = {}
    for name, run in [*record["runs"].items(), *record["compress"].items()]:
        m = run["machine"]
        place = f"{m['processor']}, {m['threads']} cores, NumPy {m['numpy']}, numba {m['numba']}"
        found.setdefault((run["commit"], m["date"], place), []).append(name)
    return "\n".join(
        f"* {', '.join(f'`{name}`' for name in sorted(names))}: commit {commit}, {date}, {place}"
        for (commit, date, place), names in sorted(found.items())
    )


def _architecture(run):
    c = run["config"]
    numbers = (c.get("L"), c.get("M"), c.get("width"))
    classes = data.NUM_CLASSES[c["data"]]
    return Architecture(c["arch"], c["depth"], *numbers, classes, c.get("doubling", "M"))


def _curve_title(record):
    epochs = _or(sorted({r["config"]["epochs"] for n in PLAIN_20 for r in runs_of(record, n)}))
    return f"plain networks of depth 20, CIFAR-10 (JPEG re-encoded), {epochs} epochs, seed 0"


def _or(numbers):
    return " or ".join(map(str, numbers)) or "0"
