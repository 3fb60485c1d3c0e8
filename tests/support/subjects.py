"""Layers and networks on every backend, run on public NumPy arrays."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from igc_ref import IGCSpec
from igc_ref.backends import get_backend, numba_problem
from igc_ref.networks import (
    IGC,
    IGCV2,
    IGCV3,
    AveragePool,
    BatchNorm,
    Conv2d,
    GatedIGC,
    GlobalAveragePool,
    GroupNorm,
    Linear,
    MaxPool,
    MixedIGC,
    Shuffle,
)
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.layer import Dense, Layer, Residual, Sequential
from igc_ref.networks.model import build
from igc_ref.spec.mixed import MixedSpec
from igc_ref.spec.products import IGCV2Spec, IGCV3Spec
from tests.backends.cuda import emulator

MISSING = {"numpy": None, "numba": numba_problem(), "emulated": emulator.problem()}


def marked(backend, *values):
    """A parameter of a test, skipped where the backend cannot run; marks may come last."""
    problem = MISSING[backend]
    marks = [pytest.mark.skipif(bool(problem), reason=str(problem))]
    marks += [value for value in values if isinstance(value, pytest.MarkDecorator)]
    values = [value for value in values if not isinstance(value, pytest.MarkDecorator)]
    return pytest.param(backend, *values, marks=marks)


BACKENDS = [marked(backend) for backend in MISSING]
EVERYWHERE = [  # backend and dtype; the kernels of the emulated one are float32
    marked("numpy", "float64"),
    marked("numpy", "float32"),
    marked("numba", "float64"),
    marked("numba", "float32"),
    marked("emulated", "float32"),
]


def fresh_backend(name):
    """A backend with small tiles, so that small tests cross their borders."""
    if name == "emulated":
        from tests.backends.cuda.emulator.backend import EmulatedBackend

        return EmulatedBackend()
    backend = get_backend(name)
    backend.tile_bytes = 3000
    return backend


shared_backend = lru_cache(fresh_backend)


# -- layers ----------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A layer, the shape of the batch it gets, and whether it has a training mode of its own."""

    make: Callable[[Any, str], Layer]
    shape: tuple[int, ...]
    modes: tuple[bool, ...] = (False,)


def _conv(N, H, W, inp, out, **numbers):
    def make(backend, dtype):
        rng = np.random.default_rng(0)
        return Conv2d(backend, inp, out, **numbers, rng=rng, dtype=dtype)

    return Case(make, (N, inp, H, W))


def _igc(N, H, W, *numbers, **more):
    spec = IGCSpec(*numbers, **more)

    def make(backend, dtype):
        return IGC(backend, spec, rng=np.random.default_rng(0), dtype=dtype)

    return Case(make, (N, spec.in_channels, H, W))


def _block(layer, spec, shape, *modes):
    def make(backend, dtype):
        return layer(backend, spec, rng=np.random.default_rng(0), dtype=dtype)

    return Case(make, shape, modes)


def _gated(N, H, W, numbers, gate, keep=None):
    spec = IGCSpec(*numbers)

    def make(backend, dtype):
        rng = np.random.default_rng(0)
        return GatedIGC(backend, spec, gate, keep=keep, rng=rng, dtype=dtype)

    return Case(make, (N, spec.in_channels, H, W))


def _residual(backend, dtype):
    rng = np.random.default_rng(0)

    def unit(k):
        conv = Conv2d(backend, 2, 4, kernel_size=k, stride=2, rng=rng, dtype=dtype)
        return Sequential({"conv": conv, "bn": BatchNorm(backend, 4, dtype=dtype)})

    return Residual(backend, unit(3), unit(1))


def _dense(backend, dtype):
    """Two dense layers: what the first one adds goes through the second, and around it."""
    rng = np.random.default_rng(0)

    def layer(channels):
        norm = BatchNorm(backend, channels, relu=True, dtype=dtype)
        block = IGC(backend, IGCSpec(channels, 2, 2, 1), rng=rng, dtype=dtype)
        return Dense(backend, {"bn": norm, "igc": block})

    return Sequential({"first": layer(4), "second": layer(6), "pool": AveragePool(backend)})


MULTILINEAR = {  # linear in x and in every weight (shuffle and pool have none)
    "conv": _conv(6, 5, 4, 3, 4),
    "conv 1x1 /2 in groups": _conv(6, 5, 4, 4, 6, kernel_size=1, stride=2, groups=2),
    "conv 5x5 of one channel": _conv(6, 4, 7, 1, 1, kernel_size=5),
    "conv 5x2 /2": _conv(6, 7, 4, 3, 4, kernel_size=(5, 2), stride=2),
    "igc": _igc(6, 5, 4, 6, 6, 2, 3),
    "igc /2, P not the inverse": _igc(6, 5, 5, 6, 12, 3, 2, stride=2),
    "igc 1x5 /2": _igc(6, 3, 9, 6, 6, 2, 3, (1, 5), 2),
    "igc of one channel": _igc(6, 3, 4, 1, 1, 1, 1),
    "wide conv": _conv(5, 4, 5, 9, 11),  # numba transforms these: see `numba.winograd`
    "wide igc": _igc(3, 5, 3, 16, 24, 2, 3),
    "shuffle": Case(lambda backend, dtype: Shuffle(backend, 3), (6, 6, 5, 4)),
    "average of windows": Case(lambda backend, dtype: AveragePool(backend, (2, 4)), (6, 3, 7, 5)),
    "average": Case(lambda backend, dtype: GlobalAveragePool(backend), (6, 3, 5, 3)),
}
BILINEAR = [name for name in MULTILINEAR if name != "average"]  # scaling by powers of two is exact
LAYERS = MULTILINEAR | {
    "mixed igc": _block(MixedIGC, MixedSpec(6, 12, 3, 2, (3, 5), stride=2), (6, 6, 5, 4), False),
    "linear": Case(
        lambda backend, dtype: Linear(backend, 7, 4, rng=np.random.default_rng(0), dtype=dtype),
        (6, 7),
    ),
    "batch norm": Case(lambda b, dtype: BatchNorm(b, 3, dtype=dtype), (6, 3, 5, 3), (True, False)),
    "batch norm, relu": Case(
        lambda b, dtype: BatchNorm(b, 3, relu=True, dtype=dtype), (6, 3, 5, 3), (True, False)
    ),
    "max pool": Case(lambda backend, dtype: MaxPool(backend), (3, 2, 7, 6)),
}
CHECKED = LAYERS | {
    "group norm": Case(lambda b, dtype: GroupNorm(b, 6, 3, dtype=dtype), (6, 6, 5, 3)),
    "layer norm, relu": Case(
        lambda b, dtype: GroupNorm(b, 4, 1, relu=True, dtype=dtype), (3, 4, 5, 6)
    ),
    "residual": Case(_residual, (3, 2, 5, 6), (True, False)),
    "dense": Case(_dense, (3, 4, 5, 6), (True, False)),
    "igcv2": _block(IGCV2, IGCV2Spec(4, 8, (2, 2, 2), stride=2), (3, 4, 5, 6), False),
    # Of a few weights a channel, batch norm is so bent that differences are coarse.
    "igcv3": _block(IGCV3, IGCV3Spec(12, 8, 2, stride=2), (3, 12, 6, 7), True, False),
    "gated by channels": _gated(3, 5, 6, (6, 12, 3, 2, 3, 2), "channels"),
    "gated by partitions": _gated(3, 5, 6, (8, 8, 4, 2), "partitions"),
    "gated by two of four": _gated(18, 4, 3, (8, 16, 4, 2), "partitions", 2),
    "igcv3, residual": _block(IGCV3, IGCV3Spec(12, 12, 2), (3, 12, 6, 7), True, False),
}
MODES = [(name, train) for name, case in CHECKED.items() for train in case.modes]
NETWORKS = [
    Architecture("plain", 5, width=3),
    Architecture("plain_igc", 5, L=2, M=2),
    Architecture("resnet", 8, width=3),
    Architecture("resnet_igc", 8, L=2, M=2),
    Architecture("plain_igc", 5, L=2, M=2, kernel_sizes=(5, 3)),
    Architecture("plain_igc", 5, L=2, M=3, kernel_sizes=(5,), dims="1"),
    Architecture("densenet_bc_igc", 10, L=2, M=2),
]
NETWORKS_EVERYWHERE = [
    *(marked(backend, network) for backend in ("numpy", "numba") for network in NETWORKS),
    marked("emulated", NETWORKS[1]),
]
PLAIN_IGC, BATCH = NETWORKS[1], (6, 3, 6, 5)  # the network of the emulated backend: few builds


class Subject:
    """A layer or a network on one backend; arrays go in and come out as public NumPy arrays."""

    def __init__(self, what, backend, dtype):
        self.backend = shared_backend(backend) if isinstance(backend, str) else backend
        self.dtype = np.dtype(dtype)
        if isinstance(what, Architecture):
            self.layer = build(what, self.backend, dtype, seed=1).network
        else:
            self.layer = what.make(self.backend, dtype)

    def arrays(self, *kinds):
        return {
            f"{name}.{key}".lstrip("."): array
            for name, layer in self.layer.named_layers()
            for kind in kinds
            for key, array in getattr(layer, kind).items()
        }

    def set(self, values):
        for name, array in self.arrays("parameters", "buffers").items():
            array[...] = self.backend.asarray(values[name], self.dtype)

    def inside(self, x):
        x = self.backend.asarray(x, self.dtype)
        return x if x.ndim == 2 else self.backend.to_layout(x)

    def outside(self, y):
        return self.backend.to_numpy(
            y if getattr(y, "ndim", 4) == 2 else self.backend.from_layout(y)
        )

    def forward(self, x, values, train=False):
        self.set(values)
        return self.outside(self.layer.forward(self.inside(x), train))

    def run(self, x, values, d, train=False):
        """Everything there is: y, dx and the gradients by name."""
        y = self.forward(x, values, train)
        dx = self.outside(self.layer.backward(self.inside(d)))
        weights = self.arrays("gradients").items()
        return {"y": y, "dx": dx} | {f"d {k}": self.backend.to_numpy(w) for k, w in weights}


def drawn(what, shape, rng, train=False):
    """A batch, values of all parameters and buffers, and a cotangent: exact in float32.

    Pixels differ from each other by at least 0.01: no window of a maximum is undecided.
    """
    subject = Subject(what, "numpy", "float64")
    count = int(np.prod(shape))
    x = (rng.permutation(count) - count / 2 + 0.5).reshape(shape) * max(0.01, 3.5 / count)
    values = {}
    for name, array in subject.arrays("parameters", "buffers").items():
        draw = rng.normal(size=array.shape) * 0.6
        values[name] = 0.5 + abs(draw) if name.endswith(("gamma", "var")) else draw
    values = {name: single(array) for name, array in values.items()}
    y = subject.forward(single(x), values, train)
    return single(x), values, single(rng.normal(size=y.shape))


def single(array):
    """The nearest float32 numbers, as float64."""
    return np.asarray(array, "float32").astype("float64")


@pytest.fixture(autouse=True, scope="module")
def kernels():
    """Build what the emulated backend will run, on all cores: one by one takes a minute."""
    if MISSING["emulated"]:
        return
    jobs = [(case, case.shape, train) for case in LAYERS.values() for train in case.modes]

    def build_one(job):
        what, shape, train = job
        x, values, d = drawn(what, shape, np.random.default_rng(0), train)
        Subject(what, fresh_backend("emulated"), "float32").run(x, values, d, train)

    jobs.append((PLAIN_IGC, BATCH, True))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(build_one, jobs))


def on(backend, dtype, name, seed):
    """A multilinear layer with everything it gets."""
    case = LAYERS[name]
    rng = np.random.default_rng(seed)
    return case, Subject(case, backend, dtype), *drawn(case, case.shape, rng)


def state_of(what, rng):
    """Values for a network: its own fresh weights, affine numbers and statistics that matter."""
    model = build(what, fresh_backend("numpy"), "float64", seed=3)
    values = {}
    for name, array in model.state_dict().items():
        random = {"gamma": rng.uniform(0.5, 1.5, array.shape), "beta": rng.normal(size=array.shape)}
        random |= {"running_mean": random["beta"] / 4, "running_var": random["gamma"]}
        values[name] = single(random.get(name.rsplit(".", 1)[-1], array))
    return values
