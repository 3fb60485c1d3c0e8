"""Reading a PNG or JPEG file as the networks take it. Needs Pillow, imported at the first image."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.errors import DataError, describe, integer

SUFFIXES = (".png", ".jpg", ".jpeg")
SIXTEEN_BITS = 16  # the 25th byte of a PNG: bits of a channel
HEAD = 25


def read_image(path: Path, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """Read an image, turned upright as its EXIF orientation says.

    Grey images become three equal channels; palettes and CMYK are converted; transparency is
    dropped, as torchvision does. Every checksum of a PNG is verified; a JPEG has none.

    Parameters
    ----------
    path : Path
        A PNG or JPEG file; its contents tell which.
    size : tuple of two ints, optional
        Height and width: the image is resized to cover them (bicubic), and its middle taken.

    Returns
    -------
    ndarray of uint8, shape (3, height, width)
        Red, green and blue.

    Raises
    ------
    DataError
        If the file is missing, damaged, no such image, has 16 bits a channel, which 8 bits cannot
        hold, or has more pixels than Pillow thinks safe; or if Pillow is not installed.
    SpecError
        If `size` is not two integers of at least 1.

    Examples
    --------
    >>> read_image(Path("cat.jpg"), size=(32, 32)).shape  # doctest: +SKIP
    (3, 32, 32)
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            f'images are read with Pillow: pip install "igc-ref[images]" ({describe(error)})'
        ) from error
    if size is not None:
        height, width = size
        size = integer("height", height), integer("width", width)
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is {'no file' if path.exists() else 'not there'}")
    try:
        with warnings.catch_warnings(action="ignore"):  # of what EXIF says beside the orientation
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            pixels = _pixels(path, size)
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{path} is no PNG or JPEG image") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or describe(error)}") from error
    except Exception as error:  # damaged files make Pillow fail in many ways
        raise DataError(f"cannot read {path}: {describe(error)}") from error
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))  # (height, width, 3) -> (3, ...)


def _pixels(path: Path, size: tuple[int, int] | None) -> npt.NDArray[Any]:
    """Return the pixels (height, width, 3)."""
    from PIL import Image, ImageOps

    with path.open("rb") as file:
        # Only these two: of other formats, Pillow runs programs for some.
        Image.open(file, formats=("PNG", "JPEG")).verify()
        file.seek(0)
        image = Image.open(file, formats=("PNG", "JPEG"))
        file.seek(0)
        if image.format == "PNG" and file.read(HEAD)[-1] == SIXTEEN_BITS:
            raise ValueError("it has 16 bits a channel; save it with 8")
        upright = ImageOps.exif_transpose(image).convert("RGB")
    if size is not None:
        upright = ImageOps.fit(upright, size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(upright)
