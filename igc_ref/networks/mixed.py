"""The IGC block with several kernel sizes as a layer, from the operators that every backend has.

The mathematics is that of `IGC` with zero outer taps (`igc_ref.reference.special_cases.mixed`), but
only the real taps are multiplied: every run of partitions is a group convolution of its own.
"""

from __future__ import annotations

import numpy as np

from igc_ref.backends import GenericBackend
from igc_ref.backends.operators.library import Array
from igc_ref.networks.layer import Layer, Shape
from igc_ref.networks.layers import he_normal
from igc_ref.spec.mixed import MixedSpec


class MixedIGC(Layer):
    """The block x' = P W_d Pᵀ W_p x whose primary partitions have several kernel sizes.

    Its weights are "primary3", "primary5" and so on, one array for every run of partitions, and
    "secondary".

    Parameters
    ----------
    spec : MixedSpec
    backend, rng, dtype
        As in `IGC`.

    Notes
    -----
    Forward, where x_r are the channels of run r:

        y = (W_p1 x_1, W_p2 x_2, ...),   ȳ = Pᵀ y,   x' = P W_d ȳ

    Backward, with d = upstream gradient:

        dz̄ = Pᵀ d,   dW_d = blockmask(dz̄ ȳᵀ),   dȳ = W_dᵀ dz̄,   dy = P dȳ
        dW_pr = blockmask(dy_r z_rᵀ),   dx = (W_p1ᵀ dy_1, W_p2ᵀ dy_2, ...)

    The first P stands for the inverse of its shuffle, whether or not that is the other one.
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
        shapes = {f"primary{run.kernel_size}": run.weight_shape for run in self.runs}
        for name, shape in (shapes | {"secondary": spec.secondary_shape}).items():
            self.parameters[name] = backend.asarray(he_normal(shape, rng), dtype)

    def forward(self, x: Array, train: bool = False) -> Array:
        backend, (*primary, secondary) = self.backend, self.parameters.values()
        parts = backend.split(x, [run.in_channels for run in self.runs])
        runs = [
            backend.conv2d(part, weight, run.groups, run.stride)
            for part, weight, run in zip(parts, primary, self.runs, strict=True)
        ]
        y, transposed = backend.shuffle(backend.concat([y for y, _ in runs]), self.spec.L)  # Pᵀ
        y, mixed = backend.conv2d(y, secondary.reshape(*secondary.shape, 1, 1), self.spec.M)
        y, permuted = backend.shuffle(y, self.spec.M)  # P
        self._saved = [saved for _, saved in runs], transposed, mixed, permuted
        return y

    def backward(self, dy: Array) -> Array:
        backend, (runs, transposed, mixed, permuted) = self.backend, self._take_saved()
        dy_bar, dW_d = backend.conv2d_backward(backend.shuffle_backward(dy, permuted), mixed)
        dy = backend.shuffle_backward(dy_bar, transposed)
        parts = backend.split(dy, [run.out_channels for run in self.runs])
        gradients = [backend.conv2d_backward(*run) for run in zip(parts, runs, strict=True)]
        dW = [*(dW_p for _, dW_p in gradients), dW_d.reshape(dW_d.shape[:2])]
        self.gradients = dict(zip(self.parameters, dW, strict=True))
        return backend.concat([dx for dx, _ in gradients])

    def output_shape(self, shape: Shape) -> Shape:
        return (self.spec.out_channels, *self.spec.output_size(shape[1], shape[2]))

    def describe(self) -> str:
        return str(self.spec)
