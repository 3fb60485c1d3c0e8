"""A user's own images: a folder of PNG and JPEG files, or an ``.npz`` of arrays.

A folder holds ``train/CLASS/*.png`` and ``test/CLASS/*.png``. The classes are the folders of
``train``, in alphabetical order. Hidden files are ignored. All is read into the arrays that an
``.npz`` has, and these are cached in the `cache_folder`. Nothing is written to the folder itself.

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
from igc_ref.errors import DataError, one_line
from igc_ref.files import locked, replacing
from igc_ref.report import Report, silent

SPLITS = {"train": "", "test": "test_"}  # and how the names of its arrays begin

Arrays = dict[str, npt.NDArray[Any]]


def load_npz(path: Path, split: str, _: Report = silent) -> Dataset:
    """Read one split of an ``.npz`` file; a DataError if its arrays are not as above."""
    if not path.is_file():
        raise DataError(f"{path} is no file; data=npz is one that numpy.savez has written")
    try:
        return _dataset("npz", split, read_arrays(path))
    except KeyError as error:
        raise DataError(f"{path} has no array {error}") from error
    except ValueError as error:
        raise DataError(f"cannot use {path}: {error}") from error


def load_folder(folder: Path, split: str, report: Report = silent) -> Dataset:
    """Read one split, or the cache while name, size and time of every image are the same."""
    folder = folder.absolute()
    files = {name: _files(folder / name, report if name == split else silent) for name in SPLITS}
    states = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for of in files.values() for p in of]
    key, place = (hashlib.sha256(repr(of).encode()).hexdigest()[:32] for of in (states, folder))
    cache = cache_folder() / f"folder-{place}.npz"
    try:
        found = read_arrays(cache)
        if found["key"].item() == key:
            return _dataset("folder", split, found)
    except (OSError, ValueError, KeyError):
        pass  # there is none yet, or it is damaged
    report(f"reading {len(states):,} images of {folder}, to be cached in {cache}")
    found = _read(folder, files)
    dataset = _dataset("folder", split, found)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with locked(cache.with_suffix(".lock"), 0, report), replacing(cache) as file:
            np.savez(file, allow_pickle=False, key=np.array(key), **found)
    except OSError as error:
        report(f"not cached: {one_line(error)}")
    return dataset


def _files(folder: Path, report: Report) -> list[Path]:
    """List the images of a split; report how many other files are left out."""
    endings, inside = ", ".join(SUFFIXES), sorted(folder.glob("[!.]*/[!.]*"))
    images = [path for path in inside if path.suffix.lower() in SUFFIXES]
    classes = {path for path in folder.glob("[!.]*") if path.is_dir()}
    if not classes:
        raise DataError(f"{folder} has no classes: it must hold a folder of images for each")
    if empty := sorted(classes - {path.parent for path in images}):
        raise DataError(f"the class {empty[0]} has no image ({endings})")
    if others := len(inside) - len(images):
        report(f"{others:,} files in {folder} are left out: they do not end in {endings}")
    return images


def _read(folder: Path, files: dict[str, list[Path]]) -> Arrays:
    """Read the images of both splits into arrays, as an ``.npz`` has them."""
    first, classes = files["train"][0], sorted({path.parent.name for path in files["train"]})
    if unknown := [path.parent for path in files["test"] if path.parent.name not in classes]:
        raise DataError(f"{unknown[0]} is a class that train does not have")
    shape, arrays = read_image(first).shape, {"classes": np.array(classes)}
    for split, prefix in SPLITS.items():
        images = np.empty((len(files[split]), *shape), np.uint8)
        labels = np.empty(len(images), np.int64)
        for row, path in enumerate(files[split]):
            if (image := read_image(path)).shape != shape:
                found, wanted = (f"{s[2]}x{s[1]}" for s in (image.shape, shape))
                raise DataError(
                    f"{path} has {found} pixels, {first} has {wanted}: all images must have one "
                    "size. ImageMagick changes them in place: mogrify -resize 32x32^ "
                    f"-gravity center -extent 32x32 {shlex.quote(str(folder))}/*/*/*"
                )
            images[row], labels[row] = image, classes.index(path.parent.name)
        arrays |= {f"{prefix}images": images, f"{prefix}labels": labels}
    return arrays


def _dataset(name: str, split: str, found: Arrays) -> Dataset:
    """Return one split of these arrays, with the statistics of the training images."""
    parts, classes = dict[str, Dataset](), tuple[str, ...]()
    for part, prefix in SPLITS.items():
        images, labels = found[f"{prefix}images"], found[f"{prefix}labels"]
        if images.ndim == 3:
            images = np.repeat(images[:, None], 3, axis=1)
        elif images.ndim == 4 and images.shape[1] != 3 == images.shape[3]:
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        if labels.dtype.kind in "iu" and labels.shape[1:] in ((), (1,)):
            labels = labels.reshape(-1).astype(np.int64)
        classes = classes or _classes(found.get("classes"), labels)
        parts[part] = Dataset(f"{name}/{part}", images, labels, classes, (0, 0, 0), (1, 1, 1))
    pixels, other = parts["train"].images, parts["test"].images
    if (shape := pixels.shape[1:]) != other.shape[1:]:
        raise DataError(f"images of shape {shape} and test_images of {other.shape[1:]} differ")
    # Sums are integers: a deviation is 0 if and only if a channel never varies; 1 is taken then.
    total, sums = pixels.size // 3, pixels.sum(axis=(0, 2, 3), dtype=np.int64).tolist()
    squares = np.einsum("nchw,nchw->c", pixels, pixels, dtype=np.int64).tolist()
    std = [math.sqrt(total * q - s * s) / total or 1.0 for s, q in zip(sums, squares, strict=True)]
    red, green, blue = (s / total for s in sums)
    return replace(parts[split], mean=(red, green, blue), std=(std[0], std[1], std[2]))


def _classes(names: npt.NDArray[Any] | None, labels: npt.NDArray[Any]) -> tuple[str, ...]:
    """Return the names of the classes; without any, they are numbers up to the greatest label."""
    if names is None:
        count = int(labels.max(initial=0)) + 1 if labels.dtype == np.int64 else 1
        if count > max(1, len(labels)):  # no memory for more than there are images
            raise DataError(f"{len(labels)} labels, up to {count - 1}: 'classes' must name them")
        names = np.arange(count).astype(str)
    found = tuple(names.ravel().tolist())
    if names.dtype.kind != "U" or len({n for n in found if n and n.isprintable()}) < len(found):
        raise DataError(f"classes={one_line(found)} are not different printable names")
    return found
