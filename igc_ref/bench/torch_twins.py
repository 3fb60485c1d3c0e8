"""The same blocks and networks in PyTorch, the rival: no other file of the package imports it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from igc_ref.architecture import Architecture
from igc_ref.layers import BN_EPS
from igc_ref.spec import IGCSpec


class Block(nn.Module):  # type: ignore[misc]
    """x' = P W_d Pᵀ W_p x: group convolution, channel shuffle, and both again."""

    def __init__(self, spec: IGCSpec) -> None:
        super().__init__()
        s, out = spec, spec.out_channels
        options = {"stride": s.stride, "padding": s.padding, "groups": s.L, "bias": False}
        self.primary = nn.Conv2d(s.in_channels, out, s.kernel_size, **options)
        self.secondary = nn.Conv2d(out, out, 1, groups=s.M, bias=False)
        self.L, self.M = s.L, s.M

    def forward(self, x: Any) -> Any:  # noqa: D102
        return _shuffle(self.secondary(_shuffle(self.primary(x), self.L)), self.M)


def _shuffle(x: Any, groups: int) -> Any:
    """Shuffle channels, in the faster way: PyTorch's own, or one its compiler sees through."""
    if not torch.compiler.is_compiling():
        return functional.channel_shuffle(x, groups)
    N, C, H, W = x.shape
    return x.view(N, groups, C // groups, H, W).transpose(1, 2).reshape(N, C, H, W)


class Residual(nn.Module):  # type: ignore[misc]
    """relu(branch(x) + shortcut(x))."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.shortcut, self.branch = shortcut, branch

    def forward(self, x: Any) -> Any:  # noqa: D102
        return functional.relu(self.branch(x) + self.shortcut(x), inplace=True)


def network(a: Architecture) -> nn.Module:
    """Return the network that `a` names; its parameters come in the order of our ``state_dict``."""
    stem = nn.Conv2d(3, a.channels, 3, padding=1, bias=False)
    layers: list[nn.Module] = [stem, *_norm(a, a.channels, relu=True)]
    channels = a.channels
    for stage, blocks in enumerate(a.blocks):
        out = a.channels * 2**stage
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            if a.is_residual:
                layers.append(_residual(a, channels, out, stride))
            else:
                layers += _unit(a, channels, out, stride, out, relu=True)
            channels = out
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, pool, nn.Flatten(), nn.Linear(channels, a.num_classes))


def _residual(a: Architecture, channels: int, out: int, stride: int) -> nn.Module:
    branch = nn.Sequential(
        *_unit(a, channels, out, stride, channels, relu=True),
        *_unit(a, out, out, 1, out, relu=False),
    )
    shortcut: nn.Module = nn.Identity()
    if channels != out:
        conv = nn.Conv2d(channels, out, 1, stride=stride, groups=a.L or 1, bias=False)
        shortcut = nn.Sequential(conv, *_norm(a, out, relu=False))
    return Residual(branch, shortcut)


def _unit(
    a: Architecture, channels: int, out: int, stride: int, M_channels: int, relu: bool
) -> Iterator[nn.Module]:
    if a.L is None:
        yield nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
    else:
        yield Block(IGCSpec(channels, out, a.L, M_channels // a.L, stride=stride))
    yield from _norm(a, out, relu)


def _norm(a: Architecture, channels: int, relu: bool) -> Iterator[nn.Module]:
    momentum = 0.1 if a.is_residual else 0.01  # PyTorch's is the weight of the new
    yield nn.BatchNorm2d(channels, eps=BN_EPS, momentum=momentum)
    if relu:
        yield nn.ReLU(inplace=True)


def block_step(
    spec: IGCSpec, x: Any, dy: Any, way: str, threads: int
) -> dict[str, Callable[[], object]]:
    """Return functions for the forward pass, and for the forward and the backward pass.

    Parameters
    ----------
    x, dy : numpy arrays
    way : str
        Names ``compile`` or eager, ``channels_last`` or NCHW.
    """
    x, dy = _tensors(x, dy, way, threads)
    block = Block(spec).to(memory_format=_layout(way))
    run = torch.compile(block) if "compile" in way else block
    x.requires_grad_()

    def both() -> None:
        x.grad = None
        block.zero_grad(set_to_none=True)
        run(x).backward(dy)

    return {"forward": lambda: run(x), "both": both}


def training_step(
    a: Architecture, x: Any, labels: Any, way: str, threads: int
) -> dict[str, Callable[[], object]]:
    """Return a function that takes one training step; see `block_step`."""
    x, labels = _tensors(x, labels, way, threads)
    model = network(a).to(memory_format=_layout(way))
    run = torch.compile(model) if "compile" in way else model
    optimiser = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, nesterov=True
    )

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        functional.cross_entropy(run(x), labels).backward()
        optimiser.step()

    return {"both": step}


def _layout(way: str) -> Any:
    return torch.channels_last if "channels_last" in way else torch.contiguous_format


def _tensors(x: Any, other: Any, way: str, threads: int) -> tuple[Any, Any]:
    """Set the number of threads, and bring the arrays into PyTorch in the layout of this way."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x, other = (torch.from_numpy(array) for array in (x, other))
    if other.ndim == 4:
        other = other.contiguous(memory_format=_layout(way))
    return x.contiguous(memory_format=_layout(way)), other
