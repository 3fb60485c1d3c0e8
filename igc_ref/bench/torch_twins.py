"""What benchmarks time of PyTorch, the rival: the modules of `igc_ref.exchange.torch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from igc_ref.exchange.torch.block import InterleavedGroupConv2d
from igc_ref.exchange.torch.networks import module_of
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.model import build
from igc_ref.spec.block import IGCSpec


def block(spec: IGCSpec) -> nn.Module:
    """Return the block that `spec` describes, of PyTorch's convolutions."""
    return InterleavedGroupConv2d(**vars(spec), accelerate=False)


def network(a: Architecture) -> nn.Module:
    """Return the network that `a` names, with PyTorch's own draw of its weights."""
    return module_of(build(a, "numpy").network, accelerate=False)


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
