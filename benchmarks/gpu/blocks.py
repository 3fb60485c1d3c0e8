"""Section ``blocks``: every block shape, ours against every way of PyTorch, in microseconds.

All are CUDA graphs that go through several sets of inputs, more than the L2 holds, so that launches
cost nobody anything. ``training`` is block, batch norm and ReLU, forward and backward, all
gradients; `ours.OurBlock` says what ours leaves to its neighbours and takes over from them.
PyTorch's graph of it is complete in itself.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.cpu import block_cases
from benchmarks.gpu import ours
from benchmarks.gpu.contenders import Contender, best, compete, ratio
from benchmarks.gpu.floors import block_floors, ceilings
from benchmarks.gpu.sections import Section, table
from igc_ref.bench import BlockCase, Roofline
from igc_ref.report import say
from igc_ref.spec.block import IGCSpec

L2_BYTES = 60e6  # of an H200: inputs rotate through four times as much
MOST_SETS = 24


def cases(batch_size: int = 256, tiny: bool = False) -> list[BlockCase]:
    """Return every block shape of plain_igc L24M2 and L4M8, or two small ones."""
    found = [c for c in block_cases() if isinstance(c, BlockCase)]
    if tiny:
        found = [BlockCase(IGCSpec.square(2, 2), 6), BlockCase(IGCSpec(4, 8, 2, 4, stride=2), 6)]
    return [replace(case, batch_size=batch_size) for case in found]


def sets_for(numbers: int, tiny: bool = False) -> int:
    """Return through how many sets of `numbers` floats inputs must rotate to miss the L2."""
    return 2 if tiny else int(np.clip(np.ceil(4 * L2_BYTES / (numbers * 4)), 2, MOST_SETS))


def section(section: Section, options: Any) -> None:
    """Time all blocks; print a table after each and a summary at the end."""
    roofline, found = ceilings(section, options), {}
    for case in cases(options.batch, options.tiny):
        if result := section.item(case.name, partial(block, case, options), 25):
            found[case] = result
            say(f"\n{case.name}, N = {case.batch_size}\n{lines(case, result, roofline)}")
    for variant in ours.VARIANTS:
        say(f"\n{variant}, N = {options.batch}, us\n{summary(found, variant, roofline)}")


def block(case: BlockCase, options: Any) -> dict[str, Any]:
    """Time one shape; return variants by name, of each the contenders."""
    (work,) = case.works()
    sets = sets_for(work.inputs + work.outputs, options.tiny)
    result: dict[str, Any] = {"sets": sets}
    contenders: dict[str, list[Contender]] = {v: [] for v in ours.VARIANTS}
    with ExitStack() as stack:
        for storage in ("float32", "float16")[: 1 + options.float16]:
            backend = ours.make_backend(options.emulate, storage)
            stack.enter_context(backend.session())
            own, clock = ours.OurBlock(backend, case, sets), ours.clock(options.emulate)
            for variant, several in contenders.items():
                run, note = ours.replayed(backend, getattr(own, variant), sets)
                exact = storage == "float32"
                several.append(Contender(f"ours {storage}", run, clock, sets, exact, note))
        if options.torch:
            _add_torch(case, sets, options, contenders)
        for variant, several in contenders.items():
            result[variant] = compete(several, options.rounds)
    contenders.clear()
    if options.torch:
        from benchmarks.gpu import rivals

        rivals.clean()
    return result


def _add_torch(case: BlockCase, sets: int, options: Any, contenders: Any) -> None:
    """Add PyTorch's contenders; one that cannot even be captured is named and left out."""
    from benchmarks.gpu import rivals

    inputs, clock = rivals.Blocks(case, sets, options.device), rivals.clock(options.device)
    for way in rivals.EAGER[:: 4 if options.tiny else 1]:
        for variant, f in inputs.functions(way).items():
            try:
                run = rivals.graphed(f, sets, options.device)
            except Exception:
                traceback.print_exc()
                say(f"{case.name}: {way} {variant} failed")
                continue
            contenders[variant].append(Contender(str(way), run, clock, sets, exact=not way.tf32))
    try:
        contenders["forward"] += inputs.dense()
    except Exception:
        traceback.print_exc()


def lines(case: BlockCase, result: dict[str, Any], roofline: Roofline | None) -> str:
    """Return the table of one shape: all contenders, all variants."""
    floors = block_floors(case, roofline)
    names = dict.fromkeys(name for variant in ours.VARIANTS for name in result[variant])
    rows = [[name, *(_cell(result[v].get(name)) for v in ours.VARIANTS)] for name in names]
    floor = ["floor", *(floors.get(v) for v in ours.VARIANTS)]
    return table(["us (10 % to 90 %)", *ours.VARIANTS], floor, *rows)


def _cell(value: dict[str, Any] | None) -> str | None:
    if value is None:
        return None
    return (
        f"{value['us']:.1f} ({value['p10']:.1f}-{value['p90']:.1f})" if "us" in value else "failed"
    )


def summary(found: dict[BlockCase, Any], variant: str, roofline: Roofline | None) -> str:
    """Return one line a shape: ours, its floor, and the rivals over ours."""
    head = ["block", "floor", "ours", "ours/floor", "ours f16", "exact torch/ours"]
    head += ["any torch/ours", "dense TF32/ours", "dense bf16/ours", "best torch"]
    return table(head, *_summary(found, variant, roofline))


def _summary(found: Any, variant: str, roofline: Roofline | None) -> Iterator[list[Any]]:
    for case, result in found.items():
        times, least = result[variant], block_floors(case, roofline).get(variant)
        mine, half = (times.get(f"ours float{bits}", {}).get("us") for bits in (32, 16))
        name, quickest = best(times, "torch")
        rivals = [best(times, "torch", exact=True)[1], quickest]
        rivals += [best(times, s)[1] for s in ("dense TF32", "dense bf16")]
        over = [ratio(time, mine) for time in rivals]
        yield [case.name, least, mine, ratio(mine, least), half, *over, name]
