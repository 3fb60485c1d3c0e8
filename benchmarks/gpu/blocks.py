"""Section ``blocks``: every block shape, ours against every way of PyTorch, in microseconds.

All are CUDA graphs that go through several sets of inputs, more than the L2 holds, so that launches
cost nobody anything. ``training`` is block, batch norm and ReLU, forward and backward, all
gradients; `ours.OurBlock` says what ours leaves to its neighbours and takes over from them.
PyTorch's graph of it is complete in itself.
"""

from __future__ import annotations

import traceback
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.cpu import block_cases
from benchmarks.gpu import ours, tables
from benchmarks.gpu.contenders import Contender, compete
from benchmarks.gpu.floors import block_floors, ceilings
from benchmarks.gpu.sections import Section
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
    """Time all blocks."""
    roofline = ceilings(section, options)
    for case in cases(options.batch, options.tiny):
        section.item(case.name, partial(block, case, options), 25)
    say(summary(section.items, options, roofline))


def summary(items: dict[str, Any], options: Any, roofline: Roofline | None) -> str:
    """Return a line for every block and variant that has been timed."""
    timed = {}
    for case in cases(options.batch, options.tiny):
        floors, found = block_floors(case, roofline), items.get(case.name, {})
        timed |= {
            f"{case.name} {v}": (found[v], floors.get(v)) for v in ours.VARIANTS if v in found
        }
    return tables.summary(f"blocks, N = {options.batch}", timed)


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
