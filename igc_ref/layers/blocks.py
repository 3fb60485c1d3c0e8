"""The paper's blocks: interleaved group convolution, and its baseline with summation fusion."""

from __future__ import annotations

import math

import numpy as np

from igc_ref.backends import GenericBackend
from igc_ref.backends.library import Array
from igc_ref.layers.convolution import he_normal
from igc_ref.network import Layer, Shape
from igc_ref.spec import IGCSpec


class IGC(Layer):
    """The block x' = P W_d Pᵀ W_p x (arXiv:1707.02725).

    Parameters
    ----------
    backend : GenericBackend
    spec : IGCSpec
    rng : numpy Generator
        Draws the He-normal weights of both convolutions, fan-in.
    dtype : str
    """

    def __init__(
        self,
        backend: GenericBackend,
        spec: IGCSpec,
        *,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        self.backend, self.spec = backend, spec
        for name, shape in (("primary", spec.primary_shape), ("secondary", spec.secondary_shape)):
            self.parameters[name] = backend.asarray(he_normal(shape, rng), dtype)

    def forward(self, x: Array, train: bool = False) -> Array:
        y, self._saved = self.backend.igc(
            x, self.parameters["primary"], self.parameters["secondary"], self.spec
        )
        return y

    def backward(self, dy: Array) -> Array:
        dx, dprimary, dsecondary = self.backend.igc_backward(dy, self._take_saved())
        self.gradients = {"primary": dprimary, "secondary": dsecondary}
        return dx

    def output_shape(self, shape: Shape) -> Shape:
        return (self.spec.out_channels, *self.spec.output_size(shape[1], shape[2]))

    def multiply_adds(self, shape: Shape) -> int:
        return self.spec.multiply_adds(shape[1], shape[2])

    def describe(self) -> str:
        s = self.spec
        stride = f" /{s.stride}" if s.stride > 1 else ""
        k = s.kernel_size
        return f"igc {k}x{k}{stride} {s.in_channels}-{s.out_channels} L{s.L} M{s.M}"


class SummationFusion(Layer):
    """Group convolution whose L partial results are added: every W_d^m is all ones, not trained.

    The sums, one for each channel of a partition, go back to all L partitions alike (the paper's
    section on group convolution with summation fusion).

    Parameters
    ----------
    backend : GenericBackend
    spec : IGCSpec
    rng : numpy Generator
        Draws the He-normal weights, fan-in.
    dtype : str
    """

    def __init__(
        self,
        backend: GenericBackend,
        spec: IGCSpec,
        *,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        self.backend, self.spec = backend, spec
        self.parameters["primary"] = backend.asarray(he_normal(spec.primary_shape, rng), dtype)
        self._ones = backend.asarray(np.ones(spec.secondary_shape), dtype)

    def forward(self, x: Array, train: bool = False) -> Array:
        y, self._saved = self.backend.igc(x, self.parameters["primary"], self._ones, self.spec)
        return y

    def backward(self, dy: Array) -> Array:
        dx, self.gradients["primary"], _ = self.backend.igc_backward(dy, self._take_saved())
        return dx

    def output_shape(self, shape: Shape) -> Shape:
        return (self.spec.out_channels, *self.spec.output_size(shape[1], shape[2]))

    def multiply_adds(self, shape: Shape) -> int:
        return self.num_parameters * math.prod(self.output_shape(shape)[1:])  # the sums only add

    def describe(self) -> str:
        s = self.spec
        stride = f" /{s.stride}" if s.stride > 1 else ""
        k = s.kernel_size
        return f"fusion {k}x{k}{stride} {s.in_channels}-{s.out_channels} L{s.L}"
