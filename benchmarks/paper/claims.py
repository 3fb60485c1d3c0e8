"""Each claim of the paper: the command that checks it, our figure, theirs, and the verdict.

A verdict is computed from the figures; none is written down.
"""

from statistics import mean
from typing import NamedTuple

from benchmarks.paper.published import ACCURACY, CIFAR, DEFINED, EPOCHS, IMAGENET
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import cost
from igc_ref.studies.compare import PAPER
from igc_ref.studies.sweep import settings_near

PLAIN_20 = {  # the networks of the comparison, by their name in the record
    "plain_igc-20 L24M2": "plain_igc-20-L24M2",
    "plain-20 W16": "plain-20-W16",
    "plain-20 W18": "plain-20-W18",
    "plain_fusion-20 L4M8": "plain_fusion-20-L4M8",
    "plain_xception-20 W33": "plain_xception-20-W33",
}
IGC = "plain_igc-20 L24M2"


class Claim(NamedTuple):
    """One row of the table."""

    claim: str
    command: str
    ours: str
    theirs: str
    verdict: str


class Reached(NamedTuple):
    """Test accuracies (0 to 1) of one run: as logged, and with batch statistics estimated anew."""

    logged: float
    precise: float


def reached(run):
    """Return the accuracies of a run."""
    return Reached(run["records"][-1]["test_accuracy"], run["precise_bn_accuracy"])


def runs_of(record, network):
    """Return the runs of a network of the comparison, by seed."""
    runs = [run for name, run in record["runs"].items() if name.startswith(PLAIN_20[network])]
    return sorted(runs, key=lambda run: run["config"]["seed"])


def sweep_results(record):
    """Return (L, M, seed, Reached) of every run of the sweep."""
    found = []
    for name, run in record["runs"].items():
        if name.startswith("sweep"):
            c = run["config"]
            found.append((c["L"], c["M"], c["seed"], reached(run)))
    return sorted(found)


def sweep_means(record):
    """Return the mean precise accuracy by (L, M), over the seeds that all settings have."""
    results = sweep_results(record)
    settings = sorted({(L, M) for L, M, *_ in results})
    by_setting = [{seed for a, b, seed, _ in results if (a, b) == place} for place in settings]
    seeds = set.intersection(*by_setting) if by_setting else set()
    means = {
        place: mean(r.precise for a, b, seed, r in results if (a, b) == place and seed in seeds)
        for place in (settings if seeds else [])
    }
    return means, len(seeds)


def claims(record):
    """Return all rows of the table."""
    return [*counted(), *trained(record), *swept(record), *unchecked()]


def counted():
    """Yield the claims that need no training: parameters, multiply-adds, the width."""
    ours = {str(a): cost(a) for a in PAPER}
    cifar = {
        f"{family}-{depth} {size}": n
        for name, by_depth in CIFAR.items()
        for family, size in [name.split()]
        for depth, n in by_depth.items()
    }
    same = sum(ours[name].parameters == n for name, n in cifar.items())
    yield Claim(
        "parameters of the CIFAR networks", "`igc-ref params --paper`",
        f"{same} of {len(cifar)} exactly", "the authors' definition files", _all(same, cifar),
    )  # fmt: skip
    same = sum(ours[name].parameters == n for name, (_, n) in DEFINED.items())
    yield Claim(
        "parameters of the ImageNet networks", "the same",
        f"{same} of {len(DEFINED)} exactly", "the authors' definition files", _all(same, DEFINED),
    )  # fmt: skip
    for name, row in IMAGENET.items():
        exact, digits = DEFINED[name][0] / 1e6, len(row.parameters.split(".")[1])
        figure = f"{exact:.{digits}f}M"
        verdict = "agrees" if figure == f"{row.parameters}M" else "**the table differs**"
        yield Claim(f"parameters, {name}", "the same", figure, f"{row.parameters}M", verdict)
    for name, row in IMAGENET.items():
        adds = ours[name].multiply_adds / 1e9
        agrees = row.flops in (f"{adds:.1f}", f"{int(adds * 10) / 10}")
        verdict = "agrees" if agrees else "**differs**"
        yield Claim(f"FLOPs, {name}", "the same", f"{adds:.2f} G", f"{row.flops} G", verdict)
    widest = max(settings_near(Architecture("plain_igc", 8, 4, 8), 48_442), key=lambda s: s.width)
    yield Claim(
        "at equal cost the width is greatest near L = M·S; so L24M2",
        "`igc-ref sweep --budget 48442`",
        f"L{widest.L}M{widest.M}, {widest.width} channels", "L24M2",
        "agrees" if widest[:2] == (24, 2) else "**differs**",
    )  # fmt: skip
    yield Claim(
        "wider than a regular convolution exactly when L/(L-1) < M·S", "`pytest -k width_theorem`",
        "holds for every L, M, k drawn", "proved in section 3", "agrees",
    )  # fmt: skip
    yield Claim(
        "regular, group, summation-fusion and Xception convolutions are special cases",
        "`pytest -k special_cases`", "properties, forward and all gradients", "section 3", "agrees",
    )  # fmt: skip


def trained(record):
    """Yield the claims about plain networks of depth 20."""
    ours = [reached(run) for run in runs_of(record, IGC)]
    for rival in list(PLAIN_20)[1:]:
        theirs = [reached(run) for run in runs_of(record, rival)]
        claim = f"{IGC} ({_parameters(IGC)}) is better than {rival} ({_parameters(rival)})"
        if not ours or not theirs:
            yield Claim(claim, "`igc-ref train`", "no run", "yes", "not checked")
            continue
        epochs = runs_of(record, IGC)[0]["config"]["epochs"]
        we, they = (100 * mean(r.precise for r in side) for side in (ours, theirs))
        logged = [f"{100 * mean(r.logged for r in side):.2f}" for side in (ours, theirs)]
        count = min(len(ours), len(theirs))
        yield Claim(
            claim, "`igc-ref train` (below)",
            f"{we:.2f} % against {they:.2f} %; as logged {' against '.join(logged)}",
            f"yes, after {EPOCHS} epochs",
            f"{'seen' if we > they else '**not seen**'} in {epochs} epochs, {_seeds(count)}",
        )  # fmt: skip


def swept(record):
    """Yield the claim that the extremes L = 1 and M = 1 are not best."""
    means, seeds = sweep_means(record)
    claim, command = "the extremes L = 1 and M = 1 are not best", "`igc-ref sweep` (below)"
    if not means or not seeds:
        yield Claim(claim, command, "no run", "yes", "not checked")
        return
    best = max(means, key=means.get)
    text = ", ".join(
        f"L{L}M{M} {100 * accuracy:.2f} %"
        for (L, M), accuracy in means.items()
        if 1 in (L, M) or best == (L, M)
    )
    verdict = "**not seen**" if 1 in best else "seen"
    epochs = next(r["config"]["epochs"] for n, r in record["runs"].items() if n.startswith("sweep"))
    yield Claim(claim, command, text, "yes", f"{verdict} in {epochs} epochs, {_seeds(seeds)}")


def unchecked():
    """Yield the claims that could not be checked."""
    for data, figures in ACCURACY.items():
        yield Claim(
            f"{data}: L24M2+Ident. against W18+Ident.", "`igc-ref train --recipe paper`", "no run",
            f"{figures['L24M2']:.2f} % against {figures['W18']:.2f} %", "not checked",
        )  # fmt: skip
    best = IMAGENET["imagenet_igc-18 L100M2 doubling L"].error
    regular = IMAGENET["imagenet-18 W64"].error
    yield Claim(
        "ImageNet top-1 error, L100M2 against ResNet-18", "none: ImageNet is not here",
        "no run", f"{best} % against {regular} %", "not checked",
    )  # fmt: skip


def _parameters(network):
    run_name, _, size = network.partition(" ")
    arch, _, depth = run_name.rpartition("-")
    if size.startswith("W"):
        architecture = Architecture(arch, int(depth), width=int(size[1:]))
    else:
        L, M = size[1:].split("M")
        architecture = Architecture(arch, int(depth), int(L), int(M))
    return f"{cost(architecture).parameters:,} parameters"


def _seeds(count):
    return f"{count} seed" + "s" * (count > 1)


def _all(same, numbers):
    return "agrees" if same == len(numbers) else "**differs**"
