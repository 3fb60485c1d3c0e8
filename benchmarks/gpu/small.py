"""Section ``check``: the operators that are not convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.gpu.programs import Arrays, Check, back, gradient, norm, norm_inputs, off_kink


def batch_norm(b: Any, a: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Run batch norm and its gradients."""
    y, saved = norm(b, b.load(a["x"]), a, "", **options)
    dx, dgamma, dbeta = b.batch_norm_backward(gradient(b, a["d"]), saved)
    running = {k: a[k] for k in a if k.startswith("running") and options["train"]}
    return {"y": b.store(y), "dx": back(b, dx), "dgamma": dgamma, "dbeta": dbeta, **running}


def batch_norms(N: int) -> Iterator[Check]:
    """Yield batch norm in training and evaluation, with ReLU and without."""
    for shape in ((N, 48, 32, 32), (3, 5, 7, 9)):
        for train, relu in ((True, True), (True, False), (False, True)):

            def draw(rng: np.random.Generator, shape: Any = shape, train: bool = train) -> Arrays:
                a = norm_inputs(rng, shape[1], "")
                x = off_kink(2 * rng.normal(size=shape) + 1, a, "", train)
                return a | {"x": x, "d": rng.normal(size=shape)}

            words = ("train" if train else "eval") + " relu" * relu
            name = f"batch norm {'x'.join(map(str, shape))} {words}"
            yield Check(name, partial(batch_norm, train=train, relu=relu), draw)


def residual(b: Any, a: dict[str, Any]) -> dict[str, Any]:
    """Run ReLU, sum, sum and ReLU, and their gradients."""
    p, q = b.load(a["p"]), b.load(a["q"])
    y, saved = b.add_relu(p, q)
    z, of_relu = b.relu(b.load(a["p"]))
    d = gradient(b, a["d"])
    return {
        "add": b.store(b.add(p, q)), "add_relu": b.store(y), "relu": b.store(z),
        "d add_relu": back(b, b.relu_backward(d, saved)),
        "d relu": back(b, b.relu_backward(d, of_relu)),
    }  # fmt: skip


def pooling(b: Any, a: dict[str, Any], maximum: bool) -> dict[str, Any]:
    """Run the global average pool, and max pooling on request."""
    x = b.load(a["p"])
    y, saved = b.global_average_pool(x)
    found = {"average": y, "d": back(b, b.global_average_pool_backward(a["dy"], saved))}
    if maximum:
        z, winners = b.max_pool(x, 3, 2, 1)
        d = b.max_pool_backward(b.load(a["d"][:, :, : z.shape[2], : z.shape[3]]), winners)
        found |= {"max": b.store(z), "d max": b.store(d)}
    return found


def two_pictures(rng: np.random.Generator, shape: tuple[int, ...]) -> Arrays:
    """Draw two batches and gradients."""
    p, q, d = (rng.normal(size=shape).astype("float32") for _ in range(3))
    return {"p": p, "q": q, "d": d, "dy": rng.normal(size=shape[:2])}


def head(b: Any, a: dict[str, Any]) -> dict[str, Any]:
    """Run linear layer and loss, and their gradients."""
    logits, saved = b.linear(a["x"], a["weight"], a["bias"])
    loss, hits, dlogits = b.loss(logits, a["labels"])
    dx, dweight, dbias = b.linear_backward(a["d"], saved)
    return {
        "logits": logits, "loss": loss, "hits": hits, "dlogits": dlogits,
        "dx": dx, "dweight": dweight, "dbias": dbias,
    }  # fmt: skip


def head_inputs(rng: np.random.Generator, N: int, inputs: int, out: int) -> Arrays:
    """Draw features, weights, labels."""
    return {
        "x": rng.normal(size=(N, inputs)), "weight": rng.normal(size=(out, inputs)) / inputs**0.5,
        "bias": rng.normal(size=out), "d": rng.normal(size=(N, out)),
        "labels": rng.integers(0, out, N),
    }  # fmt: skip


SIZES = {"a": (48, 2, 3, 3), "b": (48, 24), "c": (5,), "d": (1,), "e": (7, 3, 1, 1)}


def sgd(b: Any, a: dict[str, Any]) -> dict[str, Any]:
    """Take three steps of the optimiser with all parameters together."""
    weights, gradients, velocities = (
        {name: a[kind + name] for name in SIZES} for kind in ("w", "g", "v")
    )
    for lr in (0.1, 0.05, 0.025):
        b.sgd_steps(weights, gradients, velocities, lr=lr, momentum=0.9, weight_decay=5e-4)
    return {kind + name: a[kind + name] for kind in ("w", "v") for name in SIZES}


def sgd_inputs(rng: np.random.Generator) -> Arrays:
    """Draw weights, gradients, velocities."""
    return {k + n: rng.normal(size=shape) for k in ("w", "g", "v") for n, shape in SIZES.items()}


def augmentation(b: Any, a: dict[str, Any]) -> dict[str, Any]:
    """Normalise bytes and cut windows out of them, as the host's own loop does."""
    x = b.normalise(a["bytes"], (125.3, 122.9, 113.9), (63.0, 62.1, 66.7), a["one"].dtype)
    return {"x": b.pad_crop_mirror(x, a["top"], a["left"], a["mirror"], 4)}


def augmentation_inputs(rng: np.random.Generator, N: int) -> Arrays:
    """Draw bytes and windows."""
    top, left = rng.integers(0, 9, (2, N))
    return {
        "bytes": rng.integers(0, 256, (N, 3, 32, 32), dtype=np.uint8),
        "top": top, "left": left, "mirror": rng.random(N) < 0.5, "one": np.ones(1),
    }  # fmt: skip


def small(N: int) -> Iterator[Check]:
    """Yield all of them."""
    yield from batch_norms(N)
    for shape in ((N, 48, 16, 16), (3, 5, 7, 9)):
        inputs = partial(two_pictures, shape=shape)
        size = "x".join(map(str, shape))
        yield Check(f"relu, add {size}", residual, inputs)
        yield Check(f"pooling {size}", partial(pooling, maximum=True), inputs)
    for rows, inputs, out in ((N, 192, 10), (3, 7, 5)):
        draw = partial(head_inputs, N=rows, inputs=inputs, out=out)
        yield Check(f"linear, loss {rows}x{inputs}-{out}", head, draw)
    yield Check("sgd", sgd, sgd_inputs)
    yield Check(f"augmentation N{N}", augmentation, partial(augmentation_inputs, N=N))
