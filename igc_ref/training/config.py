"""Training recipes: the authors' own, and a fast one.

A recipe is a set of values for the fields of `TrainConfig`, one for each published data set;
whatever is given beside it wins. ``shapes`` has none: nobody has published one, and
`TrainConfig`'s defaults are made for it.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from igc_ref import backends, data
from igc_ref.backends.operators.library import DTYPES, STORAGES
from igc_ref.errors import SpecError, choice, integer
from igc_ref.networks.architecture import ARCHITECTURES, DOUBLINGS, Architecture, numbers_of
from igc_ref.training.optim import SCHEDULES

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


@dataclass(frozen=True)
class TrainConfig:
    """What a run is. The defaults train a small IGC network on the built-in ``shapes``.

    ``TrainConfig.recipe("paper", data="cifar10", depth=20, L=24, M=2)`` has the authors' settings.

    Parameters
    ----------
    arch, depth, L, M, width, doubling
        The network, as in `igc_ref.build_model`. One that needs L and M, of which neither is
        given, has the paper's L = 4, M = 8; one that needs a width has 16 without it.
    data : {"shapes", "cifar10", "cifar100", "svhn", "svhn_extra"}
        See `igc_ref.data.load`.
    data_dir : str, optional
        Folder of the published files, or a CIFAR archive; without it they are fetched once.
    backend : {"auto", "numpy", "numba", "cupy"}
    dtype : {"float32", "float64"}
    storage : {"float32", "float16"}
        How pictures are kept between operators; float16 on the cupy backend only, for float32
        networks: sums and weights stay float32.
    epochs, batch_size : int
    lr : float
        Peak learning rate.
    schedule : {"step", "onecycle"}
        See `igc_ref.training.optim.learning_rate`.
    momentum, weight_decay : float
    augment : bool
        Pad by 4, crop at random, mirror at random.
    seed : int
        Of weights, order and augmentation. Same seed, same backend: same bits.
    checkpoint_every : int
        Steps between two checkpoints within an epoch; 0: only after each epoch.
    out : str, optional
        Folder of the run, new or empty; by default one below ``runs``.

    Raises
    ------
    SpecError
        Names the number and what is allowed.
    """

    arch: str = "plain_igc"
    depth: int = 8
    L: int | None = None
    M: int | None = None
    width: int | None = None
    doubling: str = "M"
    data: str = "shapes"
    data_dir: str | None = None
    backend: str = "auto"
    dtype: str = "float32"
    storage: str = "float32"
    epochs: int = 4
    batch_size: int = 16
    lr: float = 0.1
    schedule: str = "onecycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: bool = True
    seed: int = 0
    checkpoint_every: int = 0
    out: str | None = None

    def __post_init__(self) -> None:
        self._check_texts()
        if "width" not in numbers_of(self.arch) and self.L is None and self.M is None:
            object.__setattr__(self, "L", 4)
            object.__setattr__(self, "M", 8)
        if "width" in numbers_of(self.arch) and self.width is None:
            object.__setattr__(self, "width", 16)
        self.architecture(num_classes=10)
        if self.storage != "float32" and self.dtype != "float32":
            raise SpecError(f"storage={self.storage} is for dtype=float32, not {self.dtype}")
        for name, minimum in (
            ("epochs", 1),
            ("batch_size", 1),
            ("seed", 0),
            ("checkpoint_every", 0),
        ):
            object.__setattr__(self, name, integer(name, getattr(self, name), minimum))
        if not isinstance(self.augment, bool):
            raise SpecError(f"augment={self.augment!r} is neither True nor False")
        self._check_number("lr", lambda lr: lr > 0, "greater than 0")
        self._check_number("momentum", lambda m: 0 <= m < 1, "in [0, 1)")
        self._check_number("weight_decay", lambda w: w >= 0, "at least 0")

    def _check_texts(self) -> None:
        """Check the fields that choose by name, and the paths."""
        for name, allowed in (
            ("arch", tuple(ARCHITECTURES)),
            ("doubling", DOUBLINGS),
            ("data", data.NAMES),
            ("backend", backends.NAMES),
            ("dtype", DTYPES),
            ("storage", STORAGES),
            ("schedule", SCHEDULES),
        ):
            choice(name, getattr(self, name), allowed)
        for name in ("data_dir", "out"):
            value = getattr(self, name)
            if value is not None:
                if not isinstance(value, str | os.PathLike) or not os.fspath(value):
                    raise SpecError(f"{name}={value!r} is not a path")
                object.__setattr__(self, name, os.fspath(value))

    def _check_number(self, name: str, inside: Callable[[float], bool], allowed: str) -> None:
        value = getattr(self, name)
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not number or not -1e30 < value < 1e30 or not inside(value):
            raise SpecError(f"{name}={value!r} is not allowed; it must be {allowed} and below 1e30")
        object.__setattr__(self, name, float(value))

    def architecture(self, num_classes: int) -> Architecture:
        """Return the network of this run, for a data set of so many classes."""
        numbers = self.L, self.M, self.width
        return Architecture(self.arch, self.depth, *numbers, num_classes, self.doubling)

    @classmethod
    def recipe(cls, name: str, data: str, **settings: Any) -> TrainConfig:
        """Return the settings of a recipe for a data set; those given beside it win.

        Parameters
        ----------
        name : {"paper", "fast"}
            See `igc_ref.training.config`.
        data : {"cifar10", "cifar100", "svhn", "svhn_extra"}
        settings
            Any other fields.

        Raises
        ------
        SpecError
            For an unknown recipe, a data set it says nothing about, or wrong settings.

        Examples
        --------
        >>> config = TrainConfig.recipe("fast", data="cifar10", epochs=5)
        >>> config.epochs, config.batch_size, config.lr
        (5, 128, 0.2)
        """
        return cls(**{**recipe(name, data), **settings}, data=data)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> TrainConfig:
        """Return the config of `to_dict`; anything else is a SpecError."""
        if not isinstance(values, dict):
            raise SpecError(f"settings must be a dict by name, not {type(values).__name__}")
        unknown = sorted(str(name) for name in set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise SpecError(f"unknown settings {', '.join(unknown)}: made by a newer version?")
        return cls(**values)
