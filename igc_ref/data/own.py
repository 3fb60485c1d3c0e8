"""A user's own images: a folder of PNG and JPEG files, or an ``.npz`` of arrays.

A folder holds ``train/CLASS/*.png`` and ``test/CLASS/*.png``; other files are left out. An ``.npz``
holds ``images`` and ``test_images``, uint8 of shape (n, 3, height, width), (n, height, width, 3)
or, grey, which becomes three equal channels, (n, height, width), or sequences (n, channels, 1,
length); ``labels`` and ``test_labels``, integers; and ``classes``, their names.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.data.dataset import Dataset, statistics
from igc_ref.data.download import cache_folder
from igc_ref.data.images import SUFFIXES, read_image
from igc_ref.data.npz import read_arrays
from igc_ref.errors import DataError
from igc_ref.files import locked, replacing
from igc_ref.report import Report, silent

SPLITS = {"train": "", "test": "test_"}  # and how the names of its arrays begin

Arrays = dict[str, npt.NDArray[Any]]


def load_npz(path: Path, split: str, _: Report = silent) -> Dataset:
    """Read one split of an ``.npz`` file; a DataError if its arrays are not as above."""
    try:
        return _dataset(split, read_arrays(path))
    except KeyError as error:
        raise DataError(f"{path} has no array {error}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot use {path}: {error}") from error


def load_folder(folder: Path, split: str, report: Report = silent) -> Dataset:
    """Read one split, from the cache while name, size and time of every image are the same."""
    folder = folder.absolute()
    files = {name: _files(folder / name) for name in SPLITS}
    states = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for of in files.values() for p in of]
    place, key = (hashlib.sha256(repr(of).encode()).hexdigest()[:32] for of in (folder, states))
    cache = cache_folder() / f"folder-{place}-{key}.npz"
    cache.parent.mkdir(parents=True, exist_ok=True)
    with locked(cache.with_name(f"folder-{place}.lock"), 600, report):
        if not cache.exists():
            report(f"reading {len(states):,} images of {folder}, to be cached in {cache}")
            arrays = _read(files)
            tested = {path.parent.name for path in files["test"]}
            if untested := [name for name in arrays["classes"] if name not in tested]:
                report(f"there are no test images of {', '.join(untested)}")
            for old in cache.parent.glob(f"folder-{place}-*"):
                old.unlink()
            with replacing(cache) as file:
                np.savez(file, allow_pickle=False, **arrays)
        return replace(load_npz(cache, split), name=f"folder/{split}")


def _files(folder: Path) -> list[Path]:
    """List the images of a split, by class."""
    classes = [path for path in folder.glob("[!.]*") if path.is_dir()]
    if not classes:
        raise DataError(f"{folder} holds no classes: DIR/train/CLASS/*.png, DIR/test/... are read")
    images = sorted(p for p in folder.glob("[!.]*/[!.]*") if p.suffix.lower() in SUFFIXES)
    if empty := sorted({*classes} - {path.parent for path in images}):
        raise DataError(f"the class {empty[0]} has no image ({', '.join(SUFFIXES)})")
    return images


def _read(files: dict[str, list[Path]]) -> Arrays:
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
                sizes = f"{path} has shape {image.shape}, {first} {shape}"
                raise DataError(f"{sizes}: all images must have one size")
            images[row], labels[row] = image, classes.index(path.parent.name)
        arrays |= {f"{prefix}images": images, f"{prefix}labels": labels}
    return arrays


def _dataset(split: str, found: Arrays) -> Dataset:
    """Return one split of these arrays, with the statistics of the training images."""
    parts, classes = dict[str, Dataset](), tuple(found["classes"].ravel().tolist())
    for part, prefix in SPLITS.items():
        images, labels = found[f"{prefix}images"], found[f"{prefix}labels"]
        if images.ndim == 3:
            images = np.repeat(images[:, None], 3, axis=1)
        elif images.ndim == 4 and images.shape[1] != 3 == images.shape[3]:
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        elif images.ndim == 4 and images.shape[1] != 3 and images.shape[2] != 1:
            raise ValueError(f"{prefix}images of shape {images.shape} have no 3 channels")
        if labels.dtype.kind in "iu":
            labels = labels.ravel().astype(np.int64)
        blank = (1.0,) * (images.shape[1] if images.ndim == 4 else 0)
        parts[part] = Dataset(f"npz/{part}", images, labels, classes, blank, blank)
    pixels, other = parts["train"].images, parts["test"].images
    if (shape := pixels.shape[1:]) != other.shape[1:]:
        raise DataError(f"images of shape {shape} and test_images of {other.shape[1:]} differ")
    mean, std = statistics(pixels)
    return replace(parts[split], mean=mean, std=std)
