"""The layers that every convolutional network has: convolution, batch norm, pooling, linear.

Group convolution is one layer with regular (groups = 1) and depthwise (groups = channels)
convolution as its ends. ReLU has no layer: batch norm and the residual sum apply it.
"""

from __future__ import annotations

import math

import numpy as np

from igc_ref.backends import GenericBackend
from igc_ref.backends.operators.library import Array
from igc_ref.errors import KernelSize, SpecError, divides, kernel_pair
from igc_ref.networks.layer import Layer, Shape
from igc_ref.spec.block import Factor, convolution_text, output_length, output_size

BN_EPS = 2e-5  # the authors'


def he_normal(shape: Shape, rng: np.random.Generator) -> np.typing.NDArray[np.float64]:
    """Draw weights (out, in, ...) from N(0, 2/fan_in) (arXiv:1502.01852)."""
    return rng.normal(0.0, math.sqrt(2 / math.prod(shape[1:])), shape)


class Conv2d(Layer):
    """Group convolution without bias, padding ``k // 2``.

    Parameters
    ----------
    backend : GenericBackend
    in_channels, out_channels, stride, groups : int
    kernel_size : int or (int, int)
        k, or height and width (kh, kw).
    rng : numpy Generator
        Draws the He-normal weights, fan-in.
    dtype : str
    """

    def __init__(
        self,
        backend: GenericBackend,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: KernelSize = 3,
        stride: int = 1,
        groups: int = 1,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        factor = Factor(in_channels, out_channels, groups, kernel_size, stride)
        self.backend, self.groups, self.stride = backend, factor.groups, factor.stride
        self.input_gradient = True  # False where nobody needs what `backward` returns
        self.parameters["weight"] = backend.asarray(he_normal(factor.weight_shape, rng), dtype)

    def forward(self, x: Array, train: bool = False) -> Array:
        y, self._saved = self.backend.conv2d(x, self.parameters["weight"], self.groups, self.stride)
        return y

    def backward(self, dy: Array) -> Array:
        dx, self.gradients["weight"] = self.backend.conv2d_backward(
            dy, self._take_saved(), self.input_gradient
        )
        return dx

    def output_shape(self, shape: Shape) -> Shape:
        out, _, *kernel = self.parameters["weight"].shape
        return (out, *output_size((shape[1], shape[2]), kernel, self.stride))

    def describe(self) -> str:
        out, per_group, *kernel = self.parameters["weight"].shape
        groups = f" groups {self.groups}" if self.groups > 1 else ""
        return f"conv {convolution_text(kernel, self.stride, per_group * self.groups, out)}{groups}"


class Norm(Layer):
    """What batch norm and group norm share: gamma and beta of each channel, and maybe a ReLU."""

    kind: str

    def __init__(self, backend: GenericBackend, channels: int, relu: bool, dtype: str) -> None:
        super().__init__()
        self.backend, self.relu = backend, relu
        for name, number in (("gamma", 1.0), ("beta", 0.0)):  # broadcast: these take no memory
            self.parameters[name] = backend.asarray(np.broadcast_to(number, channels), dtype)

    def describe(self) -> str:
        return f"{self.kind}, relu" if self.relu else self.kind


class BatchNorm(Norm):
    """Batch normalisation, followed by a ReLU if asked for.

    Parameters
    ----------
    backend : GenericBackend
    channels : int
    momentum : float
        Weight of the past in the running averages.
    relu : bool
    dtype : str
    """

    kind = "batch norm"

    def __init__(
        self,
        backend: GenericBackend,
        channels: int,
        *,
        momentum: float = 0.9,
        relu: bool = False,
        dtype: str = "float32",
    ) -> None:
        super().__init__(backend, channels, relu, dtype)
        self.momentum = momentum
        for name, number in (("running_mean", 0.0), ("running_var", 1.0)):
            self.buffers[name] = backend.asarray(np.broadcast_to(number, channels), dtype)

    def forward(self, x: Array, train: bool = False) -> Array:
        arrays, numbers = self.parameters | self.buffers, {"momentum": self.momentum, "eps": BN_EPS}
        y, self._saved = self.backend.batch_norm(
            x, **arrays, **numbers, train=train, relu=self.relu
        )
        return y

    def backward(self, dy: Array) -> Array:
        dx, dgamma, dbeta = self.backend.batch_norm_backward(dy, self._take_saved())
        self.gradients = {"gamma": dgamma, "beta": dbeta}
        return dx


class GroupNorm(Norm):
    """Group normalisation, followed by a ReLU if asked for; the same in training and evaluation.

    Parameters
    ----------
    backend : GenericBackend
    channels, groups : int
        One group is layer normalisation.
    relu : bool
    dtype : str
    """

    def __init__(
        self,
        backend: GenericBackend,
        channels: int,
        groups: int,
        *,
        relu: bool = False,
        dtype: str = "float32",
    ) -> None:
        divides("groups", groups, "channels", channels)
        super().__init__(backend, channels, relu, dtype)
        self.groups = groups
        self.kind = "layer norm" if groups == 1 else f"group norm of {groups}"

    def forward(self, x: Array, train: bool = False) -> Array:
        gamma, beta = self.parameters.values()
        y, self._saved = self.backend.group_norm(
            x, gamma, beta, self.groups, eps=BN_EPS, relu=self.relu
        )
        return y

    def backward(self, dy: Array) -> Array:
        dx, dgamma, dbeta = self.backend.group_norm_backward(dy, self._take_saved())
        self.gradients = {"gamma": dgamma, "beta": dbeta}
        return dx


class MaxPool(Layer):
    """The maximum of every window; padding is never the maximum."""

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


class AveragePool(Layer):
    """The mean of every window of `kernel_size`, an int or a pair; windows lie side by side."""

    def __init__(self, backend: GenericBackend, kernel_size: KernelSize = 2) -> None:
        super().__init__()
        self.backend, self.kernel_size = backend, kernel_pair(kernel_size)

    def forward(self, x: Array, train: bool = False) -> Array:
        y, self._saved = self.backend.average_pool(x, self.kernel_size)
        return y

    def backward(self, dy: Array) -> Array:
        return self.backend.average_pool_backward(dy, self._take_saved())

    def output_shape(self, shape: Shape) -> Shape:
        (C, H, W), (kh, kw) = shape, self.kernel_size
        if kh > H or kw > W:
            raise SpecError(f"images are too small: {H}x{W} where {kh}x{kw} pixels are averaged")
        return C, H // kh, W // kw

    def describe(self) -> str:
        return "average pool {}x{}".format(*self.kernel_size)


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

    def describe(self) -> str:
        out, inp = self.parameters["weight"].shape
        return f"linear {inp}-{out}"
