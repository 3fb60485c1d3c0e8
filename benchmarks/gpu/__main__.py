"""Checks and timings of the cupy backend on an NVIDIA card, against float64 and PyTorch.

    python -m benchmarks.gpu --only check --budget 540 --json check.json
    python -m benchmarks.gpu --only blocks,steps,floors --budget 540 --json speed.json
    python -m benchmarks.gpu --show speed.json

Run it from the repository's root. It needs CuPy, NumPy, SciPy, tqdm and threadpoolctl; PyTorch if
it is to be measured. Sections, always in this order:

    check    every operator and some training runs against float64; the same bits every time
    blocks   every block shape of the paper's CIFAR networks: forward, forward and backward, and in
             training with batch norm and ReLU
    steps    whole training steps
    floors   what the card can do at best, measured; the time of a step kernel by kernel
    tiles    ten tiles of each block shape and pass

    python -m benchmarks.gpu --lease --json OUT/gpu.json
    python -m benchmarks.gpu --lease second --seconds 165 --json OUT/gpu-second.json

does everything that matters within 540 s, ours before PyTorch's, and prints a summary last; the
second call runs the tests that need a card or, with ``--data-dir DIR``, trains on CIFAR-10.
``--show`` prints the summary of a record too. Otherwise accuracy is measured by
``igc-ref train --backend cupy --data cifar10 --data-dir DIR``.

Each section runs in a process of its own: if a kernel kills the device, that process ends and
another one goes on after it. The JSON file is written anew after every item; `--resume` keeps what
it holds already, so that a second call goes on where the first one stopped.

``--emulate`` rehearses all of it at tiny sizes without a card: our kernels on the tests' emulator
(needs g++), PyTorch on the CPU, the wall clock for events. Such timings mean nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.gpu import blocks, items, lease, ours, steps, summary, tables
from benchmarks.gpu.floors import roofline_of
from benchmarks.gpu.sections import DeviceLostError, Record, Section
from igc_ref.bench.record import available_threads, machine, output
from igc_ref.report import say

SECTIONS = {  # name: module, share of the time
    "check": ("check", 3.0),
    "blocks": ("blocks", 4.0),
    "steps": ("steps", 4.0),
    "floors": ("profile", 1.0),
    "tiles": ("sweep", 2.0),
}
PACKAGES = ("numpy", "scipy", "cupy-cuda13x", "cupy-cuda12x", "torch", "triton")
CARD = "name,driver_version,memory.total,clocks.max.sm,power.limit"
RESTARTS = 5
LOST = 3  # exit status of a process whose device is lost


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    first, _, rest = str(__doc__).partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    add = (parser := argparse.ArgumentParser(
        "benchmarks.gpu", description=first, epilog=rest, formatter_class=raw
    )).add_argument  # fmt: skip
    add("--only", default=",".join(SECTIONS), metavar="A,B", help="sections, by name")
    add("--budget", type=float, default=3000, metavar="SECONDS", help="stop in time, skip the rest")
    add("--json", type=Path, default=Path("gpu.json"), metavar="FILE")
    add("--resume", action="store_true", help="keep what the file holds, do the rest")
    add("--show", type=Path, metavar="FILE", help="run nothing, print the tables of this file")
    add("--batch", type=int, help="images a batch; default 256, tiny 4")
    add("--rounds", type=int, help="turns of each contender; default 5, tiny 1")
    add("--seed", type=int, help="of the checks' inputs; default: drawn, and printed")
    add("--no-compile", dest="compile", action="store_false", help="without torch.compile")
    add("--no-float16", dest="float16", action="store_false", help="without storage in 16 bits")
    add("--no-torch", dest="torch", action="store_false", help="without PyTorch")
    add("--emulate", action="store_true", help="our kernels on the tests' emulator; tiny")
    add("--device", default=None, choices=("cuda", "cpu"), help="PyTorch's; cpu: tiny")
    add("--lease", nargs="?", const="first", default="", choices=("first", "second"),
        help="everything in 540 s; second: the card's tests, or CIFAR-10, in 165 s")  # fmt: skip
    add("--seconds", type=float, help="of a lease; its limits scale with it")
    add("--data-dir", type=Path, metavar="DIR", help="CIFAR-10, for --lease second")
    add("--item", help=argparse.SUPPRESS)  # of a lease: what this process is
    add("--plant", action="append", default=[], help=argparse.SUPPRESS)  # NAME:raise|hang|die|skip
    add("--worker", choices=list(SECTIONS), help=argparse.SUPPRESS)
    add("--until", type=float, default=float("inf"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.tiny = options.emulate or options.device == "cpu"
    options.device = options.device or ("cpu" if options.emulate else "cuda")
    options.compile &= not options.tiny
    options.torch &= find_spec("torch") is not None
    options.batch = options.batch or (4 if options.tiny else 256)
    options.rounds = options.rounds or (1 if options.tiny else 5)
    options.seed = int(time.time()) if options.seed is None else options.seed
    options.seconds = options.seconds or lease.SECONDS.get(options.lease)
    options.sections = [name for name in SECTIONS if name in options.only.split(",")]
    if unknown := set(options.only.split(",")) - set(SECTIONS):
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}; known: {', '.join(SECTIONS)}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections, each in a process of its own; return how many ended badly."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(arguments)
    if options.worker:
        return work(options.worker, options)
    if options.show:
        return show(Record(options.show), options)
    if options.lease:
        return items.work(options) if options.item else lease.main(options, arguments)
    start = time.time()
    if not options.resume:
        options.json.unlink(missing_ok=True)
    record = Record(options.json)
    card = output("nvidia-smi", "--format=csv,noheader", f"--query-gpu={CARD}")
    record.values["machine"] = machine(available_threads(), PACKAGES) | {"card": card}
    record.values["settings"] = {"arguments": arguments, "seed": options.seed}
    record.save()
    say(f"{record.values['machine']}\nseed {options.seed}; results in {options.json}")

    def process(name: str, until: float) -> int:
        command = [sys.executable, "-m", "benchmarks.gpu", *arguments, "--worker", name]
        command += ["--until", str(until), "--seed", str(options.seed)]
        try:
            return subprocess.run(command, timeout=max(1.0, until + 20 - time.time())).returncode
        except subprocess.TimeoutExpired:
            say(f"{name}: stopped, it has taken longer than its share of the time")
            return -1

    bad = run_all(options, start + options.budget, process)
    say(f"{time.time() - start:.0f} s; ended badly: {bad or 'none'}")
    return len(bad)


def run_all(
    options: argparse.Namespace, until: float, process: Callable[[str, float], int]
) -> list[str]:
    """Give every section its share of the time that is left; return those that ended badly."""
    bad = []
    for number, name in enumerate(options.sections):
        shares = [SECTIONS[later][1] for later in options.sections[number:]]
        now = time.time()
        own = now + max(0.0, until - now - 20) * shares[0] / sum(shares)
        say(f"\n==== {name} ({own - now:.0f} s)")
        for _ in range(RESTARTS):
            status = process(name, own)
            if status in (0, 1, -1) or time.time() > own:
                break
            say(f"{name}: its process ended with status {status}; another one goes on")
        if status:
            bad.append(name)
    return bad


def work(name: str, options: argparse.Namespace) -> int:
    """Run one section in this process; 0: all right, 1: something failed, 3: the device is lost."""
    record = Record(options.json)
    section = Section(record, name, options.until, lambda: ours.alive(options.emulate))
    try:
        import_module(f"benchmarks.gpu.{SECTIONS[name][0]}").section(section, options)
    except DeviceLostError as error:
        say(f"{name}: {error}")
        return LOST
    finally:
        record.save()
    return int(bool(section.failed()))


def show(record: Record, options: argparse.Namespace) -> int:
    """Print all tables of a record; ``--batch`` and the like are those that it was made with."""
    if "lease" in record.values["settings"]:
        say(summary.of(record))
        return 0
    say(f"{record.values['machine']}\n{record.values['settings']}")
    everything: dict[str, Any] = {}
    for section in list(record.values["sections"]):
        say(f"\n==== {section}")
        for name, value in record.items(section).items():
            say(tables.item(name, value))
            timings = {k: v for k, v in value.items() if isinstance(v, dict)}
            everything.setdefault(name, {}).update(timings)
    for table in (blocks.summary, steps.summary):
        say(table(everything, options, roofline_of(record)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
