"""What L and M buy: the width of a block beside the regular convolution of equal cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from igc_ref.plots.style import GRID, PALETTE, Axes, Figure, label_plainly, library, subplots
from igc_ref.spec.block import IGCSpec, equal_cost_width, maximal_width


def draw_equal_cost(spec: IGCSpec) -> Figure:
    """Draw the matrices of a block and of the regular convolution of equal cost.

    All to one scale: the coloured areas are equal, cell for cell a parameter.

    Parameters
    ----------
    spec : IGCSpec
        A square block.
    """
    G, S, C = spec.out_channels, spec.taps, equal_cost_width(spec.parameters, spec.kernel_size)
    figure, axes = subplots(figsize=(9, 2.2))
    gap = G / 2
    _blocks(axes, (0, 0), (C, C * S), 1, PALETTE[4])
    _blocks(axes, (0, C + gap), (G, G), spec.M, PALETTE[1])
    _blocks(axes, (G + gap, C + gap), (G, G * S), spec.L, PALETTE[0])
    axes.text(C * S + gap, C / 2, f"regular: C = {C:.1f} channels (rows)", va="center")
    axes.text(G + gap, C + gap * 0.8, f"$W_p$: G = {G} channels (rows), {spec.L} diagonal blocks")
    axes.text(0, C + gap * 0.8, f"$W_d$: {spec.M} blocks")
    axes.set(xlim=(-1, G * (S + 1) + gap + 1), ylim=(C + gap + G + 1, -1), aspect="equal")
    axes.set(xticks=[], yticks=[])  # a position in the drawing is no row of a matrix
    axes.spines[:].set_visible(False)
    return figure


def _blocks(
    axes: Axes,
    corner: tuple[float, float],
    shape: tuple[float, float],
    count: int,
    colour: str,
) -> None:
    """Draw a matrix of (rows, columns) with `count` diagonal blocks, its corner at (x, y)."""
    (x, y), (rows, columns) = corner, shape
    Rectangle = library().patches.Rectangle
    axes.add_patch(Rectangle(corner, columns, rows, facecolor="white", edgecolor="black"))
    width, height = columns / count, rows / count
    for b in range(count):
        place = (x + b * width, y + b * height)
        axes.add_patch(Rectangle(place, width, height, facecolor=colour, edgecolor="none"))


def draw_width_map(kernel_sizes: Sequence[int] = (1, 3), limit: int = 32) -> Figure:
    """Draw G/C, how much wider a block is than the regular convolution of equal cost, over L and M.

    Parameters
    ----------
    kernel_sizes : sequence of int
        One panel each.
    limit : int
        Greatest L and M.
    """
    figure, all_axes = subplots(1, len(kernel_sizes), figsize=(9, 3.6), squeeze=False)
    L, M = np.meshgrid(np.arange(1, limit + 1), np.arange(1, limit + 1))
    for axes, k in zip(all_axes[0], kernel_sizes, strict=True):
        S = k * k
        ratio = np.sqrt(S / (S / L + 1 / M))  # G²S = C²S * S/(S/L + 1/M) at equal cost
        mesh = axes.pcolormesh(L, M, ratio, cmap="cividis", vmin=0, vmax=6, shading="nearest")
        lines = axes.contour(L, M, ratio, levels=(1, 2, 3, 4, 5), colors="white", linewidths=1)
        axes.clabel(lines, fmt="%g times")
        axes.set(xlabel="L (primary partitions)", title=f"{k}x{k} kernel, S = {S}")
    figure.colorbar(mesh, ax=all_axes, label="width G / C (a ratio)")
    all_axes[0][0].set_ylabel("M (secondary partitions)")
    return figure


def draw_width_trade(parameters: float, kernel_size: int = 3) -> Figure:
    """Draw the width G against L at a fixed number of parameters; M follows from both.

    Parameters
    ----------
    parameters : float
        T, for which the curve solves L*M*(M*S + L) = T.
    kernel_size : int
    """
    T, S = parameters, kernel_size**2
    C, G_max = equal_cost_width(T, kernel_size), maximal_width(T, kernel_size)
    last = (math.sqrt(1 + 4 * T * S) - 1) / (2 * S)  # M where L = 1: M*(M*S + 1) = T
    M = np.geomspace(1, last, 400)
    figure, axes = subplots(figsize=(8, 4))
    axes.plot(_L(M, T, S), M * _L(M, T, S), color=PALETTE[0], label="IGC, G = LM")
    axes.axhline(G_max, color=PALETTE[5], linestyle="--", label=f"bound $G_{{max}}$ = {G_max:.1f}")
    axes.axhline(C, color=PALETTE[7], linestyle=":", label=f"regular, C = {C:.1f}")
    whole = np.arange(1, int(last) + 1)
    places = np.stack([_L(whole, T, S), whole * _L(whole, T, S)], axis=1)  # (L, G)
    axes.plot(*places.T, "o", color=PALETTE[0], label="M = 1, 2, 3, ...")
    for m, place in enumerate(places[:8], start=1):
        axes.annotate(f"{m}", place, xytext=(0, -15), textcoords="offset points", ha="center")
    best = math.sqrt(G_max / S)  # G = M*(M*S)
    axes.plot([best * S], [G_max], "*", color=PALETTE[5], markersize=13, label="L = MS")
    axes.set_xscale("log")
    label_plainly(axes.xaxis)
    axes.set(xlabel="L (primary partitions)", ylabel="G (channels)", ylim=(0, 1.12 * G_max))
    axes.set_title(f"T = {T:,.0f} parameters, {kernel_size}x{kernel_size} kernel")
    axes.grid(color=GRID)
    axes.legend(loc="lower center", ncols=3)
    return figure


def _L(M: Any, T: float, S: int) -> Any:
    """Return the real L of the block with T parameters: M*L² + M²*S*L = T."""
    return (np.sqrt((M * S) ** 2 + 4 * T / M) - M * S) / 2
