"""The patch operator: image to patches (unfold) and its adjoint (fold), as one sparse matrix.

A convolution is linear in the image because unfolding is: it copies pixels and multiplies
by nothing. Here it *is* a matrix of zeros and ones, so its adjoint is its transpose.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sp

from igc_ref.errors import KernelSize, arrays, integer, kernel_pair
from igc_ref.reference.structure import Array
from igc_ref.spec.block import output_length


def patch_operator(
    channels: int, height: int, width: int, kernel_size: KernelSize, stride: int = 1
) -> sp.csr_array:
    """Build U with ``U @ x.ravel()`` = all patches of the image x, padding ``k // 2``.

    Parameters
    ----------
    channels, height, width : int
        Shape of the image; any size, odd or even, in pixels.
    kernel_size : int or (int, int)
        Side of square patches, or height and width (kh, kw), in pixels.
    stride : int
        The step between them.

    Returns
    -------
    sparse array of float64, shape (channels*S*positions, channels*height*width)
        Zeros and ones. Rows are ordered (channel, ky, kx, position); columns (channel, y, x).
    """
    channels, (kh, kw) = integer("channels", channels), kernel_pair(kernel_size)
    U_y = _row_operator(height, kh, stride)  # (kh, out_h, height)
    U_x = _row_operator(width, kw, stride)  # (kw, out_w, width)
    ky, oy, iy = np.nonzero(U_y)
    kx, ox, ix = np.nonzero(U_x)
    out_h, out_w = U_y.shape[1], U_x.shape[1]
    # Every pair of a vertical and a horizontal tap inside the image is a one of the matrix.
    rows = ((ky[:, None] * kw + kx) * out_h + oy[:, None]) * out_w + ox
    columns = iy[:, None] * width + ix
    plane = sp.csr_array(
        (np.ones(rows.size), (rows.ravel(), columns.ravel())),
        shape=(kh * kw * out_h * out_w, height * width),
    )
    return sp.csr_array(sp.kron(sp.eye_array(channels), plane))


def _row_operator(length: int, side: int, stride: int) -> Array:
    """Return the same operator for a single row of pixels: 1 where tap, output and input meet."""
    length = integer("length", length)
    positions = output_length(length, side, integer("stride", stride))
    tap, position, pixel = np.ogrid[:side, :positions, :length]
    return np.asarray(pixel == position * stride + tap - side // 2)


def unfold(x: Array, kernel_size: KernelSize, stride: int = 1) -> Array:
    """Return the patch matrix Z, shape (channels*S, positions*N), of x, shape (N, channels, H, W).

    Column ``position*N + n`` is the patch vector z of image n at that output position.
    """
    arrays("(N, C, H, W)", x=x)
    N, C, H, W = x.shape
    U = patch_operator(C, H, W, kernel_size, stride)
    return (U @ x.reshape(N, C * H * W).T).reshape(C * math.prod(kernel_pair(kernel_size)), -1)


def fold(Z: Array, shape: tuple[int, ...], kernel_size: KernelSize, stride: int = 1) -> Array:
    """Add patches back where they came from: Uᵀ, the adjoint of `unfold`.

    Parameters
    ----------
    Z : ndarray, shape (channels*S, positions*N)
    shape : (N, channels, H, W)
        Shape of the batch that was unfolded.
    """
    N, C, H, W = shape
    U = patch_operator(C, H, W, kernel_size, stride)
    rows = C * math.prod(kernel_pair(kernel_size))
    arrays((rows, U.shape[0] // rows * N), Z=Z)
    return (U.T @ Z.reshape(U.shape[0], N)).T.reshape(shape)
