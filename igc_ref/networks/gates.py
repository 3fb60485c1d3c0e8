"""The gated block x' = P W_d Pᵀ D(x) W_p x: attention, or partitions that depend on the image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from igc_ref.backends import GenericBackend
from igc_ref.backends.operators.library import Array
from igc_ref.errors import SpecError, choice, instance, integer
from igc_ref.networks.blocks import IGC
from igc_ref.networks.layer import Layer, Row, Sequential, Shape
from igc_ref.networks.layers import Linear
from igc_ref.spec.block import IGCSpec

REDUCTION = 16  # middle channels for each hidden feature of squeeze and excitation; its authors'


class Activation(Layer):
    """A function of features (N, G): "relu" or "sigmoid"; `keep` as in the operator."""

    def __init__(self, backend: GenericBackend, kind: str, keep: int | None = None) -> None:
        super().__init__()
        self.backend, self.kind, self.keep = backend, kind, keep

    def forward(self, x: Array, train: bool = False) -> Array:
        y, self._saved = self.backend.activation(x, self.kind, self.keep)
        return y

    def backward(self, dy: Array) -> Array:
        return self.backend.activation_backward(dy, self._take_saved())

    def describe(self) -> str:
        return self.kind if self.keep is None else f"{self.kind}, greatest {self.keep}"


class GatedIGC(IGC):
    """The block x' = P W_d Pᵀ D(x) W_p x; D(x) is diagonal, for each image its own.

    Parameters
    ----------
    backend, spec
        As in `IGC`.
    gate : {"channels", "partitions"}
        A gate for each middle channel, by squeeze and excitation of ``y = W_p x``
        (arXiv:1709.01507); or one for each primary partition, from the means of x.
    keep : int, optional
        Of an image's partitions so many stay, in training and evaluation alike; by default all.
    draw
        `rng` and `dtype`, as in `IGC`.

    Raises
    ------
    SpecError
        If there is no such gate, or `keep` is not from 1 to L, or given with channels.
    """

    def __init__(
        self,
        backend: GenericBackend,
        spec: IGCSpec,
        gate: str,
        keep: int | None = None,
        **draw: Any,
    ) -> None:
        instance("spec", spec, IGCSpec)
        super().__init__(backend, spec, **draw)
        self.by_channels = choice("gate", gate, ("channels", "partitions")) == "channels"
        self.keep = None if keep is None else integer("keep", keep, maximum=spec.L)
        if self.by_channels and keep is not None:
            raise SpecError(f"keep={keep} needs gate='partitions', not 'channels'")
        out, parts = spec.out_channels, dict[str, Layer]()
        if self.by_channels:
            hidden = max(1, out // REDUCTION)
            parts["squeeze"] = Linear(backend, out, hidden, **draw)
            parts["relu"] = Activation(backend, "relu")
            parts["excite"] = Linear(backend, hidden, out, **draw)
        else:
            parts["linear"] = Linear(backend, spec.in_channels, spec.L, **draw)
        self.children["gate"] = Sequential(
            parts | {"sigmoid": Activation(backend, "sigmoid", self.keep)}
        )

    def forward(self, x: Array, train: bool = False) -> Array:
        backend, s = self.backend, self.spec
        primary, secondary = self.parameters.values()
        if self.by_channels:
            x, conv = backend.conv2d(x, primary, s.L, s.stride)
        means, pooled = backend.global_average_pool(x)
        gates = self.children["gate"].forward(means, train)
        if self.by_channels:
            y, scaled = backend.scale_channels(x, gates)
            y, mixed = backend.mix(y, secondary, s)
            self._saved = pooled, (conv, scaled, mixed)
        else:
            y, block = backend.gated_igc(x, primary, secondary, gates, s)
            self._saved = pooled, block
        return y

    def backward(self, dy: Array) -> Array:
        backend, (pooled, block) = self.backend, self._take_saved()
        if self.by_channels:
            conv, scaled, mixed = block
            dy, dsecondary = backend.mix_backward(dy, mixed)
            dx, dgates = backend.scale_channels_backward(dy, scaled)
        else:
            dx, dprimary, dsecondary, dgates = backend.gated_igc_backward(dy, block)
        dmeans = self.children["gate"].backward(dgates)
        dx = backend.add(dx, backend.global_average_pool_backward(dmeans, pooled))
        if self.by_channels:
            dx, dprimary = backend.conv2d_backward(dx, conv)
        self.gradients = {"primary": dprimary, "secondary": dsecondary}
        return dx

    def multiply_adds(self, shape: Shape) -> int:
        """Return those of one image: with `keep`, of so many primary partitions."""
        s, kept = self.spec, self.keep or self.spec.L
        weights = math.prod(s.primary_shape) * kept // s.L + math.prod(s.secondary_shape)
        return weights * math.prod(self.output_shape(shape)[1:])

    def rows(self, shape: Shape, name: str = "") -> Iterator[Row]:
        yield from super().rows(shape, name)
        features = (self.spec.out_channels if self.by_channels else self.spec.in_channels,)
        yield from self.children["gate"].rows(features, f"{name}.gate")

    def describe(self) -> str:
        kept = "" if self.keep is None else f" keep {self.keep}"
        return f"{self.spec} gate {'channels' if self.by_channels else 'partitions'}{kept}"
