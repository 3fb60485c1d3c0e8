"""Our networks as PyTorch modules, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from igc_ref import networks as layers
from igc_ref.backends import GenericBackend
from igc_ref.errors import BackendError, CheckpointError, instance, kind_of
from igc_ref.exchange.state import COUNTER, to_ours, to_theirs
from igc_ref.exchange.torch.block import InterleavedGroupConv2d, convolution, shuffle
from igc_ref.networks import layer as ours
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.model import Model, build
from igc_ref.spec.block import IGCSpec
from igc_ref.spec.mixed import MixedSpec


def to_torch(model: Model, **block: Any) -> nn.Module:
    """Return a network as a PyTorch module with its weights and running statistics, on the CPU.

    It is in training mode: call ``eval()`` before it classifies. Its ``state_dict`` has the names
    of `igc_ref.exchange.state.to_theirs`. Images are (N, C, H, W), normalised by
    ``module.metadata``. PyTorch averages n/(n-1) times the batch's variance, n = N*H*W, and we
    that variance itself; all else agrees to rounding.

    Parameters
    ----------
    model : Model
        Its dtype becomes the module's.
    block
        Keywords of every `InterleavedGroupConv2d`, such as `accelerate`.

    Examples
    --------
    >>> from igc_ref import build_model
    >>> module = to_torch(build_model("plain_igc", 8, L=4, M=8, backend="numpy"))
    >>> module.eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    >>> from_torch(module, backend="numpy").num_parameters
    78634
    """
    instance("model", model, Model)
    state = to_theirs(model.state_dict())
    module = module_of(model.network, **block).to(getattr(torch, model.dtype))
    module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    module.architecture, module.metadata = model.architecture, model.metadata
    return module


def from_torch(
    module: nn.Module,
    state: Mapping[str, Any] | None = None,
    backend: str | GenericBackend = "auto",
) -> Model:
    """Return a module of `to_torch` as our network, bit for bit.

    Parameters
    ----------
    module : nn.Module
        As made or trained since, in any mode, device and memory format; ``DataParallel`` and
        ``torch.compile`` may wrap it.
    state : dict of tensors, optional
        A ``state_dict`` of such a module, from ``torch.load`` or safetensors, instead of its own.
    backend : str
        As in `build_model`.

    Raises
    ------
    CheckpointError
        If `to_torch` did not make the module, if names, shapes or dtypes differ from the network's,
        or if a number is not finite.
    """
    inner = getattr(module, "module", module)
    if not isinstance(getattr(inner, "architecture", None), Architecture):
        raise CheckpointError(f"{kind_of(inner)} is no network that to_torch made")
    state = module.state_dict() if state is None else state
    instance("state", state, Mapping)
    bare = ((re.sub(r"^((module|_orig_mod)\.)+", "", str(n)), t) for n, t in state.items())
    tensors = {name: tensor for name, tensor in bare if not name.endswith(COUNTER)}
    kinds = {str(getattr(tensor, "dtype", kind_of(tensor))) for tensor in tensors.values()}
    if kinds not in ({"torch.float32"}, {"torch.float64"}):
        found = ", ".join(sorted(kinds)) or "missing"
        raise CheckpointError(f"weights are {found}; all torch.float32 or all torch.float64 needed")
    model = build(inner.architecture, backend, kinds.pop().removeprefix("torch."))
    model.metadata = inner.metadata
    arrays = {name: tensor.numpy(force=True) for name, tensor in tensors.items()}
    model.load_state_dict(to_ours(arrays, model.state_dict()))
    return model


def module_of(layer: Any, **block: Any) -> nn.Module:
    """Return the same layer in PyTorch; weights are drawn anew, `block` is as in `to_torch`."""
    parts = {name: module_of(part, **block) for name, part in layer.children.items()}
    match layer:
        case ours.Residual():
            return Residual(parts)
        case ours.Sequential():
            return _in_sequence(layer, parts)
        case layers.SummationFusion():
            return Fusion(layer.spec)
        case layers.MixedIGC():
            return Mixed(layer.spec)
        case layers.GatedIGC():
            if block.get("accelerate"):
                raise BackendError("accelerate=True, but a gated block has no kernel for PyTorch")
            return Gated(layer, parts["gate"])
        case layers.IGC():
            return InterleavedGroupConv2d(**vars(layer.spec), **block)
        case layers.Conv2d():
            return convolution(layer.parameters["weight"].shape, layer.stride, layer.groups)
        case layers.BatchNorm():
            channels, momentum = len(layer.parameters["gamma"]), 1 - layer.momentum
            return nn.BatchNorm2d(channels, layers.BN_EPS, momentum)
        case layers.GroupNorm():
            return nn.GroupNorm(layer.groups, len(layer.parameters["gamma"]), layers.BN_EPS)
        case layers.Shuffle():
            return nn.ChannelShuffle(layer.groups)
        case layers.MaxPool():
            return nn.MaxPool2d(*layer.window)
        case layers.AveragePool():
            return nn.AvgPool2d(layer.kernel_size)
        case layers.GlobalAveragePool():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case layers.Linear():
            return nn.Linear(*layer.parameters["weight"].shape[::-1])
        case layers.Activation():
            return nn.ReLU() if layer.kind == "relu" else nn.Sigmoid()
    raise NotImplementedError(f"{layer.describe()} in PyTorch")


def _in_sequence(layer: Any, parts: dict[str, nn.Module]) -> nn.Module:
    """Return the parts of a layer one after another, with the ReLU that a norm applies."""
    adds = isinstance(layer, layers.IGCV3) and layer.spec.is_residual
    kind = Dense if isinstance(layer, ours.Dense) else Bottleneck if adds else nn.Sequential
    stages: dict[str, Any] = {"": kind()}
    for name, part in parts.items():
        stage, _, own = name.rpartition(".")  # PyTorch allows no dots: a stage is a module
        if stage not in stages:
            stages[stage] = nn.Sequential()
            stages[""].add_module(stage, stages[stage])
        stages[stage].add_module(own, part)
        if getattr(layer.children[name], "relu", False):
            stages[stage].add_module(own.replace("bn", "relu"), nn.ReLU(inplace=True))
    return stages[""]


class Bottleneck(nn.Sequential):  # type: ignore[misc]
    """A residual block of IGCV3: its layers, plus x."""

    def forward(self, x: Any) -> Any:  # noqa: D102
        return super().forward(x) + x


class Dense(nn.Sequential):  # type: ignore[misc]
    """A layer of a DenseNet: x, then what its layers make of it, as channels."""

    def forward(self, x: Any) -> Any:  # noqa: D102
        return torch.cat([x, super().forward(x)], 1)


class Residual(nn.ModuleDict):  # type: ignore[misc]
    """relu(branch(x) + shortcut(x))."""

    def forward(self, x: Any) -> Any:  # noqa: D102
        y = self["branch"](x) + (self["shortcut"](x) if "shortcut" in self else x)
        return nn.functional.relu(y, inplace=True)


class Fusion(nn.Module):  # type: ignore[misc]
    """Group convolution, the sum over its partitions, and that sum for every partition."""

    def __init__(self, s: IGCSpec) -> None:
        super().__init__()
        self.primary, self.L = convolution(s.primary_shape, s.stride, s.L), s.L

    def forward(self, x: Any) -> Any:  # noqa: D102
        y = self.primary(x).unflatten(1, (self.L, -1))
        return y.sum(1, keepdim=True).expand_as(y).flatten(1, 2)


class Mixed(nn.Module):  # type: ignore[misc]
    """The block with several kernel sizes: a convolution for every run of partitions."""

    def __init__(self, s: MixedSpec) -> None:
        super().__init__()
        for name, run in zip(s.names, s.runs, strict=True):
            self.add_module(name, convolution(run.weight_shape, s.stride, run.groups))
        self.secondary, self.spec = convolution(s.factors[1].weight_shape, 1, s.M), s

    def forward(self, x: Any) -> Any:  # noqa: D102
        *primary, secondary = self.children()
        parts = x.split([run.in_channels for run in self.spec.runs], 1)
        y = torch.cat([conv(part) for conv, part in zip(primary, parts, strict=True)], 1)
        return shuffle(secondary(shuffle(y, self.spec.L)), self.spec.M)


class Gated(InterleavedGroupConv2d):
    """The gated block; of a row of gates the greatest stay, of equals the first."""

    def __init__(self, layer: layers.GatedIGC, gate: nn.Module) -> None:
        super().__init__(**vars(layer.spec), accelerate=False)
        self.gate, self.by_channels, self.keep = gate, layer.by_channels, layer.keep

    def forward(self, x: Any) -> Any:  # noqa: D102
        y = self.primary(x)
        g = self.gate((y if self.by_channels else x).mean((2, 3)))
        kept = g.argsort(dim=1, descending=True, stable=True)[:, : self.keep]
        g = (g * torch.zeros_like(g).scatter(1, kept, 1.0))[:, :, None, None]
        y = y * g.repeat_interleave(y.shape[1] // g.shape[1], dim=1)
        return self.shuffle(self.secondary(self.shuffle(y, self.spec.L)), self.spec.M)
