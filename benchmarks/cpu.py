"""Every block shape of the paper's networks, and whole training steps, against PyTorch on a CPU.

    python -m benchmarks.cpu --json benchmarks/results/cpu.json

Needs the extra ``bench`` (PyTorch, numba). Every contender has a process of its own, warmed up;
then they take turns. The roofline is measured before and after; the better of both counts. With
two cores and everything compiled, expect half an hour; ``--blocks`` or ``--steps`` and
``--without compile`` shorten it.
"""

from __future__ import annotations

import argparse
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
from igc_ref.errors import integer
from igc_ref.files import writable
from igc_ref.networks.architecture import Architecture
from igc_ref.report import markdown, say
from igc_ref.spec.block import IGCSpec


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


def step_cases() -> list[Case]:
    """Return the networks whose training steps are compared."""
    return [
        StepCase(Architecture("plain_igc", 20, L=24, M=2)),
        StepCase(Architecture("plain_igc", 20, L=4, M=8)),
        StepCase(Architecture("plain_igc", 8, L=4, M=8)),
        StepCase(Architecture("resnet_igc", 50, L=24, M=2)),
        StepCase(Architecture("plain", 20, width=16)),
    ]


def main() -> None:
    """Run the comparison, print it case by case, write JSON on request."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", action="store_true", help="blocks only")
    parser.add_argument("--steps", action="store_true", help="training steps only")
    parser.add_argument(
        "--without", nargs="*", default=[], metavar="WORD", help="leave out contenders"
    )
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    integer("threads", options.threads, maximum=available_threads())
    cases = (block_cases() if not options.steps else []) + (
        step_cases() if not options.blocks else []
    )
    if options.json:
        writable(options.json)
    names = [n for n in contenders() if not any(word in n for word in options.without)]
    first = measure(options.threads)
    comparisons = []
    for case in cases:
        comparisons.append(time_case(case, names, options.threads, options.rounds))
        say("\n".join([*comparisons[-1].lines(first), ""]))
        if options.json:
            write_comparisons(options.json, comparisons, first, options.threads)
    roofline = Roofline(*map(max, first, measure(options.threads)))
    say(f"copy {roofline.bandwidth / 1e9:.1f} GB/s, GEMM {roofline.flops / 1e9:.0f} GFLOP/s")
    if any(c.best_of_torch() for c in comparisons):
        say(summary(comparisons))
    if options.json:
        write_comparisons(options.json, comparisons, roofline, options.threads)


def summary(comparisons: list[Comparison]) -> str:
    """Return one line a case: numba's time beside PyTorch's best, and both peaks, as Markdown."""
    rows = [["case", "numba ms", "PyTorch's best ms", "ratio", "numba MB", "PyTorch MB"]]
    for c in comparisons:
        best, peak, numba = c.best_of_torch(), c.torch_peak(), c.measured.get("numba")
        if best and peak is not None and numba:
            ms, theirs = numba.both * 1e3, c.measured[best].both * 1e3
            rows.append([
                c.case.name, f"{ms:.1f}", f"{theirs:.1f} ({best[6:]})", f"{theirs / ms:.2f}",
                f"{numba.peak / 1e6:.0f}", f"{peak / 1e6:.0f}",
            ])  # fmt: skip
    return markdown(rows)


if __name__ == "__main__":
    main()
