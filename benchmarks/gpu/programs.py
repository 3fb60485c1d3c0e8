"""What section ``check`` runs: layers and small programs that any backend can run, and inputs.

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

from igc_ref import networks as layers
from igc_ref.backends import NumpyBackend
from igc_ref.networks.layer import Layer, Residual, Sequential
from igc_ref.spec.block import IGCSpec

Arrays = dict[str, npt.NDArray[Any]]
Outputs = dict[str, Any]
Make = Callable[[Any, Any, str], Layer]  # from a backend, a Generator and a dtype
NEAR = 1e-4  # of a kink: in units of a deviation
NORM = {"gamma": (0.5, 1.5), "beta": (-0.5, 0.5), "running_mean": (-2, 2), "running_var": (0.5, 2)}
SIZES = {"a": (48, 2, 3, 3), "b": (48, 24), "c": (5,), "d": (1,), "e": (7, 3, 1, 1)}  # for sgd
ODD = (  # (spec, N, H, W)
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
)
CONVOLUTIONS = (  # (in and out channels, kernel size, stride, groups, whether dx is wanted)
    (3, 48, 3, 1, 1, True), (3, 48, 3, 1, 1, False), (16, 32, 3, 2, 1, True),
    (16, 16, 3, 1, 1, True), (32, 64, 3, 2, 1, True), (64, 64, 3, 1, 1, True),
    (48, 96, 1, 2, 24, True), (32, 64, 1, 2, 4, True), (12, 18, 3, 1, 6, True),
    (10, 15, 5, 3, 5, True),
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """A program and its inputs.

    `images` is false where no batch of images is kept: storage in 16 bits changes nothing then.
    """

    name: str
    program: Callable[[Any, dict[str, Any]], Outputs]
    inputs: Callable[[np.random.Generator], Arrays]
    images: bool = True


# -- layers ----------------------------------------------------------------------------------------


def layer_check(
    name: str, make: Make, shape: tuple[int, ...], train: bool = True, images: bool = True
) -> Check:
    """Return the check of a layer, forward and backward, on inputs of this shape."""
    inputs = partial(layer_inputs, make=make, shape=shape, train=train)
    return Check(name, partial(layer_program, make=make, train=train), inputs, images)


def layer_program(b: Any, a: dict[str, Any], make: Make, train: bool) -> Outputs:
    """Run a layer forward and backward; return output, all gradients, running statistics."""
    layer, x, d = make(b, np.random.default_rng(0), str(a["x"].dtype)), a["x"], a["d"]
    fill(layer, a)
    y = layer.forward(b.to_layout(x) if x.ndim == 4 else x, train)
    if d.ndim == 4:  # with storage in 16 bits, gradients of images are kept larger
        y, d = b.from_layout(y), b.to_layout(d * d.dtype.type(getattr(b, "scale", 1)))
    found, dx = {"y": y}, layer.backward(d)
    if dx is not None:
        found["dx"] = b.from_layout(dx, gradient=True) if x.ndim == 4 else dx
    for path, part in layer.named_layers():
        found |= {f"d {path}.{key}": array for key, array in part.gradients.items()}
        found |= {f"{path}.{key}": array for key, array in part.buffers.items() if train}
    return found


def layer_inputs(
    rng: np.random.Generator, make: Make, shape: tuple[int, ...], train: bool
) -> Arrays:
    """Draw images, a gradient and weights: x off the first ReLU's kink, d zero at the last's."""
    layer, a = make(NumpyBackend(), rng, "float64"), {}
    for path, _, key, array in arrays_of(layer):
        value = rng.uniform(*NORM[key], array.shape) if key in NORM else np.array(array)
        a[f"{path}.{key}"] = np.float64(value.astype("float32"))
    fill(layer, a)
    x, d = (rng.normal(size=s) for s in (shape, (shape[0], *layer.output_shape(shape[1:]))))
    parts = [part for _, part in layer.named_layers() if not part.children]
    if isinstance(parts[0], layers.BatchNorm):
        x = off_kink(2 * x + 1, parts[0], train)
    if isinstance(parts[-1], layers.BatchNorm):
        parts[-1].relu = False
        z = layer.forward(np.moveaxis(np.float64(x.astype("float32")), 0, 1), train)
        d[np.abs(np.moveaxis(z, 0, 1)) < NEAR] = 0
    return a | {"x": x, "d": d}


def arrays_of(layer: Layer) -> Iterator[tuple[str, dict[str, Any], str, Any]]:
    """Yield every array of a layer: the part's path, the dictionary that it is in, key, array."""
    for path, part in layer.named_layers():
        for group in (part.parameters, part.buffers):
            yield from ((path, group, key, array) for key, array in list(group.items()))


def fill(layer: Layer, arrays: dict[str, Any]) -> None:
    """Give a layer these arrays for its own."""
    for path, group, key, _ in arrays_of(layer):
        group[key] = arrays[f"{path}.{key}"]


def off_kink(x: Any, norm: layers.BatchNorm, train: bool) -> Any:
    """Return x with what batch norm brings close to 0 moved away from it."""
    arrays = {k: v.reshape(1, -1, 1, 1) for k, v in (norm.parameters | norm.buffers).items()}
    mean, var = arrays["running_mean"], arrays["running_var"]
    if train:
        mean, var = (f(x, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.var))
    before = arrays["gamma"] * (x - mean) / np.sqrt(var + layers.BN_EPS) + arrays["beta"]
    return np.where(np.abs(before) < NEAR, x + 8 * NEAR * np.sqrt(var), x)


def block(b: Any, rng: Any, dtype: str, spec: IGCSpec) -> Layer:
    """Make a block."""
    return layers.IGC(b, spec, rng=rng, dtype=dtype)


def chain(b: Any, rng: Any, dtype: str, spec: IGCSpec) -> Layer:
    """Make batch norm and ReLU, block, batch norm and ReLU: what the kernels fuse."""
    first, last = (norm(b, rng, dtype, C, True) for C in (spec.in_channels, spec.out_channels))
    return Sequential({"bn1": first, "igc": block(b, rng, dtype, spec), "bn2": last})


def conv(b: Any, rng: Any, dtype: str, sizes: tuple[int, ...]) -> Layer:
    """Make one of `CONVOLUTIONS`."""
    C, out, k, stride, groups, dx = sizes
    options = {"kernel_size": k, "stride": stride, "groups": groups}
    layer = layers.Conv2d(b, C, out, **options, rng=rng, dtype=dtype)
    layer.input_gradient = bool(dx)
    return layer


def norm(b: Any, _: Any, dtype: str, channels: int, relu: bool) -> Layer:
    """Make a batch norm."""
    return layers.BatchNorm(b, channels, relu=relu, dtype=dtype)


def linear(b: Any, rng: Any, dtype: str, inputs: int, out: int) -> Layer:
    """Make a linear layer."""
    return layers.Linear(b, inputs, out, rng=rng, dtype=dtype)


def blocks(cases: Any, N: int, rest: int, tiny: bool) -> Iterator[Check]:
    """Yield the paper's blocks, alone with N images and between batch norms; then odd ones."""
    runs = [(spec, count, size, size, what) for spec, size in cases
            for what, count in ((block, N), (chain, rest))]  # fmt: skip
    runs += [(*case, block) for case in ODD[: 1 if tiny else None]]
    for spec, count, H, W, what in runs:
        name = f"{'igc' if what is block else 'bn igc bn'} L{spec.L}M{spec.M} "
        name += f"{spec.in_channels}-{spec.out_channels} {spec.kernel_size}x{spec.kernel_size}"
        name += f"/{spec.stride} {H}x{W} N{count}"
        yield layer_check(name, partial(what, spec=spec), (count, spec.in_channels, H, W))


def convolutions(rest: int, tiny: bool) -> Iterator[Check]:
    """Yield the convolutions of the paper's networks and odd ones."""
    for sizes in CONVOLUTIONS[: 3 if tiny else None]:
        C, out, k, stride, groups, dx = sizes
        for N, H, W in ((2, 7, 9),) if tiny else ((rest, 32, 32), (2, 7, 9)):
            name = f"conv {C}-{out} {k}x{k}/{stride} groups {groups} {H}x{W} N{N}"
            name += "" if dx else " no dx"
            yield layer_check(name, partial(conv, sizes=sizes), (N, C, H, W))


def others(N: int) -> Iterator[Check]:
    """Yield the layers and operators that are not convolutions."""
    for C, *size in ((48, 32, 32), (6, 7, 9)):
        shape = N, C, *size
        for train, relu in ((True, True), (True, False), (False, True)):
            name = f"batch norm {shape} {'train' if train else 'eval'}{' relu' * relu}"
            yield layer_check(name, partial(norm, channels=C, relu=relu), shape, train)
        for name, make in {
            "relu of a sum with a shuffle": lambda b, *_: Residual(b, layers.Shuffle(b, 3)),
            "max pool": lambda b, *_: layers.MaxPool(b),
            "average pool": lambda b, *_: layers.GlobalAveragePool(b),
        }.items():
            yield layer_check(f"{name} {shape}", make, shape)
    for rows, inputs, out in ((N, 192, 10), (3, 7, 5)):
        make = partial(linear, inputs=inputs, out=out)
        yield layer_check(f"linear {rows}x{inputs}-{out}", make, (rows, inputs), images=False)
        yield Check(f"loss {rows}x{out}", loss, partial(loss_inputs, shape=(rows, out)), False)
    yield Check("sgd", sgd, sgd_inputs, images=False)
    yield Check(f"augmentation N{N}", augmentation, partial(augmentation_inputs, N=N), False)


# -- operators without a layer ---------------------------------------------------------------------


def loss(b: Any, a: dict[str, Any]) -> Outputs:
    """Run the loss and its gradient."""
    names = ("loss", "correct", "dlogits")
    return dict(zip(names, b.loss(a["logits"], a["labels"]), strict=True))


def loss_inputs(rng: np.random.Generator, shape: tuple[int, int]) -> Arrays:
    """Draw logits and labels."""
    return {"logits": rng.normal(size=shape), "labels": rng.integers(0, shape[1], shape[0])}


def sgd(b: Any, a: dict[str, Any]) -> Outputs:
    """Take three steps of the optimiser with all parameters together."""
    w, g, v = ({name: a[kind + name] for name in SIZES} for kind in "wgv")
    for lr in (0.1, 0.05, 0.025):
        b.sgd_steps(w, g, v, lr=lr, momentum=0.9, weight_decay=5e-4)
    return {kind + name: a[kind + name] for kind in "wv" for name in SIZES}


def sgd_inputs(rng: np.random.Generator) -> Arrays:
    """Draw weights, gradients, velocities."""
    return {kind + n: rng.normal(size=shape) for kind in "wgv" for n, shape in SIZES.items()}


def augmentation(b: Any, a: dict[str, Any]) -> Outputs:
    """Normalise bytes and crop, as the host's own loop does."""
    x = b.normalise(a["bytes"], (125.3, 122.9, 113.9), (63.0, 62.1, 66.7), a["one"].dtype)
    return {"x": b.pad_crop_mirror(x, a["top"], a["left"], a["mirror"], 4)}


def augmentation_inputs(rng: np.random.Generator, N: int) -> Arrays:
    """Draw bytes and crops."""
    (top, left), mirror = rng.integers(0, 9, (2, N)), rng.random(N) < 0.5
    images = rng.integers(0, 256, (N, 3, 32, 32), dtype=np.uint8)
    return {"bytes": images, "top": top, "left": left, "mirror": mirror, "one": np.ones(1)}
