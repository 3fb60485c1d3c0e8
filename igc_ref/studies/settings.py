"""The (L, M) at which an IGC network costs nearly the same: what a sweep goes through."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from igc_ref.architecture import Architecture
from igc_ref.builder import Cost, cost
from igc_ref.errors import SpecError
from igc_ref.spec import choice, integer, optimal_L

COSTS = ("parameters", "multiply_adds")


class Setting(NamedTuple):
    """One choice of L and M, and what the network costs with it."""

    L: int
    M: int
    cost: Cost

    @property
    def width(self) -> int:
        """G = L*M, the channels of the first stage."""
        return self.L * self.M

    @property
    def distance_from_optimum(self) -> float:
        """|log2(L / (M*S))|: 0 where the first stage is as wide as its cost allows."""
        return abs(math.log2(self.L / optimal_L(self.M)))


def settings_near(
    architecture: Architecture, budget: int, what: str = "parameters", tolerance: float = 0.05
) -> list[Setting]:
    """Find for every M the L whose network costs nearest to a budget.

    Parameters
    ----------
    architecture : Architecture
        An IGC network that doubles M; its L and M are replaced.
    budget : int
        Parameters, or multiply-adds for one picture.
    what : {"parameters", "multiply_adds"}
    tolerance : float
        Allowed distance from the budget, as a part of it.

    Returns
    -------
    list of Setting
        Ordered by L. The nearest with L = 1 and the nearest with M = 1 are always among them,
        whatever they cost: the extremes that the paper claims are not best.

    Raises
    ------
    SpecError
        If the network is no such network, or a number is not allowed.
    """
    choice("what", what, COSTS)
    budget = integer("budget", budget)
    if not architecture.is_igc or architecture.doubling != "M":
        raise SpecError(f"{architecture} is no IGC network that doubles M: nothing to sweep")
    if not 0 < tolerance < 1:
        raise SpecError(f"tolerance={tolerance} is not allowed; it must be between 0 and 1")

    def at(L: int, M: int) -> Setting:
        return Setting(L, M, cost(replace(architecture, L=L, M=M)))

    def distance(setting: Setting) -> float:
        counted: int = getattr(setting.cost, what)
        return abs(counted / budget - 1)

    regular = _nearest(lambda M: at(1, M), distance)
    depthwise = _nearest(lambda L: at(L, 1), distance)
    # L = 1 has the greatest M, so these are all.
    between = [_nearest(lambda L, M=M: at(L, M), distance) for M in range(2, regular.M)]  # type: ignore[misc]
    near = [setting for setting in between if distance(setting) <= tolerance]
    return sorted({regular, depthwise, *near})


def _nearest(at: Callable[[int], Setting], distance: Callable[[Setting], float]) -> Setting:
    """Return the setting of the least distance; the cost grows with the number it is a function of.

    So the distance falls up to there and rises after it.
    """
    number, best = 1, at(1)
    while distance(following := at(number + 1)) < distance(best):
        number, best = number + 1, following
    return best
