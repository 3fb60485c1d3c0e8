"""What the tests of the CUDA kernels share: blocks with their surroundings, checked by NumPy's.

A `Case` is a block or a group convolution as a network has it: alone, or with batch norm and ReLU
before and after it, so that the kernels apply and note what is pending.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from igc_ref import IGCSpec
from igc_ref.backends import NumpyBackend
from igc_ref.backends.cupy.geometry import of_block, of_convolution
from igc_ref.backends.cupy.tiles import Tile, candidates
from igc_ref.errors import kernel_pair
from igc_ref.testing import assert_close
from tests.support.guarded import GuardedBackend, GuardedNumpy, public

EPS = 1e-3  # of the batch norms


# -- blocks and convolutions -----------------------------------------------------------------------


@dataclass(frozen=True)
class Convolution:
    """A group convolution, described as `IGCSpec` describes a block."""

    in_channels: int
    out_channels: int
    groups: int = 1
    kernel_size: int = 3
    stride: int = 1

    @property
    def weight_shapes(self):
        per_group = self.in_channels // self.groups
        return [(self.out_channels, per_group, *kernel_pair(self.kernel_size))]

    @property
    def fan_out(self):
        return self.out_channels // self.groups * prod(kernel_pair(self.kernel_size))

    def run(self, backend, x, weight):
        return backend.conv2d(x, weight, self.groups, self.stride)

    def run_backward(self, backend, d, saved):
        return backend.conv2d_backward(d, saved)


class Block(IGCSpec):
    """An IGC block."""

    @property
    def weight_shapes(self):
        return [self.primary_shape, self.secondary_shape]

    @property
    def fan_out(self):
        return self.out_channels // self.M * self.out_channels // self.L * self.taps

    def run(self, backend, x, *weights):
        return backend.igc(x, *weights, self)

    def run_backward(self, backend, d, saved):
        return backend.igc_backward(d, saved)


@dataclass(frozen=True)
class Case:
    """N images of H x W through a layer; `pending`: batch norm and ReLU on both sides."""

    layer: Block | Convolution
    N: int
    H: int
    W: int
    pending: bool = True
    seed: int = 0

    def __str__(self):
        s = self.layer
        parts = f"-L{s.L}M{s.M}" if isinstance(s, Block) else f"-groups{s.groups}"
        k = str(s.kernel_size).strip("()").replace(", ", "x")
        shape = f"{s.in_channels}to{s.out_channels}{parts}-k{k}s{s.stride}"
        return f"{shape}-{self.N}of{self.H}x{self.W}" + ("" if self.pending else "-alone")

    def draw(self):
        """Return the float32 arrays: x, weights, d, and gamma and beta of both batch norms."""
        rng, s = np.random.default_rng(self.seed), self.layer
        sides = zip((self.H, self.W), kernel_pair(s.kernel_size), strict=True)
        size = [(n + 2 * (k // 2) - k) // s.stride + 1 for n, k in sides]
        shapes = {"x": (self.N, s.in_channels, self.H, self.W)}
        shapes |= {f"weight{i}": shape for i, shape in enumerate(s.weight_shapes)}
        shapes |= {"d": (self.N, s.out_channels, *size)}
        arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        for name, channels in (("before", s.in_channels), ("after", s.out_channels)):
            arrays[f"gamma_{name}"] = rng.uniform(0.5, 2, channels) * rng.choice([-1, 1], channels)
            arrays[f"beta_{name}"] = rng.normal(size=channels)
        return {name: array.astype("float32") for name, array in arrays.items()}

    def backend(self, device=None):
        return GuardedBackend(device)

    def run(self, backend, dtype="float32"):
        """Return everything that the backend computes for this case, by name."""
        a = {name: backend.asarray(array, dtype) for name, array in self.draw().items()}
        weights = [a[f"weight{i}"] for i in range(len(self.layer.weight_shapes))]
        x, found = backend.to_layout(a["x"]), {}
        if self.pending:
            x, before = batch_norm(backend, x, a["gamma_before"], a["beta_before"])
        y, saved = self.layer.run(backend, x, *weights)
        found["y"], d = public(backend, y), backend.to_layout(a["d"])
        if self.pending:
            y, after = batch_norm(backend, y, a["gamma_after"], a["beta_after"])
            found["after"] = public(backend, y)
            d, *after = backend.batch_norm_backward(d, after)
            found["dgamma_after"], found["dbeta_after"] = map(backend.to_numpy, after)
        dx, *gradients = self.layer.run_backward(backend, d, saved)
        found |= {f"dweight{i}": backend.to_numpy(g) for i, g in enumerate(gradients)}
        found["dx"] = public(backend, dx)
        if self.pending:
            dx, *before = backend.batch_norm_backward(dx, before)
            found["dgamma_before"], found["dbeta_before"] = map(backend.to_numpy, before)
            found["dx_before"] = public(backend, dx)
        if isinstance(backend.xp, GuardedNumpy):
            backend.xp.check()
        return found

    def check(self, found):
        """Assert that what a backend computed is what NumPy's computes in float64."""
        for name, values in expected(self).items():
            try:
                assert_close(found[name], values, self.length(name))
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None

    def length(self, name):
        """How many products a number of this result sums, and of those before it."""
        fan_in = prod(prod(shape[1:]) for shape in self.layer.weight_shapes)
        positions, pixels = expected(self)["y"][:, 0].size, self.N * self.H * self.W
        if name == "y":
            return fan_in
        if name.endswith("after"):
            return fan_in + positions
        return fan_in + self.layer.fan_out + positions + pixels * name.endswith("before")


@lru_cache(maxsize=256)
def expected(case):
    """Return what tests/backends/test_operators.py proves right, in float64."""
    return case.run(NumpyBackend(), "float64")


def batch_norm(backend, x, gamma, beta, train=True, relu=True, momentum=0.75):
    running = (backend.asarray(f(len(gamma), gamma.dtype)) for f in (np.zeros, np.ones))
    return backend.batch_norm(
        x, gamma, beta, *running, momentum=momentum, eps=EPS, train=train, relu=relu
    )


def channels(vector):
    return vector[:, None, None]


def normalised(x):
    """Return x of mean 0 and variance 1 in every channel, and 1/std."""
    mean, var = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
    inv_std = 1 / np.sqrt(var + EPS)
    return (x - mean) * inv_std, inv_std


# The cases of the fast set: everything else in these tests is slow.
SQUARE = Case(Block.square(6, 2), 5, 9, 6)
TRANSITION = Case(Block(12, 24, 6, 2, stride=2), 5, 5, 7)
CONVOLUTION = Case(Convolution(3, 16), 2, 8, 8)


# -- tiles -----------------------------------------------------------------------------------------


def geometry(case):
    s = case.layer
    if isinstance(s, Block):
        return of_block(s, case.N, case.H, case.W)
    shape = s.in_channels, case.N, case.H, case.W
    return of_convolution(shape, s.out_channels, s.groups, s.kernel_size, s.stride, split=False)


@dataclass(frozen=True)
class Tiled:
    """A case with tiles that are not the backend's choice."""

    case: Case
    forward: Tile
    back: Tile

    def __str__(self):
        f, b = self.forward, self.back
        forward = f"PX{f.PX}MS{f.MS}NP{f.NP}x{f.stages}"
        return f"{self.case}-{forward}-PX{b.PX}MS{b.MS}NP{b.NP}PXD{b.PXD}IS{b.IS}x{b.stages}"

    def backend(self, device=None):
        return GuardedBackend(device, {False: self.forward, True: self.back})

    def run(self, backend):
        return self.case.run(backend)


def forced(case, **fields):
    """The case with the first tiles that have these fields."""
    g, found = geometry(case), []
    for backward in (False, True):
        wanted = {n: v for n, v in fields.items() if backward or n in ("PX", "MS", "NP")}
        fitting = candidates(g, backward, backward)
        found.append(next(t for t in fitting if wanted.items() <= vars(t).items()))
    return Tiled(case, *found)
