"""What the scripts share: layers of PyTorch and ours on the same arrays, and medians of turns."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from igc_ref.bench.clock import Clock
from igc_ref.bench.harness import take_turns
from igc_ref.report import aligned

REST = 0.05  # seconds, after which a library's idle threads no longer spin: a guess
EQUAL = 1.05  # less than so many times as fast may be noise
Ways = dict[tuple[str, str], Callable[[], object]]  # by kind of call and contender


class Answer(NamedTuple):
    """The row of the table."""

    measured: str
    seen: str
    ours: str


class Script(NamedTuple):
    """A complaint, and how it is measured, printed and answered: `found` is plain numbers."""

    title: str
    thread: str
    measure: Callable[[], Any]
    lines: Callable[[Any], list[str]]
    answer: Callable[[Any], Answer]


@dataclass(frozen=True)
class Timed:
    """The same, where contenders take turns.

    Parameters
    ----------
    title, thread : str
    cases : dict
        By name: what `ways` makes its contenders from.
    ways : callable
    claims, ours : list of pairs of contenders
        First against second: what the complaint is about, and what is ours.
    slower : bool
        Whether the complaint is "slower", not only "no faster".
    notes : callable
        Returns what is not timed, in lines.
    """

    title: str
    thread: str
    cases: dict[str, Any]
    ways: Callable[..., Ways]
    claims: list[tuple[str, str]]
    ours: list[tuple[str, str]]
    slower: bool = False
    notes: Callable[[], list[str]] = list

    def measure(self, rounds: int = 5, seconds: float = 0.2) -> Any:
        """Return the median seconds of every contender in every case, and the notes."""
        found: dict[str, Any] = {}
        for case, numbers in self.cases.items():
            turns = {key: partial(_times, run) for key, run in self.ways(*numbers).items()}
            for (kind, name), s in take_turns(turns, rounds, seconds).items():
                found.setdefault(case, {}).setdefault(kind, {})[name] = median(s)
        return {"times": found, "notes": self.notes()}

    def lines(self, found: Any) -> list[str]:
        """Return what is printed: a table for each case, then the notes."""
        base, tables = self.claims[0][1], []
        for case, kinds in found["times"].items():
            rows = [[case, *(head for kind in kinds for head in (f"{kind} ms", "speed"))]]
            for name in next(iter(kinds.values())):
                pairs = (
                    (f"{1e3 * s[name]:.2f}", f"{s[base] / s[name]:.3g}") for s in kinds.values()
                )
                rows.append([name, *(cell for pair in pairs for cell in pair)])
            tables.append(f"{aligned(rows)}\nspeed: times as fast as {base}")
        return [*tables, *found["notes"]]

    def answer(self, found: Any) -> Answer:
        """Return the row of the table; every word of it follows from the figures."""
        least = 1 / EQUAL if self.slower else EQUAL
        where = [
            f"{case} {kind}"
            for case, kinds in found["times"].items()
            for kind, s in kinds.items()
            if any(s[base] < least * s[name] for name, base in self.claims)
        ]
        claims, ours = (
            "; ".join(
                f"{name} against {base}: "
                + ", ".join(
                    f"{case} " + " / ".join(f"{s[base] / s[name]:.3g}" for s in kinds.values())
                    for case, kinds in found["times"].items()
                )
                for name, base in pairs
            )
            for pairs in (self.claims, self.ours)
        )
        return Answer("; ".join([claims, *found["notes"]]), ", ".join(where) or "no", ours)


def _times(run: Callable[[], object], count: int) -> list[float]:
    time.sleep(REST)
    run()  # the first one after another's turn does not count
    return Clock().times(run, count)


def draw(N: int, channels: int, H: int) -> tuple[Any, Any]:
    """Draw a batch and a gradient."""
    return tuple(np.random.default_rng(0).normal(size=(2, N, channels, H, H)).astype("float32"))


def torch_conv(channels: int, groups: int = 1) -> Any:
    """Return a 3x3 convolution of PyTorch."""
    from torch import nn

    return nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)


def numba_layer(kind: str, *numbers: Any, **options: Any) -> Any:
    """Return a layer of ours, "Conv2d" or "IGC"."""
    from igc_ref import networks
    from igc_ref.backends.numba.backend import NumbaBackend

    return getattr(networks, kind)(
        NumbaBackend(), *numbers, rng=np.random.default_rng(0), **options
    )


def runs(name: str, layer: Any, x: Any, dy: Any, layout: str = "contiguous_format") -> Ways:
    """Return a layer's forward pass, and its step: both passes, all gradients."""
    if hasattr(layer, "backend"):
        x, dy = (layer.backend.to_layout(a) for a in (x, dy))
        forward, back = partial(layer.forward, x, train=True), layer.backward
        return {("forward", name): forward, ("step", name): lambda: (forward(), back(dy))}
    import torch

    form = getattr(torch, layout)
    layer = layer.to(memory_format=form)
    x, dy = (torch.from_numpy(a).contiguous(memory_format=form) for a in (x, dy))
    x.requires_grad_()

    def step() -> None:
        x.grad = None
        layer.zero_grad(set_to_none=True)
        layer(x).backward(dy)

    return {("forward", name): lambda: layer(x), ("step", name): step}
