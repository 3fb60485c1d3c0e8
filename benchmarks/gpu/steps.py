"""Items ``step``, ``eager``, ``compile``: training steps, ours and PyTorch's, with their energy.

Ours takes its batch out of the data set on the card, augments and normalises it within the step;
PyTorch gets one ready batch again and again (what that saves it is the kernel ``take_batch`` in
the table of item ``floors``). Both update all weights by SGD with Nesterov momentum and weight
decay, PyTorch with its fused kernel. ``graph`` is an eager step captured by hand
(`torch.cuda.CUDAGraph`), ``compile`` is max-autotune, which makes graphs by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import energy, ours
from benchmarks.gpu.contenders import Contender, compete
from benchmarks.gpu.sections import Section
from igc_ref.bench.clock import Clock
from igc_ref.networks.architecture import Architecture

NETWORKS = (
    Architecture("plain_igc", 20, L=24, M=2),
    Architecture("plain_igc", 20, L=4, M=8),
    Architecture("resnet_igc", 50, L=24, M=2),
)
TINY = Architecture("plain_igc", 5, L=2, M=2)
OURS = (  # network by number, storage, captured
    (0, "float32", True), (0, "float32", False), (0, "float16", True),
    (1, "float32", True), (2, "float32", True),
)  # fmt: skip
STEPS = 64  # an epoch, and what our contender runs at once: the learning rates must not end
SECONDS_A_TURN = 0.1


def networks(options: Any) -> tuple[Architecture, ...]:
    """Return the networks by number; a tiny one for each."""
    return (TINY,) * len(NETWORKS) if options.tiny else NETWORKS


def measured(contender: Contender, options: Any, memory: Callable[[], int]) -> dict[str, Any]:
    """Time one contender by itself; measure the energy of a loop, and what memory it takes."""
    run, note = contender.prepare()
    again = replace(contender, prepare=lambda: (run, note))
    times = compete([again], options.rounds, SECONDS_A_TURN)
    if "failed" in times[contender.name]:
        raise RuntimeError(times[contender.name]["failed"])
    seconds = 0.01 if options.tiny else energy.SECONDS
    used = energy.of_loop(run, contender.clock.wait, contender.units, seconds)
    return {"times": times, "energy": used, "MiB": memory() >> 20}  # while `run` is alive


def our_step(section: Section, argument: str, options: Any) -> None:
    """Time our training step of a network."""
    which, storage, capture = OURS[int(argument)]
    a = networks(options)[which]
    name = f"ours {storage}{'' if capture else ' uncaptured'}"

    def step() -> dict[str, Any]:
        backend = ours.make_backend(options.emulate, storage, capture)
        with backend.session():
            before = ours.free_bytes(options.emulate)
            prepare, count = partial(our_epoch, backend, a, options), steps_of_epoch(options)
            exact, clock = storage == "float32", ours.clock(options.emulate)
            contender = Contender(name, prepare, clock, count, exact)
            return measured(contender, options, lambda: before - ours.free_bytes(options.emulate))

    section.item(f"{a} {name}", step)


def steps_of_epoch(options: Any) -> int:
    """Return how many steps our contender takes at once."""
    return 4 if options.tiny else STEPS


def our_epoch(backend: Any, a: Architecture, options: Any) -> tuple[Callable[[], None], str]:
    """Compile and capture; return what runs an epoch of steps, and a note."""
    count = steps_of_epoch(options)
    own = ours.OurStep(backend, a, options.batch, count)
    (seconds,) = Clock().times(own.epoch, 1)
    captured = "" if own.steps.captured else "not captured; "

    def run() -> None:
        own.begin()
        for _ in range(count):
            own.run_one()

    return run, f"{captured}an epoch: {seconds / count * 1e6:.1f} us a step"


# -- PyTorch ---------------------------------------------------------------------------------------


def eager(section: Section, argument: str, options: Any) -> None:
    """Time PyTorch's eager step in a memory format, as such and captured by hand."""
    from benchmarks.gpu import rivals

    layout, number = argument.split()
    a = networks(options)[int(number)]
    for way in [way for way in rivals.EAGER if way.layout == layout]:
        for graph in (False, True):
            contender = rivals.step(a, way, options, graph)
            section.item(f"{a} {contender.name}", partial(of_torch, contender, options))


def of_torch(contender: Contender, options: Any) -> dict[str, Any]:
    """Time a step of PyTorch by itself; with peak memory."""
    import torch

    from benchmarks.gpu import rivals

    rivals.clean()
    if options.device == "cpu":
        return measured(contender, options, lambda: 0)
    torch.cuda.reset_peak_memory_stats()
    return measured(contender, options, torch.cuda.max_memory_allocated)


def compiled(section: Section, kind: str, options: Any) -> None:
    """Compile a step with torch.compile, say so, and time it when told to.

    If it fails with cuDNN's search on, it is tried without: a search within the capture of a graph
    fails. Exact and TF32 are processes of their own: if two compiled steps shared code, the second
    would record its graphs without a warm-up.
    """
    from benchmarks.gpu import rivals

    a, ready, go = networks(options)[0], *signals(options.json)
    for search in (True, False):
        way = replace(rivals.COMPILED[kind], search=search)
        contender = rivals.step(a, way, options)

        def prepare(contender: Contender = contender) -> tuple[Callable[[], object], str]:
            run, note = contender.prepare()
            ready.touch()
            while not go.exists():
                time.sleep(0.02)
            return run, note

        waits = replace(contender, prepare=prepare)
        with way.on():  # all along: steps switch to it and back
            if section.item(f"{a} {way}", partial(of_torch, waits, options)):
                return
        for file in (ready, go):
            file.unlink(missing_ok=True)


def signals(record: Path) -> tuple[Path, Path]:
    """Return the files by which a compiled step says that it is ready, and is told to go."""
    return record.with_suffix(".ready"), record.with_suffix(".go")
