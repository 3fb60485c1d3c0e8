"""What `lease` runs, each in a process of its own; a name is a kind and what to do it with.

The process of an item writes a record of its own, ``FOLDER/NAME.json``, after every step of it. If
it is started again, it goes on after the step in which it died.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.gpu import blocks, check, ncu, ours, profile, steps, sweep
from benchmarks.gpu.sections import DeviceLostError, Record, Section
from igc_ref.backends import cupy_problem
from igc_ref.bench.record import available_threads, machine, output
from igc_ref.errors import describe

PACKAGES = ("numpy", "scipy", "cupy-cuda13x", "cupy-cuda12x", "torch", "triton", "pytest")
CARD = "name,driver_version,memory.total,clocks.max.sm,clocks.sm,power.limit,power.draw"
AHEAD = [  # what is compiled ahead: network by number or all blocks, storage
    (None, "float32"), (None, "float16"), *(run[:2] for run in steps.OURS if run[2]),
]  # fmt: skip
PROBED = 512  # MiB of a graph's pool

Body = Callable[[Section, str, Any], None]


def work(options: Any) -> int:
    """Run the item ``options.item``; return 0: all right, 1: something failed, 3: device lost."""
    kind, _, argument = options.item.partition(" ")
    section_name, body = BODIES[kind]
    section = Section(Record(options.json), section_name, lambda: ours.alive(options.emulate))
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
        section.items[options.item] = {"failed": describe(error)}
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
        if (text := output("nvidia-smi", "--format=csv,noheader", f"--query-gpu={CARD}")) is None:
            raise RuntimeError(nothing)
        section.record.values["machine"]["card"] = text
        return {CARD: text}

    about, nothing = machine(available_threads(), PACKAGES), "nvidia-smi does not answer"
    section.record.values["machine"] = about | {"card": nothing}
    section.item("problem", problem)
    section.item("card", card)
    section.item("pool", partial(pool, options.emulate))


def pool(emulate: bool) -> dict[str, Any]:
    """Take memory for a graph, and let it go."""
    backend, mib = ours.make_backend(emulate), {}
    with backend.session():
        mib["before"] = ours.free_bytes(emulate) >> 20
        memory = backend.device.memory()
        with memory():
            array = backend.xp.empty((1 if emulate else PROBED << 18,), "float32")
        mib["with a pool"] = ours.free_bytes(emulate) >> 20
        del array
        del memory
        mib["pool dropped"] = ours.free_bytes(emulate) >> 20
    lost = mib["before"] - mib["pool dropped"]
    return {"free MiB": mib, "passed": lost < PROBED // 2}


def compile_ahead(section: Section, number: str, options: Any) -> None:
    """Use kernels once, so that CuPy's cache on the disk has them when they are timed."""
    which, storage = AHEAD[int(number)]
    network = None if which is None else steps.networks(options)[which]
    backend = ours.make_backend(options.emulate, storage)

    def use() -> dict[str, Any]:
        with backend.session():
            if network is not None:
                ours.OurStep(backend, network, options.batch, 3)
                return {}
            for case in blocks.cases(options.batch, options.tiny)[blocks.WIDE]:
                own = ours.OurBlock(backend, case, 1)
                for variant in ours.VARIANTS:
                    getattr(own, variant)(0)
        return {}

    section.item(f"{network or 'blocks'} {storage}", use)


# -- what the package has anyway -------------------------------------------------------------------


def card_tests(section: Section, _: str, options: Any) -> None:
    """Run the tests that need a card."""
    tests = "tests/tools/test_house.py" if options.emulate else "tests/backends/cuda/test_gpu.py"
    section.item("tests", partial(command, options, "pytest", tests, "-x", "-q"))


def train(section: Section, _: str, options: Any) -> None:
    """Train on CIFAR-10, as many epochs as fit."""
    epochs = max(1, min(30, int((options.lease - 60) / 2)))
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
    "operators": ("check", check.operators),
    "training": ("check", check.training),
    "ahead": ("compiled ahead", compile_ahead),
    "step": ("steps", steps.our_step),
    "blocks": ("blocks", blocks.section),
    "floors": ("floors", profile.section),
    "tiles": ("tiles", sweep.section),
    "ncu": ("ncu", ncu.section),
    "eager": ("steps", steps.eager),
    "compile": ("steps", steps.compiled),
    "tests": ("second", card_tests),
    "train": ("second", train),
}
