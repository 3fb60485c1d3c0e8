"""Section ``steps``: whole training steps, ours against every way of PyTorch, in microseconds.

Ours takes its batch out of the data set on the card, augments and normalises it within the step;
PyTorch gets one ready batch again and again (what that saves it is the kernel ``take_batch`` in
the table of section ``floors``). Both update all weights by SGD with Nesterov momentum and weight
decay, PyTorch with its fused kernel. ``graph`` is an eager step captured by hand
(`torch.cuda.CUDAGraph`), ``compile`` is max-autotune, which makes graphs by itself.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.gpu import ours, tables
from benchmarks.gpu.contenders import Contender, Times, compete
from benchmarks.gpu.floors import ceilings, step_floors
from benchmarks.gpu.sections import Section
from igc_ref.bench import Roofline
from igc_ref.bench.clock import WallClock
from igc_ref.networks.architecture import Architecture
from igc_ref.report import say

NETWORKS = (
    Architecture("plain_igc", 20, L=24, M=2),
    Architecture("plain_igc", 20, L=4, M=8),
    Architecture("resnet_igc", 50, L=24, M=2),
    Architecture("plain", 20, width=16),
)
TINY = (Architecture("plain_igc", 5, L=2, M=2),)
COMPILED_FIRST = 2  # networks for which torch.compile is tried: minutes each
STEPS = 64  # a run of ours: an epoch, so that the learning rates do not end
SECONDS_A_TURN = 0.1
OURS = (("float32", True), ("float16", True), ("float32", False))  # storage, captured


def section(section: Section, options: Any) -> None:
    """Time all networks, without torch.compile first: it may take all the time there is."""
    networks, roofline = TINY if options.tiny else NETWORKS, ceilings(section, options)
    for a in networks:
        section.item(str(a), partial(step, a, options, compiled=False), 40)
    for a in networks[:COMPILED_FIRST] if options.compile and options.torch else ():
        section.item(f"{a} compile", partial(step, a, options, compiled=True), 150)
    say(summary(section.items, options, roofline))


def summary(items: dict[str, Any], options: Any, roofline: Roofline | None) -> str:
    """Return two lines for every network that has been timed: with torch.compile, and without."""
    timed = {}
    for a in TINY if options.tiny else NETWORKS:
        floor = step_floors(a, options.batch, roofline).get("greater")
        for name in (str(a), f"{a} compile"):
            times: Times = {}
            for item, value in items.items():  # one item or several
                if item.startswith(str(a)) and ("compile" in item) == ("compile" in name):
                    times |= value.get("times", {})
            timed |= {name: (times, floor)} if times else {}
    return tables.summary(f"a step, N = {options.batch}", timed)


def step(a: Architecture, options: Any, compiled: bool) -> dict[str, Any]:
    """Time a step of ours and of every way of PyTorch: those that compile, or the others."""
    contenders, about = [], {}
    with ExitStack() as stack:
        for storage, capture in OURS[:1] if compiled else OURS:
            if storage == "float16" and not options.float16:
                continue
            name = f"ours {storage}{'' if capture else ' uncaptured'}"
            try:
                backend = ours.make_backend(options.emulate, storage, capture)
                stack.enter_context(backend.session())
                own, about[name] = _ours(backend, a, name, options)
                contenders.append(own)
            except Exception as error:
                traceback.print_exc()
                about[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
                ours.alive(options.emulate)
        if options.torch:
            contenders += _torch(a, options, compiled)
        times = compete(contenders, options.rounds, SECONDS_A_TURN)
    contenders.clear()
    if options.torch:
        from benchmarks.gpu import rivals

        rivals.clean()
    return {"times": times, "ours": about}


def _ours(backend: Any, a: Architecture, name: str, options: Any) -> tuple[Contender, Any]:
    count = 4 if options.tiny else STEPS
    own = ours.OurStep(backend, a, options.batch, count)
    (seconds,) = WallClock().times(own.epoch, 1)

    def run() -> None:
        own.begin()
        for _ in range(count):
            own.run_one()

    about = {
        "graph": bool(own.steps.captured), "lines": own.lines, "first loss": own.losses[0],
        "ms a step with draws in and losses out": seconds / count * 1e3,
    }  # fmt: skip
    return Contender(name, run, ours.clock(options.emulate), count, "16" not in name), about


def _torch(a: Architecture, options: Any, compiled: bool) -> Iterator[Contender]:
    from benchmarks.gpu import rivals

    clock = rivals.clock(options.device)
    ways = rivals.COMPILED if compiled else rivals.EAGER[:: 4 if options.tiny else 1]
    for way in ways:
        try:
            run = rivals.Step(a, options.batch, way, options.device)
            (seconds,) = WallClock().times(lambda run=run: [run() for _ in range(6)], 1)
            note = f"compiled in {seconds:.0f} s" if compiled else ""
            yield Contender(str(way), run, clock, exact=not way.tf32, note=note)
            if compiled or not way.search:
                continue  # a graph keeps its memory: only the quicker half
            again = rivals.Step(a, options.batch, way, options.device)
            graph = rivals.graphed(again, 1, options.device)
            name = str(way).replace("eager", "graph")
            yield Contender(name, graph, clock, exact=not way.tf32)
        except Exception:
            traceback.print_exc()
            say(f"{a}: {way} failed")
