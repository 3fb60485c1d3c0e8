"""Networks side by side: IGC, regular, summation fusion, Xception, at equal depth or equal cost.

`compare_networks` and `regular_of_equal_cost` choose the networks, `of_equal_cost` finds a width by
bisection. The rest lays out tables: a comparison, the paper's networks, one network layer by layer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

from igc_ref.errors import MAX_INTEGER, SpecError, choice
from igc_ref.networks.architecture import ARCHITECTURES, Architecture
from igc_ref.networks.builder import Cost, cost, rows
from igc_ref.networks.model import Model
from igc_ref.report import aligned

EQUAL = ("depth", "parameters", "multiply_adds")


class Counted(NamedTuple):
    """A network, its cost, and that cost as a multiple of the first network's."""

    architecture: Architecture
    cost: Cost
    parameters_ratio: float
    multiply_adds_ratio: float


def compare_networks(architecture: Architecture, equal: str = "depth") -> list[Counted]:
    """Set an IGC network beside the other networks of its family.

    Parameters
    ----------
    architecture : Architecture
        The IGC network.
    equal : {"depth", "parameters", "multiply_adds"}
        "depth": all have its depth and its channels, G = L*M. The others: its depth, and the width
        at which that cost is nearest to its own; summation fusion keeps L and varies M.

    Returns
    -------
    list of Counted
        The IGC network first.

    Raises
    ------
    SpecError
        If `architecture` is not an IGC network, or `equal` is unknown.

    Examples
    --------
    >>> for row in compare_networks(Architecture("plain_igc", 8, L=24, M=2), "parameters"):
    ...     print(row.architecture, row.cost.parameters)
    plain_igc-8 L24M2 48442
    plain-8 W13 49943
    plain_fusion-8 L24M2 32314
    plain_xception-8 W31 47285
    """
    choice("equal", equal, EQUAL)
    if not architecture.is_igc:
        raise SpecError(f"{architecture} is not an IGC network: nothing to compare with")
    own, found = cost(architecture), [architecture]
    for unit in ("regular", "fusion", "xception"):
        if (architecture.family, unit) in ARCHITECTURES.values():
            of_size = with_size(architecture, unit)
            if equal == "depth":
                found.append(of_size(architecture.channels))
            else:
                found.append(of_equal_cost(of_size, equal, getattr(own, equal)))
    return [
        Counted(a, c, c.parameters / own.parameters, c.multiply_adds / own.multiply_adds)
        for a, c in ((a, cost(a)) for a in found)
    ]


def regular_of_equal_cost(architecture: Architecture) -> Architecture:
    """Return the regular network of equal depth with the nearest number of parameters."""
    target = cost(architecture).parameters
    return of_equal_cost(with_size(architecture, "regular"), "parameters", target)


def with_size(architecture: Architecture, unit: str) -> Callable[[int], Architecture]:
    """Return the function from a number of channels to the network of that unit and family.

    Summation fusion keeps L, so its channels are rounded down to a multiple of it.
    """
    L = architecture.L or 1

    def of_size(channels: int) -> Architecture:
        if unit == "fusion":
            return architecture.with_unit(unit, L=L, M=max(1, channels // L))
        return architecture.with_unit(unit, width=channels)

    return of_size


def of_equal_cost(of_size: Callable[[int], Architecture], what: str, target: int) -> Architecture:
    """Return the network whose cost is nearest to the target, by bisection over its channels."""

    def count(channels: int) -> int:
        return int(getattr(cost(of_size(channels)), what))

    within = greatest_within(count, target)
    return of_size(min((max(1, within), within + 1), key=lambda n: abs(count(n) - target)))


def greatest_within(count: Callable[[int], float], limit: float) -> int:
    """Return the greatest n of at least 1 whose count, which grows with n, is at most the limit.

    It is 0 if there is none.
    """
    beyond = 1
    while beyond < MAX_INTEGER and count(beyond) <= limit:
        beyond *= 2
    return bisect_right(range(beyond), limit, lo=max(1, beyond // 2), key=count) - 1


# -- tables ----------------------------------------------------------------------------------------


def cells(counted: list[Counted]) -> list[tuple[str, ...]]:
    """Return the comparison as rows of text, a header first."""
    table: list[tuple[str, ...]] = [
        ("network", "channels", "parameters", "ratio", "multiply-adds", "ratio")
    ]
    for a, c, *ratios in counted:
        costs = ((f"{count:,}", f"{ratio:.2f}") for count, ratio in zip(c, ratios, strict=True))
        table.append((str(a), str(a.channels), *chain(*costs)))
    return table


def csv_rows(counted: list[Counted]) -> list[tuple[object, ...]]:
    """Return the comparison as plain values, a header first."""
    header = ("network", "depth", "L", "M", "channels", *Cost._fields)
    rows = ((a.arch, a.depth, a.L or "", a.M or "", a.channels, *c) for a, c, *_ in counted)
    return [header, *rows]


PAPER = (  # every network whose parameters follow from the authors' published definitions
    *(Architecture("plain", d, width=w) for w in (16, 18) for d in (8, 20, 38, 62)),
    *(Architecture("plain_igc", d, L, M) for L, M in ((4, 8), (24, 2)) for d in (8, 20, 38, 62)),
    *(Architecture("resnet", d, width=w) for w in (16, 18) for d in (50, 74, 98)),
    *(Architecture("resnet_igc", d, L, M) for L, M in ((4, 8), (24, 2)) for d in (50, 74, 98)),
    *(Architecture("imagenet", 18, width=w, num_classes=1000) for w in (64, 69)),
    *(Architecture("imagenet_igc", 18, L, M, num_classes=1000) for L, M in ((4, 32), (16, 16))),
    Architecture("imagenet_igc", 18, 100, 2, num_classes=1000, doubling="L"),
)


def paper_cells() -> list[tuple[str, ...]]:
    """Return the parameters of the paper's networks as rows of text, a header first."""
    table: list[tuple[str, ...]] = [
        ("network", "convolutions and linear", "with gamma and beta", "multiply-adds")
    ]
    for architecture in PAPER:
        counted = rows(architecture)
        norms = sum(row.parameters for row in counted if row.kind.startswith("batch norm"))
        total = sum(row.parameters for row in counted)
        adds = sum(row.multiply_adds for row in counted)
        table.append((str(architecture), f"{total - norms:,}", f"{total:,}", f"{adds:,}"))
    return table


def summary(model: Model) -> str:
    """Lay out a network as a table: layer, shape, parameters, multiply-adds for one image.

    An IGC network gets beside it the regular network of equal depth whose number of parameters is
    nearest; their layers correspond one to one, unless there are gates.
    """
    architecture = model.architecture
    names = ["", "layer", *(row.name for row in rows(architecture)), "total"]
    columns = [names, *_columns(architecture)]
    if architecture.is_igc and (architecture.doubling, architecture.gate) == ("M", "none"):
        columns += [["|"] * len(names), *_columns(regular_of_equal_cost(architecture))]
    return aligned(list(zip(*columns, strict=True)))


def _columns(architecture: Architecture) -> list[list[str]]:
    """Return the columns of one network in `summary`, the network's name in the first line."""
    layers = rows(architecture)
    parameters = [row.parameters for row in layers]
    adds = [row.multiply_adds for row in layers]
    shapes = [str(architecture), "shape", *(row.kind for row in layers), ""]
    width = max(map(len, shapes))
    return [
        [cell.ljust(width) for cell in shapes],  # to the left, among numbers to the right
        ["", "output", *("x".join(map(str, row.output)) for row in layers), ""],
        ["", "parameters", *(f"{count:,}" for count in (*parameters, sum(parameters)))],
        ["", "multiply-adds", *(f"{count:,}" for count in (*adds, sum(adds)))],
    ]
