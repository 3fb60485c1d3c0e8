"""The block as a PyTorch operator that runs our kernels, ``igc_ref::igc``, and its derivative.

Tensors on the CPU go to the numba backend, on ``torch.get_num_threads()`` threads; tensors on an
NVIDIA GPU to the cupy backend, by DLPack, on PyTorch's stream (not run on a GPU yet). Images are
laid out for the kernels as they come in, and back as they go out.

The way back computes the block anew. To save what the way forward knew would be a quarter faster,
but that is no tensor: checkpointing could not free it, and compilers would have to know its shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    with _kernels(x) as (backend, array, tensor):
        y, _ = backend.igc(*_inside(backend, array, x, primary, secondary, L, stride))
        return tensor(backend.from_layout(y))


@torch.library.custom_op("igc_ref::igc_backward", mutates_args=())  # type: ignore[untyped-decorator]
def igc_backward(
    dy: Tensor, x: Tensor, primary: Tensor, secondary: Tensor, L: int, stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `igc` with respect to x, primary and secondary."""
    with _kernels(x) as (backend, array, tensor):
        _, saved = backend.igc(*_inside(backend, array, x, primary, secondary, L, stride))
        dx, dprimary, dsecondary = backend.igc_backward(
            backend.to_layout(array(dy.contiguous())), saved
        )
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


def obstacle(x: Tensor, primary: Tensor, secondary: Tensor, L: int) -> str | None:
    """Say why `igc` cannot compute this, or return None if it can."""
    channels = L * primary.shape[1]
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
def _backend(name: str, index: int | None, threads: int, dtype: str) -> GenericBackend:  # noqa: ARG001
    """Return a backend; kernels for CPUs are compiled."""
    backend = get_backend(name)  # or an error that says what is missing
    if name == "numba":
        from igc_ref.backends.numba.backend import NumbaBackend

        backend = NumbaBackend(threads)
        backend.prepare(dtype, say)
    return backend


@contextmanager
def _kernels(x: Tensor) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the backend for a tensor, and functions from tensors to its arrays and back."""
    if x.is_cuda:
        with torch.cuda.device(x.device):
            xp = (backend := _backend("cupy", x.device.index, 0, "")).xp
            with xp.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
                yield backend, xp.from_dlpack, torch.from_dlpack
    else:
        dtype = str(x.dtype).removeprefix("torch.")
        backend = _backend("numba", None, torch.get_num_threads(), dtype)
        yield backend, Tensor.numpy, torch.from_numpy


def _inside(
    backend: Any, array: Any, x: Tensor, primary: Tensor, secondary: Tensor, L: int, stride: int
) -> tuple[Any, ...]:
    """Return the arguments of ``backend.igc``."""
    (out, each, k, _), mix = primary.shape, secondary.shape[1]
    spec = IGCSpec(each * L, out, L, out // mix, k, stride)
    images, *weights = (array(t.detach().contiguous()) for t in (x, primary, secondary))
    return backend.to_layout(images), weights[0], weights[1].reshape(spec.secondary_shape), spec
