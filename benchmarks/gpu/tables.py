"""The tables of a record: every item by what it holds, and all timings beside their floors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.gpu.contenders import Times, best
from benchmarks.gpu.ours import VARIANTS
from igc_ref.report import aligned

RESOURCES = ("grid", "threads", "shared", "registers", "local", "blocks an SM")
LONGEST = 500  # characters of an item that is no table
RIVALS = {  # column: how its contenders' names begin, and whether they must be exact
    "exact torch/ours": ("torch", True), "any torch/ours": ("torch", None),
    "dense TF32/ours": ("dense TF32", None), "dense bf16/ours": ("dense bf16", None),
}  # fmt: skip


def ratio(a: float | None, b: float | None) -> float | None:
    """Return a/b, or None where one is missing."""
    return None if a is None or b is None else a / b


def table(*rows: Iterable[Any]) -> str:
    """Lay rows out in columns; the first row is the header, None is a dash."""
    return aligned([["-" if v is None else _text(v) for v in row] for row in rows])


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def item(name: str, value: dict[str, Any]) -> str:
    """Return an item as a table, or as a line if it is something else than timings."""
    variants = {v: value[v] for v in VARIANTS if isinstance(value.get(v), dict)}
    if "times" in value or variants:
        return f"\n{times(name, variants or {'step': value['times']})}"
    if "kernels" in value:
        return f"\n{kernels(name, value['kernels'])}"
    if "tiles" in value:
        return f"\n{swept(name, value)}"
    if "passed" not in value:
        return f"{name}: {value}"[:LONGEST]
    verdict = "PASS" if value["passed"] else "FAIL"
    if "limit" not in value:
        return f"{verdict} {name}: {value}"[:LONGEST]
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
    """Return kernels by their share of the step."""
    calls, total = (sum(k[key] for k in found.values()) for key in ("calls", "us"))
    rows = [
        [name, k["calls"], k["us"], k["us"] / k["calls"], f"{k['us'] / (total or 1):.1%}"]
        + [k.get(column) for column in RESOURCES]
        for name, k in found.items()
    ]
    rows.append(["total", calls, total, *[None] * (2 + len(RESOURCES))])
    return table([title, "calls", "us", "us each", "share", *RESOURCES], *rows)


def swept(title: str, value: dict[str, Any]) -> str:
    """Return the tiles of one shape and pass, the cost model's choice first."""
    columns = ["us", "least", "threads", "shared", "estimate", *RESOURCES[3:], "differs"]
    rows = []
    for row in value["tiles"]:
        tile = " ".join(map(str, [*row["tile"], row["stages"]]))
        rows.append([tile, *map(row.get, columns), row.get("failed", "")])
    verdict = "PASS" if value["passed"] else "FAIL"
    return table([f"{verdict} {title}: PX MS NP PXD IS, stages", *columns, ""], *rows)


def summary(title: str, timed: dict[str, tuple[Times, float | None]]) -> str:
    """Return one line for each case: our microseconds, the floor, and the rivals over ours."""
    if not timed:
        return f"{title}: nothing timed"
    rows = []
    for name, (found, floor) in timed.items():
        ours, half = (found.get(f"ours float{bits}", {}).get("us") for bits in (32, 16))
        over = [ratio(best(found, *rival)[1], ours) for rival in RIVALS.values()]
        rows.append([name, floor, ours, ratio(ours, floor), half, *over, best(found, "torch")[0]])
    head = ["floor", "ours", "ours/floor", "ours f16", *RIVALS, "best torch"]
    return f"\n{table([f'{title}, us', *head], *rows)}"
