"""Training recipes: the authors' own, and a fast one.

A recipe is a set of values for the fields of `TrainConfig`, one for each published data set;
whatever is given beside it wins. ``shapes`` has none: nobody has published one, and
`TrainConfig`'s defaults are made for it.
"""

from __future__ import annotations

from typing import Any

from igc_ref.errors import SpecError
from igc_ref.spec import choice

__all__ = ["RECIPES", "recipe"]

# arXiv:1707.02725, section 4, and the training script that the authors published: the rate falls
# to a tenth at 1/2, 3/4 and 7/8 of the epochs; pad by 4, crop and mirror at random, but not digits.
_PAPER: dict[str, Any] = {
    "batch_size": 64,
    "lr": 0.1,
    "schedule": "step",
    "momentum": 0.9,  # Nesterov's
    "weight_decay": 1e-4,
}
# One cycle: the rate rises for a quarter of the run, then falls to 0.
_FAST: dict[str, Any] = {
    "batch_size": 128,
    "lr": 0.2,
    "schedule": "onecycle",
    "momentum": 0.9,
    "weight_decay": 5e-4,
}

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "cifar10": {"epochs": 400, "augment": True, **_PAPER},
        "cifar100": {"epochs": 400, "augment": True, **_PAPER},
        "svhn": {"epochs": 40, "augment": False, **_PAPER},
        "svhn_extra": {"epochs": 40, "augment": False, **_PAPER},  # what the authors trained on
    },
    "fast": {
        "cifar10": {"epochs": 30, "augment": True, **_FAST},
        "cifar100": {"epochs": 30, "augment": True, **_FAST},
        "svhn": {"epochs": 30, "augment": False, **_FAST},
        "svhn_extra": {"epochs": 30, "augment": False, **_FAST},
    },
}


def recipe(name: str, data: str) -> dict[str, Any]:
    """Return the settings of a recipe for a data set, by field of `TrainConfig`.

    Parameters
    ----------
    name : {"paper", "fast"}
    data : {"cifar10", "cifar100", "svhn", "svhn_extra"}

    Raises
    ------
    SpecError
        For an unknown recipe, or a data set that it says nothing about.

    Examples
    --------
    >>> recipe("paper", "svhn")["epochs"], recipe("fast", "cifar10")["schedule"]
    (40, 'onecycle')
    """
    choice("recipe", name, tuple(RECIPES))
    settings = RECIPES[name].get(data)
    if settings is None:
        allowed = ", ".join(RECIPES[name])
        raise SpecError(f"recipe={name!r} says nothing about data={data!r}; it is for {allowed}")
    return dict(settings)
