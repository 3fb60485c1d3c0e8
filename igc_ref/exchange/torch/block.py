"""The IGC block as a PyTorch module."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from igc_ref.errors import BackendError, KernelSize, SpecError, shown
from igc_ref.exchange.torch import operator
from igc_ref.spec.block import IGCSpec


def shuffle(x: Any, groups: int) -> Any:
    """Shuffle channels, in the faster way: PyTorch's own, or one its compiler sees through.

    PyTorch's own leaves the memory format channels_last, and takes batches only.
    """
    if torch.compiler.is_compiling() or not isinstance(x, torch.Tensor) or x.ndim == 3:
        return x.unflatten(-3, (groups, -1)).transpose(-4, -3).flatten(-4, -3)
    return functional.channel_shuffle(x, groups)


class InterleavedGroupConv2d(nn.Module):  # type: ignore[misc]
    """x' = P W_d Pᵀ W_p x (arXiv:1707.02725) in the place of an ``nn.Conv2d`` without bias.

    The forward pass takes one of two paths, to the same numbers but for rounding: PyTorch's
    convolutions, or our kernels, the operator ``torch.ops.igc_ref.igc``, which is differentiable
    once. `path` says which it is, and why.

    Parameters
    ----------
    in_channels, out_channels, L, M, kernel_size, stride
        As in `IGCSpec`; padding is ``k // 2`` of the kernel's height and width.
    accelerate : bool, optional
        True: our kernels, or a BackendError that says why they cannot run. False: PyTorch's
        convolutions, for second derivatives as well. By default our kernels wherever they can run
        and were measured to be faster, see `slower`.

    Attributes
    ----------
    primary, secondary : nn.Conv2d
        Group convolutions with weights (out, in/L, kh, kw) and (out, out/M, 1, 1).

    Raises
    ------
    SpecError
        If there is no such block, or `accelerate` is none of these.
    BackendError
        In the forward pass, if `accelerate` is True and our kernels cannot run.

    Examples
    --------
    >>> block = InterleavedGroupConv2d(32, 64, L=4, M=16, stride=2)
    >>> block(torch.zeros(1, 32, 8, 8)).shape
    torch.Size([1, 64, 4, 4])
    >>> block.path(torch.zeros(1, 32, 8, 8, dtype=torch.float16))
    'PyTorch: x is torch.float16; torch.float32 or torch.float64 is needed'
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        L: int,
        M: int,
        *,
        kernel_size: KernelSize = 3,
        stride: int = 1,
        accelerate: bool | None = None,
    ) -> None:
        super().__init__()
        if not (accelerate is None or isinstance(accelerate, bool)):
            raise SpecError(f"accelerate={shown(accelerate)} is not None, True or False")
        spec = IGCSpec(in_channels, out_channels, L, M, kernel_size=kernel_size, stride=stride)
        self.primary = convolution(spec.primary_shape, spec.stride, spec.L)
        self.secondary = convolution((*spec.secondary_shape, 1, 1), 1, spec.M)
        self.spec, self.accelerate, self.shuffle = spec, accelerate, shuffle

    def forward(self, x: Any) -> Any:  # noqa: D102
        if self._obstacle(x) is None:
            return operator.igc(x, *self._weights(), self.spec.stride)[0]
        y = self.shuffle(self.primary(x), self.spec.L)
        return self.shuffle(self.secondary(y), self.spec.M)

    def path(self, x: Any) -> str:
        """Say which path x would take: ``"igc_ref: numba"``, or ``"PyTorch: "`` and why."""
        obstacle = self._obstacle(x)
        ours = "cupy" if x.is_cuda else "numba"
        return f"igc_ref: {ours}" if obstacle is None else f"PyTorch: {obstacle}"

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.spec}, accelerate={self.accelerate}"

    def _weights(self) -> tuple[Any, Any, int]:
        return self.primary.weight, self.secondary.weight, self.spec.L

    def _obstacle(self, x: Any) -> str | None:
        """Say why x does not take our kernels; a BackendError if they were insisted on."""
        if self.accelerate is False:
            return "accelerate=False"
        found: str | None = "a convolution has been replaced, or has hooks"
        if _is_plain(self.primary) and _is_plain(self.secondary):
            found = operator.obstacle(x, *self._weights())
        if self.accelerate and found:
            raise BackendError(f"accelerate=True, but {found}")
        return found if found or self.accelerate else slower(self.spec, x)


def slower(spec: IGCSpec, x: Any) -> str | None:
    """Say why our kernels are not faster than PyTorch, or return None if they are.

    Measured by ``python -m benchmarks.torch_module --sweep`` on a CPU (AMD Zen 4), and on an H100.
    """
    if x.is_cuda:
        return "it is faster on a GPU, where Python takes longer than our kernels"
    if spec.M == 1:
        return "it is faster where M = 1"
    if min(spec.L, spec.M) >= 16 and x.shape[2] * x.shape[3] <= 64:
        return "it is faster for wide groups and small images"
    return "it is faster where N < 16" if len(x) < 16 else None


def convolution(shape: tuple[int, ...], stride: int, groups: int) -> nn.Conv2d:
    """Return a group convolution without bias, whose weights have this shape."""
    out, per_group, *kernel = shape
    padding = [k // 2 for k in kernel]
    return nn.Conv2d(per_group * groups, out, kernel, stride, padding, groups=groups, bias=False)


def _is_plain(module: nn.Module) -> bool:
    """Whether a convolution does no more than its weight says."""
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
    is_conv = type(module).forward is nn.Conv2d.forward
    return is_conv and module.bias is None and not hooks
