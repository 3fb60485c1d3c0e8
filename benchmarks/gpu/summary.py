"""What a record holds, in short: printed at the end of a lease, and by ``--show``."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from benchmarks.gpu import blocks, steps, tables
from benchmarks.gpu.contenders import Times, best
from benchmarks.gpu.floors import block_floors, roofline_of, step_floors
from benchmarks.gpu.ours import VARIANTS
from benchmarks.gpu.sections import Record, went_wrong
from igc_ref.bench import Roofline
from igc_ref.errors import describe

WORST = 3  # errors
BESIDE = {  # the rivals of a step: how their names begin
    "best eager": "torch eager", "best graph": "torch graph", "torch.compile": "torch compile",
}  # fmt: skip
RIVALS = {  # of a block, a column: how their names begin, and whether they must be exact
    "exact torch/ours": ("torch", True), "any torch/ours": ("torch", None),
    "dense TF32/ours": ("dense TF32", None), "dense bf16/ours": ("dense bf16", None),
}  # fmt: skip


def of(record: Record) -> str:
    """Return the summary of a record, what matters most last.

    A part that cannot be made does not cost the others.
    """
    options = SimpleNamespace(**{"batch": 256, "tiny": False} | record.values["settings"])
    roofline = roofline_of(record)
    parts: dict[str, Callable[[dict[str, Any]], str]] = {
        "check": checks,
        "blocks": lambda found: block_table(found, options, roofline),
        "steps": lambda found: step_table(found, options, roofline),
        "lease": outcome,
    }
    found = {name: record.items(name) for name in [*record.values["sections"]]}
    others = [name for name in found if name not in {"compiled ahead", *parts}]
    return "\n\n".join([
        f"==== summary\n{record.values['machine']}",
        *(attempt(parts.get(name, listed), found[name]) for name in [*others, *parts]
          if found.get(name)),
        "\n  ".join(["failed or left out:", *(failed(record) or ["nothing"])]),
    ])  # fmt: skip


def attempt(part: Callable[[dict[str, Any]], str], found: dict[str, Any]) -> str:
    """Return a part, or why there is none."""
    try:
        return part(found).strip()
    except Exception as error:
        return f"no summary of {', '.join(found)[:100]}: {describe(error)}"


def listed(found: dict[str, Any]) -> str:
    """Return items one by one."""
    return "\n".join(tables.item(name, value) for name, value in found.items())


def failed(record: Record) -> list[str]:
    """Return a line for everything that failed or was left out."""
    return [
        f"{section}, {name}: {value.get('failed') or value.get('skipped') or 'not passed'}"[:300]
        for section in record.values["sections"]
        for name, value in record.items(section).items()
        if went_wrong(value)
    ]


def checks(found: dict[str, Any]) -> str:
    """Return how many checks passed, the greatest errors, and every check of training."""
    passed = sum(value.get("passed") is True for value in found.values())
    lines = [f"checks: {passed} of {len(found)} passed"]
    for storage in ("float32", "float16"):
        errors = {
            f"{name}, {output}": float(error)
            for name, value in found.items()
            if "limit" in value
            for output, error in value["errors"].get(storage, {}).items()
        }
        worst = sorted(errors, key=lambda name: -errors[name])[:WORST]
        lines += [f"  worst {storage}: {errors[name]:.1e} {name}" for name in worst]
    for name, value in found.items():
        if isinstance(tried := value.get("errors"), list):
            pairs = [f"{k} {float(e):.1e}" for k, e in tried[-1].items()]
            lines.append(f"  {name}, seed {len(tried) - 1}: {', '.join(pairs)}")
        elif "same as captured" in value:
            lines.append(f"  {name}, same as captured: {value['same as captured']}")
    return "\n".join(lines)


def step_table(found: dict[str, Any], options: Any, roofline: Roofline | None) -> str:
    """Return all timed steps, and what the best rivals of each kind take of our time."""
    rows, lines = [], []
    for a in dict.fromkeys(steps.networks(options)):
        times: Times = {}
        for name, value in found.items():
            if name.startswith(str(a)) and "times" in value:
                times |= value["times"]
                used = value.get("energy", {})
                more = [used.get("J"), used.get("W"), value.get("MiB")]
                rows += [[a, who, *numbers(t), *more] for who, t in value["times"].items()]
        ours = times.get("ours float32", {}).get("us")
        floor = step_floors(a, options.batch, roofline).get("greater")
        if ours:
            lines.append(f"{a}: ours {ours / 1e3:.3f} ms; floor {in_ms(floor)}")
        for title, start in BESIDE.items():
            for exact in (True, None):
                name, us = best(times, start, exact)
                if name and ours:
                    kind = "exact" if exact else "any"
                    lines.append(f"  {title}, {kind}: {in_ms(us)}, {us / ours:.2f} x ours ({name})")
    head = ["a step, N = " + str(options.batch), "", "ms", "10 %", "90 %", "J", "W", "MiB"]
    return "\n" + "\n".join([tables.table(head, *rows), *lines])


def in_ms(us: float | None) -> str:
    """Return microseconds as milliseconds."""
    return "unknown" if us is None else f"{us / 1e3:.3f} ms"


def numbers(times: dict[str, Any]) -> list[str | None]:
    """Return median, 10 % and 90 % in milliseconds."""
    found = (times.get(key) for key in ("us", "p10", "p90"))
    return [None if us is None else f"{us / 1e3:.3f}" for us in found]


def block_table(found: dict[str, Any], options: Any, roofline: Roofline | None) -> str:
    """Return a line for each block and variant: our microseconds, the floor, the rivals over ours.

    Where a block beside its rivals failed, it is the block alone.
    """
    rows = []
    for case in blocks.cases(options.batch, options.tiny):
        floors = block_floors(case, roofline)
        beside, alone = (found.get(case.name + more, {}) for more in ("", " alone"))
        for variant in VARIANTS:
            if times := beside.get(variant, alone.get(variant)):
                floor = floors.get(variant)
                us, half = (times.get(f"ours float{bits}", {}).get("us") for bits in (32, 16))
                over = [ratio(best(times, *rival)[1], us) for rival in RIVALS.values()]
                name, fastest = f"{case.name} {variant}", best(times, "torch")[0]
                rows.append([name, floor, us, ratio(us, floor), half, *over, fastest])
    head = ["floor", "ours", "ours/floor", "ours f16", *RIVALS, "best torch"]
    return tables.table([f"blocks, N = {options.batch}, us", *head], *rows)


def ratio(a: float | None, b: float | None) -> float | None:
    """Return a/b, or None where one is missing."""
    return None if a is None or b is None else a / b


def ending(value: dict[str, Any]) -> str:
    """Say how an item ended."""
    return str(value.get("failed") or value.get("skipped") or value.get("note") or "done")


def outcome(found: dict[str, Any]) -> str:
    """Return when items ran, and how they ended."""
    ran = [[name, v.get("began"), v.get("taken"), ending(v)] for name, v in found.items()]
    return tables.table(["item", "at s", "s", ""], *ran)
