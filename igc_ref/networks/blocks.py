"""The IGC block and its relatives, as layers.

`IGC` is the paper's block: what it holds, its forward and its backward pass. The mathematics is in
its backend's operators ``igc`` and ``igc_backward``, and as plain matrices in
`igc_ref.reference.block`. `SummationFusion` is the paper's baseline, an IGC whose secondary weights
are fixed. `MixedIGC`, `IGCV2` and `IGCV3` are made of group convolutions and shuffles.
"""

from __future__ import annotations

import numpy as np

from igc_ref.backends import GenericBackend
from igc_ref.backends.operators.library import Array
from igc_ref.networks.layer import Layer, Sequential, Shape
from igc_ref.networks.layers import BatchNorm, Conv2d, he_normal
from igc_ref.spec.block import Factor, IGCSpec, convolution_text
from igc_ref.spec.mixed import MixedSpec
from igc_ref.spec.products import IGCV2Spec, IGCV3Spec


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
        self.fixed: dict[str, Array] = {}  # weights that are not trained
        self._add_primary(rng, dtype)
        self._add_secondary(rng, dtype)

    def _add_primary(self, rng: np.random.Generator, dtype: str) -> None:
        drawn = he_normal(self.spec.primary_shape, rng)
        self.parameters["primary"] = self.backend.asarray(drawn, dtype)

    def _add_secondary(self, rng: np.random.Generator, dtype: str) -> None:
        drawn = he_normal(self.spec.secondary_shape, rng)
        self.parameters["secondary"] = self.backend.asarray(drawn, dtype)

    def forward(self, x: Array, train: bool = False) -> Array:
        weights = self.parameters | self.fixed
        y, self._saved = self.backend.igc(x, weights["primary"], weights["secondary"], self.spec)
        return y

    def backward(self, dy: Array) -> Array:
        dx, dprimary, dsecondary = self.backend.igc_backward(dy, self._take_saved())
        gradients = {"primary": dprimary, "secondary": dsecondary}
        self.gradients = {name: gradients[name] for name in self.parameters}  # of trained weights
        return dx

    def output_shape(self, shape: Shape) -> Shape:
        return (self.spec.out_channels, *self.spec.output_size(shape[1], shape[2]))

    def describe(self) -> str:
        return str(self.spec)


class SummationFusion(IGC):
    """Group convolution whose L partial results are added: every W_d^m is all ones, not trained.

    The sums, one for each channel of a partition, go to all L partitions alike (the paper's
    section on group convolution with summation fusion). Parameters as of `IGC`.
    """

    def _add_secondary(self, rng: np.random.Generator, dtype: str) -> None:
        ones = np.broadcast_to(1.0, self.spec.secondary_shape)  # no memory, however large
        self.fixed["secondary"] = self.backend.asarray(ones, dtype)

    def describe(self) -> str:
        s = self.spec
        shape = convolution_text(s.kernel_size, s.stride, s.in_channels, s.out_channels)
        return f"fusion {shape} L{s.L}"


class MixedIGC(IGC):
    """The block where each run of primary partitions has a kernel size of its own; see `MixedSpec`.

    It multiplies by the real taps only. The weights are "primary3", "primary5", ..., one for each
    run, or "primary1x3", ..., and "secondary". Parameters as of `IGC`, but for the spec.
    """

    spec: MixedSpec  # type: ignore[assignment]

    def _add_primary(self, rng: np.random.Generator, dtype: str) -> None:
        for name, run in zip(self.spec.names, self.spec.runs, strict=True):
            drawn = he_normal(run.weight_shape, rng)
            self.parameters[name] = self.backend.asarray(drawn, dtype)

    def forward(self, x: Array, train: bool = False) -> Array:
        b, s, (*primary, secondary) = self.backend, self.spec, self.parameters.values()
        each = zip(b.split(x, [run.in_channels for run in s.runs]), primary, s.runs, strict=True)
        y, runs = zip(*(b.conv2d(z, W, run.groups, s.stride) for z, W, run in each), strict=True)
        x, mixed = b.mix(b.concat([*y]), secondary, s)
        self._saved = runs, mixed
        return x

    def backward(self, dy: Array) -> Array:
        b, (runs, mixed) = self.backend, self._take_saved()
        dy, dW_d = b.mix_backward(dy, mixed)
        parts = b.split(dy, [run.out_channels for run in self.spec.runs])
        dx, dW_p = zip(*map(b.conv2d_backward, parts, runs), strict=True)
        self.gradients = dict(zip(self.parameters, (*dW_p, dW_d), strict=True))
        return b.concat([*dx])


class Shuffle(Layer):
    """P x with P = interleave(groups, C/groups): interleaves the channels of equal groups.

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

    Batch norm and ReLU follow the whole block, as they follow an IGC block. Its parts are
    ``conv1``, ``shuffle1``, ``conv2`` and so on.

    Parameters
    ----------
    spec : IGCV2Spec
    backend, rng, dtype
        As in `IGC`.
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
            parts[f"conv{i}"] = _convolution(backend, factor, rng, dtype)
            parts[f"shuffle{i}"] = Shuffle(backend, factor.deal)
        super().__init__(parts)
        self.spec = spec

    def describe(self) -> str:
        return str(self.spec)


class IGCV3(Sequential):
    """The inverted bottleneck of IGCV3 (arXiv:1806.00178), plus x where the shapes agree.

    Expand, batch norm, shuffle; depthwise, batch norm, ReLU; project, batch norm, shuffle. The
    published network clips its ReLU at 6; this one does not.

    Parameters
    ----------
    spec : IGCV3Spec
    momentum : float
        Of the batch norms, as in `BatchNorm`.
    backend, rng, dtype
        As in `IGC`.
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
            conv = _convolution(backend, factor, rng, dtype)
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
        return str(self.spec)


def _convolution(
    backend: GenericBackend, factor: Factor, rng: np.random.Generator, dtype: str
) -> Conv2d:
    """Make the layer of a factor's W."""
    shape = {name: getattr(factor, name) for name in ("kernel_size", "stride", "groups")}
    return Conv2d(backend, factor.in_channels, factor.out_channels, **shape, rng=rng, dtype=dtype)
