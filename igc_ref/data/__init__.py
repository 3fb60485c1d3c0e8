"""Data sets: the built-in ``shapes``, and readers of CIFAR-10 and CIFAR-100.

``load(name, split, data_dir)`` is the one way in.
"""

from __future__ import annotations

from pathlib import Path

from igc_ref.data.cifar import load_cifar
from igc_ref.data.dataset import Dataset, fingerprint
from igc_ref.data.shapes import shapes
from igc_ref.errors import DataError

__all__ = ["NAMES", "Dataset", "fingerprint", "load", "load_cifar", "shapes"]

NAMES = ("shapes", "cifar10", "cifar100")


def load(name: str, split: str, data_dir: str | Path | None = None) -> Dataset:
    """Load one split of a data set by name.

    Parameters
    ----------
    name : {"shapes", "cifar10", "cifar100"}
        ``shapes`` is drawn on the spot; the others are read from `data_dir`.
    split : {"train", "test"}
        Which part.
    data_dir : path, optional
        Folder that holds the published files; needed by the CIFAR sets alone.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        For an unknown name or split, or for files that are missing or damaged.
    """
    if split not in ("train", "test"):
        raise DataError(f"split={split!r} is unknown; choose train or test")
    if name == "shapes":
        return shapes(split)
    if name in ("cifar10", "cifar100"):
        if data_dir is None:
            raise DataError(f"{name} is read from a folder: say where it lies with --data-dir DIR")
        return load_cifar(Path(data_dir), name, split)
    raise DataError(f"data={name!r} is unknown; choose one of {', '.join(NAMES)}")
