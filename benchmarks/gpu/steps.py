"""Section ``steps``: whole training steps, ours against every way of PyTorch, in milliseconds.

Ours takes its batch out of the data set on the card, augments and normalises it within the step;
PyTorch gets one ready batch again and again (what that saves it is the kernel ``take_batch`` in
the table of section ``floors``). Both update all weights by SGD with Nesterov momentum and weight
decay, PyTorch with its fused kernel. ``graph`` is an eager step captured by hand
(`torch.cuda.CUDAGraph`), ``compile`` is max-autotune, which makes graphs by itself.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

from benchmarks.gpu import ours
from benchmarks.gpu.clock import Contender, best, compete, only, ratio
from benchmarks.gpu.floors import step_floors
from benchmarks.gpu.record import Section, say, table
from igc_ref.networks.architecture import Architecture

NETWORKS = (
    Architecture("plain_igc", 20, L=24, M=2),
    Architecture("plain_igc", 20, L=4, M=8),
    Architecture("resnet_igc", 50, L=24, M=2),
    Architecture("plain", 20, width=16),
)
TINY = (Architecture("plain_igc", 5, L=2, M=2),)
COMPILED_FIRST = 2  # networks for which torch.compile is tried: minutes each
STEPS = 64  # a run of ours: an epoch, so that the learning rates do not end


def section(section: Section, options: Any) -> None:
    """Time all networks, without torch.compile first: it may take all the time there is."""
    networks = TINY if options.tiny else NETWORKS
    for compiled in (False, True) if options.compile else (False,):
        for number, a in enumerate(networks):
            if compiled and number >= COMPILED_FIRST:
                continue
            name = f"{a}{' compile' if compiled else ''}"
            f = (
                (lambda a=a: compiled_step(a, options))
                if compiled
                else lambda a=a: step(a, options)
            )
            result = section.item(name, f, 150 if compiled else 40)
            if result:
                say(f"\n{name}, N = {options.batch}", lines(result["times"]))
    say("", summary(section, options, networks))


def step(a: Architecture, options: Any) -> dict[str, Any]:
    """Time a step of ours and of every way of PyTorch but compiled."""
    contenders, about = [], {}
    with ExitStack() as stack:
        for storage, capture in (("float32", True), ("float16", True), ("float32", False)):
            if storage == "float16" and not options.float16:
                continue
            name = f"ours {storage}{'' if capture else ' uncaptured'}"
            backend = ours.make_backend(options.emulate, storage, capture)
            stack.enter_context(backend.session())
            try:
                own, about[name] = _ours(backend, a, name, options)
                contenders.append(own)
            except Exception as error:
                traceback.print_exc()
                about[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
                ours.alive(options.emulate)
        if options.torch and find_spec("torch"):
            contenders += _torch(a, options)
        times = compete(contenders, options.rounds, 0.1)
    _clean(options)
    return {"times": times, "floors ms": step_floors(a, options.batch), "ours": about}


def compiled_step(a: Architecture, options: Any) -> dict[str, Any]:
    """Time torch.compile beside ours again."""
    from benchmarks.gpu import rivals

    contenders = []
    backend = ours.make_backend(options.emulate)
    with backend.session():
        contenders.append(_ours(backend, a, "ours float32", options)[0])
        for way in rivals.COMPILED[::2]:  # NCHW: the compiler chooses memory formats by itself
            start = time.perf_counter()
            run = rivals.Step(a, options.batch, way, options.device)
            for _ in range(6):
                run()
            note = f"compiled in {time.perf_counter() - start:.0f} s"
            clock = rivals.clock(options.device)
            contenders.append(Contender(str(way), run, clock, exact=not way.tf32, note=note))
        times = compete(contenders, options.rounds, 0.1)
    _clean(options)
    return {"times": times}


def _ours(
    backend: Any, a: Architecture, name: str, options: Any
) -> tuple[Contender, dict[str, Any]]:
    count = 4 if options.tiny else STEPS
    own = ours.OurStep(backend, a, options.batch, count)
    clock = ours.clock(options.emulate)
    start = time.perf_counter()
    own.epoch()
    about = {
        "graph": own.is_graph, "lines": own.lines, "first loss": own.losses[0],
        "ms a step with draws in and losses out": (time.perf_counter() - start) / count * 1e3,
    }  # fmt: skip

    def run() -> None:
        for _ in range(count):
            own.step()

    return Contender(name, _from_start(own, run), clock, count, exact="16" not in name), about


def _from_start(own: ours.OurStep, run: Callable[[], None]) -> Callable[[], None]:
    """Begin the epoch anew before each run: six small copies, a few hundredths of a step."""

    def restarted() -> None:
        own.begin()
        run()

    return restarted


def _torch(a: Architecture, options: Any) -> Iterator[Contender]:
    from benchmarks.gpu import rivals

    clock = rivals.clock(options.device)
    for way in rivals.EAGER[:: 4 if options.tiny else 1]:
        try:
            run = rivals.Step(a, options.batch, way, options.device)
            for _ in range(2 if options.tiny else 4):
                run()
            yield Contender(str(way), run, clock, exact=not way.tf32)
            if not way.search:
                continue  # a graph keeps its memory: only the quicker half
            again = rivals.Step(a, options.batch, way, options.device)
            name = str(way).replace("eager", "graph")
            graph = rivals.graphed(again, 1, options.device)
            yield Contender(name, graph, clock, exact=not way.tf32)
        except Exception:
            traceback.print_exc()
            say(f"{a}: {way} failed")


def _clean(options: Any) -> None:
    if options.torch and find_spec("torch"):
        from benchmarks.gpu import rivals

        rivals.clean()


def lines(times: dict[str, dict[str, Any]]) -> str:
    """Return everybody's milliseconds, the fastest first."""
    rows = [
        [name, t["us"] / 1e3, t["p10"] / 1e3, t["p90"] / 1e3, t["samples"], t.get("note", "")]
        for name, t in sorted(times.items(), key=lambda item: item[1].get("us", 1e18))
        if "us" in t
    ]
    rows += [
        [name, "failed", "", "", "", t["failed"]] for name, t in times.items() if "us" not in t
    ]
    return table(["ms a step", "median", "10 %", "90 %", "samples", "note"], rows)


def summary(section: Section, options: Any, networks: tuple[Architecture, ...]) -> str:
    """Return one line a network: ours, its floor, and rivals over ours."""
    rows = []
    for a in networks:
        result = section.items.get(str(a), {})
        if "times" not in result:
            continue
        times, compiled = result["times"], section.items.get(f"{a} compile", {}).get("times", {})
        mine, beside = only(times, "ours float32"), only(compiled, "ours float32")
        floor = result["floors ms"]["memory"] * 1e3
        kinds = [(k, e) for k in ("torch eager", "torch graph") for e in (True, None)]
        over = [ratio(best(times, kind, exact)[1], mine) for kind, exact in kinds]
        over += [ratio(best(compiled, "torch", exact)[1], beside) for exact in (True, None)]
        half = only(times, "ours float16")
        ms = [None if value is None else value / 1e3 for value in (floor, mine, half)]
        rows.append([str(a), *ms, ratio(mine, floor), *over])
    head = [f"step, N = {options.batch}", "memory floor ms", "ours ms", "f16 ms", "ours/floor"]
    kinds = [f"{k} {e}/ours" for k in ("eager", "graph", "compile") for e in ("exact", "any")]
    return table([*head, *kinds], rows)
