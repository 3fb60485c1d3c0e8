"""Batch normalisation, ReLU, pooling, the linear layer."""

from __future__ import annotations

import math

import numpy as np

from igc_ref.backends import GenericBackend
from igc_ref.backends.library import Array
from igc_ref.network import Layer, Shape
from igc_ref.spec import output_length

BN_EPS = 2e-5


class BatchNorm(Layer):
    """Batch normalisation, with a ReLU after it on request.

    Parameters
    ----------
    backend : GenericBackend
    channels : int
    momentum : float
        Weight of the past in the running averages.
    relu : bool
    dtype : str
    """

    def __init__(
        self,
        backend: GenericBackend,
        channels: int,
        *,
        momentum: float = 0.9,
        relu: bool = False,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        self.backend, self.momentum, self.relu = backend, momentum, relu
        ones, zeros = np.ones(channels), np.zeros(channels)
        self.parameters["gamma"] = backend.asarray(ones, dtype)
        self.parameters["beta"] = backend.asarray(zeros, dtype)
        self.buffers["running_mean"] = backend.asarray(zeros, dtype)
        self.buffers["running_var"] = backend.asarray(ones, dtype)

    def forward(self, x: Array, train: bool = False) -> Array:
        y, self._saved = self.backend.batch_norm(
            x,
            **self.parameters,
            **self.buffers,
            momentum=self.momentum,
            eps=BN_EPS,
            train=train,
            relu=self.relu,
        )
        return y

    def backward(self, dy: Array) -> Array:
        dx, dgamma, dbeta = self.backend.batch_norm_backward(dy, self._take_saved())
        self.gradients = {"gamma": dgamma, "beta": dbeta}
        return dx

    def describe(self) -> str:
        return "batch norm, relu" if self.relu else "batch norm"


class ReLU(Layer):
    """max(x, 0)."""

    def __init__(self, backend: GenericBackend) -> None:
        super().__init__()
        self.backend = backend

    def forward(self, x: Array, train: bool = False) -> Array:
        y, self._saved = self.backend.relu(x)
        return y

    def backward(self, dy: Array) -> Array:
        return self.backend.relu_backward(dy, self._take_saved())

    def describe(self) -> str:
        return "relu"


class MaxPool(Layer):
    """The greatest pixel of every window; padding never wins."""

    def __init__(
        self, backend: GenericBackend, kernel_size: int = 3, stride: int = 2, padding: int = 1
    ) -> None:
        super().__init__()
        self.backend, self.window = backend, (kernel_size, stride, padding)

    def forward(self, x: Array, train: bool = False) -> Array:
        y, self._saved = self.backend.max_pool(x, *self.window)
        return y

    def backward(self, dy: Array) -> Array:
        return self.backend.max_pool_backward(dy, self._take_saved())

    def output_shape(self, shape: Shape) -> Shape:
        return (shape[0], *(output_length(size, *self.window) for size in shape[1:]))

    def describe(self) -> str:
        k, stride, _ = self.window
        return f"max pool {k}x{k} /{stride}"


class GlobalAveragePool(Layer):
    """The mean of every channel over all positions: (C, N, H, W) to (N, C)."""

    def __init__(self, backend: GenericBackend) -> None:
        super().__init__()
        self.backend = backend

    def forward(self, x: Array, train: bool = False) -> Array:
        y, self._saved = self.backend.global_average_pool(x)
        return y

    def backward(self, dy: Array) -> Array:
        return self.backend.global_average_pool_backward(dy, self._take_saved())

    def output_shape(self, shape: Shape) -> Shape:
        return shape[:1]

    def describe(self) -> str:
        return "global average pool"


class Linear(Layer):
    """x Wᵀ + b; both drawn uniformly from ±1/sqrt(in).

    Parameters
    ----------
    backend : GenericBackend
    in_features, out_features : int
    rng : numpy Generator
    dtype : str
    """

    def __init__(
        self,
        backend: GenericBackend,
        in_features: int,
        out_features: int,
        *,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        self.backend = backend
        bound = 1 / math.sqrt(in_features)
        for name, shape in (("weight", (out_features, in_features)), ("bias", (out_features,))):
            self.parameters[name] = backend.asarray(rng.uniform(-bound, bound, shape), dtype)

    def forward(self, x: Array, train: bool = False) -> Array:
        y, self._saved = self.backend.linear(x, **self.parameters)
        return y

    def backward(self, dy: Array) -> Array:
        dx, dweight, dbias = self.backend.linear_backward(dy, self._take_saved())
        self.gradients = {"weight": dweight, "bias": dbias}
        return dx

    def output_shape(self, shape: Shape) -> Shape:
        return self.parameters["bias"].shape  # type: ignore[no-any-return]

    def multiply_adds(self, shape: Shape) -> int:
        return math.prod(self.parameters["weight"].shape)  # the bias only adds

    def describe(self) -> str:
        out, inp = self.parameters["weight"].shape
        return f"linear {inp}-{out}"
