"""Checks and timings of the cupy backend on an NVIDIA card, against float64 and PyTorch.

    python -m benchmarks.gpu --json OUT/gpu.json
    python -m benchmarks.gpu --only operators,training,"step 3" --json OUT/gpu.json
    python -m benchmarks.gpu --show OUT/gpu.json

Run it from the repository's root. It needs CuPy, NumPy, SciPy, tqdm and threadpoolctl; PyTorch if
it is to be measured. The first call does everything that matters within 540 s, ours before
PyTorch's, and prints a summary last; the second one does some of it, or what follows *more* below,
without a limit for each item. Items, each a process of its own, by kind:

    probe      the machine (always)
    operators  every operator against float64; the same bits every time
    training   training runs against float64; the same bits every time
    ahead      kernels are compiled for what follows
    step       our training steps, with energy and memory
    blocks     blocks of the paper's CIFAR networks, forward, forward and backward, and in training
               with batch norm and ReLU: ``ours`` alone, 0 to 4 beside PyTorch; more: 5 to 9, L4M8
    floors     what the card can do at best, measured; the time of a step kernel by kernel
    tiles      ten tiles of each block shape and pass
    ncu        counters of Nsight Compute
    eager      PyTorch's steps by memory format; more: of plain_igc-20 L4M8
    compile    steps of torch.compile
    tests      more: the tests that need a card
    train      more: training on CIFAR-10, as many epochs as fit, with ``--data-dir DIR``

The JSON file is written anew after every item. Beside it there is one archive, ``OUT/gpu.tar.gz``,
with what every item printed and the summary.

``--emulate`` rehearses all of it at tiny sizes without a card: our kernels on the tests' emulator
(needs g++), PyTorch on the CPU, the wall clock for events. Such timings mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu import items, lease, summary
from benchmarks.gpu.sections import Record
from igc_ref.report import say


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    first, _, rest = str(__doc__).partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    add = (parser := argparse.ArgumentParser(
        "benchmarks.gpu", description=first, epilog=rest, formatter_class=raw
    )).add_argument  # fmt: skip
    add("--only", type=lambda text: text.split(","), default=[], metavar="A,B",
        help="items or kinds of items; default: all but what follows *more*")  # fmt: skip
    add("--lease", type=float, nargs="?", const=lease.SECONDS, default=lease.SECONDS,
        metavar="SECONDS", help="all of it; the limits of items scale; default 540")  # fmt: skip
    add("--json", type=Path, default=Path("gpu.json"), metavar="FILE")
    add("--show", type=Path, metavar="FILE", help="run nothing, print the summary of this file")
    add("--batch", type=int, help="images a batch; default 256, tiny 4")
    add("--seed", type=int, help="of the checks' inputs; default: drawn; the record has it")
    add("--data-dir", type=Path, metavar="DIR", help="CIFAR-10, for --only train")
    add("--emulate", action="store_true", help="our kernels on the tests' emulator; tiny")
    add("--item", help=argparse.SUPPRESS)  # what this process is
    add("--plant", action="append", default=[], help=argparse.SUPPRESS)  # NAME:raise|hang|die|skip
    options = parser.parse_args(arguments)
    if unknown := set(options.only) - lease.KNOWN:
        known = ", ".join(items.BODIES)
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}; kinds of items: {known}")
    options.tiny = options.emulate
    options.device = "cpu" if options.emulate else "cuda"  # PyTorch's
    options.torch = find_spec("torch") is not None
    options.batch = options.batch or (4 if options.tiny else 256)
    options.rounds = 1 if options.tiny else 5  # turns of each contender
    options.seed = int(time.time()) if options.seed is None else options.seed
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a lease, be an item of one, or print the summary of one; return how many items failed."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(arguments)
    if options.item:
        return items.work(options)
    if options.show:
        say(summary.of(Record(options.show)))
        return 0
    return lease.main(options, arguments)


if __name__ == "__main__":
    sys.exit(main())
