"""The paper's blocks: interleaved group convolution, and its baseline with summation fusion."""

from __future__ import annotations

import math

import numpy as np

from igc_ref.backends import GenericBackend
from igc_ref.backends.operators.library import Array
from igc_ref.networks.layer import Layer, Sequential, Shape
from igc_ref.networks.layers import BatchNorm, Conv2d, he_normal
from igc_ref.spec.block import IGCSpec
from igc_ref.spec.products import Factor, IGCV2Spec, IGCV3Spec


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


class Shuffle(Layer):
    """P x, P = interleave(groups, C/groups): the channels of equal groups, dealt out like cards.

    Parameters
    ----------
    backend : GenericBackend
    groups : int
    """

    def __init__(self, backend: GenericBackend, groups: int) -> None:
        super().__init__()
        self.backend, self.groups = backend, groups

    def forward(self, x: Array, train: bool = False) -> Array:
        y, self._saved = self.backend.shuffle(x, self.groups)
        return y

    def backward(self, dy: Array) -> Array:
        return self.backend.shuffle_backward(dy, self._take_saved())

    def describe(self) -> str:
        return f"shuffle {self.groups}"


class IGCV2(Sequential):
    """The block x' = P_n W_n ... P_1 W_1 x (arXiv:1804.06202), nothing between the factors.

    As in the IGC block; a network has batch norm and ReLU after it. Its parts are ``conv1``,
    ``shuffle1``, ``conv2`` and so on.

    Parameters
    ----------
    backend : GenericBackend
    spec : IGCV2Spec
    rng : numpy Generator
        Draws the He-normal weights of all factors, fan-in.
    dtype : str
    """

    def __init__(
        self,
        backend: GenericBackend,
        spec: IGCV2Spec,
        *,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        parts: dict[str, Layer] = {}
        for i, factor in enumerate(spec.factors, start=1):
            parts[f"conv{i}"] = factor_convolution(backend, factor, rng, dtype)
            parts[f"shuffle{i}"] = Shuffle(backend, factor.deal)
        super().__init__(parts)
        self.spec = spec

    def describe(self) -> str:
        s = self.spec
        stride = f" /{s.stride}" if s.stride > 1 else ""
        k, K = s.kernel_size, "x".join(map(str, s.K))
        return f"igcv2 {k}x{k}{stride} {s.in_channels}-{s.out_channels} K{K}"


class IGCV3(Sequential):
    """The inverted bottleneck of IGCV3 (arXiv:1806.00178), plus x where the shapes agree.

    Expand, batch norm, shuffle; depthwise, batch norm, ReLU; project, batch norm, shuffle. The
    published network clips its ReLU at 6, ours does not.

    Parameters
    ----------
    backend : GenericBackend
    spec : IGCV3Spec
    momentum : float
        Weight of the past in the running averages of the batch norms.
    rng : numpy Generator
        Draws the He-normal weights of all convolutions, fan-in.
    dtype : str
    """

    def __init__(
        self,
        backend: GenericBackend,
        spec: IGCV3Spec,
        *,
        momentum: float = 0.9,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        def normalised(factor: Factor, relu: bool) -> tuple[Layer, Layer]:
            conv = factor_convolution(backend, factor, rng, dtype)
            out = factor.out_channels
            return conv, BatchNorm(backend, out, momentum=momentum, relu=relu, dtype=dtype)

        first, middle, last = spec.factors
        parts: dict[str, Layer] = {}
        parts["expand"], parts["expand_bn"] = normalised(first, relu=False)
        parts["expand_shuffle"] = Shuffle(backend, first.deal)
        parts["depthwise"], parts["depthwise_bn"] = normalised(middle, relu=True)
        parts["project"], parts["project_bn"] = normalised(last, relu=False)
        parts["project_shuffle"] = Shuffle(backend, last.deal)
        super().__init__(parts)
        self.backend, self.spec = backend, spec

    def forward(self, x: Array, train: bool = False) -> Array:
        y = super().forward(x, train)
        return self.backend.add(y, x) if self.spec.is_residual else y

    def backward(self, dy: Array) -> Array:
        dx = super().backward(dy)
        return self.backend.add(dx, dy) if self.spec.is_residual else dx

    def describe(self) -> str:
        s = self.spec
        stride = f" /{s.stride}" if s.stride > 1 else ""
        k, groups = s.kernel_size, "x".join(map(str, s.groups))
        shape = f"{s.in_channels}-{s.hidden}-{s.out_channels}"
        return f"igcv3 {k}x{k}{stride} {shape} G{groups}" + " + x" * s.is_residual


def factor_convolution(
    backend: GenericBackend, factor: Factor, rng: np.random.Generator, dtype: str
) -> Conv2d:
    """Make the layer of a factor's W."""
    return Conv2d(
        backend,
        factor.in_channels,
        factor.out_channels,
        kernel_size=factor.kernel_size,
        stride=factor.stride,
        groups=factor.groups,
        rng=rng,
        dtype=dtype,
    )
