"""Section ``check``: every operator and whole training runs on the card, against float64."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.gpu import ours
from benchmarks.gpu.floors import cases
from benchmarks.gpu.programs import Arrays, Check, conv_check, odd, paper
from benchmarks.gpu.record import Section, say, table
from benchmarks.gpu.small import small
from benchmarks.gpu.training_check import training_checks
from igc_ref.backends import NumpyBackend
from igc_ref.spec.block import IGCSpec

HALF_LIMIT = 3e-3  # storage in 16 bits: 2**-11 a rounding, a few of them
HALF_GRADIENT_LIMIT = 5e-2  # rounding to 16 bits carries one pixel in 2000 over a kink of ReLU
SMALL = 2.0**-8  # of gradients: with storage in 16 bits they are kept 4096 times larger
MOST = 64  # pictures: NumPy has to keep up
POISON = 3000  # megabytes


def checks(batch: int, tiny: bool) -> Iterator[Check]:
    """Yield every check, what the paper's networks need first."""
    rest = 3 if tiny else 37
    yield from small(rest)
    blocks = [(case.spec, case.size) for case in cases(batch, tiny)]
    yield from paper(blocks[1:] if tiny else blocks, min(batch, MOST), rest)
    odd_blocks = [
        (IGCSpec.square(2, 3), 3, 5, 4),
        (IGCSpec(4, 8, 2, 4, stride=2), 5, 7, 6),
        (IGCSpec.square(24, 2), 3, 9, 9),
        (IGCSpec(48, 96, 24, 4, stride=2), 3, 7, 10),
        (IGCSpec(48, 96, 24, 2, stride=2), 3, 9, 8),  # the residual network's: P does not invert
        (IGCSpec.square(4, 8, kernel_size=5), 2, 9, 8),
        (IGCSpec.square(4, 8, kernel_size=1), 2, 8, 8),
        (IGCSpec.square(40, 2), 2, 8, 8),
        (IGCSpec.square(2, 40), 2, 6, 6),
        (IGCSpec.square(1, 8), 17, 8, 8),
        (IGCSpec.square(8, 1), 17, 8, 8),
    ]
    wide = ((3, 48, 3, 1, 1, True), (3, 48, 3, 1, 1, False), (16, 32, 3, 1, 2, True))
    more = (
        (16, 16, 3, 1, 1, True), (32, 64, 3, 1, 2, True), (64, 64, 3, 1, 1, True),
        (48, 96, 1, 24, 2, True), (32, 64, 1, 4, 2, True), (12, 18, 3, 6, 1, True),
        (10, 15, 5, 5, 3, True),
    )  # fmt: skip
    for inputs, out, k, groups, stride, dx in wide if tiny else wide + more:
        for N, size in ((2, (7, 9)),) if tiny else ((rest, (32, 32)), (2, (7, 9))):
            yield conv_check(inputs, out, k, groups, stride, N, size, dx)
    yield from odd(odd_blocks[:1] if tiny else odd_blocks)


def run(check: Check, backend: Any, arrays: Arrays, dtype: str) -> Arrays:
    """Run a program; floating inputs become `dtype`, outputs NumPy arrays."""
    real = {k: v.astype(dtype) if v.dtype.kind == "f" else v for k, v in arrays.items()}
    found = check.program(backend, {k: backend.asarray(v) for k, v in real.items()})
    host = {k: v if isinstance(v, np.generic) else backend.to_numpy(v) for k, v in found.items()}
    return {k: np.asarray(v, np.float64) for k, v in host.items()}


def error(actual: Arrays, expected: Arrays) -> dict[str, float]:
    """Return ||actual - expected|| / ||expected|| of every output; NaN is never within a limit."""
    if set(actual) != set(expected):
        raise ValueError(f"outputs {sorted(actual)}, expected {sorted(expected)}")
    found = {}
    for name, reference in expected.items():
        if actual[name].shape != reference.shape:
            raise ValueError(f"{name} has shape {actual[name].shape}, expected {reference.shape}")
        size = float(np.linalg.norm(reference))
        found[name] = float(np.linalg.norm(actual[name] - reference)) / (size or 1.0)
    return found


def judge(check: Check, backends: dict[str, Any], options: Any) -> dict[str, Any]:
    """Run a check on the backends under test; return errors by backend, and the verdict."""
    rng = np.random.default_rng([options.seed, zlib.crc32(check.name.encode())])
    drawn = check.inputs(rng)
    if "d" in drawn:
        drawn["d"] = drawn["d"] * SMALL
    single = {k: v.astype("float32") if v.dtype.kind == "f" else v for k, v in drawn.items()}
    if check.expected:
        double = {k: v.astype("float64") if v.dtype.kind == "f" else v for k, v in single.items()}
        expected = check.expected(double)
    else:
        expected = run(check, NumpyBackend(), single, "float64")
    errors: dict[str, Any] = {}
    passed = True
    for storage, backend in backends.items():
        half = storage == "float16"
        outputs = []
        for _ in range(1 if options.emulate else 2):  # a race shows as bits that move
            with backend.session(), ours.poisoned(options.emulate, POISON):
                outputs.append(run(check, backend, single, "float32"))
        errors[storage] = error(outputs[0], expected)
        passed &= all(e <= limit(check, n, half) for n, e in errors[storage].items())
        pairs = ((n, v, outputs[-1][n]) for n, v in outputs[0].items())
        if moved := [n for n, a, b in pairs if not np.array_equal(a, b, equal_nan=True)]:
            errors[f"{storage}, other bits at the second run"] = dict.fromkeys(moved, 1.0)
            passed = False
    return {"errors": errors, "limit": check.limit, "passed": bool(passed)}


def limit(check: Check, output: str, half: bool) -> float:
    """Return the greatest error that an output may have."""
    if not half:
        return check.limit
    return HALF_GRADIENT_LIMIT if output.startswith("d") else HALF_LIMIT


def row(name: str, result: dict[str, Any]) -> list[Any]:
    """Return a line of the table: the worst output of each storage."""
    cells: list[Any] = [name]
    for storage in ("float32", "float16"):
        found = result["errors"].get(storage)
        worst = None if found is None else max(found, key=lambda n: _rank(found[n]))
        cells.append("-" if found is None else f"{float(found[worst]):.1e} {worst}")
    return [*cells, f"{result['limit']:.0e}", "PASS" if result["passed"] else "FAIL"]


def _rank(value: float | str) -> float:
    return float("inf") if not float(value) < float("inf") else float(value)


def section(section: Section, options: Any) -> None:
    """Run all checks; print the table, what failed first."""
    backends = {"float32": ours.make_backend(options.emulate)}
    if options.float16:
        backends["float16"] = ours.make_backend(options.emulate, "float16")
    rows = []
    for check in checks(options.batch, options.tiny):
        only_float32 = check.name.startswith(("sgd", "linear", "augmentation"))
        under_test = {k: b for k, b in backends.items() if k == "float32" or not only_float32}
        result = section.item(check.name, lambda c=check, b=under_test: judge(c, b, options), 5)
        rows.append(row(check.name, result) if result else [check.name, "-", "-", "-", "FAIL"])
        if rows[-1][-1] == "FAIL":
            say(f"FAIL {rows[-1]}")
    rows.sort(key=lambda r: r[-1] != "FAIL")
    say(table(["operator", "float32 error", "float16 error", "limit", ""], rows))
    training_checks(section, options)
    bad = section.failed()
    say(f"check: {len(section.items) - len(bad)} passed, {len(bad)} failed: {bad}")
