"""Section ``steps``: whole training steps, ours against every way of PyTorch, in microseconds.

Ours takes its batch out of the data set on the card, augments and normalises it within the step;
PyTorch gets one ready batch again and again (what that saves it is the kernel ``take_batch`` in
the table of section ``floors``). Both update all weights by SGD with Nesterov momentum and weight
decay, PyTorch with its fused kernel. ``graph`` is an eager step captured by hand
(`torch.cuda.CUDAGraph`), ``compile`` is max-autotune, which makes graphs by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.gpu import ours, tables
from benchmarks.gpu.contenders import Contender, Times, compete
from benchmarks.gpu.floors import ceilings, step_floors
from benchmarks.gpu.sections import Section
from igc_ref.bench import Roofline
from igc_ref.bench.clock import Clock
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
STEPS = 64  # an epoch, and what our contender runs at once: the learning rates must not end
SECONDS_A_TURN = 0.1
OURS = (("float32", True), ("float16", True), ("float32", False))  # storage, captured


def section(section: Section, options: Any) -> None:
    """Time all networks, without torch.compile first: it may take all the time there is."""
    networks, roofline = TINY if options.tiny else NETWORKS, ceilings(section, options)
    for a in networks:
        section.item(str(a), partial(step, a, options), 40)
    for a in networks[:COMPILED_FIRST] if options.compile and options.torch else ():
        for tf32 in (False, True):
            name = f"{a} compile{' TF32' * tf32}"
            section.item(name, partial(step, a, options, compiled="TF32" if tf32 else "exact"), 150)
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


def step(a: Architecture, options: Any, compiled: str = "") -> dict[str, Any]:
    """Time our step beside those of PyTorch: all that do not compile, or one that does."""
    contenders = []
    with ExitStack() as stack:
        for storage, capture in OURS[:1] if compiled else OURS:
            if storage == "float32" or options.float16:
                backend = ours.make_backend(options.emulate, storage, capture)
                stack.enter_context(backend.session())
                contenders.append(our_step(backend, a, storage, options))
        if options.torch:
            from benchmarks.gpu import rivals

            contenders += rivals.steps(a, options, compiled)
        times = compete(contenders, options.rounds, SECONDS_A_TURN)
    contenders.clear()
    ours.alive(options.emulate)
    return {"times": times}


def our_step(backend: Any, a: Architecture, storage: str, options: Any) -> Contender:
    """Return our contender: an epoch of `STEPS` steps at once."""
    count = 4 if options.tiny else STEPS

    def prepare() -> tuple[Callable[[], None], str]:
        own = ours.OurStep(backend, a, options.batch, count)
        (seconds,) = Clock().times(own.epoch, 1)
        captured = "" if own.steps.captured else "not captured; "

        def run() -> None:
            own.begin()
            for _ in range(count):
                own.run_one()

        return run, f"{captured}an epoch: {seconds / count * 1e6:.1f} us a step"

    name = f"ours {storage}{'' if backend.capture else ' uncaptured'}"
    clock = ours.clock(options.emulate)
    return Contender(name, prepare, clock, count, exact=storage == "float32")
