"""Reader of SVHN's cropped digits: ``train_32x32.mat``, ``test_32x32.mat``, ``extra_32x32.mat``.

SciPy reads these MATLAB files, but only with the published SHA-256: its reader can crash on a
damaged one, and take Python with it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from igc_ref.data.dataset import Dataset, check_labels
from igc_ref.data.published import SVHN, SVHN_PARTS, PublishedFile
from igc_ref.errors import DataError, choice, one_line

DIGITS = tuple("0123456789")
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
        If files are missing, unreadable, or not those published.
    """
    choice("name", name, tuple(SVHN_PARTS), DataError)
    choice("split", split, ("train", "test"), DataError)
    folder, parts = Path(data_dir), [SVHN[part] for part in SVHN_PARTS[name][split]]
    for part in parts:
        _check(folder, part.file)
    total = sum(part.count for part in parts)
    images, labels = np.empty((total, 3, 32, 32), np.uint8), np.empty(total, np.int64)
    start = 0
    for part in parts:
        rows = slice(start, start + part.count)
        _read(folder / part.file.name, images[rows], labels[rows])
        start += part.count
    return Dataset(f"{name}/{split}", images, labels, DIGITS, MEAN, STD)


def _check(folder: Path, file: PublishedFile) -> None:
    """Make sure that a file is there and as published, before memory is taken for any."""
    if not folder.is_dir():
        state = f"is not the folder of {file.name}" if folder.exists() else "does not exist"
        raise DataError(f"data_dir={str(folder)!r} {state}")
    path = folder / file.name
    try:
        problem = file.problem(path) if path.is_file() else "it is not there"
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if problem:
        raise DataError(
            f"{path} is not the published file ({problem}); fetch {file.bases[0]}{file.name} "
            f"({file.size:,} bytes, SHA-256 {file.sha256}) and put it there"
        )


def _read(path: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    """Read images X (32, 32, 3, n) and labels y (n, 1) into (n, 3, 32, 32) and (n,)."""
    from scipy.io import loadmat  # here: other data sets do not wait for SciPy

    try:
        found = loadmat(str(path), variable_names=("X", "y"))
        images[:] = found["X"].transpose(3, 2, 0, 1)  # (row, column, colour, n) -> (n, colour, ...)
        labels[:] = found["y"][:, 0]
    except Exception as error:
        raise DataError(f"SciPy cannot read {path}: {one_line(error)}") from error
    check_labels(str(path), labels, range(1, 11))
    labels %= 10  # the files write 10 for the digit 0
