"""What training reached, against epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def draw_rivals(curves: Mapping[str, Sequence[Record]], title: str) -> Any:
    """Draw train and test accuracy of several networks against epochs.

    Parameters
    ----------
    curves : dict of records
        By the name of the network; records as in `draw_curves`.
    title : str

    Returns
    -------
    matplotlib Figure
    """
    plt = pyplot()
    figure, both = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for split, axes in zip(("train", "test"), both, strict=True):
        for number, (name, records) in enumerate(curves.items()):
            axes.plot(
                [record["epoch"] for record in records],
                [100 * record[f"{split}_accuracy"] for record in records],
                color=PALETTE[number % len(PALETTE)],
                marker="osD^vPX*"[number % 8],
                markersize=4,
                label=name,
            )
        axes.set(xlabel="epoch", ylabel=f"{split} accuracy (%)")
        axes.grid(color=GRID)
        axes.xaxis.get_major_locator().set_params(integer=True)
    both[0].legend(fontsize=8)
    figure.suptitle(title)
    return figure
