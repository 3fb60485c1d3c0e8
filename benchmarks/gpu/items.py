"""What `lease` runs, each in a process of its own; a name is a kind and what to do it with.

The process of an item writes a record of its own, ``FOLDER/NAME.json``, after every step of it. If
it is started again, it goes on after the step in which it died.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import blocks, check, energy, ncu, ours, profile, steps
from benchmarks.gpu.contenders import Contender, compete
from benchmarks.gpu.floors import ceilings
from benchmarks.gpu.sections import DeviceLostError, Record, Section
from igc_ref.backends import cupy_problem
from igc_ref.bench.record import available_threads, machine

PACKAGES = ("numpy", "scipy", "cupy-cuda13x", "cupy-cuda12x", "torch", "triton", "pytest")
CARD = "name,driver_version,memory.total,clocks.max.sm,clocks.sm,power.limit,power.draw"
SHARES = 8  # processes that divide up the checks of operators
OURS = (  # network by number, storage, captured
    (0, "float32", True), (0, "float32", False), (0, "float16", True),
    (1, "float32", True), (2, "float32", True),
)  # fmt: skip
PROBED = 512  # MiB of a graph's pool
BLOCK_ROUNDS = 3  # turns of each contender: there are many

Body = Callable[[Section, str, Any], None]


def networks(options: Any) -> Any:
    """Return plain_igc-20 L24M2, plain_igc-20 L4M8, resnet_igc-50 L24M2; a tiny one for each."""
    return steps.TINY * 3 if options.tiny else steps.NETWORKS[:3]


def wide_blocks(options: Any) -> Any:
    """Return the block shapes of plain_igc L24M2."""
    return [c for c in blocks.cases(options.batch, options.tiny) if options.tiny or c.spec.L == 24]


def work(options: Any) -> int:
    """Run the item ``options.item``; return 0: all right, 1: something failed, 3: device lost."""
    kind, _, argument = options.item.partition(" ")
    section_name, body = BODIES[kind]
    section = Section(Record(options.json), section_name, alive=lambda: ours.alive(options.emulate))
    try:
        if fault := dict(p.rsplit(":", 1) for p in options.plant).get(options.item):
            section.item(f"planted in {options.item}", partial(plant, fault))
        if fault != "skip":
            body(section, argument, options)
    except DeviceLostError as error:
        print(error, flush=True)
        return 3
    except Exception as error:
        traceback.print_exc()
        section.items[options.item] = {"failed": f"{type(error).__name__}: {error}"[:2000]}
        section.record.save()
    return int(bool(section.failed()))


def plant(fault: str) -> dict[str, Any]:
    """Do what the rest of a rehearsal must survive."""
    if fault == "raise":
        raise RuntimeError("planted")
    if fault == "die":
        os.abort()
    if fault == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.run(["sleep", "100000"])  # its child has to end with it
    return {}


# -- the machine -----------------------------------------------------------------------------------


def probe(section: Section, _: str, options: Any) -> None:
    """Say what machine this is, whether the backend runs, whether a graph's pool is given back."""

    def problem() -> dict[str, Any]:
        if not options.emulate and (text := cupy_problem()):
            raise RuntimeError(text)
        return {"backend": "runs"}

    def card() -> dict[str, Any]:
        command = ["nvidia-smi", "--format=csv,noheader", f"--query-gpu={CARD}"]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=15)
        section.record.values["machine"]["card"] = text.stdout.strip()
        return {CARD: text.stdout.strip()}

    about = machine(available_threads(), PACKAGES)
    section.record.values["machine"] = about | {"card": "nvidia-smi does not answer"}
    section.item("problem", problem)
    section.item("card", card)
    section.item("pool", partial(pool, options.emulate))


def free_bytes(emulate: bool) -> int:
    """Return the free memory of the card."""
    if emulate:
        return 0
    import cupy

    cupy.cuda.Device().synchronize()
    return int(cupy.cuda.runtime.memGetInfo()[0])


def pool(emulate: bool) -> dict[str, Any]:
    """Take memory for a graph, and let it go."""
    backend, mib = ours.make_backend(emulate), {}
    with backend.session():
        mib["before"] = free_bytes(emulate) >> 20
        memory = backend.device.memory()
        with memory():
            array = backend.xp.empty((1 if emulate else PROBED << 18,), "float32")
        mib["with a pool"] = free_bytes(emulate) >> 20
        del array
        del memory
        mib["pool dropped"] = free_bytes(emulate) >> 20
    lost = mib["before"] - mib["pool dropped"]
    return {"free MiB": mib, "passed": lost < PROBED // 2}


# -- ours ------------------------------------------------------------------------------------------


def compile_ahead(section: Section, argument: str, options: Any) -> None:
    """Use kernels once, so that CuPy's cache on the disk has them when they are timed."""
    number = int(argument)
    storages = ("float32", "float16")

    def step(a: Any, storage: str) -> dict[str, Any]:
        backend = ours.make_backend(options.emulate, storage)
        with backend.session():
            ours.OurStep(backend, a, options.batch, 3)
        return {}

    def block(storage: str) -> dict[str, Any]:
        backend = ours.make_backend(options.emulate, storage)
        with backend.session():
            for case in wide_blocks(options):
                own = ours.OurBlock(backend, case, 1)
                for variant in ours.VARIANTS:
                    getattr(own, variant)(0)
        return {}

    if number < len(storages):
        section.item(f"blocks {storages[number]}", partial(block, storages[number]))
        return
    which, storage, _ = WARM[number - len(storages)]
    a = networks(options)[which]
    section.item(f"{a} {storage}", partial(step, a, storage))


WARM = [run for run in OURS if run[2]]
AHEAD = len(WARM) + 2


def check_operators(section: Section, argument: str, options: Any) -> None:
    """Run a share of the checks of operators."""
    check.operators(section, options, slice(int(argument), None, SHARES))


def check_training(section: Section, argument: str, options: Any) -> None:
    """Check training of a network."""
    several = check.TINY * 3 if options.tiny else check.NETWORKS
    check.training(section, several[int(argument)], options)


def measured(contender: Contender, options: Any, memory: Callable[[], int]) -> dict[str, Any]:
    """Time one contender by itself; measure the energy of a loop, and what memory it takes."""
    run, note = contender.prepare()
    again = replace(contender, prepare=lambda: (run, note))
    times = compete([again], options.rounds, steps.SECONDS_A_TURN)
    if "failed" in times[contender.name]:
        raise RuntimeError(times[contender.name]["failed"])
    seconds = 0.01 if options.tiny else energy.SECONDS
    used = energy.of_loop(run, contender.clock.wait, contender.units, seconds)
    return {"times": times, "energy": used, "MiB": memory() >> 20}  # while `run` is alive


def our_step(section: Section, argument: str, options: Any) -> None:
    """Time our training step of a network."""
    which, storage, capture = OURS[int(argument)]
    a = networks(options)[which]

    def step() -> dict[str, Any]:
        backend = ours.make_backend(options.emulate, storage, capture)
        with backend.session():
            before = free_bytes(options.emulate)
            contender = steps.our_step(backend, a, storage, options)
            return measured(contender, options, lambda: before - free_bytes(options.emulate))

    section.item(f"{a} ours {storage}{'' if capture else ' uncaptured'}", step)


def floors(section: Section, _: str, options: Any) -> None:
    """Measure what the card can do at best, and the kernels of two steps."""
    ceilings(section, options)
    for a in dict.fromkeys(networks(options)[:2]):
        section.item(f"kernels {a}", partial(profile.profile, a, options))


def tiles(section: Section, _: str, options: Any) -> None:
    """Sweep the tiles."""
    from benchmarks.gpu import sweep

    sweep.section(section, options)


def counters(section: Section, argument: str, options: Any) -> None:
    """Let Nsight Compute profile a few blocks: run it, or be what it runs."""
    if argument == "target":
        ncu.target(options)
    else:
        section.item("counters", partial(ncu.counters, options))


# -- rivals ----------------------------------------------------------------------------------------


def eager(section: Section, layout: str, options: Any) -> None:
    """Time PyTorch's eager step in a memory format, as such and captured by hand."""
    from benchmarks.gpu import rivals

    a = networks(options)[0]
    for way in [way for way in rivals.EAGER if way.layout == layout and way.search]:
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
    fails.
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


def time_blocks(section: Section, who: str, options: Any) -> None:
    """Time our blocks, alone or beside PyTorch's."""
    alone = who == "ours"
    options.torch &= not alone
    options.rounds = min(options.rounds, BLOCK_ROUNDS)
    for case in wide_blocks(options):
        name = f"{case.name}{' alone' * alone}"
        section.item(name, partial(blocks.block, case, options))


# -- the second call -------------------------------------------------------------------------------


def card_tests(section: Section, _: str, options: Any) -> None:
    """Run the tests that need a card."""
    tests = "tests/tools/test_house.py" if options.emulate else "tests/backends/cuda/test_gpu.py"
    section.item("tests", partial(command, options, "pytest", tests, "-x", "-q"))


def train(section: Section, _: str, options: Any) -> None:
    """Train on CIFAR-10, as many epochs as fit."""
    epochs = max(1, min(30, int((options.seconds - 60) / 2)))
    what = ["--backend", "cupy", "--data", "cifar10", "--data-dir", str(options.data_dir)]
    what += ["--recipe", "fast", "--arch", "plain_igc", "--depth", "20", "-L", "24", "-M", "2"]
    if options.emulate:
        epochs, what = 1, ["--backend", "numpy", "--depth", "5", "-L", "2", "-M", "2"]
    what += ["--epochs", str(epochs), "--out", str(options.json.with_suffix(""))]
    section.item("train", partial(command, options, "igc_ref", "train", *what))


def command(options: Any, *arguments: str) -> dict[str, Any]:
    """Run a module of Python; its output goes to this process's, its last lines into the record."""
    log = options.json.with_suffix(".output.txt")
    with log.open("w") as file:
        environment = os.environ | {"IGC_GPU": "" if options.emulate else "1"}
        done = subprocess.run(
            [sys.executable, "-m", *arguments], stdout=file, stderr=file, env=environment
        )
    lines = log.read_text().splitlines()[-10:]
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: " + "\n".join(lines))
    return {"lines": lines}


BODIES: dict[str, tuple[str, Body]] = {  # kind of an item: its section in the record, what it does
    "probe": ("probe", probe),
    "operators": ("check", check_operators),
    "training": ("check", check_training),
    "ahead": ("compiled ahead", compile_ahead),
    "step": ("steps", our_step),
    "floors": ("floors", floors),
    "tiles": ("tiles", tiles),
    "ncu": ("ncu", counters),
    "eager": ("steps", eager),
    "compile": ("steps", compiled),
    "blocks": ("blocks", time_blocks),
    "tests": ("second", card_tests),
    "train": ("second", train),
}
