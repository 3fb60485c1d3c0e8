"""The settings of a training run, and recipes: settings that go together.

Every setting stands once, as a field of `TrainConfig`: its default, its help text, what is
allowed. The checks, the options of the command line and ``help(TrainConfig)`` are made from it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from igc_ref import backends, data
from igc_ref.backends.operators.library import DTYPES, LANES, STORAGES
from igc_ref.errors import SpecError, choice, integer, odd_sizes, shown, user_path
from igc_ref.networks.architecture import (
    ARCHITECTURES,
    DIMS,
    DOUBLINGS,
    FORM,
    GATES,
    NORMS,
    Architecture,
    numbers_of,
)
from igc_ref.training.optim import SCHEDULES

MIRRORS = ("random", "alternating")

# Section 4 of arXiv:1707.02725, and the training script that the authors published: the rate falls
# to a tenth at 1/2, 3/4 and 7/8 of the epochs; pad by 4, crop and mirror at random, but not digits.
_PAPER: dict[str, Any] = {
    "batch_size": 64,
    "lr": 0.1,
    "schedule": "step",
    "momentum": 0.9,  # Nesterov's
    "weight_decay": 1e-4,
    "bn_momentum": None,  # the authors'
}
# One cycle: the rate rises for a quarter of the run, then falls to 0.
_FAST: dict[str, Any] = {
    "batch_size": 128,
    "lr": 0.2,
    "schedule": "onecycle",
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "bn_momentum": 0.9,
}
# A third of the epochs, and of what shortens runs elsewhere (arXiv:2404.00498) what helps these
# small networks: docs/speedrun.md has each ingredient switched off.
_SPEEDRUN: dict[str, Any] = {**_FAST, "test_mirror": True}

# Recipes for published data sets. ``shapes`` has none: nobody has published one, and the
# defaults of `TrainConfig` are made for it.
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
    "speedrun": {
        "cifar10": {"epochs": 10, "augment": True, **_SPEEDRUN},
        "cifar100": {"epochs": 10, "augment": True, **_SPEEDRUN},
    },
}


def recipe(name: str, data: str) -> dict[str, Any]:
    """Return the settings of a recipe for a data set, by field of `TrainConfig`.

    Parameters
    ----------
    name : {"paper", "fast", "speedrun"}
        The authors' own settings, a run of 30 epochs, or one of 10.
    data : {"cifar10", "cifar100", "svhn", "svhn_extra"}
        With "speedrun" the first two.

    Raises
    ------
    SpecError
        For an unknown recipe, or a data set that it has no settings for.

    Examples
    --------
    >>> recipe("paper", "svhn")["epochs"], recipe("fast", "cifar10")["schedule"]
    (40, 'onecycle')
    """
    table = RECIPES[choice("recipe", name, RECIPES)]
    if data not in tuple(table):
        allowed = ", ".join(table)
        raise SpecError(f"recipe={name!r} says nothing about data={data!r}; it is for {allowed}")
    return dict(table[data])


class Setting(NamedTuple):
    """What a field of `TrainConfig` is, beside its name and its default.

    Parameters
    ----------
    kind : {int, float, str, bool, tuple}
        A tuple is of odd numbers; as text they have commas between them.
    help : str
    choices : sequence of str
        The allowed values, where they are names.
    minimum : int
        Of a whole number.
    inside, allowed : callable, str
        Whether a real number is allowed, and which ones are.
    none : str
        What None means; empty where None is not allowed.
    """

    kind: type
    help: str
    choices: Sequence[str] = ()
    minimum: int = 1
    inside: Callable[[Any], bool] = math.isfinite
    allowed: str = ""
    none: str = ""

    def check(self, name: str, value: Any) -> Any:
        """Return the value as a plain Python one, or raise a SpecError that names it."""
        if value is None and self.none:
            return None
        if self.choices:
            return choice(name, value, self.choices)
        if self.kind is int:
            return integer(name, value, self.minimum)
        if self.kind is str:
            path = user_path(name, value)
            # A run may be continued from another folder.
            return str(path.absolute() if name in ("data_dir", "teacher") else path)
        if self.kind is tuple:
            return odd_sizes(name, value)
        if self.kind is bool:
            if not isinstance(value, bool | np.bool_):
                raise SpecError(f"{name}={shown(value)} is neither True nor False")
        elif not isinstance(value, Real) or isinstance(value, bool) or not self.inside(value):
            raise SpecError(f"{name}={shown(value)} is not allowed; it must be {self.allowed}")
        return self.kind(value)


def settings() -> dict[str, Setting]:
    """Return what the fields of `TrainConfig` are, by name."""
    return {f.name: f.metadata["setting"] for f in fields(TrainConfig)}


def check_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by name as plain Python values, or raise a SpecError that names one."""
    known = settings()
    return {choice("setting", n, known): known[n].check(n, value) for n, value in values.items()}


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by name as JSON has them: a list, where they are a tuple."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _field(default: Any, kind: type, text: str, **more: Any) -> Any:
    return field(default=default, metadata={"setting": Setting(kind, text, **more)})


def _documented(cls: type[TrainConfig]) -> type[TrainConfig]:
    """Insert the settings into the docstring of `TrainConfig`, as its parameters."""
    lines = ["Parameters", "----------"]
    for f in fields(cls):
        of: Setting = f.metadata["setting"]
        kind = "{" + ", ".join(of.choices) + "}" if of.choices else of.kind.__name__
        default = f"None ({of.none})" if f.default is None else repr(f.default)
        lines += [f"{f.name} : {kind}, default {default}", f"    {of.help}"]
    head, raises, tail = inspect.cleandoc(cls.__doc__ or "").partition("Raises\n")
    cls.__doc__ = head + "\n".join(lines) + "\n\n" + raises + tail
    return cls


SMALL = {"L": 4, "M": 8, "width": 16}  # the paper's smallest networks


@_documented
@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training run. The defaults train a small IGC network on ``shapes``.

    ``TrainConfig.recipe("paper", data="cifar10", depth=20, L=24, M=2)`` has the authors' settings.

    Raises
    ------
    SpecError
        If a setting is not allowed; names the value and what is allowed.

    Examples
    --------
    >>> config = TrainConfig(depth=20, L=24, M=2, data="cifar10", epochs=10)
    >>> config.arch, config.lr, config.backend
    ('plain_igc', 0.3, 'auto')
    """

    arch: str = _field("plain_igc", str, "kind of network", choices=tuple(ARCHITECTURES))
    depth: int = _field(8, int, "number of layers")
    L: int | None = _field(
        None, int, "primary partitions in the first stage of an IGC network",
        none=f"{SMALL['L']} if M is not given either",
    )  # fmt: skip
    M: int | None = _field(
        None, int, "secondary partitions in the first stage of an IGC network",
        none=f"{SMALL['M']} if L is not given either",
    )  # fmt: skip
    width: int | None = _field(
        None, int, "channels of the first stage of a network that has no L and M",
        none=str(SMALL["width"]),
    )  # fmt: skip
    doubling: str = _field("M", str, "which of M and L doubles with the width", choices=DOUBLINGS)
    kernel_sizes: tuple[int, ...] = _field(
        (3,), tuple, "sides of the kernels in pixels, odd; several, such as 3,5,7, are shared out "
        "among the primary partitions of an IGC block",
    )  # fmt: skip
    gate: str = _field(
        "none", str, "what an IGC block multiplies by numbers that depend on the image: its middle "
        "channels (squeeze and excitation), or its primary partitions", choices=GATES,
    )  # fmt: skip
    keep: int | None = _field(
        None, int, "with gate=partitions: primary partitions that an image is computed with when "
        "it is classified", none="all",
    )  # fmt: skip
    norm: str = _field("batch", str, "normalisation after every convolution", choices=NORMS)
    dims: str = _field(
        "2", str, "1: kernels of one row, for sequences; 2: for images", choices=DIMS
    )
    data: str = _field("shapes", str, "data set", choices=data.NAMES)
    data_dir: str | None = _field(
        None, str, "folder of the published files, or a CIFAR archive; of folder, what holds "
        "train/CLASS/*.png and test/CLASS/*.png; of npz and text, the file; of ts, the folder of "
        "NAME_TRAIN.ts and NAME_TEST.ts, or its path with /NAME", none="a downloaded copy",
    )  # fmt: skip
    data_size: int | None = _field(
        None,
        int,
        "training images: shapes and waves are drawn; of others, a random choice",
        none="all; of text, 50,000",
    )
    backend: str = _field("auto", str, "library that does the computing", choices=backends.NAMES)
    dtype: str = _field("float32", str, "precision of the computation", choices=DTYPES)
    storage: str = _field(
        "float32", str, "precision of stored activations; float16 with cupy only", choices=STORAGES
    )
    lanes: str = _field(
        "auto", str, "float32 numbers in a vector of numba, on which the bits of results depend; "
        "auto: this processor's", choices=LANES,
    )  # fmt: skip
    epochs: int = _field(4, int, "passes through the training set")
    batch_size: int = _field(32, int, "images in a training step")
    lr: float = _field(
        0.3, float, "peak learning rate",
        inside=lambda lr: 0 < lr < 1e30, allowed="greater than 0 and below 1e30",
    )  # fmt: skip
    schedule: str = _field(
        "onecycle", str, "step: a tenth at 1/2, 3/4, 7/8 of the run; onecycle: one rise and fall",
        choices=SCHEDULES,
    )  # fmt: skip
    momentum: float = _field(
        0.9, float, "Nesterov momentum", inside=lambda m: 0 <= m < 1, allowed="in [0, 1)"
    )
    weight_decay: float = _field(
        5e-4, float, "weight decay of every parameter",
        inside=lambda w: 0 <= w < 1e30, allowed="at least 0 and below 1e30",
    )  # fmt: skip
    label_smoothing: float = _field(
        0.0, float, "part of each target that is spread evenly over the classes",
        inside=lambda s: 0 <= s < 1, allowed="in [0, 1)",
    )  # fmt: skip
    teacher: str | None = _field(
        None, str, "folder of a run whose network this one learns from: distillation "
        "(arXiv:1503.02531)", none="labels alone",
    )  # fmt: skip
    temperature: float = _field(
        4.0, float, "with a teacher: both networks' logits are divided by it before they are "
        "compared", inside=lambda t: 1e-3 <= t <= 1e3, allowed="from 0.001 to 1000",
    )  # fmt: skip
    alpha: float = _field(
        0.9, float, "with a teacher: its weight in the loss; the rest is the labels'",
        inside=lambda a: 0 <= a <= 1, allowed="in [0, 1]",
    )  # fmt: skip
    bn_momentum: float | None = _field(
        0.9, float, "weight of the past in the running averages of batch norm; 'paper' (None) is "
        "the authors': 0.99 in plain networks, 0.9 in residual ones",
        inside=lambda m: 0 <= m < 1, allowed="in [0, 1), or 'paper' (None in Python)", none="paper",
    )  # fmt: skip
    augment: bool = _field(
        True, bool, "pad by 4, crop and mirror the training images at random; sequences stay as "
        "they are",
    )  # fmt: skip
    mirror: str = _field(
        "random", str, "random: half of the images of every epoch; alternating: an image in every "
        "other epoch (arXiv:2404.00498), half of them in the first; with augment",
        choices=MIRRORS,
    )  # fmt: skip
    test_mirror: bool = _field(
        False,
        bool,
        "test-time augmentation: average the logits of a test image and its mirror image",
    )
    until: float | None = _field(
        None, float, "end after the first epoch with this test accuracy, such as 0.8, and report "
        "the seconds of training up to then: the log's, without tests, checkpoints after an epoch "
        "and the compilation before the first step; the learning rates stay those of all epochs",
        inside=lambda u: 0 < u <= 1, allowed="greater than 0 and at most 1", none="all epochs",
    )  # fmt: skip
    seed: int = _field(0, int, "seed of weights, order and augmentation", minimum=0)
    checkpoint_every: int = _field(
        0, int, "steps between checkpoints within an epoch; 0: only after each epoch", minimum=0
    )
    out: str | None = _field(None, str, "folder of the run, new or empty", none="a new one in runs")

    def __post_init__(self) -> None:
        for name, value in check_settings(vars(self)).items():
            object.__setattr__(self, name, value)
        needed = numbers_of(self.arch)
        if all(getattr(self, name) is None for name in needed):
            for name in needed:
                object.__setattr__(self, name, SMALL[name])
        self.architecture(1)
        if self.storage != "float32" and self.dtype != "float32":
            raise SpecError(f"storage={self.storage} is for dtype=float32, not {self.dtype}")
        self._check_pairs()

    def _check_pairs(self) -> None:
        """Check that no setting is given that others leave without effect."""
        taught = self.teacher is not None, "a teacher, the folder of a run"
        for name, met, needed in (
            ("temperature", *taught),
            ("alpha", *taught),
            ("bn_momentum", self.norm == "batch", "norm='batch'"),
        ):
            value = getattr(self, name)
            if not met and value not in (None, getattr(TrainConfig, name)):
                raise SpecError(f"{name}={value} needs {needed}")

    def architecture(self, num_classes: int | None = None, in_channels: int = 3) -> Architecture:
        """Return the network of this run; its ends, if not given, by its data (read if need be)."""
        if num_classes is None:
            if (about := data.ABOUT.get(self.data)) is None:
                about = data.load(self.data, "test", self.data_dir).about
            num_classes, in_channels = len(about[0]), len(about[1])
        same = ("arch", "depth", "L", "M", "width", "doubling", *FORM)
        own = {name: getattr(self, name) for name in same}
        return Architecture(num_classes=num_classes, in_channels=in_channels, **own)

    @classmethod
    def recipe(cls, name: str, data: str, **settings: Any) -> TrainConfig:
        """Return the settings of a recipe for a data set; those given beside it win.

        Parameters
        ----------
        name, data : str
            As in `recipe`, the function, which says what is refused.
        settings
            Any other fields.

        Examples
        --------
        >>> config = TrainConfig.recipe("fast", data="cifar10", epochs=5)
        >>> config.epochs, config.batch_size, config.lr
        (5, 128, 0.2)
        """
        return cls(**{**recipe(name, data), **settings}, data=data)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return plain(asdict(self))

    @classmethod
    def from_dict(cls, values: object) -> TrainConfig:
        """Return the config of `to_dict`; anything else is a SpecError."""
        if not isinstance(values, dict):
            raise SpecError(f"settings must be a dict by name, not {type(values).__name__}")
        if not values:
            raise SpecError("there are no settings")
        unknown = sorted(str(name) for name in set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise SpecError(f"unknown settings {', '.join(unknown)}: made by a newer version?")
        # Runs from before this setting existed had the authors' momentum.
        earlier: dict[str, Any] = {"bn_momentum": None}
        return cls(**earlier | values)


def of_sequences(config: TrainConfig, height: int) -> bool:
    """Return whether images of this height are sequences; a SpecError for what does not fit."""
    if height > 1 and config.dims == "1":
        text = f"dims=1 is for sequences, of height 1; {config.data} has images of height {height}"
        raise SpecError(f"{text}: they need dims=2")
    for name, allowed in (("mirror", "random"), ("test_mirror", False)):
        if height == 1 and (given := getattr(config, name)) != allowed:
            raise SpecError(f"{name}={given} is for images; {config.data} has sequences")
    return height == 1
