"""The tables of a record: every item by what it holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.gpu.contenders import Times
from benchmarks.gpu.ours import VARIANTS
from igc_ref.report import aligned

RESOURCES = ("grid", "threads", "shared", "registers", "local", "blocks an SM")
LONGEST = 500  # characters of an item that is no table
KERNELS = 14  # lines of a table of kernels


def table(*rows: Iterable[Any]) -> str:
    """Lay rows out in columns; the first row is the header, None is a dash."""
    return aligned([["-" if v is None else _text(v) for v in row] for row in rows])


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def item(name: str, value: dict[str, Any]) -> str:
    """Return an item as a table, or as a line if it is something else than timings."""
    line, variants = f"{name}: {value}", {v: value[v] for v in VARIANTS if v in value}
    if "times" in value or variants:
        return f"\n{times(name, variants or {'step': value['times']})}"
    if "kernels" in value:
        return f"\n{kernels(name, value['kernels'])}"
    if "counters" in value:
        return f"\n{counters(value['counters'])}"
    if any("us" in row for row in value.get("tiles", [])):
        return swept(name, value)
    if "passed" not in value:
        return "\n".join([f"{name}:", *value["lines"]]) if "lines" in value else line[:LONGEST]
    verdict = "PASS" if value["passed"] else "FAIL"
    if "limit" not in value:
        return f"{verdict} {line}"[:LONGEST]
    return f"{verdict} {name}: " + ", ".join(
        f"{storage} {_worst(found)}" for storage, found in value["errors"].items()
    )


def _worst(errors: dict[str, Any]) -> str:
    """Return the greatest error and the output that has it; NaN is the greatest."""
    found = {name: float(error) for name, error in errors.items()}
    name = max(found, key=lambda n: (found[n] != found[n], found[n]))
    return f"{found[name]:.1e} {name}"


def times(title: str, variants: dict[str, Times]) -> str:
    """Return the microseconds of all contenders, median and 10 % to 90 %; variants in columns."""

    def cell(value: dict[str, Any] | None) -> str | None:
        if value is None:
            return None
        if "us" not in value:
            return "failed"
        return f"{value['us']:.1f} ({value['p10']:.1f}-{value['p90']:.1f})"

    notes = {
        n: t["note"] for several in variants.values() for n, t in several.items() if "note" in t
    }
    names = dict.fromkeys(name for several in variants.values() for name in several)
    rows = [[n, *(cell(v.get(n)) for v in variants.values()), notes.get(n, "")] for n in names]
    return table([f"{title}, us", *variants, ""], *rows)


def kernels(title: str, found: dict[str, dict[str, Any]]) -> str:
    """Return the kernels that take most of a step, and the sum of all."""
    calls, total = (sum(k[key] for k in found.values()) for key in ("calls", "us"))
    rows = [
        [name, k["calls"], k["us"], k["us"] / k["calls"], f"{k['us'] / (total or 1):.1%}"]
        + [k.get(column) for column in RESOURCES]
        for name, k in list(found.items())[:KERNELS]
    ]
    rows.append(["total", calls, total, *[None] * (2 + len(RESOURCES))])
    return table([title, "calls", "us", "us each", "share", *RESOURCES], *rows)


def swept(title: str, value: dict[str, Any]) -> str:
    """Return the time of the first tile, the cost model's choice, and the best one."""
    rows = [row for row in value["tiles"] if "us" in row]
    least, verdict = min(rows, key=lambda row: row["us"]), "PASS" if value["passed"] else "FAIL"
    tile = " ".join(map("{}{}".format, ("PX", "MS", "NP", "PXD", "IS"), least["tile"]))
    times = f"{rows[0]['us']:.1f} us; best of {len(rows)}: {least['us']:.1f} us"
    return f"{verdict} {title}: {times}, {tile}"


def counters(found: dict[str, dict[str, float]]) -> str:
    """Return what the profiler counted, a kernel a line."""
    columns = dict.fromkeys(column for values in found.values() for column in values)
    rows = [[name, *map(values.get, columns)] for name, values in found.items()]
    return table(["counters of ncu", *columns], *rows)
