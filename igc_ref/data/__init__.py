"""Data sets: the built-in ``shapes``, and readers of CIFAR-10, CIFAR-100 and SVHN.

``load(name, split, data_dir)`` is the one way in; ``fetch(name)`` only downloads.
"""

from __future__ import annotations

from pathlib import Path

from igc_ref.data.cifar import load_cifar
from igc_ref.data.dataset import Dataset, fingerprint
from igc_ref.data.download import fetch
from igc_ref.data.published import PUBLISHED, SVHN_PARTS
from igc_ref.data.shapes import FIGURES, shapes
from igc_ref.data.shapes import MEAN as SHAPES_MEAN
from igc_ref.data.shapes import STD as SHAPES_STD
from igc_ref.data.svhn import DIGITS, load_svhn
from igc_ref.data.svhn import MEAN as SVHN_MEAN
from igc_ref.data.svhn import STD as SVHN_STD
from igc_ref.errors import DataError, choice, user_path
from igc_ref.report import Report, silent

__all__ = [
    "NAMES", "NUM_CLASSES", "Dataset", "fetch", "fingerprint", "load", "load_cifar", "load_svhn",
    "shapes",
]  # fmt: skip

# Class names, mean and std of every data set, known before any is loaded.
ABOUT = {
    "shapes": (tuple(FIGURES), SHAPES_MEAN, SHAPES_STD),
    **{name: (of.classes, of.mean, of.std) for name, of in PUBLISHED.items()},
    **dict.fromkeys(SVHN_PARTS, (DIGITS, SVHN_MEAN, SVHN_STD)),
}
NUM_CLASSES = {name: len(classes) for name, (classes, _, _) in ABOUT.items()}
NAMES = tuple(ABOUT)


def load(
    name: str, split: str, data_dir: str | Path | None = None, report: Report = silent
) -> Dataset:
    """Load one split of a data set by name.

    Parameters
    ----------
    name : {"shapes", "cifar10", "cifar100", "svhn", "svhn_extra"}
        ``shapes`` is drawn on the spot; the others are published files. ``svhn_extra`` trains on
        SVHN's 531,131 further images too, as the paper does (3.5 GB of memory while it loads).
    split : {"train", "test"}
        Which part.
    data_dir : path, optional
        Folder with the published files or, of CIFAR, their archive. Without it they are fetched,
        once, into the cache folder: see `fetch`.
    report : callable
        Receives a line of text about every step of a download.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        For an unknown name or split, for files that are missing or damaged, or if they cannot be
        fetched.
    """
    choice("data", name, NAMES, DataError)
    if name == "shapes":
        return shapes(split)
    if data_dir is None:
        data_dir = fetch(name, report=report, split=split)
    read = load_svhn if name in SVHN_PARTS else load_cifar
    return read(user_path("data_dir", data_dir), name, split)
