"""What a layer is, and how layers make a network: in a row, densely, or beside a shortcut.

A layer holds its parameters and, from forward to backward, what its derivative needs. It computes
nothing itself: it calls the operators of its backend, on batches (C, N, H, W) in the backend's own
layout. A new layer defines ``forward``, ``backward`` and, where they differ from these defaults,
``output_shape``, ``multiply_adds`` and ``describe``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from igc_ref.backends import GenericBackend
from igc_ref.backends.operators.library import Array

Shape = tuple[int, ...]  # (C, H, W) of one image, or (features,)


class Row(NamedTuple):
    """One line of a network's summary; costs are for one image."""

    name: str
    kind: str
    output: Shape
    parameters: int
    multiply_adds: int


class Layer:
    """Base of all layers.

    Attributes
    ----------
    parameters, gradients, buffers : dict of arrays
        Trained weights, their gradients (after ``backward``), and state that is not trained, as
        batch norm's running averages.
    children : dict of layers
        Parts, in the order in which data flows.
    """

    def __init__(self) -> None:
        self.parameters: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}
        self.buffers: dict[str, Array] = {}
        self.children: dict[str, Layer] = {}
        self._saved: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_saved": None}  # a copy has not seen the batch

    def forward(self, x: Array, train: bool = False) -> Array:
        """Compute the output, and save what `backward` needs."""
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        """Return the gradient with respect to the input, and store those of the parameters."""
        raise NotImplementedError

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the output for one image of this shape."""
        return shape

    def multiply_adds(self, shape: Shape) -> int:
        """Return the multiply-adds for one image: those of kernels and matrices alone.

        Each of their weights multiplies once for every output position. Parameters of one
        dimension, as a bias or batch norm's gamma and beta, are not counted.
        """
        weights: int = sum(math.prod(p.shape) for p in self.parameters.values() if p.ndim > 1)
        return weights * math.prod(self.output_shape(shape)[1:])

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters of this layer, its parts not counted."""
        return sum(math.prod(p.shape) for p in self.parameters.values())

    def describe(self) -> str:
        """Return the kind of the layer and its numbers in a few characters."""
        return type(self).__name__

    def rows(self, shape: Shape, name: str = "") -> Iterator[Row]:
        """Yield a summary line for every part that has no parts itself."""
        cost = self.num_parameters, self.multiply_adds(shape)
        yield Row(name, self.describe(), self.output_shape(shape), *cost)

    def named_layers(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield this layer and all its parts, in the order in which data flows."""
        yield prefix, self
        for name, child in self.children.items():
            yield from child.named_layers(f"{prefix}.{name}" if prefix else name)

    def _take_saved(self) -> Any:
        """Return what forward saved, once: the memory is free after the backward pass."""
        saved, self._saved = self._saved, None
        if saved is None:
            raise RuntimeError(f"{self.describe()}: backward needs a forward pass before it")
        return saved


class Sequential(Layer):
    """Layers one after another."""

    def __init__(self, children: Mapping[str, Layer]) -> None:
        super().__init__()
        self.children = dict(children)

    def forward(self, x: Array, train: bool = False) -> Array:
        for layer in self.children.values():
            x = layer.forward(x, train)
        return x

    def backward(self, dy: Array) -> Array:
        for layer in reversed(self.children.values()):
            dy = layer.backward(dy)
        return dy

    def output_shape(self, shape: Shape) -> Shape:
        for layer in self.children.values():
            shape = layer.output_shape(shape)
        return shape

    def rows(self, shape: Shape, name: str = "") -> Iterator[Row]:
        for child, layer in self.children.items():
            yield from layer.rows(shape, f"{name}.{child}" if name else child)
            shape = layer.output_shape(shape)


class Dense(Sequential):
    """The channels of x, then those of its layers' output: a dense layer (arXiv:1608.06993)."""

    def __init__(self, backend: GenericBackend, children: Mapping[str, Layer]) -> None:
        super().__init__(children)
        self.backend = backend

    def forward(self, x: Array, train: bool = False) -> Array:
        y = super().forward(x, train)
        self._saved = x.shape[0], y.shape[0]
        return self.backend.concat([x, y])

    def backward(self, dy: Array) -> Array:
        dx, d = self.backend.split(dy, self._take_saved())
        return self.backend.add(dx, super().backward(d))

    def output_shape(self, shape: Shape) -> Shape:
        grown, *size = super().output_shape(shape)
        return (shape[0] + grown, *size)


class Residual(Layer):
    """relu(shortcut(x) + branch(x)); without a shortcut layer, x itself is added."""

    def __init__(
        self, backend: GenericBackend, branch: Layer, shortcut: Layer | None = None
    ) -> None:
        super().__init__()
        self.backend = backend
        self.children = {} if shortcut is None else {"shortcut": shortcut}
        self.children["branch"] = branch

    def forward(self, x: Array, train: bool = False) -> Array:
        branch, shortcut = self.children["branch"], self.children.get("shortcut")
        identity = shortcut.forward(x, train) if shortcut else x
        y, self._saved = self.backend.add_relu(branch.forward(x, train), identity)
        return y

    def backward(self, dy: Array) -> Array:
        branch, shortcut = self.children["branch"], self.children.get("shortcut")
        d = self.backend.relu_backward(dy, self._take_saved())
        return self.backend.add(branch.backward(d), shortcut.backward(d) if shortcut else d)

    def output_shape(self, shape: Shape) -> Shape:
        return self.children["branch"].output_shape(shape)

    def rows(self, shape: Shape, name: str = "") -> Iterator[Row]:
        for child, layer in self.children.items():
            yield from layer.rows(shape, f"{name}.{child}")
