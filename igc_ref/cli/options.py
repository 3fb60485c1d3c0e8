"""Options that are fields of `TrainConfig`. One that is not given is absent, and so has no default.

Their names, types, allowed values and help texts are the fields'.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Container
from dataclasses import fields
from typing import Any, NoReturn

from igc_ref.errors import SpecError, one_line
from igc_ref.networks.architecture import FORM
from igc_ref.training import config, ranks
from igc_ref.training.config import RECIPES, Setting, TrainConfig

NETWORK = ("arch", "depth", "L", "M", "width", "doubling", *FORM)
DEFAULTS = {field.name: field.default for field in fields(TrainConfig)}
METAVARS = {int: "N", float: "X", str: "DIR", tuple: "N,N"}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """End the program with what is wrong, and where help is."""
        if world := ranks.world():  # the others would wait for this one
            world.abort(SpecError(message))
        self.exit(2, f"igc-ref: error: {one_line(message, 2000)}; see {self.prog} --help\n")


def add_command(commands: Any, command: Callable[..., None]) -> argparse.ArgumentParser:
    """Add ``NAME_command``, helped by its docstring; options that are not given are absent."""
    name = command.__name__.removesuffix("_command").replace("_", "-")
    text = (command.__doc__ or "").partition("\n")[0]
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text[:1].lower() + text[1:-1], description=text,
        argument_default=argparse.SUPPRESS,
    )  # fmt: skip
    parser.set_defaults(command=command)
    return parser


def add_settings(parser: argparse.ArgumentParser, names: Container[str], prefix: str = "") -> None:
    """Add an option for each of these fields of `TrainConfig`; `prefix` begins its help text."""
    for name, setting in config.settings().items():
        if name in names:
            flag = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
            default = setting.none if DEFAULTS[name] is None else DEFAULTS[name]
            default = ",".join(map(str, default)) if isinstance(default, tuple) else default
            default = ("on" if default else "off") if setting.kind is bool else default
            text = f"{prefix}{setting.help}; default {default}"
            parser.add_argument(flag, dest=name, help=text, **_form(setting, DEFAULTS[name]))


def _form(setting: Setting, default: object) -> dict[str, Any]:
    """Return how `argparse` reads a setting."""
    if setting.kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if setting.choices:
        return {"choices": setting.choices}

    def number(text: str) -> Any:
        try:
            return None if text == setting.none else setting.kind(text)
        except ValueError:
            reason = f"{text!r} is not allowed; it must be {setting.allowed}"
            raise argparse.ArgumentTypeError(reason) from None

    if setting.kind is tuple:
        return {"metavar": METAVARS[tuple]}  # the setting reads the text
    has_word = setting.none and default is not None  # else None is what is not given
    return {"type": number if has_word else setting.kind, "metavar": METAVARS[setting.kind]}


def add_run(parser: argparse.ArgumentParser, text: str) -> None:
    """Add a run to work with, and with what."""
    parser.add_argument("run", metavar="RUN", help=text)
    parser.add_argument("--data-dir", metavar="DIR", help="where the data lies now")
    add_settings(parser, ["backend"])


def add_training(parser: argparse.ArgumentParser, without: Container[str] = ()) -> None:
    """Add an option for every field of `TrainConfig` but these, and ``--recipe``."""
    add_settings(parser, [name for name in DEFAULTS if name not in without])
    parser.add_argument(
        "--recipe",
        choices=tuple(RECIPES),
        help="settings for published data: the paper's (400 epochs; SVHN 40), a fast run (30), or "
        "speedrun (10, tested with --test-mirror; CIFAR alone); options given beside it win",
    )
