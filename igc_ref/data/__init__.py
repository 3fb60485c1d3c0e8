"""Data sets: the built-in ``shapes`` and ``waves``, published sets, and your own.

``load(name, split, data_dir)`` is the one way in; ``fetch(name)`` only downloads.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from igc_ref.data.cifar import load_cifar
from igc_ref.data.dataset import Dataset, fingerprint
from igc_ref.data.download import fetch
from igc_ref.data.images import read_image
from igc_ref.data.own import load_folder, load_npz
from igc_ref.data.published import PUBLISHED, SVHN_PARTS
from igc_ref.data.sequences import load_text, load_ts
from igc_ref.data.shapes import FIGURES, shapes
from igc_ref.data.shapes import MEAN as SHAPES_MEAN
from igc_ref.data.shapes import STD as SHAPES_STD
from igc_ref.data.svhn import DIGITS, load_svhn
from igc_ref.data.svhn import MEAN as SVHN_MEAN
from igc_ref.data.svhn import STD as SVHN_STD
from igc_ref.data.waves import MEAN as WAVES_MEAN
from igc_ref.data.waves import SIGNALS, waves
from igc_ref.data.waves import STD as WAVES_STD
from igc_ref.errors import DataError, choice, integer, user_path
from igc_ref.report import Report, silent

__all__ = [
    "NAMES", "NUM_CLASSES", "OWN", "Dataset", "fetch", "fingerprint", "load", "load_cifar",
    "load_svhn", "read_image", "shapes", "waves",
]  # fmt: skip

# Class names, mean and std of the data sets of which they are known before one is loaded.
ABOUT = {
    "shapes": (tuple(FIGURES), SHAPES_MEAN, SHAPES_STD),
    "waves": (tuple(SIGNALS), WAVES_MEAN, WAVES_STD),
    **{name: (of.classes, of.mean, of.std) for name, of in PUBLISHED.items()},
    **dict.fromkeys(SVHN_PARTS, (DIGITS, SVHN_MEAN, SVHN_STD)),
}
NUM_CLASSES = {name: len(classes) for name, (classes, _, _) in ABOUT.items()}
# Their classes are known once they are read.
OWN = {"folder": load_folder, "npz": load_npz, "text": load_text, "ts": load_ts}
NAMES = (*ABOUT, *OWN)


def load(
    name: str,
    split: str,
    data_dir: str | Path | None = None,
    report: Report = silent,
    size: int | None = None,
) -> Dataset:
    """Load one split of a data set by name.

    Parameters
    ----------
    name : {"shapes", "waves", "cifar10", "cifar100", "svhn", "svhn_extra", "folder", ...}
        ``shapes`` and ``waves`` are drawn on the spot; yours are ``folder`` and ``npz`` of
        `data.own`, ``text`` and ``ts`` of `data.sequences`; the others are published files.
        ``svhn_extra`` trains on SVHN's 531,131 further images too, as the paper does (3.5 GB of
        memory while it loads).
    split : {"train", "test"}
        Which part.
    data_dir : path, optional
        Your folder or file; or a folder with the published files or, of CIFAR, their archive.
        Without it they are fetched, once, into the cache folder: see `fetch`.
    report : callable
        Receives a line of text about every step of a download.
    size : int, optional
        Training images: shapes and waves are drawn; of others, always the same random choice.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        For an unknown name or split, for files that are missing or damaged, or if they cannot be
        fetched; if `size` is more than there are; for a folder of data that are drawn.
    """
    choice("data", name, NAMES, DataError)
    choice("split", split, ("train", "test"), DataError)
    if name in ("shapes", "waves"):
        if data_dir is not None:
            raise DataError(f"data_dir={data_dir} has no effect: {name} is drawn, not read")
        draw = shapes if name == "shapes" else waves
        return draw(split, size if split == "train" else None)
    if data_dir is None:
        if name in OWN:
            raise DataError(f"data={name} needs data_dir: where your data are")
        data_dir = fetch(name, report=report, split=split)
    path = user_path("data_dir", data_dir)
    if name == "text":
        return load_text(path, split, size=size)
    if name in OWN:
        dataset = OWN[name](path, split, report)
    else:
        dataset = (load_svhn if name in SVHN_PARTS else load_cifar)(path, name, split)
    if size is None or split == "test":
        return dataset
    order = np.random.default_rng(0).permutation(len(dataset))
    return dataset[order[: integer("data_size", size, maximum=len(dataset))]]
