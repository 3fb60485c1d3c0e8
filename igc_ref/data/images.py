"""Reading a PNG or JPEG file as the networks take it. Needs Pillow, imported at the first image."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.errors import DataError, describe

SUFFIXES = (".png", ".jpg", ".jpeg")


def read_image(path: Path, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """Read a PNG or JPEG image; its contents tell which.

    EXIF's orientation is applied, grey becomes three equal channels, transparency is dropped, other
    modes are converted by Pillow. A PNG's checksums are verified; a JPEG has none.

    Parameters
    ----------
    path : Path
    size : tuple of two ints, optional
        Height and width: the image is resized to cover them (bicubic), and its middle taken.

    Returns
    -------
    ndarray of uint8, shape (3, height, width)

    Raises
    ------
    DataError
        If the file is damaged, no such image, has 16 bits a channel or more than 89 million pixels.

    Examples
    --------
    >>> read_image(Path("cat.jpg"), size=(32, 32)).shape  # doctest: +SKIP
    (3, 32, 32)
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise DataError('images are read with Pillow: pip install "igc-ref[images]"') from None
    if not path.is_file():  # to open a pipe may take for ever
        raise DataError(f"{path} is no file")
    try:
        with warnings.catch_warnings(action="ignore"), path.open("rb") as file:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Only these two: for some other formats, Pillow runs programs.
            Image.open(file, formats=("PNG", "JPEG")).verify()
            image: Any = Image.open(file, formats=("PNG", "JPEG"))
            file.seek(24)
            if image.format == "PNG" and file.read(1)[0] > 8:
                raise ValueError("it has 16 bits a channel; save it with 8")
            image = ImageOps.exif_transpose(image).convert("RGB")
            if size is not None:
                image = ImageOps.fit(image, size[::-1], Image.Resampling.BICUBIC)
    except Exception as error:  # damaged files make Pillow fail in many ways
        raise DataError(f"cannot read {path} as a PNG or JPEG: {describe(error)}") from error
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))  # from (height, width, 3)
