"""A user's own images: a folder of PNG and JPEG files, or an ``.npz`` of arrays.

A folder holds ``train/CLASS/*.png`` and ``test/CLASS/*.png``. The classes are the folders of
``train``, in alphabetical order. It is read into the arrays that an ``.npz`` has, and these are
cached. Nothing is written to it.

The arrays are ``images`` and ``test_images``, uint8 of shape (n, 3, height, width), (n, height,
width, 3), or grey, (n, height, width), which become three equal channels; ``labels`` and
``test_labels``, integers of shape (n,) or (n, 1); and ``classes``, the names. Without names they
are "0", "1", ... up to the greatest of ``labels``. Other arrays are ignored.
"""

from __future__ import annotations

import hashlib
import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.data.dataset import Dataset
from igc_ref.data.download import cache_folder
from igc_ref.data.images import SUFFIXES, read_image
from igc_ref.data.npz import read_arrays
from igc_ref.errors import DataError, choice, one_line
from igc_ref.files import locked, replacing
from igc_ref.report import Report, silent

SPLITS = {"train": "", "test": "test_"}  # and how the names of its arrays begin

Arrays = dict[str, npt.NDArray[Any]]


def load_npz(path: Path, split: str) -> Dataset:
    """Read one split of an ``.npz`` file; a DataError if its arrays are not as above."""
    if not path.is_file():
        raise DataError(f"{path} is no file: data=npz is one that numpy.savez has written")
    try:
        return _dataset("npz", split, read_arrays(path))
    except ValueError as error:
        raise DataError(f"cannot use {path}: {error}") from error


def load_folder(folder: Path, split: str, report: Report = silent) -> Dataset:
    """Read one split of a folder; a DataError for what is wrong with it.

    The cache is read instead while the name, size and time of change of every image are the same.
    """
    choice("split", split, SPLITS, DataError)
    files = {name: _files(folder / name, report if name == split else silent) for name in SPLITS}
    classes = list(dict.fromkeys(path.parent.name for path in files["train"]))
    if unknown := [p.parent for p in files["test"] if p.parent.name not in classes]:
        raise DataError(f"{unknown[0]} is of no class: train has no folder of this name")
    seen = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for of in files.values() for p in of]
    key, place = (hashlib.sha256(repr(of).encode()).hexdigest()[:32] for of in (seen, folder))
    cache = cache_folder() / f"folder-{place}.npz"
    try:
        found = read_arrays(cache)
        if found["key"].item() == key:
            return _dataset("folder", split, found)
    except (OSError, ValueError, KeyError):
        pass  # there is none yet, or it is damaged
    report(f"reading {len(seen):,} images of {folder}; cached in {cache}")
    found = _read(folder, files, classes) | {"classes": np.array(classes), "key": np.array(key)}
    dataset = _dataset("folder", split, found)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with locked(cache.with_suffix(".lock"), 0, report), replacing(cache) as file:
            np.savez(file, allow_pickle=False, **found)
    except OSError as error:
        report(f"not cached: {one_line(error)}")
    return dataset


def _files(folder: Path, report: Report) -> list[Path]:
    """List the images of a split, in the order of the classes; report how much is left out."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: it must hold a folder of images for each class")
    images, others = list[Path](), 0
    for entry in _visible(folder):
        inside = _visible(entry) if entry.is_dir() else []
        found = [path for path in inside if path.suffix.lower() in SUFFIXES]
        if entry.is_dir() and not found:
            raise DataError(f"the class {entry} has no image ({', '.join(SUFFIXES)})")
        images += found
        others += len(inside) - len(found) if entry.is_dir() else 1
    if not images:
        raise DataError(f"{folder} has no classes: it must hold a folder of images for each")
    if others:
        report(f"{others:,} in {folder} are left out: no CLASS/*{', '.join(SUFFIXES)}")
    return images


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _read(folder: Path, files: dict[str, list[Path]], classes: list[str]) -> Arrays:
    """Read images (n, 3, height, width) and labels (n,) of both splits."""
    arrays, first = Arrays(), files["train"][0]
    shape = read_image(first).shape
    for split, prefix in SPLITS.items():
        images = np.empty((len(files[split]), *shape), np.uint8)
        for row, path in enumerate(files[split]):
            if (image := read_image(path)).shape != shape:
                found, wanted = (f"{s[2]}x{s[1]}" for s in (image.shape, shape))
                raise DataError(
                    f"{path} has {found} pixels, {first} has {wanted}: all images must have one "
                    "size. ImageMagick changes them in place: mogrify -resize 32x32^ "
                    f"-gravity center -extent 32x32 {shlex.quote(str(folder))}/*/*/*"
                )
            images[row] = image
        arrays[f"{prefix}images"] = images
        arrays[f"{prefix}labels"] = np.array([classes.index(p.parent.name) for p in files[split]])
    return arrays


def _dataset(name: str, split: str, found: Arrays) -> Dataset:
    """Return one split of these arrays, with the statistics of the training images."""
    parts, classes = dict[str, Dataset](), tuple[str, ...]()
    for part, prefix in SPLITS.items():
        for array in (f"{prefix}images", f"{prefix}labels"):
            if array not in found:
                raise DataError(f"there is no array {array}, only {', '.join(found) or 'nothing'}")
        images, labels = _colour(found[f"{prefix}images"]), found[f"{prefix}labels"]
        if labels.dtype.kind in "iu" and labels.shape[1:] in ((), (1,)):
            labels = labels.reshape(-1).astype(np.int64)
        classes = classes or _classes(found.get("classes"), labels)
        parts[part] = Dataset(f"{name}/{part}", images, labels, classes, (0, 0, 0), (1, 1, 1))
    shape, other = (of.images.shape[1:] for of in parts.values())
    if shape != other:
        raise DataError(f"images of shape {shape} and test_images of shape {other} differ")
    mean, std = _statistics(parts["train"].images)
    return replace(parts[split], mean=mean, std=std)


def _colour(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return images, if they are such, as (n, 3, height, width)."""
    if images.ndim == 3:
        return np.repeat(images[:, None], 3, axis=1)
    if images.ndim == 4 and images.shape[1] != 3 and images.shape[3] == 3:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return images


def _classes(names: npt.NDArray[Any] | None, labels: npt.NDArray[Any]) -> tuple[str, ...]:
    """Return the names of the classes; without any, they are numbers up to the greatest label."""
    if names is None:
        count = int(labels.max(initial=0)) + 1 if labels.dtype == np.int64 else 1
        if count > max(1, len(labels)):  # it takes memory only for as many as there are images
            raise DataError(f"{len(labels)} labels, up to {count - 1}: 'classes' must name them")
        names = np.arange(count).astype(str)
    found = tuple(names.ravel().tolist())
    if names.dtype.kind != "U" or len({n for n in found if n and n.isprintable()}) < len(found):
        raise DataError(f"classes={one_line(found)} are not different printable names")
    return found


def _statistics(images: npt.NDArray[np.uint8]) -> tuple[Any, Any]:
    """Return mean and standard deviation of each channel; 1 for the latter if it never varies.

    The sums are integers, and so exact.
    """
    total = images.size // 3
    sums = images.sum(axis=(0, 2, 3), dtype=np.int64).tolist()
    squares = np.einsum("nchw,nchw->c", images, images, dtype=np.int64).tolist()
    std = [math.sqrt(total * q - s * s) / total or 1.0 for s, q in zip(sums, squares, strict=True)]
    return tuple(s / total for s in sums), tuple(std)
