"""The IGC block with several kernel sizes, made of operators that every backend has."""

from __future__ import annotations

import numpy as np

from igc_ref.backends import GenericBackend
from igc_ref.backends.operators.library import Array
from igc_ref.networks.layer import Layer, Shape
from igc_ref.networks.layers import he_normal
from igc_ref.spec.mixed import MixedSpec


class MixedIGC(Layer):
    """The block x' = P W_d Pᵀ W_p x, where each run of primary partitions has a kernel size.

    It is an IGC whose outer taps are zero (`igc_ref.reference.special_cases.mixed`), but multiplies
    by the real taps only. Its weights are "primary3", "primary5", ..., one for each run, and
    "secondary".

    Parameters
    ----------
    spec : MixedSpec
    backend, rng, dtype
        As in `IGC`.
    """

    def __init__(
        self,
        backend: GenericBackend,
        spec: MixedSpec,
        *,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        self.backend, self.spec, self.runs = backend, spec, spec.runs
        shapes = zip(spec.names, (run.weight_shape for run in self.runs), strict=True)
        for name, shape in (*shapes, ("secondary", spec.igc.secondary_shape)):
            self.parameters[name] = backend.asarray(he_normal(shape, rng), dtype)

    def forward(self, x: Array, train: bool = False) -> Array:
        b, (*primary, secondary) = self.backend, self.parameters.values()
        parts = b.split(x, [run.in_channels for run in self.runs])
        each = zip(parts, primary, self.runs, strict=True)
        y, in_runs = zip(*(b.conv2d(z, W, r.groups, r.stride) for z, W, r in each), strict=True)
        y_bar, transposed = b.shuffle(b.concat([*y]), self.spec.L)  # Pᵀ W_p x
        y, in_secondary = b.conv2d(y_bar, secondary[:, :, None, None], self.spec.M)
        y, permuted = b.shuffle(y, self.spec.M)  # P W_d ȳ
        self._saved = in_runs, transposed, in_secondary, permuted
        return y

    def backward(self, dy: Array) -> Array:
        b, (in_runs, transposed, in_secondary, permuted) = self.backend, self._take_saved()
        dy_bar, dW_d = b.conv2d_backward(b.shuffle_backward(dy, permuted), in_secondary)
        dy = b.shuffle_backward(dy_bar, transposed)
        parts = b.split(dy, [run.out_channels for run in self.runs])
        dx, dW_p = zip(*map(b.conv2d_backward, parts, in_runs), strict=True)
        self.gradients = dict(zip(self.parameters, (*dW_p, dW_d[:, :, 0, 0]), strict=True))
        return b.concat([*dx])

    def output_shape(self, shape: Shape) -> Shape:
        return (self.spec.out_channels, *self.spec.output_size(shape[1], shape[2]))

    def describe(self) -> str:
        return str(self.spec)
