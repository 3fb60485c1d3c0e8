"""What section ``check`` runs: small programs that any backend can run, and their inputs.

A program takes a backend and arrays by name and returns arrays by name. It runs on the backend
under test in float32 and on the NumPy backend in float64, from the same float32 numbers. Inputs
keep away from the kinks of ReLU, where one bit decides whether a gradient passes: there, no two
precisions agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref import reference
from igc_ref.backends import NumpyBackend
from igc_ref.spec.block import IGCSpec

Arrays = dict[str, npt.NDArray[Any]]
Program = Callable[[Any, dict[str, Any]], dict[str, Any]]
NORM = {"momentum": 0.9, "eps": 2e-5}
NEAR = 1e-4  # of a kink: in units of a deviation


@dataclass(frozen=True)
class Check:
    """A program, its inputs, and how far its outputs may be off: ||out - ref|| / ||ref||.

    `expected`, if given, computes the outputs in its own way from the float64 inputs.
    """

    name: str
    program: Program
    inputs: Callable[[np.random.Generator], Arrays]
    expected: Callable[[Arrays], Arrays] | None = None
    limit: float = 1e-5


def gradient(b: Any, d: Any) -> Any:
    """Load a gradient as the backend keeps it: with storage in 16 bits, larger."""
    scale = getattr(b, "scale", 1.0)
    return b.load(d if scale == 1 else d * d.dtype.type(scale))


def back(b: Any, dx: Any) -> Any:
    """Store a gradient."""
    return b.store(dx, gradient=True)


def igc(b: Any, a: dict[str, Any], spec: IGCSpec) -> dict[str, Any]:
    """Run a block and all its gradients."""
    y, saved = b.igc(b.load(a["x"]), a["primary"], a["secondary"], spec)
    dx, dprimary, dsecondary = b.igc_backward(gradient(b, a["d"]), saved)
    return {"y": b.store(y), "dx": back(b, dx), "dprimary": dprimary, "dsecondary": dsecondary}


def igc_inputs(rng: np.random.Generator, spec: IGCSpec, N: int, H: int, W: int) -> Arrays:
    """Draw pictures, He-normal weights, a gradient."""
    return {
        "x": rng.normal(size=(N, spec.in_channels, H, W)),
        "d": rng.normal(size=(N, spec.out_channels, *spec.output_size(H, W))),
        **{
            name: rng.normal(size=shape) * (2 / np.prod(shape[1:])) ** 0.5
            for name, shape in (
                ("primary", spec.primary_shape),
                ("secondary", spec.secondary_shape),
            )
        },
    }


def by_definition(a: Arrays, spec: IGCSpec) -> Arrays:
    """Return the outputs of `igc` from the explicit matrices."""
    x, primary, secondary = (a[name] for name in ("x", "primary", "secondary"))
    y = reference.forward(x, primary, secondary, spec, sparse=True)
    gradients = reference.backward(a["d"], x, primary, secondary, spec, sparse=True)
    names = ("dx", "dprimary", "dsecondary")
    return {"y": y, **dict(zip(names, gradients, strict=True))}


def norm(b: Any, x: Any, a: dict[str, Any], which: str, **options: Any) -> tuple[Any, Any]:
    """Normalise by the arrays whose names end so; running statistics change in place."""
    keys = ("gamma", "beta", "running_mean", "running_var")
    arrays = {key: a[key + which] for key in keys}
    return b.batch_norm(x, **arrays, **NORM, **({"train": True, "relu": True} | options))  # type: ignore[no-any-return]


def norm_inputs(rng: np.random.Generator, channels: int, which: str) -> Arrays:
    """Draw the arrays of a batch norm."""
    return {
        f"gamma{which}": rng.uniform(0.5, 1.5, channels),
        f"beta{which}": 0.3 * rng.normal(size=channels),
        f"running_mean{which}": rng.normal(size=channels),
        f"running_var{which}": rng.uniform(0.5, 2, channels),
    }


def chain(b: Any, a: dict[str, Any], spec: IGCSpec) -> dict[str, Any]:
    """Run batch norm and ReLU, block, batch norm and ReLU: what the kernels fuse."""
    x, first = norm(b, b.load(a["x"]), a, "1")
    y, saved = b.igc(x, a["primary"], a["secondary"], spec)
    z, second = norm(b, y, a, "2")
    d, dgamma2, dbeta2 = b.batch_norm_backward(gradient(b, a["d"]), second)
    d, dprimary, dsecondary = b.igc_backward(d, saved)
    d, dgamma1, dbeta1 = b.batch_norm_backward(d, first)
    running = {k: a[k] for k in a if k.startswith("running")}
    return {
        "z": b.store(z), "dx": back(b, d), "dprimary": dprimary, "dsecondary": dsecondary,
        "dgamma1": dgamma1, "dbeta1": dbeta1, "dgamma2": dgamma2, "dbeta2": dbeta2, **running,
    }  # fmt: skip


def chain_inputs(rng: np.random.Generator, spec: IGCSpec, N: int, H: int, W: int) -> Arrays:
    """Draw the inputs of `chain`: x moved away from the first ReLU's kink, d zero at the second."""
    a = igc_inputs(rng, spec, N, H, W) | norm_inputs(rng, spec.in_channels, "1")
    a |= norm_inputs(rng, spec.out_channels, "2")
    a["x"] = off_kink(a["x"], a, "1")
    b, numbers = NumpyBackend(), {k: np.float64(v.astype("float32")) for k, v in a.items()}
    x, _ = norm(b, b.load(numbers["x"]), numbers, "1")
    y, _ = b.igc(x, numbers["primary"], numbers["secondary"], spec)
    z, _ = norm(b, y, numbers, "2", relu=False)
    a["d"][np.abs(b.store(z)) < NEAR] = 0
    return a


def off_kink(x: npt.NDArray[Any], a: Arrays, which: str, train: bool = True) -> npt.NDArray[Any]:
    """Return x with what batch norm brings close to 0 moved away from it."""
    gamma, beta, mean, var = (
        a[key + which].reshape(1, -1, 1, 1)
        for key in ("gamma", "beta", "running_mean", "running_var")
    )
    if train:
        mean, var = (f(x, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.var))
    before = gamma * (x - mean) / np.sqrt(var + NORM["eps"]) + beta
    return np.where(np.abs(before) < NEAR, x + 8 * NEAR * np.sqrt(var), x)  # type: ignore[no-any-return]


def conv(b: Any, a: dict[str, Any], groups: int, stride: int, dx: bool) -> dict[str, Any]:
    """Run a group convolution and its gradients."""
    y, saved = b.conv2d(b.load(a["x"]), a["weight"], groups, stride)
    found, dweight = b.conv2d_backward(gradient(b, a["d"]), saved, dx)
    return {"y": b.store(y), "dweight": dweight} | ({"dx": back(b, found)} if dx else {})


def conv_check(
    inputs: int, out: int, k: int, groups: int, stride: int, N: int, size: tuple[int, int],
    dx: bool = True,
) -> Check:  # fmt: skip
    """Return the check of one group convolution."""
    H, W = size
    after = [(n + 2 * (k // 2) - k) // stride + 1 for n in size]

    def draw(rng: np.random.Generator) -> Arrays:
        weight = rng.normal(size=(out, inputs // groups, k, k))
        return {
            "x": rng.normal(size=(N, inputs, H, W)),
            "weight": weight * (2 / np.prod(weight.shape[1:])) ** 0.5,
            "d": rng.normal(size=(N, out, *after)),
        }

    name = f"conv {inputs}-{out} {k}x{k}/{stride} groups {groups} {H}x{W} N{N}"
    program = partial(conv, groups=groups, stride=stride, dx=dx)
    return Check(name + ("" if dx else " no dx"), program, draw)


def paper(specs: list[tuple[IGCSpec, int]], N: int, rest: int) -> Iterator[Check]:
    """Yield the paper's blocks, plain with N pictures and between batch norms with `rest`."""
    for spec, size in specs:
        name = f"L{spec.L}M{spec.M} {spec.in_channels}-{spec.out_channels}/{spec.stride} {size}"
        inputs = partial(igc_inputs, spec=spec, N=N, H=size, W=size)
        yield Check(f"igc {name} N{N}", partial(igc, spec=spec), inputs)
        inputs = partial(chain_inputs, spec=spec, N=rest, H=size, W=size)
        yield Check(f"bn igc bn {name} N{rest}", partial(chain, spec=spec), inputs)


def odd(cases: list[tuple[IGCSpec, int, int, int]]) -> Iterator[Check]:
    """Yield blocks of odd shapes, against the explicit matrices."""
    for spec, N, H, W in cases:
        name = f"igc L{spec.L}M{spec.M} {spec.in_channels}-{spec.out_channels}"
        name += f" {spec.kernel_size}x{spec.kernel_size}/{spec.stride} {H}x{W} N{N}"
        inputs = partial(igc_inputs, spec=spec, N=N, H=H, W=W)
        expected = partial(by_definition, spec=spec)
        yield Check(name, partial(igc, spec=spec), inputs, expected)
