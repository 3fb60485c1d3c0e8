"""The table of a network's layers, beside the regular network of nearly as many parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from igc_ref.models import Model, build

HEADER = ("shape", "output", "parameters", "multiply-adds")


def summary(model: Model) -> str:
    """Lay out a network as a table: layer, shape, parameters, multiply-adds for one picture.

    An IGC network gets the regular network of equal depth beside it whose number of parameters
    is nearest; their layers correspond one to one.
    """
    names = ["", "layer", *(row.name for row in model.rows()), "total"]
    columns = [_align(names, left=True), *_costs(model)]
    if model.architecture.is_igc:
        columns += [["|"] * len(names), *_costs(nearest_regular(model))]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def nearest_regular(model: Model) -> Model:
    """Return the regular network of equal depth with the nearest number of parameters."""
    architecture = model.architecture

    def regular(width: int) -> Model:
        arch = architecture.arch.removesuffix("_igc")
        return build(replace(architecture, arch=arch, L=None, M=None, width=width), "numpy")

    wider = 1
    while regular(wider).num_parameters < model.num_parameters:
        wider *= 2
    narrower = max(1, wider // 2)
    while wider - narrower > 1:  # parameters grow with the width: bisect
        middle = (narrower + wider) // 2
        if regular(middle).num_parameters < model.num_parameters:
            narrower = middle
        else:
            wider = middle
    candidates = (regular(narrower), regular(wider))
    return min(candidates, key=lambda m: abs(m.num_parameters - model.num_parameters))


def _costs(model: Model) -> list[list[str]]:
    """Return the columns of one network, cells of equal width, its name in the first line."""
    rows = model.rows()
    shapes = [row.kind for row in rows]
    outputs = ["x".join(map(str, row.output)) for row in rows]
    columns = [
        _align([str(model.architecture), HEADER[0], *shapes, ""], left=True),
        _align(["", HEADER[1], *outputs, ""]),
        _align(["", HEADER[2], *_with_total([row.parameters for row in rows])]),
        _align(["", HEADER[3], *_with_total([row.multiply_adds for row in rows])]),
    ]
    return columns


def _with_total(counts: list[int]) -> list[str]:
    return [f"{count:,}" for count in [*counts, sum(counts)]]


def _align(cells: Sequence[str], left: bool = False) -> list[str]:
    width = max(map(len, cells))
    return [cell.ljust(width) if left else cell.rjust(width) for cell in cells]
