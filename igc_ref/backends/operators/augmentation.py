"""From bytes to training images: normalisation and the paper's augmentation, in public NCHW."""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from igc_ref.backends.operators.checks import Checks, within
from igc_ref.backends.operators.library import DTYPES, INTEGERS, Array
from igc_ref.errors import SpecError, integer


class AugmentationOperators(Checks):
    """Operators on images of shape (N, C, H, W)."""

    def normalise(
        self, images: Array, mean: Sequence[float], std: Sequence[float], dtype: npt.DTypeLike
    ) -> Array:
        """Return (images - mean) / std, channel by channel, in this dtype."""
        self.check("images", images, "uint8", *DTYPES, shape="(N, C, H, W)")
        if not len(mean) == len(std) == images.shape[1]:
            raise SpecError(f"mean={mean} and std={std} are not of {images.shape[1]} channels")
        scale = 1 / self.xp.asarray(std, dtype)[:, None, None]
        shift = self.xp.asarray(mean, dtype)[:, None, None] * scale
        x = images * scale
        x -= shift
        return x

    def pad_crop_mirror(
        self, images: Array, top: Array, left: Array, mirror: Array, padding: int = 4
    ) -> Array:
        """Pad with zeros, cut a window of the old size out of every image, mirror some.

        Parameters
        ----------
        images : array, shape (N, C, H, W)
        top, left : integer arrays, shape (N,)
            Corner of each window, in ``0..2*padding`` pixels.
        mirror : boolean array, shape (N,)
            Which images are mirrored left to right.
        """
        self.check("images", images, "uint8", *DTYPES, shape="(N, C, H, W)")
        xp, (N, _, H, W) = self.xp, images.shape
        self.check("top", top, *INTEGERS, shape=(N,))
        self.check("left", left, *INTEGERS, shape=(N,))
        self.check("mirror", mirror, "bool", shape=(N,))
        padding = integer("padding", padding, 0)
        within("top", top, 2 * padding)
        within("left", left, 2 * padding)
        padded = xp.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        windows = xp.lib.stride_tricks.sliding_window_view(padded, (H, W), axis=(2, 3))
        crops = windows[xp.arange(N), :, top, left]  # (N, C, H, W): a copy
        crops[mirror] = crops[mirror][..., ::-1]
        return crops
