"""The same blocks and networks in PyTorch, the rival: no other file of the package imports it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from igc_ref import networks as layers
from igc_ref.errors import BackendError
from igc_ref.exchange.torch.block import InterleavedGroupConv2d, Shuffle, shuffle
from igc_ref.networks import layer as ours
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.model import build
from igc_ref.spec.block import IGCSpec


class Fusion(nn.Module):  # type: ignore[misc]
    """Group convolution, the sum over its partitions, and that sum for every partition."""

    def __init__(self, spec: IGCSpec) -> None:
        super().__init__()
        self.primary, self.L = _primary(spec), spec.L

    def forward(self, x: Any) -> Any:  # noqa: D102
        y = self.primary(x)
        N, C, H, W = y.shape
        partitions = y.view(N, self.L, C // self.L, H, W)
        return partitions.sum(1, keepdim=True).expand_as(partitions).reshape(N, C, H, W)


def _primary(s: IGCSpec) -> nn.Conv2d:
    options = {"stride": s.stride, "padding": s.padding, "groups": s.L, "bias": False}
    return nn.Conv2d(s.in_channels, s.out_channels, s.kernel_size, **options)


class Residual(nn.Module):  # type: ignore[misc]
    """branch(x) + shortcut(x), clipped at zero if `relu`."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, relu: bool = True) -> None:
        super().__init__()
        self.shortcut, self.branch, self.relu = shortcut, branch, relu

    def forward(self, x: Any) -> Any:  # noqa: D102
        y = self.branch(x) + self.shortcut(x)
        return functional.relu(y, inplace=True) if self.relu else y


def block(spec: IGCSpec, shuffle: Shuffle = shuffle) -> nn.Module:
    """Return the block that `spec` describes; `shuffle` as in `InterleavedGroupConv2d`."""
    channels = spec.in_channels, spec.out_channels
    shape: dict[str, Any] = {
        "kernel_size": spec.kernel_size,
        "stride": spec.stride,
        "shuffle": shuffle,
        "accelerate": False,  # the rival
    }
    return InterleavedGroupConv2d(*channels, spec.L, spec.M, **shape)


def network(a: Architecture, shuffle: Shuffle = shuffle) -> nn.Module:
    """Return the network that `a` names; its parameters come in the order of our ``state_dict``.

    `shuffle` is that of `InterleavedGroupConv2d`.
    """
    return twin(build(a, "numpy").network, shuffle)


def twin(layer: ours.Layer, shuffle: Shuffle = shuffle) -> nn.Module:
    """Return the same layer in PyTorch; weights are drawn anew."""
    twins = {name: twin(child, shuffle) for name, child in layer.children.items()}
    if isinstance(layer, layers.IGCV3):
        parts = nn.Sequential(*twins.values())
        return Residual(parts, nn.Identity(), relu=False) if layer.spec.is_residual else parts
    if isinstance(layer, ours.Sequential):
        return nn.Sequential(*twins.values())
    if isinstance(layer, ours.Residual):
        return Residual(twins["branch"], twins.get("shortcut", nn.Identity()))
    if isinstance(layer, layers.SummationFusion):
        return Fusion(layer.spec)
    if isinstance(layer, layers.IGC):
        return block(layer.spec, shuffle)
    if isinstance(layer, layers.Conv2d):
        out, per_group, k, _ = layer.parameters["weight"].shape
        options = {"stride": layer.stride, "padding": k // 2, "groups": layer.groups}
        return nn.Conv2d(per_group * layer.groups, out, k, bias=False, **options)
    if isinstance(layer, layers.BatchNorm):
        # PyTorch's momentum is the weight of the new.
        channels, momentum = len(layer.parameters["gamma"]), 1 - layer.momentum
        norm = nn.BatchNorm2d(channels, eps=layers.BN_EPS, momentum=momentum)
        return nn.Sequential(norm, nn.ReLU(inplace=True)) if layer.relu else norm
    if isinstance(layer, layers.Shuffle):
        return nn.ChannelShuffle(layer.groups)
    if isinstance(layer, layers.MaxPool):
        return nn.MaxPool2d(*layer.window)
    if isinstance(layer, layers.GlobalAveragePool):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if isinstance(layer, layers.Linear):
        out, inp = layer.parameters["weight"].shape
        return nn.Linear(inp, out)
    raise BackendError(f"{layer.describe()} has no twin in PyTorch yet")


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
    module = block(spec).to(memory_format=_layout(way))
    run = torch.compile(module) if "compile" in way else module
    x.requires_grad_()

    def both() -> None:
        x.grad = None
        module.zero_grad(set_to_none=True)
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


def inference(a: Architecture, x: Any, way: str, threads: int) -> dict[str, Callable[[], object]]:
    """Return a function for the forward pass in evaluation mode, from public images to logits."""
    torch.set_num_threads(threads)
    model, images = network(a).eval().to(memory_format=_layout(way)), torch.from_numpy(x)
    run = torch.compile(model) if "compile" in way else model
    return {"forward": torch.inference_mode()(lambda: run(images))}


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
