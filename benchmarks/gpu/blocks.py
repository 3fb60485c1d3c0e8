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
from importlib.util import find_spec
from typing import Any

from benchmarks.gpu import ours
from benchmarks.gpu.clock import Contender, best, compete, only, ratio, sets_for
from benchmarks.gpu.floors import block_floors, block_work, cases
from benchmarks.gpu.record import Section, say, table
from igc_ref.bench import BlockCase
from igc_ref.errors import BackendError

COMPILED_FIRST = 3  # shapes for which torch.compile is tried: a minute each


def section(section: Section, options: Any) -> None:
    """Time all blocks; print a table after each and a summary at the end."""
    found = {}
    for number, case in enumerate(cases(options.batch, options.tiny)):
        compiled = options.compile and number < COMPILED_FIRST
        result = section.item(
            case.name, lambda c=case, k=compiled: block(c, options, k), 120 if compiled else 25
        )
        if result:
            found[case] = result
            say(f"\n{case.name}, N = {case.batch_size}", lines(case, result))
    for variant in ours.VARIANTS:
        say(f"\n{variant}, N = {options.batch}, us", summary(found, variant))


def block(case: BlockCase, options: Any, compiled: bool) -> dict[str, Any]:
    """Time one shape; return variants by name, of each the contenders."""
    work = block_work(case)
    sets = sets_for(work.inputs + work.outputs, tiny=options.tiny)
    result: dict[str, Any] = {"sets": sets}
    contenders: dict[str, list[Contender]] = {v: [] for v in ours.VARIANTS}
    with ExitStack() as stack:
        for storage in ("float32", "float16")[: 1 + options.float16]:
            _add_ours(case, storage, sets, options, contenders, stack)
        if options.torch and find_spec("torch"):
            result["dense errors"] = _add_torch(case, sets, options, compiled, contenders)
        for variant, several in contenders.items():
            result[variant] = compete(several, options.rounds)
    contenders.clear()
    if options.torch and find_spec("torch"):
        from benchmarks.gpu import rivals

        rivals.clean()
    return result


def _add_ours(
    case: BlockCase, storage: str, sets: int, options: Any, contenders: Any, stack: ExitStack
) -> None:
    backend = ours.make_backend(options.emulate, storage)
    stack.enter_context(backend.session())
    case_block = ours.OurBlock(backend, case, sets)
    for variant in ours.VARIANTS:
        f, name, note = getattr(case_block, variant), f"ours {storage}", ""
        try:
            run = ours.replayed(backend, f, sets)
        except BackendError as error:  # an operator of the library: no graph
            run, note = ours.one_by_one(f, sets), f"no graph: {error}"
        clock = ours.clock(options.emulate)
        exact = storage == "float32"
        contenders[variant].append(Contender(name, run, clock, sets, exact=exact, note=note))


def _add_torch(
    case: BlockCase, sets: int, options: Any, compiled: bool, contenders: Any
) -> dict[str, str]:
    """Add PyTorch's contenders; one that cannot even be captured is named and left out."""
    from benchmarks.gpu import rivals

    inputs = rivals.Blocks(case, sets, options.device)
    clock = rivals.clock(options.device)
    ways = rivals.EAGER + (rivals.COMPILED if compiled else [])
    for way in ways[:: 4 if options.tiny else 1]:
        for variant, f in inputs.functions(way).items():
            try:
                run = rivals.graphed(f, sets, options.device)
            except Exception:
                traceback.print_exc()
                say(f"{case.name}: {way} {variant} failed")
                continue
            contenders[variant].append(Contender(str(way), run, clock, sets, exact=not way.tf32))
    errors = {}
    try:
        for contender in inputs.dense():
            contenders["forward"].append(contender)
            errors[contender.name] = contender.note
    except Exception:
        traceback.print_exc()
    return errors


def floor(case: BlockCase, variant: str, **rates: float) -> float:
    """Return the floor of a variant in microseconds."""
    return float(getattr(block_floors(case, **rates), variant))


def lines(case: BlockCase, result: dict[str, Any]) -> str:
    """Return the table of one shape: everybody, all variants."""
    names = list(dict.fromkeys(n for v in ours.VARIANTS for n in result[v]))
    rows = [["floor (4.3 TB/s, 67 TFLOP/s)", *(floor(case, v) for v in ours.VARIANTS)]]
    rows += [[name, *(_cell(result[v].get(name)) for v in ours.VARIANTS)] for name in names]
    return table(["us (10 % to 90 %)", *ours.VARIANTS], rows)


def _cell(value: dict[str, Any] | None) -> str:
    if value is None:
        return "-"
    if "us" not in value:
        return "failed"
    return f"{value['us']:.1f} ({value['p10']:.1f}-{value['p90']:.1f})"


def summary(found: dict[BlockCase, dict[str, Any]], variant: str) -> str:
    """Return one line a shape: ours, its floor, and the rivals over ours."""
    rows = list(_summary(found, variant))
    head = [
        "block",
        "floor",
        "ours",
        "ours/floor",
        "ours f16",
        "exact torch/ours",
        "any torch/ours",
    ]
    dense = ["dense TF32/ours", "dense bf16/ours"] if variant == "forward" else []
    return table([*head, "compile/ours", *dense, "best torch"], rows)


def _summary(found: dict[BlockCase, dict[str, Any]], variant: str) -> Iterator[list[Any]]:
    for case, result in found.items():
        times = result[variant]
        mine = only(times, "ours float32")
        name, quickest = best(times, "torch")
        least = floor(case, variant)
        rivals = [best(times, "torch", exact=True)[1], quickest, best(times, "torch compile")[1]]
        if variant == "forward":
            rivals += [best(times, f"dense {kind}")[1] for kind in ("TF32", "bf16")]
        over = [ratio(time, mine) for time in rivals]
        half = only(times, "ours float16")
        yield [case.name, least, mine, ratio(mine, least), half, *over, name]
