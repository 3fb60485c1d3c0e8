"""Stochastic gradient descent with Nesterov momentum, and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.errors import choice
from igc_ref.networks.model import Model, overwrite

SCHEDULES = ("step", "onecycle")
WARM_UP = 0.25
MILESTONES = (1 / 2, 3 / 4, 7 / 8)


class SGD:
    """Nesterov's accelerated gradient with weight decay on every parameter.

    The authors' weight decay is 1e-4; the default here is `TrainConfig`'s.

    Parameters
    ----------
    model : Model
        Its parameters are updated in place.
    momentum, weight_decay : float
    """

    def __init__(self, model: Model, momentum: float = 0.9, weight_decay: float = 5e-4) -> None:
        self.model, self.momentum, self.weight_decay = model, momentum, weight_decay
        self.parameters = model.parameters()  # updated in place, so collected only once
        xp = model.backend.xp
        self.velocity = {name: xp.zeros_like(p) for name, p in self.parameters.items()}

    def step(self, lr: Any) -> None:
        """Move every parameter once, along the gradients of the last backward pass.

        `lr` is a float, or what a backend that replays steps gives for one.
        """
        self.model.backend.sgd_steps(
            self.parameters,
            self.model.gradients(),
            self.velocity,
            lr=lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def state_dict(self) -> dict[str, npt.NDArray[Any]]:
        """Return copies of the velocities as NumPy arrays."""
        return {name: self.model.backend.to_numpy(v) for name, v in self.velocity.items()}

    def load_state_dict(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Overwrite the velocities; a CheckpointError if names, shapes or dtypes differ."""
        overwrite(self.velocity, state, self.model.backend)


def learning_rate(schedule: str, peak: float, step: int, steps: int) -> float:
    """Return the learning rate of one step of a run.

    Parameters
    ----------
    schedule : {"step", "onecycle"}
        ``step`` is the paper's: the peak, times 0.1 at 1/2, 3/4 and 7/8 of the run.
        ``onecycle`` rises linearly to the peak for a quarter of the run, then falls linearly to 0.
    peak : float
    step : int
        Which step, from 0.
    steps : int
        Steps of the whole run.

    Returns
    -------
    float
        Greater than 0.

    Raises
    ------
    SpecError
        For an unknown schedule.
    """
    choice("schedule", schedule, SCHEDULES)
    if schedule == "step":
        passed = sum(step >= milestone * steps for milestone in MILESTONES)
        return peak * float(np.power(0.1, passed))
    progress = (step + 0.5) / steps
    return peak * min(progress / WARM_UP, (1 - progress) / (1 - WARM_UP))
