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


class GateOperators(ConvolutionOperators, PointwiseOperators, LearningOperators):
    """The block is made of other operators, and has kernels where they do."""

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

    def gated_mix(
        self, y: Array, secondary: Array, gates: Array, spec: IGCSpec
    ) -> tuple[Array, Saved]:
        """Return x' = P W_d Pᵀ D y of y = W_p x, (out, N, H', W'); see `scale_channels`."""
        y, scaled = self.scale_channels(y, gates)
        y, transposed = self.shuffle(y, spec.L)  # Pᵀ
        W_d = secondary.reshape(spec.out_channels, -1, 1, 1)
        y, mixed = self.conv2d(y, W_d, spec.M)
        y, permuted = self.shuffle(y, spec.M)  # P
        return y, (scaled, transposed, mixed, permuted)

    def gated_mix_backward(self, d: Array, saved: Saved) -> tuple[Array, Array, Array]:
        """Return the gradients of `gated_mix` with respect to y, secondary and gates."""
        scaled, transposed, mixed, permuted = saved
        dy_bar, dW_d = self.conv2d_backward(self.shuffle_backward(d, permuted), mixed)
        dy, dgates = self.scale_channels_backward(self.shuffle_backward(dy_bar, transposed), scaled)
        return dy, dW_d.reshape(len(dW_d), -1), dgates

    def gated_igc(
        self, x: Array, primary: Array, secondary: Array, gates: Array, spec: IGCSpec
    ) -> tuple[Array, Saved]:
        """Compute `igc` with a gate for each primary partition, (N, L), that is known before."""
        self.check_igc(x, primary, secondary, spec)
        y, conv = self.conv2d(x, primary, spec.L, spec.stride)
        y, mixed = self.gated_mix(y, secondary, gates, spec)
        return y, (conv, mixed)

    def gated_igc_backward(self, d: Array, saved: Saved) -> tuple[Array, Array, Array, Array]:
        """Return the gradients of `gated_igc` with respect to x, both weights and the gates."""
        dy, dsecondary, dgates = self.gated_mix_backward(d, saved[1])
        dx, dprimary = self.conv2d_backward(dy, saved[0])
        return dx, dprimary, dsecondary, dgates
