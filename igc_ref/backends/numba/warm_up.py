"""Compile, or load from the disk, every kernel that a training step needs, before it is timed."""

from __future__ import annotations

from threading import Timer
from typing import Any

import numpy as np

from igc_ref.backends.numba.pointwise import interleave
from igc_ref.backends.numba.vectors import UNCACHED
from igc_ref.report import Report
from igc_ref.spec.block import IGCSpec

PATIENCE = 2.0  # seconds: loading takes less, compiling more


def warm_up(backend: Any, dtype: str, report: Report) -> None:
    """Take one step on one tiny image; if that takes long, `report` says why, while it does."""
    when = "cached afterwards" if interleave.stats.cache_path else f"every time: {UNCACHED}"
    line = f"numba compiles its kernels for {dtype}: less than a minute, {when}"
    notice = Timer(PATIENCE, report, [line])
    notice.daemon = True
    notice.start()
    try:
        _step(backend, dtype)
    finally:
        notice.cancel()


def _step(backend: Any, dtype: str) -> None:
    spec = IGCSpec.square(1, 1)
    weight, secondary = np.ones(spec.primary_shape, dtype), np.ones(spec.secondary_shape, dtype)
    ones = np.ones(1, dtype)
    x = backend.to_layout(np.ones((1, 1, 3, 3), dtype))
    y, conv = backend.conv2d(x, weight)
    y, norm = backend.batch_norm(
        y, ones, ones, ones.copy(), ones.copy(), momentum=0.9, eps=1e-5, train=True, relu=True
    )
    y, block = backend.igc(y, weight, secondary, spec)
    y, groups = backend.shuffle(y, 1)
    y, total = backend.add_relu(y, x)
    y, shape = backend.global_average_pool(y)
    d = backend.global_average_pool_backward(y, shape)
    d = backend.relu_backward(d, total)
    d = backend.shuffle_backward(d, groups)
    dx, *_ = backend.igc_backward(d, block)
    dx, *_ = backend.batch_norm_backward(backend.add(dx, d), norm)
    dx, dweight = backend.conv2d_backward(dx, conv)
    backend.from_layout(dx)
    numbers = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
    backend.sgd_step(weight, dweight, np.zeros_like(weight), **numbers)
