"""Readers of CIFAR-10 and CIFAR-100 in both published layouts, binary and python.

Nothing is believed before it is checked: the sizes of the files before they are read, and every
label before it is used. An archive is read without unpacking it, with the same checks.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from igc_ref.data.archive import Entry, in_archive
from igc_ref.data.dataset import Dataset
from igc_ref.data.published import PIXELS, PUBLISHED, SMALL_FILE, Published
from igc_ref.data.unpickle import load_pickle
from igc_ref.errors import DataError

__all__ = ["PUBLISHED", "load_cifar"]

CHUNK = 1_000  # records read at a time
SUFFIXES = (".bin", "")  # of the files of the binary and the python layout


def load_cifar(data_dir: Path, name: str, split: str) -> Dataset:
    """Read one split of CIFAR-10 or CIFAR-100 from the published files.

    Parameters
    ----------
    data_dir : Path
        The folder the archives were unpacked in, the folder that came out of one, a folder with
        an archive still packed, or that archive: it is read as it is. If several are there, what
        is unpacked goes first, and the binary layout.
    name : {"cifar10", "cifar100"}
        Which set.
    split : {"train", "test"}
        Which part.

    Returns
    -------
    Dataset
        Images (n, 3, 32, 32); CIFAR-100 has its 100 fine labels.

    Raises
    ------
    DataError
        If files are missing, unreadable, of another size, or hold what they should not.
    """
    if name not in PUBLISHED:
        raise DataError(f"name={name!r} is unknown; choose one of {', '.join(PUBLISHED)}")
    if split not in ("train", "test"):
        raise DataError(f"split={split!r} is unknown; choose train or test")
    try:
        return _load(Path(data_dir), name, split)
    except OSError as error:
        raise DataError(f"cannot read {error.filename or data_dir}: {error.strerror}") from error


def _load(data_dir: Path, name: str, split: str) -> Dataset:
    published = PUBLISHED[name]
    place, suffix = _find(data_dir, published)
    files, names_file = published.files(split, suffix), published.names[0 if suffix else 1]
    count, classes = published.records[split], published.classes
    images = np.empty((count * len(files), 3, 32, 32), np.uint8)
    labels = np.empty(count * len(files), np.int64)
    read, missing = _binary if suffix else _python, list(files)
    with closing(_entries(place, published, suffix, files, names_file)) as entries:
        for entry in entries:
            if entry.name == names_file:
                classes = _classes(entry, published, suffix)
                continue
            missing.remove(entry.name)
            rows = slice(count * files.index(entry.name), count * (files.index(entry.name) + 1))
            read(entry, published, images[rows].reshape(count, PIXELS), labels[rows])
    if missing:
        raise DataError(f"{place} lacks {', '.join(missing)}; fetch it again")
    return Dataset(f"{name}/{split}", images, labels, classes, published.mean, published.std)


def _find(data_dir: Path, published: Published) -> tuple[Path, str]:
    """Find the folder that holds any file of the set, or its archive, and the files' ending."""
    suffixes = {archive.name: s for archive, s in zip(published.archives, SUFFIXES, strict=True)}
    if not data_dir.is_dir():
        if data_dir.is_file() and data_dir.name in suffixes:
            return data_dir, suffixes[data_dir.name]
        state = "is not a folder" if data_dir.exists() else "does not exist"
        raise DataError(f"data_dir={str(data_dir)!r} {state}")
    for inner, suffix in zip((published.binary, published.python), SUFFIXES, strict=True):
        for folder in (data_dir / inner, data_dir):
            if any((folder / file).is_file() for file in published.files("all", suffix)):
                return folder, suffix
    for archive, suffix in suffixes.items():
        if (data_dir / archive).is_file():
            return data_dir / archive, suffix
    inside = sorted(path.name[:40] for path in data_dir.iterdir())
    shown = ", ".join(map(ascii, inside[:5])) + (", ..." if len(inside) > 5 else "")
    first = published.train[0]
    raise DataError(
        f"no {published.title} in {data_dir}: looked for {published.binary}/{first}.bin, "
        f"{published.python}/{first} and {' and '.join(suffixes)}, "
        f"found {shown or 'an empty folder'}; fetch {published.archives[0].name} and put it there"
    )


def _entries(
    place: Path, published: Published, suffix: str, files: tuple[str, ...], names_file: str
) -> Generator[Entry]:
    """Open one after the other the files wanted of a folder or an archive, and the class names."""
    if place.is_file():
        inner = published.binary if suffix else published.python
        limit = published.archive_limit(suffix)
        yield from in_archive(place, inner, (*files, names_file), limit)
        return
    if missing := [name for name in files if not (place / name).is_file()]:
        raise DataError(f"{place} lacks {', '.join(missing)}; unpack its archive again")
    names = place / names_file
    if names.is_file() and os.access(names, os.R_OK):
        files += (names_file,)
    for name in files:
        path = place / name
        with path.open("rb") as file:
            yield Entry(str(path), name, path.stat().st_size, file)


def _binary(
    entry: Entry,
    published: Published,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
) -> None:
    """Read records of label bytes and pixels into images (n, 3072) and labels (n,)."""
    place, count, heads = entry.place, len(images), len(published.labels)
    expected = published.file_limit(count, ".bin")
    if entry.size != expected:
        raise DataError(
            f"{place} has {entry.size:,} bytes; "
            f"{count:,} records of {heads + PIXELS:,} bytes are {expected:,}"
        )
    chunk = np.empty((min(CHUNK, count), heads + PIXELS), np.uint8)
    for start in range(0, count, CHUNK):
        block = chunk[: count - start]
        if entry.stream.readinto(block.data) != block.nbytes:
            raise DataError(f"{place} became shorter while it was read")
        for column, (kind, classes) in enumerate(published.labels):
            _check_labels(place, kind, block[:, column], classes, start)
        images[start : start + CHUNK] = block[:, heads:]
        labels[start : start + CHUNK] = block[:, heads - 1]


def _python(
    entry: Entry,
    published: Published,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
) -> None:
    """Read a pickled dict of data (n, 3072) and labels into images (n, 3072) and labels (n,)."""
    batch = _pickled_dict(entry, published.file_limit(len(images), ""))
    place, key, (kind, classes) = entry.place, published.label_key, published.labels[-1]
    data, found = batch.get("data"), batch.get(key)
    if not isinstance(data, np.ndarray) or data.shape != images.shape:
        what = f"of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(f"{place}: data must be a uint8 array of shape {images.shape}, not {what}")
    if not isinstance(found, list) or not all(
        type(n) is int and n.bit_length() < 32 for n in found
    ):
        raise DataError(f"{place}: {key} must be a list of 32-bit integers")
    if len(found) != len(images):
        raise DataError(f"{place}: {key} has {len(found):,} entries for {len(images):,} pictures")
    _check_labels(place, kind, found, classes, 0)
    images[:] = data
    labels[:] = found


def _pickled_dict(entry: Entry, limit: int) -> dict[str, object]:
    """Read a file of at most `limit` bytes that pickles a dict with text for keys."""
    data = _bounded(entry, limit)
    try:
        value = load_pickle(data)
    except DataError as error:
        raise DataError(f"{entry.place}: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{entry.place}: holds a pickled {type(value).__name__}, not a dict")
    return {
        key.decode("latin-1") if isinstance(key, bytes) else key: item
        for key, item in value.items()
    }


def _bounded(entry: Entry, limit: int) -> bytes:
    if entry.size > limit:
        raise DataError(f"{entry.place} has {entry.size:,} bytes; at most {limit:,} are expected")
    return entry.stream.read(entry.size)


def _check_labels(
    place: str, kind: str, labels: Iterable[int], classes: int, first_record: int
) -> None:
    for record, label in enumerate(labels, first_record):
        if not 0 <= label < classes:
            raise DataError(
                f"{place}: record {record} has {kind} {label}; allowed are 0 to {classes - 1}"
            )


def _classes(entry: Entry, published: Published, suffix: str) -> tuple[str, ...]:
    """Read the class names that lie beside the pictures, if they make sense."""
    names: object
    try:
        if suffix:
            lines = _bounded(entry, SMALL_FILE).decode().splitlines()
            names = [line.strip() for line in lines if line.strip()]
        else:
            names = _pickled_dict(entry, SMALL_FILE).get(published.names[2])
    except (OSError, ValueError):  # DataError is a ValueError
        return published.classes
    if not isinstance(names, list) or len(names) != len(published.classes):
        return published.classes
    found = tuple(n.decode("latin-1") if isinstance(n, bytes) else n for n in names)
    sane = all(isinstance(n, str) and n.isprintable() and 0 < len(n) <= 40 for n in found)
    return found if sane and len(set(found)) == len(found) else published.classes
