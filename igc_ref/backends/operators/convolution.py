"""Group convolution and the IGC block, as one GEMM per group over long rows of pixels.

A convolution adds shifted images. Half of the shifts are made before the GEMM and half after:

    h[o, ky, r, ox] = sum over i, kx of W[o, i, ky, kx] * x[i, r, ox*stride + kx - padding]
    y[o, oy, ox]    = sum over ky of h[o, ky, oy*stride + ky - padding, ox]

so that pixels are copied kw times, not kh*kw times, and the GEMM (rows (o, ky), columns (i, kx)) is
of a better shape. Work goes through tiles of images whose scratch memory fits in the cache.

Letters in the shape comments: g groups, o = out/g and i = in/g channels of a group, N images of
the batch, B of one tile, W' output columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from igc_ref.backends.operators.checks import Checks
from igc_ref.backends.operators.library import Array, Library, Saved
from igc_ref.backends.operators.taps import taps
from igc_ref.spec.block import IGCSpec, output_size


class ConvSaved(NamedTuple):
    """What the backward pass of a group convolution needs."""

    x: Array
    weight: Array
    groups: int
    stride: int


class IGCSaved(NamedTuple):
    """What the backward pass of the block needs; y_bar is Pᵀ W_p x, shape (out, N, H', W')."""

    x: Array
    y_bar: Array
    primary: Array
    secondary: Array
    spec: IGCSpec


class ConvolutionOperators(Checks):
    """y = W x for block-diagonal W, and x' = P W_d Pᵀ W_p x."""

    def conv2d(
        self, x: Array, weight: Array, groups: int = 1, stride: int = 1
    ) -> tuple[Array, Saved]:
        """Convolve in groups, padding ``k // 2``.

        Parameters
        ----------
        x : array, shape (in, N, H, W)
        weight : array, shape (out, in/groups, kh, kw)
        groups : int
        stride : int
            In pixels.

        Returns
        -------
        y : array, shape (out, N, H', W')
        saved : ConvSaved

        Raises
        ------
        SpecError
            If x and weight do not make that number of groups.
        """
        groups, stride = self.check_conv2d(x, weight, groups, stride)
        conv = _GroupConvolution(self, x, weight, groups, stride)
        y = self.xp.zeros((len(weight), *conv.out_shape), x.dtype)
        by_group = y.reshape(groups, -1, *conv.out_shape)  # (g, o, N, H', W')
        for images in conv.tiles():
            conv.forward(images, into=by_group[:, :, images])
        return y, ConvSaved(x, weight, groups, stride)

    def conv2d_backward(
        self, dy: Array, saved: Saved, input_gradient: bool = True
    ) -> tuple[Array | None, Array]:
        """Return the gradients of `conv2d` with respect to x (None if not wanted) and weight."""
        conv = _GroupConvolution(self, *saved)
        self.check_batch("the gradient", dy, saved.x.dtype, (len(saved.weight), *conv.out_shape))
        by_group = dy.reshape(saved.groups, -1, *conv.out_shape)  # (g, o, N, H', W')
        dx = self.xp.zeros_like(saved.x) if input_gradient else None
        dW = self.xp.zeros_like(conv.blocks)
        for images in conv.tiles():
            conv.backward(images, by_group[:, :, images], dx, dW)
        return dx, conv.weight_order(dW)

    def igc(self, x: Array, primary: Array, secondary: Array, spec: IGCSpec) -> tuple[Array, Saved]:
        """Compute the block x' = P W_d Pᵀ W_p x.

        Parameters
        ----------
        x : array, shape (in, N, H, W)
        primary, secondary : arrays
            Weights, shapes ``spec.primary_shape`` and ``spec.secondary_shape``.
        spec : IGCSpec

        Returns
        -------
        x' : array, shape (out, N, H', W')
        saved : IGCSaved

        Raises
        ------
        SpecError
            If x or the weights have not the shapes that `spec` gives.
        """
        self.check_igc(x, primary, secondary, spec)
        xp, L, M, out = self.xp, spec.L, spec.M, spec.out_channels
        conv = _GroupConvolution(self, x, primary, L, spec.stride)
        W_d = secondary.reshape(M, out // M, out // M)
        y_bar = xp.zeros((out, *conv.out_shape), x.dtype)
        y = xp.empty_like(y_bar)

        # Both permutations are transposed views: what is written through them lands in place.
        through_Pt = y_bar.reshape(out // L, L, *conv.out_shape).swapaxes(0, 1)
        partitions = y_bar.reshape(M, out // M, -1)  # (M, out/M, N*H'*W')
        through_P = y.reshape(out // M, M, -1).swapaxes(0, 1)  # (M, out/M, N*H'*W')
        for images in conv.tiles():
            t = conv.positions(images)
            conv.forward(images, into=through_Pt[:, :, images])  # ȳ = Pᵀ W_p z
            xp.matmul(W_d, partitions[:, :, t], out=through_P[:, :, t])  # x' = P W_d ȳ
        return y, IGCSaved(x, y_bar, primary, secondary, spec)

    def igc_backward(self, d: Array, saved: Saved) -> tuple[Array, Array, Array]:
        """Return the gradients of `igc` with respect to x, primary and secondary."""
        x, y_bar, primary, secondary, spec = saved
        self.check_batch("the gradient", d, y_bar.dtype, y_bar.shape)
        xp, L, M, out = self.xp, spec.L, spec.M, spec.out_channels
        conv = _GroupConvolution(self, x, primary, L, spec.stride)
        W_d = secondary.reshape(M, out // M, out // M)
        dx, dW_p, dW_d = xp.zeros_like(x), xp.zeros_like(conv.blocks), xp.zeros_like(W_d)

        dz_bar = d.reshape(out // M, M, -1).swapaxes(0, 1)  # Pᵀ d, (M, out/M, N*H'*W'): a view
        partitions = y_bar.reshape(M, out // M, -1)  # (M, out/M, N*H'*W')
        for images in conv.tiles():
            t = conv.positions(images)
            dW_d += dz_bar[:, :, t] @ partitions[:, :, t].swapaxes(1, 2)  # blockmask(dz̄ ȳᵀ)
            dy_bar = W_d.swapaxes(1, 2) @ dz_bar[:, :, t]  # W_dᵀ dz̄
            dy_bar = dy_bar.reshape(out // L, L, -1, *conv.out_shape[1:])
            conv.backward(images, dy_bar.swapaxes(0, 1), dx, dW_p)  # dy = P dȳ: a view
        return dx, conv.weight_order(dW_p), dW_d.reshape(secondary.shape)


class _GroupConvolution:
    """One group convolution of a batch, forward and backward, a tile of images at a time."""

    def __init__(self, library: Library, x: Array, weight: Array, groups: int, stride: int) -> None:
        (C, N, H, W), (out, per_group, kh, kw) = x.shape, weight.shape
        self.library, self.x, self.kh, self.kw, self.groups = library, x, kh, kw, groups
        self.rows, self.columns = taps(H, kh, stride), taps(W, kw, stride)
        self.out_shape = (N, *output_size((H, W), (kh, kw), stride))
        self.tile_shape = (H, self.out_shape[2])  # input rows, output columns
        self.bytes_each = max(kw * C, kh * out) * H * self.out_shape[2] * x.dtype.itemsize
        self.weight_shape = (groups, out // groups, per_group, kh, kw)
        by_row = weight.reshape(self.weight_shape).swapaxes(2, 3)  # (g, o, ky, i, kx)
        self.blocks = by_row.reshape(groups, out // groups * kh, per_group * kw)  # (g, o*ky, i*kx)
        self._scratch: dict[str, Array] = {}

    def tiles(self) -> Iterator[slice]:
        """Cut the batch into tiles of images."""
        return self.library.tiles(self.out_shape[0], self.bytes_each)

    def positions(self, images: slice) -> slice:
        """Return where the output positions of these images lie in a long row."""
        per_image = self.out_shape[1] * self.out_shape[2]
        return slice(images.start * per_image, images.stop * per_image)

    def weight_order(self, dW: Array) -> Array:
        """Bring a gradient of `blocks` into the order of the weights, (out, in/groups, kh, kw)."""
        g, o, i, kh, kw = self.weight_shape
        return dW.reshape(g, o, kh, i, kw).swapaxes(2, 3).reshape(g * o, i, kh, kw)

    def forward(self, images: slice, into: Array) -> None:
        """Add the convolution of these images to `into`, shape (g, o, B, H', W')."""
        h = self.blocks @ self._shifted(images)  # (g, o*ky, B*H*W')
        h = h.reshape(self.groups, into.shape[1], self.kh, -1, *self.tile_shape)
        for ky, outputs, pixels in self.rows:
            into[:, :, :, outputs] += h[:, :, ky, :, pixels]

    def backward(self, images: slice, dy: Array, dx: Array | None, dW: Array) -> None:
        """Add what dy, shape (g, o, B, H', W'), gives to the gradients dx, if wanted, and dW."""
        dh = self._zeros("dh", self.groups, dy.shape[1], self.kh, dy.shape[2], *self.tile_shape)
        for ky, outputs, pixels in self.rows:
            dh[:, :, ky, :, pixels] = dy[:, :, :, outputs]
        dh = dh.reshape(*self.blocks.shape[:2], -1)  # (g, o*ky, B*H*W')
        dW += dh @ self._shifted(images).swapaxes(1, 2)
        if dx is None:
            return
        dz = self.blocks.swapaxes(1, 2) @ dh  # (g, i*kx, B*H*W')
        dz = dz.reshape(len(dx), self.kw, -1, *self.tile_shape)
        for kx, outputs, pixels in self.columns:
            dx[:, images, :, pixels] += dz[:, kx, :, :, outputs]

    def _shifted(self, images: slice) -> Array:
        """Return x shifted by every kx, shape (g, i*kx, B*H*W'); valid until the next tile."""
        x = self.x[:, images]
        z = self._zeros("z", len(x), self.kw, x.shape[1], *self.tile_shape)
        for kx, outputs, pixels in self.columns:
            z[:, kx, :, :, outputs] = x[:, :, :, pixels]
        return z.reshape(self.groups, self.blocks.shape[2], -1)

    def _zeros(self, name: str, *shape: int) -> Array:
        """Return scratch memory; positions that no tap ever writes stay zero, as padding is."""
        if name not in self._scratch or self._scratch[name].shape != shape:
            self._scratch[name] = self.library.xp.zeros(shape, self.x.dtype)
        return self._scratch[name]
