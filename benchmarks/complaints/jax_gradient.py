"""The weight gradient of a grouped convolution in JAX, against the dense one and ours."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.complaints.timing import Timed, Ways, draw, numba_layer


def jax_gradient(x: Any, dy: Any, groups: int) -> Callable[[], object]:
    """Return a function that computes the gradient of the weights in JAX."""
    import jax

    jax.config.update("jax_platforms", "cpu")

    @jax.jit
    def gradient(x: Any, dy: Any, w: Any) -> Any:
        def convolve(w: Any) -> Any:
            return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", feature_group_count=groups)

        return jax.vjp(convolve, w)[1](dy)

    w = np.zeros((x.shape[1], x.shape[1] // groups, 3, 3), "float32")
    arrays = jax.device_put((x, dy, w))
    return lambda: jax.block_until_ready(gradient(*arrays))


def our_gradient(x: Any, dy: Any, groups: int) -> Callable[[], object]:
    """Return a function that computes it with our kernels."""
    layer = numba_layer("Conv2d", x.shape[1], x.shape[1], groups=groups)
    backend = layer.backend
    x, dy = backend.to_layout(x), backend.to_layout(dy)
    _, saved = backend.conv2d(x, layer.parameters["weight"], groups, 1)
    return lambda: backend.conv2d_backward(dy, saved, False)


def ways(C: int, groups: int, N: int, H: int) -> Ways:
    """Return dense and grouped gradients of both."""
    return {
        ("weight gradient", f"{who} {kind}"): of(*draw(N, C, H), g)
        for who, of in (("JAX", jax_gradient), ("our", our_gradient))
        for kind, g in (("dense", 1), ("grouped", groups))
    }


SCRIPT = Timed(
    "In JAX the gradient of a grouped convolution costs as much as a dense one's",
    "[jax#13800](https://github.com/jax-ml/jax/issues/13800)",
    {"48 channels in 24 groups": (48, 24, 4, 32), "48 channels in 48 groups": (48, 48, 4, 32)},
    ways,
    claims=[("JAX grouped", "JAX dense")],
    ours=[("our grouped", "our dense"), ("our grouped", "JAX grouped")],
)
