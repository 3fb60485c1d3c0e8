"""What a lease has found, in short: printed at its end, and by ``--show`` from its record."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from benchmarks.gpu import blocks, ncu, steps, tables
from benchmarks.gpu.contenders import Times, best
from benchmarks.gpu.floors import roofline_of, step_floors
from benchmarks.gpu.sections import Record
from igc_ref.bench import Roofline

KERNELS = 14  # lines of a table of kernels
WORST = 3  # errors
BESIDE = {  # the rivals of a step: how their names begin
    "best eager": "torch eager", "best graph": "torch graph", "torch.compile": "torch compile",
}  # fmt: skip


def of(record: Record) -> str:
    """Return the summary of a record, what matters most last.

    A part that cannot be made does not cost the others.
    """
    settings = record.values["settings"]
    options = SimpleNamespace(batch=settings["batch"], tiny=settings["tiny"])
    roofline = roofline_of(record)
    parts: dict[str, Callable[[dict[str, Any]], str]] = {
        "probe": listed,
        "floors": kernels,
        "tiles": sweeps,
        "ncu": counters,
        "check": checks,
        "blocks": lambda found: block_table(found, options, roofline),
        "steps": lambda found: step_table(found, options, roofline),
        "second": listed,
    }
    found = {name: record.items(name) for name in parts}
    return "\n\n".join([
        f"==== summary\n{record.values['machine']}",
        *(attempt(part, found[name]) for name, part in parts.items() if found[name]),
        outcome(record),
    ])  # fmt: skip


def attempt(part: Callable[[dict[str, Any]], str], found: dict[str, Any]) -> str:
    """Return a part, or why there is none."""
    try:
        return part(found).strip()
    except Exception as error:
        return f"no summary of {list(found)}: {type(error).__name__}: {error}"


def listed(found: dict[str, Any]) -> str:
    """Return items as they are."""
    lines = [
        "\n".join([name, *value["lines"]]) if "lines" in value else tables.item(name, value)
        for name, value in found.items()
    ]
    return "\n".join(lines)


def failed(record: Record) -> list[str]:
    """Return a line for everything that failed or was left out."""
    return [
        f"{section}, {name}: {value.get('failed') or value.get('skipped') or 'not passed'}"[:300]
        for section in record.values["sections"]
        for name, value in record.items(section).items()
        if {"failed", "skipped"} & set(value) or value.get("passed") is False
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
        if "allowed" in value:
            tried = value["errors"]
            pairs = [f"{k} {float(e):.1e}" for k, e in tried[-1].items()]
            lines.append(f"  {name}, seed {len(tried) - 1}: {', '.join(pairs)}")
        elif "same as captured" in value:
            lines.append(f"  {name}, same as captured: {value['same as captured']}")
    return "\n".join(lines)


def step_table(found: dict[str, Any], options: Any, roofline: Roofline | None) -> str:
    """Return all timed steps, and what the best rivals of each kind take of our time."""
    rows, lines = [], []
    for a in dict.fromkeys(steps.TINY if options.tiny else steps.NETWORKS):
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
    """Return the blocks beside their rivals; those alone where that failed."""
    together = {n.removesuffix(" alone"): v for n, v in found.items() if n.endswith(" alone")}
    together |= {n: v for n, v in found.items() if not n.endswith(" alone") and "forward" in v}
    return blocks.summary(together, options, roofline)


def kernels(found: dict[str, Any]) -> str:
    """Return ceilings, and the kernels that take most of a step."""
    short = {
        name: {"kernels": dict(list(v["kernels"].items())[:KERNELS])} if "kernels" in v else v
        for name, v in found.items()
    }
    return "\n".join(tables.item(name, value) for name, value in short.items())


def sweeps(found: dict[str, Any]) -> str:
    """Return the chosen tile and the best one of every shape and pass."""
    lines = []
    for name, value in found.items():
        rows = [row for row in value.get("tiles", []) if "us" in row]
        if not rows:
            lines.append(tables.item(name, value))
            continue
        least = min(rows, key=lambda row: row["us"])
        lines.append(
            f"{'right' if value['passed'] else 'WRONG'} {name}: {rows[0]['us']:.1f} us; best of "
            f"{len(rows)}: {least['us']:.1f} us, {least['tile']}"
        )
    return "\n".join(["tiles: PX MS NP PXD IS", *lines])


def counters(found: dict[str, Any]) -> str:
    """Return what the profiler counted."""
    return "\n".join(
        ncu.lines(v["counters"]) if "counters" in v else tables.item(name, v)
        for name, v in found.items()
    )


def ending(value: dict[str, Any]) -> str:
    """Say how an item ended."""
    return str(value.get("failed") or value.get("skipped") or value.get("note") or "done")


def outcome(record: Record) -> str:
    """Return when items ran, and what failed."""
    ran = [
        [name, v.get("began"), v.get("taken"), ending(v)]
        for name, v in record.items("lease").items()
    ]
    table = tables.table(["item", "at s", "s", ""], *ran)
    return "\n  ".join([f"{table}\nfailed or left out:", *(failed(record) or ["nothing"])])
