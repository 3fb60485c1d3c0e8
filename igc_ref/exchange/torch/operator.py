"""The block as a PyTorch operator that runs our kernels, ``igc_ref::igc``, and its derivative.

Tensors on the CPU go to the numba backend, on ``torch.get_num_threads()`` threads; tensors on an
NVIDIA GPU to the cupy backend, by DLPack, on PyTorch's stream (not run on a GPU yet). Images are
laid out for the kernels as they come in, and back as they go out.

The way back computes the block anew. To save what the way forward knew would be a quarter faster,
but that is no tensor: checkpointing could not free it, and compilers would have to know its shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from igc_ref.backends import GenericBackend, cupy_problem, get_backend, numba_problem
from igc_ref.report import say
from igc_ref.spec.block import IGCSpec, output_length


@torch.library.custom_op("igc_ref::igc", mutates_args=())  # type: ignore[untyped-decorator]
def igc(x: Tensor, primary: Tensor, secondary: Tensor, L: int, stride: int) -> Tensor:
    """Compute x' = P W_d Pᵀ W_p x, once differentiable; `obstacle` says of what."""
    with _computed(x, primary, secondary, L, stride) as (backend, _, tensor, y, _saved):
        return tensor(backend.from_layout(y))


@torch.library.custom_op("igc_ref::igc_backward", mutates_args=())  # type: ignore[untyped-decorator]
def igc_backward(
    dy: Tensor, x: Tensor, primary: Tensor, secondary: Tensor, L: int, stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `igc` with respect to x, primary and secondary."""
    with _computed(x, primary, secondary, L, stride) as (backend, array, tensor, _, saved):
        dy = backend.to_layout(array(dy.contiguous()))
        dx, dprimary, dsecondary = backend.igc_backward(dy, saved)
        dx = tensor(backend.from_layout(dx, gradient=True))
        return dx, tensor(dprimary), tensor(dsecondary).reshape(secondary.shape)


@igc.register_fake  # type: ignore[untyped-decorator]
def _(x: Tensor, primary: Tensor, secondary: Tensor, L: int, stride: int) -> Tensor:  # noqa: ARG001
    size = (output_length(n, primary.shape[2], stride) for n in x.shape[2:])
    return x.new_empty(len(x), len(primary), *size)


@igc_backward.register_fake  # type: ignore[untyped-decorator]
def _(dy: Tensor, *arguments: Any) -> tuple[Tensor, ...]:  # noqa: ARG001
    return tuple(tensor.new_empty(tensor.shape) for tensor in arguments[:3])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    *tensors, ctx.L, ctx.stride = inputs
    ctx.save_for_backward(*tensors)


def _derive(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    return *igc_backward(dy, *ctx.saved_tensors, ctx.L, ctx.stride), None, None


igc.register_autograd(_derive, setup_context=_save)


def obstacle(x: Any, primary: Tensor, secondary: Tensor, L: int) -> str | None:
    """Say why `igc` cannot compute this, or return None if it can."""
    if not isinstance(x, Tensor):
        return "x is no tensor"  # torch.fx has a stand-in
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        return "a network that is exported has PyTorch's operators only"
    if torch._C._are_functorch_transforms_active():
        return "our kernels have no rule for torch.func"
    missing: str | None = _missing(x.device.type)
    if missing:
        return missing
    if torch.is_autocast_enabled(x.device.type):
        return "autocast is on"
    if x.dtype not in (torch.float32, torch.float64):
        return f"x is {x.dtype}; torch.float32 or torch.float64 is needed"
    if not x.dtype == primary.dtype == secondary.dtype or x.device != primary.device:
        return "x and the weights differ in dtype or device"
    channels = L * primary.shape[1]
    if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape:
        return f"x has shape {tuple(x.shape)}; (N, {channels}, H, W) is needed, N at least 1"
    return None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _missing(device: str) -> str | None:
    return _problem(device)  # apart, since the compiler would look behind the cache


@cache
def _problem(device: str) -> str | None:
    """Say why kernels cannot run on devices of this type, or return None if they can."""
    problems = {"cpu": numba_problem, "cuda": cupy_problem}
    return problems[device]() if device in problems else f"there are no kernels for {device}"


@cache
def _on_cpu(threads: int, dtype: str) -> GenericBackend:
    """Return the numba backend with its kernels compiled, or an error that says what is missing."""
    backend = type(get_backend("numba"))(threads)  # type: ignore[call-arg]
    backend.prepare(dtype, say)
    return backend


@cache
def _on_gpu(index: int) -> GenericBackend:  # noqa: ARG001
    return get_backend("cupy")


@contextmanager
def _computed(
    x: Tensor, primary: Tensor, secondary: Tensor, L: int, stride: int
) -> Iterator[tuple[Any, ...]]:
    """Yield the backend, functions from tensors to its arrays and back, and what it computed."""
    with ExitStack() as stack:
        if x.is_cuda:
            stack.enter_context(torch.cuda.device(x.device))
            backend: Any = _on_gpu(x.device.index)
            stream = torch.cuda.current_stream().cuda_stream
            stack.enter_context(backend.xp.cuda.ExternalStream(stream))
            array, tensor = backend.xp.from_dlpack, torch.from_dlpack
        else:
            backend = _on_cpu(torch.get_num_threads(), str(x.dtype).removeprefix("torch."))
            array, tensor = Tensor.numpy, torch.from_numpy
        (out, each, k, _), mix = primary.shape, secondary.shape[1]
        spec = IGCSpec(each * L, out, L, out // mix, k, stride)
        images, *weights = (array(t.detach().contiguous()) for t in (x, primary, secondary))
        weights[1] = weights[1].reshape(spec.secondary_shape)
        computed = backend.igc(backend.to_layout(images), *weights, spec)
        yield backend, array, tensor, *computed
