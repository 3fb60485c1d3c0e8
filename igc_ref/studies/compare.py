"""Networks side by side: IGC, regular, summation fusion, Xception, at equal depth or budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from igc_ref.errors import SpecError, choice
from igc_ref.networks.architecture import ARCHITECTURES, Architecture
from igc_ref.networks.builder import Cost, cost, rows
from igc_ref.networks.model import Model

EQUAL = ("depth", "parameters", "multiply_adds")


class Counted(NamedTuple):
    """A network, what it costs, and that cost as a multiple of the first network's."""

    architecture: Architecture
    cost: Cost
    parameters_ratio: float
    multiply_adds_ratio: float


def compare(architecture: Architecture, equal: str = "depth") -> list[Counted]:
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
    """
    choice("equal", equal, EQUAL)
    if not architecture.is_igc:
        raise SpecError(f"{architecture} is no IGC network to compare others with")
    others = [with_size(architecture, unit) for unit in _other_units(architecture)]
    found = [architecture]
    for of_size in others:
        if equal == "depth":
            found.append(of_size(architecture.channels))
        else:
            found.append(nearest(of_size, equal, getattr(cost(architecture), equal)))
    ours = cost(architecture)
    return [
        Counted(a, c, c.parameters / ours.parameters, c.multiply_adds / ours.multiply_adds)
        for a, c in ((a, cost(a)) for a in found)
    ]


def nearest_regular(architecture: Architecture) -> Architecture:
    """Return the regular network of equal depth with the nearest number of parameters."""
    target = cost(architecture).parameters
    return nearest(with_size(architecture, "regular"), "parameters", target)


def with_size(architecture: Architecture, unit: str) -> Callable[[int], Architecture]:
    """Return the function from a number of channels to the network of that unit and family.

    Summation fusion keeps L, so its channels are rounded down to a multiple of it.
    """
    kinds = {kind: name for name, kind in ARCHITECTURES.items()}
    arch, L = kinds[architecture.family, unit], architecture.L or 1

    def of_size(channels: int) -> Architecture:
        if unit == "fusion":
            return replace(architecture, arch=arch, M=max(1, channels // L), doubling="M")
        return replace(architecture, arch=arch, L=None, M=None, width=channels, doubling="M")

    return of_size


def nearest(of_size: Callable[[int], Architecture], what: str, target: int) -> Architecture:
    """Return the network whose cost is nearest to the target; cost grows with the channels."""

    def count(channels: int) -> int:
        counted: int = getattr(cost(of_size(channels)), what)
        return counted

    wider = 1
    while count(wider) < target:
        wider *= 2
    narrower = max(1, wider // 2)
    while wider - narrower > 1:
        middle = (narrower + wider) // 2
        if count(middle) < target:
            narrower = middle
        else:
            wider = middle
    return of_size(min((narrower, wider), key=lambda channels: abs(count(channels) - target)))


def _other_units(architecture: Architecture) -> list[str]:
    """Name the units, other than IGC blocks, that networks of this family exist with."""
    units = ("regular", "fusion", "xception")
    return [unit for unit in units if (architecture.family, unit) in ARCHITECTURES.values()]


HEADER = ("network", "channels", "parameters", "ratio", "multiply-adds", "ratio")


def cells(counted: list[Counted]) -> list[tuple[str, ...]]:
    """Return the comparison as rows of text, a header first."""
    return [
        HEADER,
        *(
            (
                str(row.architecture),
                str(row.architecture.channels),
                f"{row.cost.parameters:,}",
                f"{row.parameters_ratio:.2f}",
                f"{row.cost.multiply_adds:,}",
                f"{row.multiply_adds_ratio:.2f}",
            )
            for row in counted
        ),
    ]


CSV_HEADER = ("network", "depth", "L", "M", "channels", "parameters", "multiply_adds")


def csv_rows(counted: list[Counted]) -> list[tuple[object, ...]]:
    """Return the comparison as plain values, a header first."""
    rows: list[tuple[object, ...]] = [CSV_HEADER]
    for a, c, *_ in counted:
        rows.append((a.arch, a.depth, a.L or "", a.M or "", a.channels, *c))
    return rows


PAPER = (  # every network whose parameters the authors' definitions tell: DESIGN, section 5
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


LAYER_HEADER = ("shape", "output", "parameters", "multiply-adds")


def summary(model: Model) -> str:
    """Lay out a network as a table: layer, shape, parameters, multiply-adds for one picture.

    An IGC network gets the regular network of equal depth beside it whose number of parameters
    is nearest; their layers correspond one to one.
    """
    architecture = model.architecture
    names = ["", "layer", *(row.name for row in rows(architecture)), "total"]
    columns = [_align(names, left=True), *_costs(architecture)]
    if architecture.is_igc and architecture.doubling == "M":
        columns += [["|"] * len(names), *_costs(nearest_regular(architecture))]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def _costs(architecture: Architecture) -> list[list[str]]:
    """Return the columns of one network, cells of equal width, its name in the first line."""
    layers = rows(architecture)
    shapes = [row.kind for row in layers]
    outputs = ["x".join(map(str, row.output)) for row in layers]
    columns = [
        _align([str(architecture), LAYER_HEADER[0], *shapes, ""], left=True),
        _align(["", LAYER_HEADER[1], *outputs, ""]),
        _align(["", LAYER_HEADER[2], *_with_total([row.parameters for row in layers])]),
        _align(["", LAYER_HEADER[3], *_with_total([row.multiply_adds for row in layers])]),
    ]
    return columns


def _with_total(counts: list[int]) -> list[str]:
    return [f"{count:,}" for count in [*counts, sum(counts)]]


def _align(cells: Sequence[str], left: bool = False) -> list[str]:
    width = max(map(len, cells))
    return [cell.ljust(width) if left else cell.rjust(width) for cell in cells]
