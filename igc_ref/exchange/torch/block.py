"""The IGC block as a PyTorch module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from igc_ref.spec.block import IGCSpec

Shuffle = Callable[[Any, int], Any]


def shuffle(x: Any, groups: int) -> Any:
    """Shuffle channels, in the faster way: PyTorch's own, or one its compiler sees through.

    PyTorch's own leaves the memory format channels_last.
    """
    compiling = torch.compiler.is_compiling()
    return _by_view(x, groups) if compiling else functional.channel_shuffle(x, groups)


def shuffle_in_format(x: Any, groups: int) -> Any:
    """Shuffle channels in the memory format that x has."""
    N, C, H, W = x.shape
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        last = x.permute(0, 2, 3, 1).reshape(N, H, W, groups, C // groups)
        return last.transpose(3, 4).reshape(N, H, W, C).permute(0, 3, 1, 2)
    return _by_view(x, groups)


def _by_view(x: Any, groups: int) -> Any:
    N, C, H, W = x.shape
    return x.view(N, groups, C // groups, H, W).transpose(1, 2).reshape(N, C, H, W)


class InterleavedGroupConv2d(nn.Module):  # type: ignore[misc]
    """x' = P W_d Pᵀ W_p x (arXiv:1707.02725) in the place of an ``nn.Conv2d`` without bias.

    Parameters
    ----------
    in_channels, out_channels, L, M, kernel_size, stride : int
        As in `IGCSpec`; padding is ``kernel_size // 2``.
    shuffle : callable
        How channels are shuffled in PyTorch: `shuffle` or `shuffle_in_format`. Which of them is
        faster depends on device and memory format.

    Attributes
    ----------
    primary, secondary : nn.Conv2d
        Group convolutions with weights (out, in/L, k, k) and (out, out/M, 1, 1).

    Raises
    ------
    SpecError
        If there is no such block.

    Examples
    --------
    >>> block = InterleavedGroupConv2d(32, 64, L=4, M=16, stride=2)
    >>> block(torch.zeros(1, 32, 8, 8)).shape
    torch.Size([1, 64, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        L: int,
        M: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        shuffle: Shuffle = shuffle,
    ) -> None:
        super().__init__()
        spec = IGCSpec(in_channels, out_channels, L, M, kernel_size=kernel_size, stride=stride)
        options = {"stride": spec.stride, "padding": spec.padding, "groups": spec.L, "bias": False}
        out = spec.out_channels
        self.primary = nn.Conv2d(spec.in_channels, out, spec.kernel_size, **options)
        self.secondary = nn.Conv2d(out, out, 1, groups=spec.M, bias=False)
        self.spec, self.shuffle = spec, shuffle

    def forward(self, x: Any) -> Any:  # noqa: D102
        y = self.shuffle(self.primary(x), self.spec.L)
        return self.shuffle(self.secondary(y), self.spec.M)
