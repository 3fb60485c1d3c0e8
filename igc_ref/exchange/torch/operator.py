"""The block as a PyTorch operator that runs our kernels, ``igc_ref::igc``, and its derivative.

Tensors on the CPU go to the numba backend, on ``torch.get_num_threads()`` threads; tensors on an
NVIDIA GPU to the cupy backend, by DLPack, on PyTorch's stream. Images are laid out for the kernels
as they come in, and back as they go out.

What the way back needs is no tensor, and only tensors go through PyTorch's graphs. So the way
forward returns a ticket as well, a tensor of one byte, and all is kept as long as this byte. Where
checkpointing or a compiler has dropped or copied it, the way back computes the block anew.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from igc_ref.backends import GenericBackend, cupy_problem, get_backend, numba_problem
from igc_ref.report import say
from igc_ref.spec.block import IGCSpec, output_length


class Ticket(np.ndarray[Any, Any]):
    """The byte of a tensor, with what the way back needs."""

    saved: Any


# PyTorch's idle threads wait in a loop for milliseconds and keep their cores: this call of OpenMP
# ends them, where there is one. A step of a ResNet-20 on two cores was a fifth faster so.
PAUSE, SOFT = getattr(ctypes.pythonapi, "omp_pause_resource_all", None), 1
TICKETS: WeakValueDictionary[int, Ticket] = WeakValueDictionary()  # by the address of the byte


@torch.library.custom_op("igc_ref::igc", mutates_args=())  # type: ignore[untyped-decorator]
def igc(
    x: Tensor, primary: Tensor, secondary: Tensor, L: int, stride: int
) -> tuple[Tensor, Tensor]:
    """Return x' = P W_d Pᵀ W_p x, once differentiable, and a ticket; `obstacle` says of what."""
    with _kernels(x) as (backend, array, tensor):
        y, saved = _compute(backend, array, x, primary, secondary, L, stride)
        ticket = np.zeros(1, np.uint8).view(Ticket)
        ticket.saved, TICKETS[ticket.ctypes.data] = saved, ticket
        return tensor(y), torch.from_numpy(ticket)


@torch.library.custom_op("igc_ref::igc_backward", mutates_args=())  # type: ignore[untyped-decorator]
def igc_backward(
    dy: Tensor, x: Tensor, primary: Tensor, secondary: Tensor, ticket: Tensor, L: int, stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `igc` with respect to x, primary and secondary."""
    with _kernels(x) as (backend, array, tensor):
        if (kept := TICKETS.get(ticket.data_ptr())) is None:
            _, saved = _compute(backend, array, x, primary, secondary, L, stride)
        else:
            saved = kept.saved
        dx, *dweights = backend.igc_backward(backend.to_layout(array(dy)), saved)
        dprimary, dsecondary = map(torch.from_dlpack, dweights)
        return tensor(dx, gradient=True), dprimary, dsecondary.reshape(secondary.shape)


@igc.register_fake  # type: ignore[untyped-decorator]
def _(x: Tensor, primary: Tensor, secondary: Tensor, L: int, stride: int) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    sides = zip(x.shape[2:], primary.shape[2:], strict=True)
    size = (output_length(n, k, stride) for n, k in sides)
    y = x.new_empty(len(x), len(primary), *size)
    return y.contiguous(memory_format=_format(x)), torch.empty(1, dtype=torch.uint8)


@igc_backward.register_fake  # type: ignore[untyped-decorator]
def _(dy: Tensor, x: Tensor, *weights: Any) -> tuple[Tensor, ...]:  # noqa: ARG001
    dx = x.new_empty(x.shape).contiguous(memory_format=_format(x))
    return dx, *(tensor.new_empty(tensor.shape) for tensor in weights[:2])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.L, ctx.stride = inputs
    ctx.save_for_backward(*tensors, output[1])


def _derive(ctx: Any, dy: Tensor, _: None) -> tuple[Any, ...]:
    return *igc_backward(dy, *ctx.saved_tensors, ctx.L, ctx.stride), None, None


igc.register_autograd(_derive, setup_context=_save)


def obstacle(x: Any, primary: Tensor, secondary: Tensor, L: int) -> str | None:
    """Say why `igc` cannot compute this, or return None if it can."""
    if not isinstance(x, Tensor):
        return "x is no tensor"  # torch.fx has a stand-in
    if torch.jit.is_tracing() or _is_exporting():
        return "a network that is exported has PyTorch's operators only"
    dual = not torch.compiler.is_compiling() and forward_ad.unpack_dual(x).tangent is not None
    if dual or torch._C._are_functorch_transforms_active():
        return "our kernels have no rule for torch.func and forward-mode derivatives"
    if x.is_cuda and not torch.compiler.is_compiling() and torch.cuda.is_current_stream_capturing():
        return "a CUDA graph is being captured"
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


def _is_exporting() -> bool:
    """Whether torch.export traces; PyTorch 2.11's function says so while it compiles, too."""
    return getattr(torch.compiler, "_is_exporting_flag", False)


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
def _kernels(x: Tensor) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the backend for x, what makes its arrays of tensors, and tensors of its batches."""
    with ExitStack() as stack:
        if x.is_cuda:
            stack.enter_context(torch.cuda.device(x.device))
            backend: Any = _on_gpu(x.device.index)
            stream = torch.cuda.current_stream().cuda_stream
            stack.enter_context(backend.xp.cuda.ExternalStream(stream))
            array, form = backend.xp.from_dlpack, {}
        else:
            backend = _on_cpu(torch.get_num_threads(), str(x.dtype).removeprefix("torch."))
            if PAUSE:
                PAUSE(SOFT)
            array, form = Tensor.numpy, {"channels_last": _format(x) == torch.channels_last}
        yield (
            backend,
            lambda t: array(t.detach().contiguous(memory_format=_format(t))),
            lambda y, **more: torch.from_dlpack(backend.from_layout(y, **form, **more)),
        )


def _compute(
    backend: Any, array: Any, x: Tensor, primary: Tensor, secondary: Tensor, L: int, stride: int
) -> tuple[Any, Any]:
    (out, each, *kernel), mix = primary.shape, secondary.shape[1]
    spec = IGCSpec(each * L, out, L, out // mix, (kernel[0], kernel[1]), stride)
    weights = array(primary.contiguous()), array(secondary.contiguous().reshape(out, mix))
    result: tuple[Any, Any] = backend.igc(backend.to_layout(array(x)), *weights, spec)
    return result


def _format(x: Tensor) -> torch.memory_format:
    """Return the memory format that x has, or NCHW if it has neither."""
    last = x.ndim == 4 and not x.is_contiguous()
    last = last and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
