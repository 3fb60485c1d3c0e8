"""One contender in a process of its own: ``python -m igc_ref.bench.worker``, for `harness`.

It reads one line of JSON, the case, and answers with the names of its functions. Then, for every
line ``NAME COUNT``, it calls that function COUNT times and answers with the seconds of each call
and with its peak of memory since it was ready.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from igc_ref.backends import get_backend
from igc_ref.bench import rivals
from igc_ref.bench.cases import BlockCase, Case, from_dict
from igc_ref.bench.clock import Clock
from igc_ref.networks.model import build
from igc_ref.report import silent
from igc_ref.training.optim import SGD

REST = 0.05  # seconds, after which a library's idle threads no longer spin: a guess
Functions = dict[str, Callable[[], object]]


def main() -> None:
    """Serve until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is not an answer
    order = json.loads(sys.stdin.readline())
    functions = _functions(order["contender"], from_dict(order["case"]), order["threads"])
    before, clock = _kilobytes("VmRSS"), Clock()
    for function in functions.values():
        clock.times(function, 2)
    print(json.dumps([*functions]), file=answers, flush=True)
    _reset_peak()
    for line in sys.stdin:
        name, count = line.split()
        functions[name]()  # the first one after another contender's turn does not count
        seconds = clock.times(functions[name], int(count))
        if order["threads"] > 1:
            time.sleep(REST)
        peak = 1024 * max(0, _kilobytes("VmHWM") - before)
        print(json.dumps([seconds, peak]), file=answers, flush=True)


def _functions(contender: str, case: Case, threads: int) -> Functions:
    rng = np.random.default_rng(0)
    other: Any
    if isinstance(case, BlockCase):
        s, N = case.spec, case.batch_size
        x = rng.normal(size=(N, s.in_channels, case.size, case.size)).astype("float32")
        other = rng.normal(size=(N, s.out_channels, *s.output_size(case.size, case.size)))
        other = other.astype("float32")
    else:
        x = rng.normal(size=(case.batch_size, *case.architecture.input_shape)).astype("float32")
        other = rng.integers(0, case.architecture.num_classes, case.batch_size)
    if contender.startswith("torch"):
        from igc_ref.bench import torch_twins

        if isinstance(case, BlockCase):
            return torch_twins.block_step(case.spec, x, other, contender, threads)
        if not case.train:
            return torch_twins.inference(case.architecture, x, contender, threads)
        return torch_twins.training_step(case.architecture, x, other, contender, threads)
    if contender in rivals.RIVALS:
        return rivals.functions(contender, case, x, other, threads)
    return _ours(contender, case, x, other, threads)


def _ours(contender: str, case: Case, x: Any, other: Any, threads: int) -> Functions:
    if contender == "numba":
        from igc_ref.backends.numba.backend import NumbaBackend

        backend: Any = NumbaBackend(threads)
    else:
        backend = get_backend(contender)
    backend.prepare("float32", silent)  # imports and kernels are no memory of a step
    backend.session().__enter__()  # for the life of this process
    if isinstance(case, BlockCase):
        spec = case.spec
        primary, secondary = case.weights()
        x, dy = backend.to_layout(x), backend.to_layout(other)

        def forward() -> Any:
            return backend.igc(x, primary, secondary, spec)

        return {"forward": forward, "both": lambda: backend.igc_backward(dy, forward()[1])}
    model = build(case.architecture, backend)
    if not case.train:
        return {"forward": lambda: model.forward(x)}
    optimiser = SGD(model, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        *_, dlogits = backend.loss(model.forward(x, train=True), other)
        model.backward(dlogits)
        optimiser.step(0.01)

    return {"both": step}


def _kilobytes(field: str) -> int:
    """Return VmRSS or VmHWM (the peak) of this process; 0 where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)


def _reset_peak() -> None:
    """Let VmHWM start anew, so that it leaves out what compilers needed."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
