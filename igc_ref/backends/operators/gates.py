"""Gates, features (N, G) from 0 to 1, and the IGC block whose middle channels they multiply.

x' = P W_d Pᵀ D(x) W_p x, where D(x) is diagonal, for each image its own; see `reference.gates`.
"""

from __future__ import annotations

from igc_ref.backends.operators.convolution import ConvolutionOperators
from igc_ref.backends.operators.library import DTYPES, Array, Saved
from igc_ref.backends.operators.loss_and_sgd import LearningOperators
from igc_ref.backends.operators.pointwise import PointwiseOperators
from igc_ref.errors import choice, integer
from igc_ref.spec.block import IGCSpec
from igc_ref.spec.mixed import MixedSpec


class GateOperators(ConvolutionOperators, PointwiseOperators, LearningOperators):
    """Blocks that are made of other operators, and have kernels where those do."""

    def activation(self, x: Array, kind: str, keep: int | None = None) -> tuple[Array, Saved]:
        """Return ``"relu"`` or ``"sigmoid"`` of features (N, G).

        With `keep`, from 1 to G, so many numbers of each row stay, the greatest, of equals the
        first; the others are 0. A NaN stays besides.
        """
        self.check("x", x, *DTYPES, shape="(N, G)")
        xp, zero = self.xp, x.dtype.type(0)
        if choice("kind", kind, ("relu", "sigmoid")) == "relu":
            y = xp.maximum(x, zero)
        else:
            e = self.of_each("exp", -abs(x))  # never overflows
            y = xp.where(x < 0, e, 1 + zero) / (1 + e)
        if keep is not None:
            keep, before = integer("keep", keep, maximum=x.shape[1]), xp.tri(x.shape[1], k=-1) > 0
            each, other = y[:, :, None], y[:, None, :]
            ahead = (other > each) | ((other == each) & before)
            y = xp.where(ahead.sum(axis=2) < keep, y, zero)
        return y, (y, kind)

    def activation_backward(self, dy: Array, saved: Saved) -> Array:
        """Return the gradient of `activation`: nothing where y is 0."""
        y, kind = saved
        self.check("the gradient", dy, y.dtype, shape=y.shape)
        return dy * (y > 0) if kind == "relu" else dy * y * (1 - y)

    def mix(self, y: Array, secondary: Array, spec: IGCSpec | MixedSpec) -> tuple[Array, Saved]:
        """Return x' = P W_d Pᵀ y of y = W_p x, (out, N, H', W'): the second half of a block."""
        y_bar, transposed = self.shuffle(y, spec.L)  # Pᵀ
        z_bar, mixed = self.conv2d(y_bar, secondary.reshape(*secondary.shape, 1, 1), spec.M)
        x, permuted = self.shuffle(z_bar, spec.M)  # P
        return x, (transposed, mixed, permuted)

    def mix_backward(self, d: Array, saved: Saved) -> tuple[Array, Array]:
        """Return the gradients of `mix` with respect to y and secondary."""
        transposed, mixed, permuted = saved
        dy_bar, dW_d = self.conv2d_backward(self.shuffle_backward(d, permuted), mixed)
        return self.shuffle_backward(dy_bar, transposed), dW_d.reshape(len(dW_d), -1)

    def gated_igc(
        self, x: Array, primary: Array, secondary: Array, gates: Array, spec: IGCSpec
    ) -> tuple[Array, Saved]:
        """Compute `igc` with a gate for each primary partition, (N, L), that is known before."""
        self.check_igc(x, primary, secondary, spec)
        self.check("gates", gates, x.dtype, shape=(x.shape[1], spec.L))
        y, conv = self.conv2d(x, primary, spec.L, spec.stride)
        y, scaled = self.scale_channels(y, gates)
        y, mixed = self.mix(y, secondary, spec)
        return y, (conv, scaled, mixed, gates)

    def gated_igc_backward(self, d: Array, saved: Saved) -> tuple[Array, Array, Array, Array]:
        """Return the gradients of `gated_igc` with respect to x, both weights and the gates.

        That of a gate of 0 is 0: its partition may have been left out.
        """
        conv, scaled, mixed, gates = saved
        dy, dsecondary = self.mix_backward(d, mixed)
        dy, dgates = self.scale_channels_backward(dy, scaled)
        dx, dprimary = self.conv2d_backward(dy, conv)
        return dx, dprimary, dsecondary, dgates * (gates != 0)
