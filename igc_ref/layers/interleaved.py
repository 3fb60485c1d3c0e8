"""IGCV2 and IGCV3 as layers.

A factor P W of a product is a group convolution and a channel shuffle; see `igc_ref.spec_products`
for the equations and `igc_ref.reference.products` for the matrices.
"""

from __future__ import annotations

import numpy as np

from igc_ref.backends import GenericBackend
from igc_ref.backends.library import Array
from igc_ref.layers.convolution import Conv2d
from igc_ref.layers.simple import BatchNorm
from igc_ref.network import Layer, Sequential
from igc_ref.spec_products import Factor, IGCV2Spec, IGCV3Spec


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
