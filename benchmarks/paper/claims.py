"""Each claim of the paper: the command that checks it, our figure, theirs, and the verdict.

A verdict is computed from the figures; none is written down.
"""

from typing import NamedTuple

from benchmarks.paper.published import ACCURACY, CIFAR, DEFINED, EPOCHS, IMAGENET
from benchmarks.paper.statistics import Estimate, difference, judge, points
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import cost
from igc_ref.studies.compare import PAPER
from igc_ref.studies.sweep import settings_near

PLAIN_20 = {  # the networks that are compared, the paper's own first
    str(a): a
    for a in (
        Architecture("plain_igc", 20, 24, 2),
        Architecture("plain", 20, width=16),
        Architecture("plain", 20, width=18),
        Architecture("plain_xception", 20, width=33),
        Architecture("plain_fusion", 20, 4, 8),
    )
}
PLAIN_EPOCHS, BUDGET, SWEEP_EPOCHS = 30, 48_442, 20
SWEPT = {  # settings of one cost, from M = 1 to L = 1
    str(a): a
    for s in reversed(settings_near(Architecture("plain_igc", 8, 24, 2), BUDGET))
    for a in (Architecture("plain_igc", 8, s.L, s.M),)
}
IGC, CHOSEN = "plain_igc-20 L24M2", "plain_igc-8 L24M2"  # the paper's choice, at both depths
BY_DEPTH = [  # ours, theirs, epochs
    *((f"plain_igc-{depth} L24M2", f"plain-{depth} W18", PLAIN_EPOCHS) for depth in (8, 20, 38)),
    ("resnet_igc-50 L24M2", "resnet-50 W18", SWEEP_EPOCHS),
]


class Claim(NamedTuple):
    """One row of the table."""

    claim: str
    command: str
    ours: str
    theirs: str
    verdict: str


class Comparison(NamedTuple):
    """Two networks, and their difference by seed in percentage points, if both have run."""

    ours: str
    theirs: str
    epochs: int
    found: Estimate | None


def accuracies(record, network, epochs, logged=False):
    """Return the test accuracy in percent by seed: with batch statistics anew, or as logged."""
    return {
        run["config"]["seed"]: 100
        * (run["records"][-1]["test_accuracy"] if logged else run["precise_bn_accuracy"])
        for run in record["runs"].values()
        if (run["network"], run["config"]["epochs"]) == (network, epochs)
        and "data" not in run["config"]  # only what differs from recipe fast on CIFAR-10 is there
    }


def compare(record, ours, theirs, epochs, logged=False):
    """Return the `Comparison` of two networks."""
    sides = (accuracies(record, network, epochs, logged) for network in (ours, theirs))
    return Comparison(ours, theirs, epochs, difference(*sides))


def best_other(record):
    """Return the setting of the sweep that does best by mean, the paper's choice apart."""
    found = {n: compare(record, CHOSEN, n, SWEEP_EPOCHS).found for n in SWEPT if n != CHOSEN}
    leads = {name: estimate.mean for name, estimate in found.items() if estimate}
    return min(leads, key=leads.get, default=None)


def comparisons(record, logged=False):
    """Return all comparisons that have a verdict: at depth 20, and of the sweep."""
    extremes, best = [n for n, a in SWEPT.items() if 1 in (a.L, a.M)], best_other(record)
    return [
        *(compare(record, IGC, rival, PLAIN_EPOCHS, logged) for rival in list(PLAIN_20)[1:]),
        *(
            compare(record, CHOSEN, rival, SWEEP_EPOCHS, logged)
            for rival in dict.fromkeys([*extremes, best] if best else extremes)
        ),
    ]


def claims(record):
    """Return all rows of the table."""
    return [*counted(), *trained(record), *unchecked()]


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
    widest = max(SWEPT.values(), key=lambda a: a.channels)
    yield Claim(
        "at equal cost the width is greatest near L = M·S; so L24M2",
        "`igc-ref sweep --budget 48442`",
        f"L{widest.L}M{widest.M}, {widest.channels} channels", "L24M2",
        "agrees" if str(widest) == CHOSEN else "**differs**",
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
    """Yield the claims about accuracy, each with the interval that its verdict follows from."""
    best, networks = best_other(record), {**PLAIN_20, **SWEPT}
    for ours, theirs, epochs, found in comparisons(record):
        we, they = (f"{cost(networks[name]).parameters:,} parameters" for name in (ours, theirs))
        claim = f"{ours} ({we}) is better than {theirs} ({they})"
        if ours == CHOSEN and theirs == best:
            claim += ", the best other by mean"
        text = f"{points(found)}, {found.count} seeds" if found else "no common seed"
        yield Claim(
            claim, f"`igc-ref {'sweep' if ours == CHOSEN else 'train'}` (below)",
            f"{text}, {epochs} epochs".replace("1 seeds", "1 seed"),
            f"yes, after {EPOCHS} epochs", judge(found),
        )  # fmt: skip


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


def _all(same, numbers):
    return "agrees" if same == len(numbers) else "**differs**"
