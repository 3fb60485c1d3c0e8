"""Compile, or load from the disk, every kernel that a training step needs, before it is timed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from copy import copy
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
from numba.core import config

from igc_ref.backends.numba.pointwise import interleave
from igc_ref.backends.numba.vectors import KERNELS, UNCACHED
from igc_ref.errors import BackendError
from igc_ref.files import locked
from igc_ref.report import Report, silent
from igc_ref.spec.block import IGCSpec

PATIENCE = 2.0  # seconds: loading takes less, compiling more
LONGEST = 120.0  # seconds to wait for another process


def warm_up(backend: Any, dtype: str, report: Report) -> None:
    """Take one step on one tiny image; if that takes long, `report` says why, while it does.

    Of the processes that share a cache one compiles, and the others then find its kernels there.
    """
    backend = copy(backend)
    backend.communicator = None  # other ranks may wait for the lock instead of sharing this step
    with _alone(interleave.stats.cache_path, report):
        when = "cached afterwards" if interleave.stats.cache_path else f"every time: {UNCACHED}"
        line = f"numba compiles its kernels for {dtype}: less than a minute, {when}"
        notice = Timer(PATIENCE, report, [line])
        notice.daemon = True
        notice.start()
        try:
            _step(backend, dtype)
        finally:
            notice.cancel()


def kept() -> tuple[int, str]:
    """Return how many kernels this process has ready, all in the cache, and the cache's folder.

    Raises
    ------
    BackendError
        If they are not all there, or there is none, or it is not where ``NUMBA_CACHE_DIR`` says.
    """
    folder = interleave.stats.cache_path
    if not folder:
        raise BackendError(f"kernels cannot be kept: {UNCACHED}")
    if config.CACHE_DIR and not Path(folder).is_relative_to(config.CACHE_DIR):
        raise BackendError(
            f"NUMBA_CACHE_DIR={config.CACHE_DIR} cannot be written: the kernels are in {folder}"
        )
    there = [k._cache.has(types, k.targetctx) for k in KERNELS for types in k.signatures]
    if not all(there):
        raise BackendError(f"{there.count(False)} of {len(there)} kernels are not in {folder}")
    return len(there), folder


def _alone(folder: str | None, report: Report) -> AbstractContextManager[object]:
    """Take the lock of a cache; go on without one if none can be had, or not for a long time."""
    waiting = f"waiting up to {LONGEST:.0f} s for another process that compiles into {folder}"
    lines = {PATIENCE: waiting, LONGEST: "waiting no longer: compiling beside it"}
    for seconds, line in lines.items() if folder else ():
        try:
            return locked(Path(str(folder), "warm-up.lock"), seconds, silent)
        except TimeoutError:
            report(line)
        except OSError:  # a folder that has gone, or is read-only: the cache copes
            break
    return nullcontext()


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
    y, _ = backend.split(backend.concat([y, y]), [1, 1])
    y = backend.average_pool_backward(*backend.average_pool(y, 1))
    y, scaled = backend.scale_channels(y, ones[None])
    y, total = backend.add_relu(y, x)
    y, shape = backend.global_average_pool(y)
    logits, linear = backend.linear(y, np.ones((1, 1), dtype), ones)
    d, *_ = backend.linear_backward(logits, linear)
    d = backend.global_average_pool_backward(d, shape)
    d = backend.relu_backward(d, total)
    d, _ = backend.scale_channels_backward(d, scaled)
    d = backend.shuffle_backward(d, groups)
    dx, *_ = backend.igc_backward(d, block)
    dx, *_ = backend.batch_norm_backward(backend.add(dx, d), norm)
    dx, dweight = backend.conv2d_backward(dx, conv)
    backend.from_layout(dx)
    many = np.ones((16, 2, 2, 2), dtype).transpose(0, 3, 1, 2)
    backend.from_layout(backend.to_layout(many), channels_last=True)
    numbers = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
    backend.sgd_step(weight, dweight, np.zeros_like(weight), **numbers)
