"""Items ``blocks``: block shapes, ours alone or beside every way of PyTorch, in microseconds.

All are CUDA graphs that go through several sets of inputs, more than the L2 holds, so that launches
do not count. ``training`` is block, batch norm and ReLU, forward and backward, all
gradients; `ours.OurBlock` says what ours leaves to its neighbours and takes over from them.
PyTorch's graph of it is complete in itself.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.cpu import block_cases
from benchmarks.gpu import ours
from benchmarks.gpu.contenders import Contender, compete
from benchmarks.gpu.sections import Section
from igc_ref.bench import BlockCase
from igc_ref.spec.block import IGCSpec

L2_BYTES = 60e6  # an H100 and an H200 have 52 MB; inputs rotate through four times as much
MOST_SETS = 24
WIDE = slice(0, 5)  # of `cases`: plain_igc L24M2, the rest is L4M8
ROUNDS = 3  # turns of each contender: there are many


def cases(batch_size: int = 256, tiny: bool = False) -> list[BlockCase]:
    """Return every block shape of plain_igc L24M2 and L4M8, or two small ones."""
    found = [c for c in block_cases() if isinstance(c, BlockCase)]
    if tiny:
        found = [BlockCase(IGCSpec.square(2, 2), 6), BlockCase(IGCSpec(4, 8, 2, 4, stride=2), 6)]
    return [replace(case, batch_size=batch_size) for case in found]


def sets_for(numbers: int, tiny: bool = False) -> int:
    """Return through how many sets of `numbers` floats inputs must rotate to miss the L2."""
    return 2 if tiny else int(np.clip(np.ceil(4 * L2_BYTES / (numbers * 4)), 2, MOST_SETS))


def section(section: Section, which: str, options: Any) -> None:
    """Time our blocks of plain_igc L24M2 (``ours``), or one block, by number, beside PyTorch's."""
    found, alone = cases(options.batch, options.tiny), which == "ours"
    for case in found[WIDE] if alone else found[int(which) :][:1]:
        rivals = options.torch and not alone
        section.item(f"{case.name}{' alone' * alone}", partial(block, case, options, rivals))


def block(case: BlockCase, options: Any, beside: bool) -> dict[str, Any]:
    """Time one shape, beside PyTorch's or not; return variants by name, of each the contenders."""
    (work,) = case.works()
    sets = sets_for(work.inputs + work.outputs, options.tiny)
    contenders: dict[str, list[Contender]] = {v: [] for v in ours.VARIANTS}
    with ExitStack() as stack:
        for storage in ("float32", "float16"):
            backend = ours.make_backend(options.emulate, storage)
            stack.enter_context(backend.session())
            own, clock = ours.OurBlock(backend, case, sets), ours.clock(options.emulate)
            for variant, several in contenders.items():
                prepare = partial(ours.replayed, backend, getattr(own, variant), sets)
                name, exact = f"ours {storage}", storage == "float32"
                several.append(Contender(name, prepare, clock, sets, exact))
        if beside:
            from benchmarks.gpu import rivals

            for variant, contender in rivals.blocks(case, sets, options):
                contenders[variant].append(contender)
        alive, rounds = partial(ours.alive, options.emulate), min(options.rounds, ROUNDS)
        times = {v: compete(several, rounds, alive=alive) for v, several in contenders.items()}
    contenders.clear()
    alive()
    return {"sets": sets, **times}
