"""The same blocks and networks in ONNX Runtime, OpenVINO (forward only) and JAX (blocks only).

No other file of the package imports these libraries.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from igc_ref.backends import NumpyBackend
from igc_ref.bench.cases import BlockCase, Case
from igc_ref.networks.blocks import IGC
from igc_ref.networks.layer import Layer
from igc_ref.networks.model import build
from igc_ref.spec.block import IGCSpec

RIVALS = {  # what each needs
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "jax": ("jax",),
}


def functions(
    contender: str, case: Case, x: Any, dy: Any, threads: int
) -> dict[str, Callable[[], object]]:
    """Return what is timed of a rival on public images x."""
    if not isinstance(case, BlockCase):
        layer: Layer = build(case.architecture, "numpy").network
    elif contender == "jax":
        return jax_block(case.spec, x, dy, threads, *case.weights())
    else:
        layer = IGC(NumpyBackend(), case.spec, rng=np.random.default_rng(0))
    return {"forward": forward(contender, layer, x, threads)}


def forward(contender: str, layer: Layer, x: Any, threads: int) -> Callable[[], Any]:
    """Return a function that computes a layer's output for x, in evaluation mode.

    The graph is fixed to the shape of x, and batch norm is folded.
    """
    from igc_ref.exchange.onnx import to_proto

    y_shape = (len(x), *layer.output_shape(x.shape[1:]))
    graph = to_proto(layer, x.shape, y_shape, "float32").SerializeToString()
    if contender == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(graph, options)
        return lambda: session.run(None, {"images": x})[0]
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # not bfloat16, where the processor has it
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    model = core.compile_model(core.read_model(graph), "CPU", settings)
    request = model.create_infer_request()  # whose output the next call overwrites
    return lambda: request.infer([x], share_inputs=True, share_outputs=True)[0]


def jax_block(
    spec: IGCSpec, x: Any, dy: Any, threads: int, primary: Any, secondary: Any
) -> dict[str, Callable[[], Any]]:
    """Return functions for x', for x' and all gradients, and for the weights' gradients alone."""
    if hasattr(os, "sched_setaffinity"):  # JAX starts a thread for every core that it may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import jax

    jax.config.update("jax_platforms", "cpu")

    def shuffle(x: Any, groups: int) -> Any:
        N, C, H, W = x.shape
        return x.reshape(N, groups, C // groups, H, W).swapaxes(1, 2).reshape(N, C, H, W)

    def block(x: Any, primary: Any, secondary: Any) -> Any:
        convolve = jax.lax.conv_general_dilated
        stride, padding = 2 * (spec.stride,), [(k // 2, k // 2) for k in spec.kernel]
        y = shuffle(convolve(x, primary, stride, padding, feature_group_count=spec.L), spec.L)
        w = secondary[..., None, None]
        return shuffle(convolve(y, w, (1, 1), "VALID", feature_group_count=spec.M), spec.M)

    def both(dy: Any, *arguments: Any) -> Any:
        y, pull = jax.vjp(block, *arguments)
        return y, *pull(dy)

    def weights(dy: Any, x: Any, *arguments: Any) -> Any:
        return jax.vjp(partial(block, x), *arguments)[1](dy)

    dy, *arrays = jax.device_put((dy, x, primary, secondary))

    def compiled(function: Any, *arguments: Any) -> Callable[[], Any]:
        run = jax.jit(function)
        return lambda: jax.block_until_ready(run(*arguments))

    return {
        "forward": compiled(block, *arrays),
        "both": compiled(both, dy, *arrays),
        "weights": compiled(weights, dy, *arrays),
    }
