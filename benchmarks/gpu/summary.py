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

KERNELS = 16  # lines of a table of kernels
WORST = 3  # errors
BESIDE = {  # the rivals of a step: how their names begin
    "best eager": "torch eager", "best graph": "torch graph", "torch.compile": "torch compile",
}  # fmt: skip


def of(record: Record) -> str:
    """Return the summary of a record; a part that cannot be made does not cost the others."""
    settings = record.values["settings"]
    options = SimpleNamespace(batch=settings["batch"], tiny=settings["tiny"])
    roofline = roofline_of(record)

    def listed(section: str) -> str:
        return "\n".join(tables.item(n, v) for n, v in record.items(section).items())

    parts: list[Callable[[], str]] = [
        lambda: "==== summary\n{card}; commit {commit}".format_map(record.values["machine"]),
        lambda: listed("probe"),
        lambda: checks(record.items("check")),
        lambda: step_table(record.items("steps"), options, roofline),
        lambda: block_table(record.items("blocks"), options, roofline),
        lambda: kernels(record.items("floors")),
        lambda: listed("tiles"),
        lambda: counters(record.items("ncu")),
        lambda: listed("second"),
        lambda: outcome(record),
    ]
    return "\n".join(map(attempt, parts))


def attempt(part: Callable[[], str]) -> str:
    """Return a part, or why there is none."""
    try:
        return part()
    except Exception as error:
        return f"no summary: {type(error).__name__}: {error}"


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
    lines = [f"\nchecks: {passed} of {len(found)} passed"]
    judged = {name: value for name, value in found.items() if "limit" in value}
    for storage in ("float32", "float16"):
        errors = {
            f"{name}, {output}": float(error)
            for name, value in judged.items()
            for output, error in value["errors"].get(storage, {}).items()
        }
        worst = sorted(errors, key=lambda name: -errors[name])[:WORST]
        lines += [f"  worst {storage}: {errors[name]:.1e} {name}" for name in worst]
    training = {name: value for name, value in found.items() if name.startswith("training")}
    return "\n".join(lines + [f"  {tables.item(name, value)}" for name, value in training.items()])


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
    return "\n  ".join([f"\n{table}\nfailed or left out:", *(failed(record) or ["nothing"])])
