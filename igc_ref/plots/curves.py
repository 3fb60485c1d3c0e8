"""What training reached, against epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from igc_ref.history import Record
from igc_ref.plots.style import GRID, PALETTE, pyplot


def draw_curves(records: Sequence[Record], title: str) -> Any:
    """Draw loss and accuracy against epochs.

    Parameters
    ----------
    records : sequence of dict
        As in ``log.jsonl``: one for each epoch.
    title : str

    Returns
    -------
    matplotlib Figure
    """
    plt = pyplot()
    epochs = [record["epoch"] for record in records]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for split, colour, marker in (("train", PALETTE[0], "o"), ("test", PALETTE[5], "s")):
        style = {"color": colour, "marker": marker, "markersize": 4, "label": split}
        left.plot(epochs, [record[f"{split}_loss"] for record in records], **style)
        percent = [100 * record[f"{split}_accuracy"] for record in records]
        right.plot(epochs, percent, **style)
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    right.set(xlabel="epoch", ylabel="accuracy (%)")
    for axes in (left, right):
        axes.grid(color=GRID)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    figure.suptitle(title)
    return figure
