"""Blocks and whole networks of the paper on a CPU: numba against PyTorch and other libraries.

    python -m benchmarks.cpu --json benchmarks/results/cpu.json
    python -m benchmarks.cpu --cliffs

Needs the extra ``bench`` (PyTorch, numba); with the extra ``rivals`` also ONNX Runtime and OpenVINO
(forward passes) and JAX (blocks) compete. Every contender has a process of its own, warmed up; then
they take turns. One that fails or needs more than ``--limit`` seconds for a turn becomes a line
below its table. The roofline is measured before and after; the better of both counts.

A block's batch lies in each library's own layout, as inside a network: ours interleaved, PyTorch's
in the format that is named, NCHW for the others. A network's forward pass goes from an array of
images (NCHW) to logits, in evaluation mode: ``Model.forward``.

How long it takes on two cores that do nothing else (estimates, from single cases):

* everything: about an hour. ``--blocks``, ``--steps``, ``--forward``, ``--only WORD`` and
  ``--without compile jax`` shorten it; every further ``--batch`` size takes as long again. JAX may
  need five minutes for a block, so it competes in the first case of each size only;
* ``--cliffs``: 7 minutes. These are the shapes at which some backend was slow: single images and
  batches that are no multiple of 16, few or many groups, 1024 channels, images of 224 x 224. One
  thread, short turns, numba against PyTorch's eager ways and ONNX Runtime; ``--without numpy jax``
  instead lets the compiled ways and OpenVINO compete as well.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from igc_ref.bench import (
    BlockCase,
    Case,
    Comparison,
    Roofline,
    StepCase,
    available_threads,
    contenders,
    measure,
    time_case,
    write_comparisons,
)
from igc_ref.bench.harness import LIMIT, SECONDS_A_TURN
from igc_ref.bench.rivals import RIVALS
from igc_ref.errors import IGCError, SpecError, integer, one_line
from igc_ref.files import writable
from igc_ref.networks.architecture import Architecture
from igc_ref.report import markdown, say
from igc_ref.spec.block import IGCSpec

PLAIN = [
    Architecture("plain_igc", 20, L=24, M=2),
    Architecture("plain_igc", 20, L=4, M=8),
    Architecture("plain", 20, width=16),
]
CLIFF_TURN = 0.1  # seconds
CLIFF_BLOCKS = [  # batch, L, M, kernel, stride, size
    (1, 24, 2, 3, 1, 32), (17, 24, 2, 3, 1, 32), (64, 24, 2, 3, 1, 32),
    (1, 4, 8, 3, 1, 32), (17, 4, 8, 3, 1, 32), (64, 4, 8, 3, 1, 32),
    (17, 32, 1, 3, 1, 32), (64, 32, 1, 3, 1, 32), (64, 128, 1, 3, 1, 16), (64, 1024, 1, 3, 1, 8),
    (64, 1, 32, 3, 1, 32), (64, 1, 64, 3, 1, 16), (64, 1, 128, 1, 1, 16), (64, 1, 256, 3, 1, 8),
    (16, 4, 32, 3, 1, 28), (16, 2, 512, 3, 1, 4), (64, 32, 32, 3, 1, 8), (64, 16, 16, 3, 1, 7),
    (1, 16, 16, 3, 1, 56), (4, 4, 8, 3, 1, 224), (64, 4, 8, 3, 4, 32), (64, 8, 8, 7, 1, 32),
]  # fmt: skip


def block_cases() -> list[Case]:
    """Return the blocks of plain_igc L24M2 and L4M8, stage by stage, with their transitions."""
    cases: list[Case] = []
    for L, M in ((24, 2), (4, 8)):
        for stage, size in enumerate((32, 16, 8)):
            m = M * 2**stage
            if stage:
                cases.append(BlockCase(IGCSpec(L * m // 2, L * m, L, m, stride=2), 2 * size))
            cases.append(BlockCase(IGCSpec.square(L, m), size))
    return cases


def network_cases(train: bool) -> list[Case]:
    """Return the networks whose training steps, or forward passes, are compared."""
    wide, narrow, regular = PLAIN
    short = Architecture("plain_igc", 8, L=4, M=8)
    deep = Architecture("resnet_igc", 50, L=24, M=2)
    return [StepCase(a, train=train) for a in (wide, narrow, short, deep, regular)]


def cliff_cases() -> list[Case]:
    """Return the shapes at which a backend once was slower than PyTorch, or may become so."""
    cases: list[Case] = []
    for N, L, M, kernel, stride, size in CLIFF_BLOCKS:
        spec = IGCSpec(L * M, L * M, L, M, kernel_size=kernel, stride=stride)
        cases.append(BlockCase(spec, size, N))
    imagenet = Architecture("imagenet_igc", 18, L=4, M=32)
    networks = [(a, N) for a in PLAIN for N in (1, 17, 64)] + [(imagenet, 1)]
    return cases + [StepCase(a, N, train) for a, N in networks for train in (False, True)]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--blocks", action="store_true", help="blocks only")
    add("--steps", action="store_true", help="training steps only")
    add("--forward", action="store_true", help="forward passes of networks only")
    add("--cliffs", action="store_true", help="shapes at which backends are slow; see above")
    add("--batch", type=int, nargs="+", metavar="N", help="batch sizes, as 1 16 64 256; default 64")
    add("--only", metavar="WORD", help="cases with this in their names, as 'L24M2' or 'batch 1'")
    add("--without", nargs="*", metavar="WORD", help="leave out contenders")
    add("--threads", type=int, metavar="N", help="default all cores; with --cliffs 1")
    add("--rounds", type=int, metavar="N", help="turns of each; default 7, with --cliffs 3")
    add("--limit", type=int, metavar="SECONDS", default=int(LIMIT), help="default %(default)s")
    add("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def main() -> None:
    """Run the comparison, print it case by case, write JSON on request."""
    try:
        run(parse())
    except (IGCError, OSError) as error:
        raise SystemExit(f"error: {one_line(error, 2000)}") from None


def run(options: argparse.Namespace) -> None:
    """Check the options, measure, print, write."""
    threads, rounds, without = options.threads, options.rounds, options.without
    if options.cliffs:
        threads, rounds = 1 if threads is None else threads, 3 if rounds is None else rounds
        without = ["numpy", "compile", "openvino", "jax"] if without is None else without
    most = available_threads()
    threads = integer("threads", most if threads is None else threads, maximum=most)
    rounds, limit = (
        integer("rounds", 7 if rounds is None else rounds),
        integer("limit", options.limit),
    )
    cases = chosen(options)
    names = [n for n in contenders() if not any(word in n for word in without or [])]
    if not names:
        raise SpecError(f"--without {' '.join(without)} leaves no contender")
    if options.json:
        writable(options.json)
    first = measure(threads)
    comparisons: list[Comparison] = []
    for case in cases:
        able, turn = contenders(case), CLIFF_TURN if options.cliffs else SECONDS_A_TURN
        known = any(c.case.batch_size == case.batch_size for c in comparisons)
        here = [n for n in names if n in able and not (known and n == "jax")]
        comparisons.append(time_case(case, here, threads, rounds, turn, limit))
        say("\n".join([*comparisons[-1].lines(first), ""]))
        if options.json:
            write_comparisons(options.json, comparisons, first, threads)
    roofline = Roofline(*map(max, first, measure(threads)))
    say(f"copy {roofline.bandwidth / 1e9:.1f} GB/s, GEMM {roofline.flops / 1e9:.0f} GFLOP/s")
    say(summary(comparisons))
    if options.json:
        write_comparisons(options.json, comparisons, roofline, threads)


def chosen(options: argparse.Namespace) -> list[Case]:
    """Return the cases that the command line asks for."""
    if options.cliffs:
        if options.batch or options.blocks or options.steps or options.forward:
            raise SpecError("--cliffs has cases of its own: choose some of them by --only")
        cases = cliff_cases()
    else:
        every = not (options.blocks or options.steps or options.forward)
        cases = block_cases() if every or options.blocks else []
        cases += network_cases(train=True) if every or options.steps else []
        cases += network_cases(train=False) if every or options.forward else []
        sizes = [integer("batch", N) for N in options.batch or [64]]
        cases = [replace(case, batch_size=N) for N in sizes for case in cases]
    found = [case for case in cases if not options.only or options.only in title(case)]
    if not found:
        raise SpecError(f"no case has {options.only!r} in its name, such as {title(cases[0])!r}")
    return found


def title(case: Case) -> str:
    """Name a case and its batch size."""
    return f"{case.name}, batch {case.batch_size}"


def summary(comparisons: list[Comparison]) -> str:
    """Return a line for each pass of each case as Markdown, and below it where numba is slower."""
    others = [name for name in RIVALS if any(name in c.measured for c in comparisons)]
    rows = [["case", "pass", "numba ms", "PyTorch's best ms", *(f"{name} ms" for name in others),
             "ratio", "numba MB", "PyTorch MB"]]  # fmt: skip
    slower: dict[str, list[str]] = {name: [] for name in ("PyTorch's best", *others)}
    for c in comparisons:
        for kind in ("forward", "both"):
            seconds, best, peak = c.seconds(kind), c.best_of_torch(kind), c.torch_peak()
            if "numba" not in seconds or best is None or peak is None:
                continue
            times = {"PyTorch's best": seconds[best]} | {n: seconds.get(n) for n in others}
            for name, time in times.items():
                if time is not None and time < seconds["numba"]:
                    slower[name].append(f"{title(c.case)}, {kind} ({time / seconds['numba']:.2f})")
            cells = ["" if times[name] is None else f"{times[name] * 1e3:.2f}" for name in others]
            rows.append([
                title(c.case), kind, f"{seconds['numba'] * 1e3:.2f}",
                f"{seconds[best] * 1e3:.2f} ({best[6:]})", *cells,
                f"{seconds[best] / seconds['numba']:.2f}",
                f"{c.measured['numba'].peak / 1e6:.0f}", f"{peak / 1e6:.0f}",
            ])  # fmt: skip
    if len(rows) == 1:
        return "numba and PyTorch did not both compete: no ratios"
    lines = [markdown(rows), "ratio: how many times as fast as PyTorch's best numba is"]
    for name, titles in slower.items():
        lines += [
            f"slower than {name}: {len(titles)} of {len(rows) - 1}",
            *(f"  {t}" for t in titles),
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
