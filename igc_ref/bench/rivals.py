"""The same blocks and networks in ONNX Runtime, OpenVINO and JAX.

The first two run the graph that PyTorch exports of our twins, forward only. No other file of the
package imports these libraries.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from igc_ref.bench.cases import BlockCase, Case
from igc_ref.spec.block import IGCSpec

RIVALS = {  # what each needs
    "onnxruntime": ("torch", "onnx", "onnxruntime"),
    "openvino": ("torch", "onnx", "openvino"),
    "jax": ("jax",),
}


def able(contender: str, case: Case) -> bool:
    """Return whether a contender has a case: JAX has blocks, the two others no training steps."""
    if contender == "jax":
        return isinstance(case, BlockCase)
    return contender not in RIVALS or isinstance(case, BlockCase) or not case.train


def functions(
    contender: str, case: Case, x: Any, dy: Any, threads: int
) -> dict[str, Callable[[], object]]:
    """Return what is timed of a rival; arrays are public images."""
    if contender == "jax":
        assert isinstance(case, BlockCase)
        rng, s = np.random.default_rng(1), case.spec
        shapes = s.primary_shape, s.secondary_shape
        primary, secondary = (rng.normal(size=shape).astype("float32") for shape in shapes)
        return jax_block(s, x, primary, secondary, dy, threads)
    from igc_ref.bench import torch_twins

    shuffle = torch_twins.shuffle_in_format  # made of operators that ONNX has
    module = (
        torch_twins.Block(case.spec, shuffle)
        if isinstance(case, BlockCase)
        else torch_twins.network(case.architecture, shuffle)
    )
    forward = onnxruntime_forward if contender == "onnxruntime" else openvino_forward
    return {"forward": forward(graph(module, x), x, threads)}


def graph(module: Any, x: Any) -> bytes:
    """Return a PyTorch module in evaluation mode as an ONNX graph for images of the shape of x."""
    import torch

    file = io.BytesIO()
    with warnings.catch_warnings():
        # The newer exporter needs another package and up to twenty times as long; the graphs that
        # it makes were not faster.
        warnings.simplefilter("ignore", DeprecationWarning)
        images = torch.from_numpy(x)
        torch.onnx.export(module.eval(), (images,), file, dynamo=False, input_names=["x"])
    return file.getvalue()


def onnxruntime_forward(graph: bytes, x: Any, threads: int) -> Callable[[], Any]:
    """Return a function that computes the graph's output for x with ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0]


def openvino_forward(graph: bytes, x: Any, threads: int) -> Callable[[], Any]:
    """Return a function that computes the graph's output for x with OpenVINO.

    Its array is overwritten by the next call.
    """
    import openvino

    core, settings = (
        openvino.Core(),
        {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",  # where a processor has bfloat16, it would take that
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    request = core.compile_model(core.read_model(graph), "CPU", settings).create_infer_request()
    return lambda: request.infer([x], share_inputs=True, share_outputs=True)[0]


def jax_block(
    spec: IGCSpec, x: Any, primary: Any, secondary: Any, dy: Any, threads: int
) -> dict[str, Callable[[], Any]]:
    """Return functions for the block's forward pass, for both passes, for the weights' gradients.

    ``forward`` returns x', ``both`` x' and the gradients of x and of both weights, ``weights`` the
    gradients of the weights alone.
    """
    if hasattr(os, "sched_setaffinity"):  # JAX starts a thread for every core that it may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    import jax

    jax.config.update("jax_platforms", "cpu")

    def shuffle(x: Any, groups: int) -> Any:
        N, C, H, W = x.shape
        return x.reshape(N, groups, C // groups, H, W).swapaxes(1, 2).reshape(N, C, H, W)

    def convolve(x: Any, weight: Any, groups: int, stride: int = 1, padding: int = 0) -> Any:
        steps, pads = (stride, stride), 2 * [(padding, padding)]
        return jax.lax.conv_general_dilated(x, weight, steps, pads, feature_group_count=groups)

    def block(x: Any, primary: Any, secondary: Any) -> Any:
        y = shuffle(convolve(x, primary, spec.L, spec.stride, spec.padding), spec.L)
        secondary = secondary.reshape(*secondary.shape[:2], 1, 1)
        return shuffle(convolve(y, secondary, spec.M), spec.M)

    def both(dy: Any, *arguments: Any) -> Any:
        y, pull = jax.vjp(block, *arguments)
        return y, *pull(dy)

    def weights(dy: Any, x: Any, *arguments: Any) -> Any:
        return jax.vjp(lambda *weights: block(x, *weights), *arguments)[1](dy)

    dy, *arrays = jax.device_put((dy, x, primary, secondary))

    def compiled(function: Any, *arguments: Any) -> Callable[[], Any]:
        run = jax.jit(function)
        return lambda: jax.block_until_ready(run(*arguments))

    return {
        "forward": compiled(block, *arrays),
        "both": compiled(both, dy, *arrays),
        "weights": compiled(weights, dy, *arrays),
    }
