"""``docs/paper.md`` and its figures, from the record alone."""

from benchmarks.paper.claims import (
    BUDGET,
    BY_DEPTH,
    CHOSEN,
    IGC,
    PLAIN_20,
    PLAIN_EPOCHS,
    SWEEP_EPOCHS,
    SWEPT,
    accuracies,
    claims,
    compare,
    comparisons,
)
from benchmarks.paper.published import EPOCHS
from benchmarks.paper.statistics import estimate, judge, points
from igc_ref import plots
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import cost
from igc_ref.report import markdown
from igc_ref.studies.compare import cells, compare_networks, paper_cells
from igc_ref.studies.compress import summary_cells
from igc_ref.training.config import TrainConfig

HEAD = """# The paper, checked

Zhang, Qi, Xiao, Wang: *Interleaved Group Convolutions for Deep Neural Networks*, ICCV 2017, arXiv:1707.02725.

{found}

Differences are of test accuracy, in percentage points, with a 95 % interval over seeds; "seen" is what the paper claims, L24M2 the better.

## How to read this

Every claim that can be checked on a small machine stands below, with the command that checks it, our figure, theirs, and what
follows. This file is written by `python -m benchmarks.paper write` from
[benchmarks/results/paper.json](../benchmarks/results/paper.json) and from the code; a test keeps it so.

**How far this goes.** The images are CIFAR-10, JPEG re-encoded, not the published files. Where the paper trains for
{paper_epochs} epochs, these runs took {epochs}, with `--recipe fast` (one-cycle, peak 0.2, batch 128, weight decay 5e-4, pad, crop
and mirror).

**What an interval says.** Two networks with the same seed draw their initial weights from the same generator and see the same
images in the same order with the same augmentation, so their difference is taken seed by seed; a claim is "seen" if the 95 %
t-interval of its mean lies above 0, "not seen: the opposite" if it lies below. Otherwise it is "undecided", and the number of seeds
is given at which the interval would no longer hold 0 if mean and standard deviation stayed as they are. The interval covers the
scatter between seeds alone: not other recipes, not {paper_epochs} epochs, not another test set than these 10,000 images.

**Which accuracy.** Running averages of batch statistics can lag behind the weights. So each run is evaluated twice: as logged, and
with the statistics estimated anew on 10,000 training images (`igc-ref eval RUN --precise-bn`; no weight changes). Means, intervals
and verdicts are of the latter. {logged}
"""
RUNS = (
    "network", "seed", "epochs", "train", "test, as logged", "test, statistics anew",
    "SHA-256 of the weights", "settings", "commit", "machine", "date",
)  # fmt: skip


def document(record):
    """Return the text of ``docs/paper.md``."""
    epochs = " or ".join(map(str, _numbers(record, "epochs"))) or "0"
    parts = [
        HEAD.format(found=_found(record), logged=_logged(record), paper_epochs=EPOCHS, epochs=epochs),
        "## Claims\n",
        markdown([("claim", "command", "ours", "the paper's", "verdict"), *claims(record)]),
        "\nThe difference is in percentage points of test accuracy, with its 95 % interval. The best other setting of the "
        "sweep is chosen by the same runs that judge it. FLOPs are multiply-adds; a figure counts as agreeing if it is the "
        "published one rounded or cut off.\n",
        "## Plain networks of depth 20\n",
        _table(record, PLAIN_20, PLAIN_EPOCHS),
        "![Mean test accuracy of plain networks of depth 20, with intervals](paper-plain20.svg)\n\n"
        "Dots: one seed each, statistics anew. Bars: the mean and its 95 % interval.\n\n"
        "    igc-ref train --arch plain_igc --depth 20 -L 24 -M 2 --data cifar10 --data-dir DIR \\\n"
        "        --recipe fast --seed 0\n\nand so on for the others.\n",
        "## L against M at one budget\n",
        f"For every M the L whose network costs nearest to {BUDGET:,} parameters, the cost of the paper's L24M2. L = 1 is a "
        "regular convolution with a scale a channel; M = 1 is the Xception block, in the first stage (M doubles with the width).\n",
        _table(record, SWEPT, SWEEP_EPOCHS),
        "![Mean test accuracy against M at one budget, with intervals](paper-sweep.svg)\n\n"
        f"    igc-ref sweep --budget {BUDGET} --data cifar10 --data-dir DIR --recipe fast \\\n"
        f"        --epochs {SWEEP_EPOCHS} --seeds 0,1,2 --out sweep-8\n",
        "## By depth\n",
        _by_depth(record),
        "## All runs\n",
        _runs(record),
        "## A trained network, compressed\n",
        _compressed(record),
        "## Parameters and multiply-adds\n\n`igc-ref params --paper`, for one image:\n",
        markdown(paper_cells()),
        "\nThe published ImageNet table gives 8.61M, 11.329M, 11.205M, 11.151M and 11.333M. Counted "
        "from the authors' own definition files, only the first is right.\n",
        "## Beside other networks of the same depth, and of the same cost\n",
        _compared(),
    ]  # fmt: skip
    return "\n".join(parts).rstrip() + "\n"


def draw(record, folder):
    """Draw the figures of the document."""
    figures = (
        ("paper-plain20.svg", PLAIN_20, PLAIN_EPOCHS, "plain networks of depth 20"),
        ("paper-sweep.svg", SWEPT, SWEEP_EPOCHS, f"plain_igc-8 of about {BUDGET:,} parameters"),
    )
    for file, networks, epochs, title in figures:
        groups = {}
        for name in networks:
            if values := list(accuracies(record, name, epochs).values()):
                groups[name.replace(" ", "\n")] = values, estimate(values).half
        title += f", CIFAR-10 (JPEG re-encoded), {epochs} epochs"
        figure = plots.draw_intervals(groups, y="test accuracy (%)", title=title)
        plots.save(figure, folder / file)


def _found(record):
    """Say in five lines what was found."""
    runs = list(record["runs"].values())
    lines = [f"{len(runs)} runs on CIFAR-10, of {len({r['network'] for r in runs})} networks, seeds "
             + (", ".join(map(str, _numbers(record, "seed"))) or "none")]  # fmt: skip
    for network, epochs in ((IGC, PLAIN_EPOCHS), (CHOSEN, SWEEP_EPOCHS)):
        mean = estimate(list(accuracies(record, network, epochs).values()))
        accuracy = f"{mean.mean:.2f} % after {epochs} epochs" if mean else "no run"
        against = [
            f"{theirs} {points(found) + ', ' if found else ''}{judge(found).split(';')[0]}"
            for ours, theirs, _, found in comparisons(record)
            if ours == network
        ]
        lines.append(f"{network}: {accuracy}; against {'; '.join(against)}")
    leads = [
        f"{c.ours} {points(c.found)}"
        for c in (compare(record, *row) for row in BY_DEPTH)
        if c.found
    ]
    lines.append(f"By depth, L24M2 less W18: {', '.join(leads) or 'no run'}")
    counted = [
        row.verdict for row in claims(record) if row.claim.startswith(("parameters", "FLOPs"))
    ]
    lines.append(
        f"Parameters and FLOPs, counted: {counted.count('agrees')} of {len(counted)} rows below agree"
    )
    return "\n".join(f"* {line}." for line in lines)


def _logged(record):
    """Say which verdicts are others if accuracies are taken as logged."""
    anew, logged = comparisons(record), comparisons(record, logged=True)
    others = [
        f"{c.ours} against {c.theirs} {points(c.found)}, {judge(c.found)}"
        for c in logged
        if judge(c.found).split(";")[0]
        not in [judge(d.found).split(";")[0] for d in anew if d[:2] == c[:2]]
    ]
    text = f"Of those logged {'; '.join(others) or 'the verdicts are the same'}."
    changes = [
        run["precise_bn_accuracy"] - run["records"][-1]["test_accuracy"]
        for run in record["runs"].values()
    ]
    if changes:
        text += (
            f" Anew is lower in {sum(change < 0 for change in changes)} of {len(changes)} runs, in the mean "
            f"by {-100 * estimate(changes).mean:.2f} points: these images are not augmented, those of the averages were."
        )
    return text


def _numbers(record, setting):
    return sorted({run["config"][setting] for run in record["runs"].values()})


def _table(record, networks, epochs):
    """Return the table of networks with their means over seeds."""
    rows = [("network", "width", "parameters", "multiply-adds", "L/(M·S)", "by seed", "mean",
             "standard deviation", "95 % interval")]  # fmt: skip
    for name, a in networks.items():
        by_seed, counted = accuracies(record, name, epochs), cost(a)
        found = estimate(list(by_seed.values()))
        ratio = f"{a.L / (9 * a.M):.2f}" if a.is_igc else ""
        scatter = ("", "")
        if found and found.half is not None:
            low, high = found.mean - found.half, found.mean + found.half
            scatter = f"{found.sd:.2f}", f"{low:.2f} to {high:.2f}"
        rows.append((
            name, str(a.channels), f"{counted.parameters:,}", f"{counted.multiply_adds:,}", ratio,
            ", ".join(f"{seed}: {by_seed[seed]:.2f}" for seed in sorted(by_seed)) or "no run",
            f"{found.mean:.2f} %" if found else "", *scatter,
        ))  # fmt: skip
    return f"{markdown(rows)}\n\n{epochs} epochs; test accuracy in percent, statistics anew.\n"


def _by_depth(record):
    """Return the table of differences that have one seed, so that nothing is judged."""
    rows = [("networks", "epochs", "seeds", "L24M2", "W18", "difference")]
    for ours, theirs, epochs in BY_DEPTH:
        sides = [accuracies(record, name, epochs) for name in (ours, theirs)]
        seeds = sorted(sides[0].keys() & sides[1].keys())
        means = [f"{estimate([s[n] for n in seeds]).mean:.2f} %" if seeds else "" for s in sides]
        found = compare(record, ours, theirs, epochs).found
        rows.append((
            f"{ours} against {theirs}", str(epochs), ", ".join(map(str, seeds)) or "no run",
            *means, points(found) if found else "",
        ))  # fmt: skip
    return markdown(rows) + "\n\nMostly one seed a depth: no verdict.\n"


def _runs(record):
    """Return the table of all runs."""
    rows, long = [RUNS], 0
    runs = record["runs"].values()
    for run in sorted(runs, key=_order):
        c, last = run["config"], run["records"][-1]
        long += c["epochs"] >= SWEEP_EPOCHS
        known = ("arch", "depth", "L", "M", "width", "epochs", "seed", "backend")
        others = [f"{name} {value}" for name, value in c.items() if name not in known]
        rows.append((
            run["network"], str(c["seed"]), str(c["epochs"]),
            *(f"{100 * last[f'{split}_accuracy']:.2f} %" for split in ("train", "test")),
            f"{100 * run['precise_bn_accuracy']:.2f} %", f"`{run['sha256'][:12]}`",
            ", ".join([c["backend"], *others]), run["commit"], run["machine"], run["date"],
        ))  # fmt: skip
    if len(rows) == 1:
        return "No run.\n"
    return (
        f"{len(rows) - 1} runs, {long} of {SWEEP_EPOCHS} epochs or more. The train accuracy is that of the last epoch's augmented images, "
        "in training mode. Settings: the backend, and what differs from `--recipe fast`. The first 12 digits of the SHA-256 are those "
        f"of `igc-ref hash RUN`.\n\n{markdown(rows)}\n"
    )


def _order(run):
    c = run["config"]
    return c["depth"], c["epochs"], run["network"], c["seed"]


def _compressed(record):
    if not record["compress"]:
        return "No run.\n"
    parts = []
    for name, result in sorted(record["compress"].items()):
        errors = [
            ("layer", "relative error"),
            *((n, f"{e:.3f}") for n, e in result["errors"].items()),
        ]
        network = TrainConfig.from_dict(result["run"]).architecture()
        tuned, scratch = (
            f"{100 * result['precise'][part]:.2f} %" for part in ("finetuned", "scratch")
        )
        parts.append(
            f"`igc-ref compress RUN -L {result['L']} -M {result['M']} --epochs {result['epochs']} "
            f"--out {name}`, where RUN is {network}. [compress.md](compress.md) says why the "
            f"nearest IGC has a closed form.\n\n{markdown(summary_cells(result))}\n\n"
            "The last two rows are as logged. With batch statistics estimated anew they are "
            f"{tuned} and {scratch}. One seed; commit {result['commit']}, {result['machine']}, {result['date']}.\n\n"
            f"{markdown(errors)}\n"
        )
    return "\n".join(parts)


def _compared():
    ours = Architecture("plain_igc", 20, 24, 2)
    return (
        "`igc-ref params --compare --depth 20 -L 24 -M 2`:\n\n" + markdown(cells(compare_networks(ours)))
        + "\n\nand with `--equal parameters`:\n\n" + markdown(cells(compare_networks(ours, "parameters")))
        + "\n"
    )  # fmt: skip
