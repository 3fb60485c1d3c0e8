"""Reader of SVHN's cropped digits: ``train_32x32.mat``, ``test_32x32.mat``, ``extra_32x32.mat``.

SciPy reads these MATLAB files, but only after `check_arrays` has found in them the two arrays that
belong there and nothing else: SciPy's reader allocates what a file claims, unpacks 128 KiB to
whatever they amount to, and knows far more kinds of contents than pictures and labels need.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from igc_ref.data.dataset import Dataset
from igc_ref.data.matlab import check_arrays
from igc_ref.data.published import SVHN, SVHN_PARTS, Digits
from igc_ref.errors import DataError

__all__ = ["load_svhn"]

CLASSES = tuple("0123456789")
MEAN, STD = (111.609, 113.161, 120.565), (50.498, 51.259, 50.244)  # of the 73,257, in 0..255


def load_svhn(data_dir: Path, name: str, split: str) -> Dataset:
    """Read one split of SVHN from the published files of cropped digits.

    Parameters
    ----------
    data_dir : Path
        The folder with the ``.mat`` files.
    name : {"svhn", "svhn_extra"}
        Whether the training split is the 73,257 digits of ``train_32x32.mat``, or these and the
        531,131 easier ones of ``extra_32x32.mat``, as in the paper. The test split is the same.
    split : {"train", "test"}
        Which part.

    Returns
    -------
    Dataset
        Images (n, 3, 32, 32); labels are the digits themselves (the files write 10 for 0).

    Raises
    ------
    DataError
        If files are missing, unreadable, or hold what they should not.
    """
    if name not in SVHN_PARTS:
        raise DataError(f"name={name!r} is unknown; choose one of {', '.join(SVHN_PARTS)}")
    if split not in SVHN_PARTS[name]:
        raise DataError(f"split={split!r} is unknown; choose train or test")
    folder, parts = Path(data_dir), [SVHN[part] for part in SVHN_PARTS[name][split]]
    for part in parts:
        _check_place(folder, part)
    total = sum(part.count for part in parts)
    images, labels = np.empty((total, 3, 32, 32), np.uint8), np.empty(total, np.int64)
    start = 0
    for part in parts:
        rows = slice(start, start + part.count)
        path = folder / part.file.name
        try:
            with path.open("rb") as file:
                _read(file, path, part, images[rows], labels[rows])
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        start += part.count
    return Dataset(f"{name}/{split}", images, labels, CLASSES, MEAN, STD)


def _check_place(folder: Path, part: Digits) -> None:
    """Make sure that a file is there and not too large, before memory is taken for any."""
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"data_dir={str(folder)!r} {state}")
    path, file = folder / part.file.name, part.file
    if not path.is_file():
        raise DataError(
            f"no SVHN in {folder}: it lacks {file.name}; fetch {file.bases[0]}{file.name} "
            f"({file.size:,} bytes, SHA-256 {file.sha256}) and put it there"
        )
    if (size := path.stat().st_size) > part.limit:
        raise DataError(
            f"{path} has {size:,} bytes; for {part.count:,} pictures "
            f"at most {part.limit:,} are expected"
        )


def _read(
    file: BinaryIO,
    path: Path,
    part: Digits,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
) -> None:
    """Read pictures X (32, 32, 3, n) and labels y (n, 1) into (n, 3, 32, 32) and (n,)."""
    from scipy.io import loadmat  # here: whoever uses other data does not wait for SciPy

    shapes = {"X": (32, 32, 3, part.count), "y": (part.count, 1)}
    check_arrays(file, str(path), shapes)
    file.seek(0)
    try:
        # The very file that was checked; the stubs know names of files alone.
        found = loadmat(file, variable_names=tuple(shapes))  # type: ignore[arg-type]
    except Exception as error:  # whatever a reader of files of others may raise
        raise DataError(f"{path} is damaged: {str(error)[:100]!a}") from error
    for key, shape in shapes.items():
        array = found.get(key)
        if not isinstance(array, np.ndarray) or (array.shape, array.dtype) != (shape, np.uint8):
            raise DataError(f"{path} is damaged: {key} is no uint8 array of shape {shape}")
    images[:] = found["X"].transpose(3, 2, 0, 1)  # (row, column, colour, n) -> (n, colour, ...)
    digits = found["y"][:, 0]
    outside = (digits < 1) | (digits > 10)
    if outside.any():
        record = int(np.argmax(outside))
        raise DataError(
            f"{path}: record {record} has label {digits[record]}; "
            "allowed are 1 to 10, and 10 is the digit 0"
        )
    labels[:] = digits % 10
