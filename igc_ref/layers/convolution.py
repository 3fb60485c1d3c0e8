"""Group convolution, and how weights are drawn."""

from __future__ import annotations

import math

import numpy as np

from igc_ref.backends import GenericBackend
from igc_ref.backends.library import Array
from igc_ref.network import Layer, Shape
from igc_ref.spec import divides, output_length


class Conv2d(Layer):
    """Group convolution without bias, padding ``k // 2``.

    Parameters
    ----------
    backend : GenericBackend
    in_channels, out_channels, kernel_size, stride, groups : int
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
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        divides("groups", groups, "in_channels", in_channels)
        divides("groups", groups, "out_channels", out_channels)
        self.backend, self.groups, self.stride = backend, groups, stride
        self.input_gradient = True  # whether anybody asks for what `backward` returns
        shape = (out_channels, in_channels // groups, kernel_size, kernel_size)
        self.parameters["weight"] = backend.asarray(he_normal(shape, rng), dtype)

    def forward(self, x: Array, train: bool = False) -> Array:
        y, self._saved = self.backend.conv2d(x, self.parameters["weight"], self.groups, self.stride)
        return y

    def backward(self, dy: Array) -> Array:
        dx, self.gradients["weight"] = self.backend.conv2d_backward(
            dy, self._take_saved(), self.input_gradient
        )
        return dx

    def output_shape(self, shape: Shape) -> Shape:
        out, _, k, _ = self.parameters["weight"].shape
        return (out, *(output_length(size, k, self.stride) for size in shape[1:]))

    def multiply_adds(self, shape: Shape) -> int:
        return self.num_parameters * math.prod(self.output_shape(shape)[1:])

    def describe(self) -> str:
        out, per_group, k, _ = self.parameters["weight"].shape
        groups = f" groups {self.groups}" if self.groups > 1 else ""
        stride = f" /{self.stride}" if self.stride > 1 else ""
        return f"conv {k}x{k}{stride} {per_group * self.groups}-{out}{groups}"


def he_normal(shape: Shape, rng: np.random.Generator) -> np.typing.NDArray[np.float64]:
    """Draw weights (out, in, ...) from N(0, 2/fan_in) (arXiv:1502.01852)."""
    return rng.normal(0.0, math.sqrt(2 / math.prod(shape[1:])), shape)
