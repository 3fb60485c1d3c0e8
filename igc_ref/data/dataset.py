"""What every data set is: images, labels, the names of the classes and the channel statistics."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.errors import DataError, choice, integer, shown

DRAWN = {"train": 3000, "test": 1000}  # samples of a built-in set, unless a size is given


@dataclass(frozen=True)
class Dataset:
    """A labelled set of small images, or of sequences, which are images of height 1, as bytes.

    Parameters
    ----------
    name : str
        Where it comes from, such as ``"cifar10/test"``.
    images : ndarray of uint8, shape (n, channels, height, width)
        Values in 0..255; the channels of an image are red, green, blue.
    labels : ndarray of int64, shape (n,)
        Class of each image, in ``0..len(classes) - 1``.
    classes : tuple of str
        Name of each class.
    mean, std : tuple of floats, one a channel
        Channel statistics in 0..255, used to normalise the images.

    Raises
    ------
    DataError
        If shapes, dtypes or labels do not fit together, or there is no image.
    """

    name: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, array in (("images", self.images), ("labels", self.labels)):
            if not isinstance(array, np.ndarray):
                raise DataError(f"{self.name}: {name} must be a NumPy array, not {shown(array)}")
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(
                f"{self.name}: images must be uint8 of shape (n, channels, height, width), "
                f"not {self.images.dtype} of shape {self.images.shape}"
            )
        if self.labels.shape != (len(self.images),) or self.labels.dtype != np.int64:
            raise DataError(
                f"{self.name}: {len(self.images)} images, but labels are "
                f"{self.labels.dtype} of shape {self.labels.shape}; one int64 an image is needed"
            )
        if 0 in self.images.shape:
            raise DataError(f"{self.name} is empty: its images have shape {self.images.shape}")
        if not len(self.mean) == len(self.std) == (channels := self.images.shape[1]):
            given = f"mean={self.mean} and std={self.std}"
            raise DataError(f"{self.name}: {given} are not of {channels} channels")
        check_labels(self.name, self.labels, range(len(self.classes)))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def about(self) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
        """Class names, mean and std."""
        return self.classes, self.mean, self.std

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Dataset:
        """The same set restricted to some of its images: ``dataset[:500]``."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])


def check_labels(place: str, labels: npt.NDArray[Any], allowed: range, kind: str = "label") -> None:
    """Raise a DataError that names the first label, and its record, that is not allowed."""
    outside = (labels < allowed.start) | (labels >= allowed.stop)
    if outside.any():
        first = int(np.argmax(outside))
        raise DataError(
            f"{place}: record {first} has {kind} {labels[first]}; "
            f"allowed are {allowed.start} to {allowed.stop - 1}"
        )


def shuffled_labels(
    split: str, size: int | None, seed: int, classes: int, *stream: int
) -> tuple[npt.NDArray[np.int64], np.random.Generator]:
    """Return shuffled labels of a drawn set, (size,), as many of each class, and the generator.

    `stream` keeps the random numbers of one set apart from those of another.
    """
    choice("split", split, tuple(DRAWN), DataError)
    size = integer("size", DRAWN[split] if size is None else size)
    rng = np.random.default_rng([integer("seed", seed, 0), list(DRAWN).index(split), *stream])
    return rng.permutation(np.arange(size, dtype=np.int64) % classes), rng


def statistics(images: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel; 1 for one that never varies."""
    mean = images.mean(axis=(0, 2, 3))
    squares = np.einsum("nchw,nchw->c", images, images, dtype=float) * len(mean) / images.size
    std = np.sqrt(np.maximum(squares - mean**2, 0))
    std[std < 1e-3] = 1
    return tuple(mean.tolist()), tuple(std.tolist())


def fingerprint(*datasets: Dataset) -> str:
    """Return a short hash of all images, labels and class names of these sets, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for dataset in datasets:
        header = f"{dataset.images.shape} {dataset.classes}"
        digest.update(header.encode())
        for array in (dataset.images, dataset.labels.astype("<i8")):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
