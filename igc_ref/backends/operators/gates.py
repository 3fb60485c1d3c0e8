"""Gates, features (N, G) from 0 to 1, and the IGC block whose middle channels they multiply.

x' = P W_d Pᵀ D(x) W_p x, where D(x) is diagonal, for each image its own. With G = out every middle
channel has a gate, with G = L every primary partition.
"""

from __future__ import annotations

from igc_ref.backends.operators.convolution import ConvolutionOperators
from igc_ref.backends.operators.library import DTYPES, Array, Saved
from igc_ref.backends.operators.loss_and_sgd import LearningOperators
from igc_ref.backends.operators.pointwise import PointwiseOperators
from igc_ref.errors import integer
from igc_ref.spec.block import IGCSpec


class GateOperators(ConvolutionOperators, PointwiseOperators, LearningOperators):
    """Features are plain arrays; the block is made of operators, and has kernels where they do."""

    def rectify(self, x: Array) -> tuple[Array, Array]:
        """Return max(x, 0) of features (N, G)."""
        self.check("x", x, *DTYPES, shape="(N, G)")
        y = self.xp.maximum(x, 0)
        return y, y

    def rectify_backward(self, dy: Array, y: Array) -> Array:
        """Return the gradient of `rectify`; at zero it is 0."""
        self.check("the gradient", dy, y.dtype, shape=y.shape)
        return self.xp.where(y > 0, dy, dy.dtype.type(0))

    def sigmoid(self, x: Array, keep: int | None = None) -> tuple[Array, Array]:
        """Return 1 / (1 + exp(-x)) of features (N, G), and 0 for all but the greatest of each row.

        Parameters
        ----------
        x : array, shape (N, G)
        keep : int, optional
            How many of a row stay, of equals the first; by default all.

        Raises
        ------
        SpecError
            If `keep` is not an integer from 1 to G.
        """
        self.check("x", x, *DTYPES, shape="(N, G)")
        xp, e = self.xp, self.of_each("exp", -abs(x))  # never overflows
        y = xp.where(x < 0, e, e.dtype.type(1)) / (1 + e)
        if keep is None:
            return y, y
        keep = integer("keep", keep, maximum=x.shape[1])
        each, other = y[:, :, None], y[:, None, :]
        ahead = (other > each) | ((other == each) & xp.tri(x.shape[1], k=-1, dtype=bool))
        # No number is ahead of NaN: it stays as well, and the loss shows it.
        y = xp.where(ahead.sum(axis=2) < keep, y, y.dtype.type(0))
        return y, y

    def sigmoid_backward(self, dy: Array, y: Array) -> Array:
        """Return dx = dy * y * (1 - y): nothing where y is 0."""
        self.check("the gradient", dy, y.dtype, shape=y.shape)
        return dy * y * (1 - y)

    def gated_mix(
        self, y: Array, secondary: Array, gates: Array, spec: IGCSpec
    ) -> tuple[Array, Saved]:
        """Return x' = P W_d Pᵀ D y of middle channels y = W_p x, shape (out, N, H', W')."""
        y, scaled = self.scale_channels(y, gates)
        y, transposed = self.shuffle(y, spec.L)  # Pᵀ
        W_d = secondary.reshape(spec.out_channels, -1, 1, 1)
        y, mixed = self.conv2d(y, W_d, spec.M)
        y, permuted = self.shuffle(y, spec.M)  # P
        return y, (scaled, transposed, mixed, permuted)

    def gated_mix_backward(self, d: Array, saved: Saved) -> tuple[Array, Array, Array]:
        """Return the gradients of `gated_mix` with respect to y, secondary and gates."""
        scaled, transposed, mixed, permuted = saved
        dy_bar, dsecondary = self.conv2d_backward(self.shuffle_backward(d, permuted), mixed)
        dy, dgates = self.scale_channels_backward(self.shuffle_backward(dy_bar, transposed), scaled)
        return dy, dsecondary.reshape(len(dsecondary), -1), dgates

    def gated_igc(
        self, x: Array, primary: Array, secondary: Array, gates: Array, spec: IGCSpec
    ) -> tuple[Array, Saved]:
        """Compute the block x' = P W_d Pᵀ D W_p x with gates that are known before.

        Parameters
        ----------
        x, primary, secondary, spec
            As in `igc`.
        gates : array, shape (N, L) or (N, out)
        """
        self.check_igc(x, primary, secondary, spec)
        y, conv = self.conv2d(x, primary, spec.L, spec.stride)
        y, mixed = self.gated_mix(y, secondary, gates, spec)
        return y, (conv, mixed)

    def gated_igc_backward(self, d: Array, saved: Saved) -> tuple[Array, Array, Array, Array]:
        """Return the gradients of `gated_igc` with respect to x, both weights and the gates."""
        conv, mixed = saved
        dy, dsecondary, dgates = self.gated_mix_backward(d, mixed)
        dx, dprimary = self.conv2d_backward(dy, conv)
        assert dx is not None
        return dx, dprimary, dsecondary, dgates
