"""Options that several commands share. What is not given is absent: `TrainConfig` has defaults."""

from __future__ import annotations

import argparse
from typing import Any

from igc_ref import backends, data
from igc_ref.backends.operators.library import DTYPES, STORAGES
from igc_ref.networks.architecture import ARCHITECTURES, DOUBLINGS
from igc_ref.training import config as recipes
from igc_ref.training.config import TrainConfig
from igc_ref.training.optim import SCHEDULES


def suppressing(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    """Add a command whose options, if not given, are absent."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, argument_default=argparse.SUPPRESS
    )
    return parser


def add_network(parser: argparse.ArgumentParser, text: str = "default plain_igc") -> None:
    """Add the options that name a network."""
    parser.add_argument("--arch", choices=tuple(ARCHITECTURES), help=text)
    parser.add_argument("--depth", type=int, metavar="N", help="layers; default 8")
    parser.add_argument("-L", type=int, metavar="N", help="primary partitions; default 4")
    parser.add_argument("-M", type=int, metavar="N", help="secondary partitions; default 8")
    parser.add_argument("--width", type=int, metavar="N", help="width of other nets; default 16")
    parser.add_argument("--doubling", choices=DOUBLINGS, help="what doubles with the width: M or L")


def add_training(parser: argparse.ArgumentParser, seed: bool = True) -> None:
    """Add the options of training: data, backend, every number of the recipe, and the seed."""
    defaults = TrainConfig()
    parser.add_argument("--data", choices=data.NAMES, help=f"default {defaults.data}")
    parser.add_argument(
        "--data-dir", metavar="DIR", help="folder of the published files; default: fetched"
    )
    parser.add_argument(
        "--recipe",
        choices=tuple(recipes.RECIPES),
        help="settings of the paper (400 epochs; SVHN 40) or a fast run (30), "
        "for the published --data; options given beside it win",
    )
    parser.add_argument("--backend", choices=backends.NAMES, help=f"default {defaults.backend}")
    parser.add_argument("--dtype", choices=DTYPES, help=f"default {defaults.dtype}")
    parser.add_argument("--storage", choices=STORAGES, help="of pictures; float16: cupy only")
    for name, kind in (
        ("epochs", int),
        ("batch-size", int),
        ("lr", float),
        ("momentum", float),
        ("weight-decay", float),
        *([("seed", int)] if seed else []),
        ("checkpoint-every", int),
    ):
        default = getattr(defaults, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=kind, metavar="X", help=f"default {default}")
    parser.add_argument("--schedule", choices=SCHEDULES, help=f"default {defaults.schedule}")
    parser.add_argument(
        "--augment", action=argparse.BooleanOptionalAction, help="pad, crop and mirror; default yes"
    )
