"""The gated block x' = P W_d Pᵀ D(x) W_p x: attention, or partitions that depend on the image.

The gate is a small network on features, so that its weights have names of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from igc_ref.backends import GenericBackend
from igc_ref.backends.operators.library import Array
from igc_ref.errors import choice, integer
from igc_ref.networks.blocks import IGC
from igc_ref.networks.layer import Layer, Row, Sequential, Shape
from igc_ref.networks.layers import Linear
from igc_ref.spec.block import IGCSpec

REDUCTION = 16  # middle channels for each hidden feature of squeeze and excitation; its authors'


class Rectify(Layer):
    """max(x, 0) of features (N, G)."""

    def __init__(self, backend: GenericBackend) -> None:
        super().__init__()
        self.backend = backend

    def forward(self, x: Array, train: bool = False) -> Array:
        y, self._saved = self.backend.rectify(x)
        return y

    def backward(self, dy: Array) -> Array:
        return self.backend.rectify_backward(dy, self._take_saved())

    def describe(self) -> str:
        return "relu"


class Sigmoid(Layer):
    """1 / (1 + exp(-x)) of features (N, G); with `keep`, 0 for all but the k greatest of a row."""

    def __init__(self, backend: GenericBackend, keep: int | None = None) -> None:
        super().__init__()
        self.backend, self.keep = backend, keep

    def forward(self, x: Array, train: bool = False) -> Array:
        y, self._saved = self.backend.sigmoid(x, self.keep)
        return y

    def backward(self, dy: Array) -> Array:
        return self.backend.sigmoid_backward(dy, self._take_saved())

    def describe(self) -> str:
        return "sigmoid" if self.keep is None else f"sigmoid, greatest {self.keep}"


class GatedIGC(IGC):
    """The block x' = P W_d Pᵀ D(x) W_p x; D(x) is diagonal, for each image its own.

    Parameters
    ----------
    spec : IGCSpec
    gate : {"channels", "partitions"}
        A gate for each middle channel, by squeeze and excitation of ``y = W_p x``
        (arXiv:1709.01507); or one for each primary partition, from the means of x.
    keep : int, optional
        Of the partitions' gates the `keep` greatest of an image stay and the others are 0, in
        training and evaluation alike; by default all stay.
    backend, rng, dtype
        As in `IGC`.

    Raises
    ------
    SpecError
        If there is no such gate, or `keep` is not from 1 to L.

    Examples
    --------
    >>> from igc_ref.backends import get_backend
    >>> options = {"rng": np.random.default_rng(0), "dtype": "float64"}
    >>> spec = IGCSpec.square(L=4, M=2)
    >>> layer = GatedIGC(get_backend("numpy"), spec, "partitions", keep=2, **options)
    >>> layer.forward(np.ones((8, 1, 5, 5))).shape, layer.multiply_adds((8, 5, 5))
    ((8, 1, 5, 5), 2600)
    """

    def __init__(
        self,
        backend: GenericBackend,
        spec: IGCSpec,
        gate: str,
        *,
        keep: int | None = None,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        super().__init__(backend, spec, rng=rng, dtype=dtype)
        self.by_channels = choice("gate", gate, ("channels", "partitions")) == "channels"
        self.keep = keep if keep is None else integer("keep", keep, maximum=spec.L)
        out, parts = spec.out_channels, dict[str, Layer]()
        if self.by_channels:
            hidden = max(1, out // REDUCTION)
            parts["squeeze"] = Linear(backend, out, hidden, rng=rng, dtype=dtype)
            parts["relu"] = Rectify(backend)
            parts["excite"] = Linear(backend, hidden, out, rng=rng, dtype=dtype)
        else:
            parts["linear"] = Linear(backend, spec.in_channels, spec.L, rng=rng, dtype=dtype)
        self.children["gate"] = Sequential(parts | {"sigmoid": Sigmoid(backend, self.keep)})

    def forward(self, x: Array, train: bool = False) -> Array:
        backend, s, gate = self.backend, self.spec, self.children["gate"]
        primary, secondary = self.parameters.values()
        if self.by_channels:
            x, conv = backend.conv2d(x, primary, s.L, s.stride)
        means, pooled = backend.global_average_pool(x)
        gates = gate.forward(means, train)
        if self.by_channels:
            y, mixed = backend.gated_mix(x, secondary, gates, s)
            self._saved = pooled, mixed, conv
        else:
            y, block = backend.gated_igc(x, primary, secondary, gates, s)
            self._saved = pooled, block
        return y

    def backward(self, dy: Array) -> Array:
        backend, (pooled, saved, *conv) = self.backend, self._take_saved()
        if self.by_channels:
            dx, dsecondary, dgates = backend.gated_mix_backward(dy, saved)
        else:
            dx, dprimary, dsecondary, dgates = backend.gated_igc_backward(dy, saved)
        dmeans = self.children["gate"].backward(dgates)
        dx = backend.add(dx, backend.global_average_pool_backward(dmeans, pooled))
        if self.by_channels:
            dx, dprimary = backend.conv2d_backward(dx, conv[0])
        self.gradients = {"primary": dprimary, "secondary": dsecondary}
        return dx

    def multiply_adds(self, shape: Shape) -> int:
        """Return those of one image; with `keep`, of as many primary partitions, as numba does."""
        s, kept = self.spec, self.spec.L if self.keep is None else self.keep
        weights = math.prod(s.primary_shape) * kept // s.L + math.prod(s.secondary_shape)
        return weights * math.prod(self.output_shape(shape)[1:])

    def rows(self, shape: Shape, name: str = "") -> Iterator[Row]:
        yield from super().rows(shape, name)
        features = (self.spec.out_channels if self.by_channels else self.spec.in_channels,)
        yield from self.children["gate"].rows(features, f"{name}.gate")

    def describe(self) -> str:
        kept = "" if self.keep is None else f" keep {self.keep}"
        return f"{self.spec} gate {'channels' if self.by_channels else 'partitions'}{kept}"
