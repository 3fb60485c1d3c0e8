"""The same blocks and networks in ONNX Runtime, OpenVINO (forward only) and JAX (blocks only).

No other file of the package imports these libraries.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from igc_ref.bench.cases import BlockCase, Case
from igc_ref.spec.block import IGCSpec

RIVALS = {  # what each needs
    "onnxruntime": ("torch", "onnx", "onnxruntime"),
    "openvino": ("torch", "onnx", "openvino"),
    "jax": ("jax",),
}


def functions(
    contender: str, case: Case, x: Any, dy: Any, threads: int
) -> dict[str, Callable[[], object]]:
    """Return what is timed of a rival on public images x."""
    if isinstance(case, BlockCase) and contender == "jax":
        return jax_block(case.spec, x, dy, threads, *case.weights())
    from igc_ref.bench import torch_twins
    from igc_ref.exchange.torch.block import shuffle_in_format

    shuffle = shuffle_in_format  # made of operators that ONNX has
    if isinstance(case, BlockCase):
        module = torch_twins.block(case.spec, shuffle)
    else:
        module = torch_twins.network(case.architecture, shuffle)
    return {"forward": forward(contender, module, x, threads)}


def forward(contender: str, module: Any, x: Any, threads: int) -> Callable[[], Any]:
    """Return a function that computes a PyTorch module's output for x, in evaluation mode.

    The graph that PyTorch exports is fixed to the shape of x. Its newer exporter needs one more
    package and up to twenty times as long; the graphs that it makes were not faster.
    """
    import torch

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        images = torch.from_numpy(x)
        torch.onnx.export(module.eval(), (images,), file, dynamo=False, input_names=["x"])
    if contender == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file.getvalue(), options)
        return lambda: session.run(None, {"x": x})[0]
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # not bfloat16, where the processor has it
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    model = core.compile_model(core.read_model(file.getvalue()), "CPU", settings)
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
        convolve, p = jax.lax.conv_general_dilated, spec.padding
        stride, padding = 2 * (spec.stride,), 2 * ((p, p),)
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
