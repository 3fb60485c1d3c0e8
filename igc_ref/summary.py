"""The table of a network's layers, beside the regular network of nearly as many parameters."""

from __future__ import annotations

from collections.abc import Sequence

from igc_ref.architecture import Architecture
from igc_ref.builder import rows
from igc_ref.models import Model
from igc_ref.studies.compare import nearest_regular

HEADER = ("shape", "output", "parameters", "multiply-adds")


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
        _align([str(architecture), HEADER[0], *shapes, ""], left=True),
        _align(["", HEADER[1], *outputs, ""]),
        _align(["", HEADER[2], *_with_total([row.parameters for row in layers])]),
        _align(["", HEADER[3], *_with_total([row.multiply_adds for row in layers])]),
    ]
    return columns


def _with_total(counts: list[int]) -> list[str]:
    return [f"{count:,}" for count in [*counts, sum(counts)]]


def _align(cells: Sequence[str], left: bool = False) -> list[str]:
    width = max(map(len, cells))
    return [cell.ljust(width) if left else cell.rjust(width) for cell in cells]
