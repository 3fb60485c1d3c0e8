"""Reader of SVHN's cropped digits: ``train_32x32.mat``, ``test_32x32.mat``, ``extra_32x32.mat``.

SciPy reads these MATLAB files: first their table of contents, then the two arrays in question.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from igc_ref.data.dataset import Dataset, check_labels
from igc_ref.data.published import SVHN, SVHN_PARTS, Digits
from igc_ref.errors import DataError, choice, one_line

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
    choice("name", name, tuple(SVHN_PARTS), DataError)
    choice("split", split, ("train", "test"), DataError)
    folder, parts = Path(data_dir), [SVHN[part] for part in SVHN_PARTS[name][split]]
    for part in parts:
        _check_place(folder, part)
    total = sum(part.count for part in parts)
    images, labels = np.empty((total, 3, 32, 32), np.uint8), np.empty(total, np.int64)
    start = 0
    for part in parts:
        rows = slice(start, start + part.count)
        _read(folder / part.file.name, part.count, images[rows], labels[rows])
        start += part.count
    return Dataset(f"{name}/{split}", images, labels, CLASSES, MEAN, STD)


def _check_place(folder: Path, part: Digits) -> None:
    """Make sure that a file is there, before memory is taken for any."""
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"data_dir={str(folder)!r} {state}")
    file = part.file
    if not (folder / file.name).is_file():
        raise DataError(
            f"no SVHN in {folder}: it lacks {file.name}; fetch {file.bases[0]}{file.name} "
            f"({file.size:,} bytes, SHA-256 {file.sha256}) and put it there"
        )


def _read(
    path: Path, count: int, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]
) -> None:
    """Read images X (32, 32, 3, n) and labels y (n, 1) into (n, 3, 32, 32) and (n,)."""
    from scipy.io import loadmat, whosmat  # here: other data sets do not wait for SciPy

    shapes = {"X": (32, 32, 3, count), "y": (count, 1)}
    try:
        listed = {name: (shape, kind) for name, shape, kind in whosmat(str(path))}
        for name, shape in shapes.items():
            if name not in listed or listed[name] not in ((shape, "uint8"), (shape, "double")):
                raise ValueError(f"{name} is {listed.get(name)}, not uint8 of shape {shape}")
        found = loadmat(str(path), variable_names=tuple(shapes))
        for name, shape in shapes.items():  # the published labels are doubles, stored as bytes
            if (found[name].dtype, found[name].shape) != (np.uint8, shape):
                raise ValueError(f"{name} is {found[name].dtype}, not uint8")
    except Exception as error:  # a damaged file makes SciPy fail in many ways
        raise DataError(f"{path} is damaged or not SVHN's: {one_line(error)}") from error
    images[:] = found["X"].transpose(3, 2, 0, 1)  # (row, column, colour, n) -> (n, colour, ...)
    digits = found["y"][:, 0]
    check_labels(str(path), digits, range(1, 11))  # 10 is the digit 0
    labels[:] = digits % 10
