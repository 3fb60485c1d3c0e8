"""Readers of CIFAR-10 and CIFAR-100 in both published layouts, binary and python.

Nothing is believed before it is checked: the sizes of the files before they are read, and every
label before it is used. An archive is read without extracting it, with the same checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from igc_ref.data.archive import Entry, check_size, in_archive
from igc_ref.data.dataset import Dataset, check_labels
from igc_ref.data.published import PIXELS, PUBLISHED, SMALL_FILE, Published
from igc_ref.data.unpickle import load_pickle
from igc_ref.errors import DataError, choice

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
RESAVED = "fetch the published file: one that was saved again, say with NumPy labels, is not read"
SUFFIXES = (".bin", "")  # of the files of the binary and the python layout


def load_cifar(data_dir: Path, name: str, split: str) -> Dataset:
    """Read one split of CIFAR-10 or CIFAR-100 from the published files.

    Parameters
    ----------
    data_dir : Path
        The folder the archives were unpacked in, the folder that came out of one, a folder with
        an archive still packed, or that archive: it is read as it is. Of several that have the
        whole split, what is unpacked goes first, and the binary layout.
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
    choice("name", name, tuple(PUBLISHED), DataError)
    choice("split", split, ("train", "test"), DataError)
    try:
        return _load(Path(data_dir), name, split)
    except OSError as error:
        raise DataError(f"cannot read {error.filename or data_dir}: {error.strerror}") from error


def _load(data_dir: Path, name: str, split: str) -> Dataset:
    published = PUBLISHED[name]
    place, suffix = _find(data_dir, published, split)
    files, names_file = published.files(split, suffix), published.names[0 if suffix else 1]
    count, classes = published.records[split], published.classes
    images = np.empty((len(files), count, PIXELS), np.uint8)
    labels = np.empty((len(files), count), np.int64)
    read, missing = _binary if suffix else _python, list(files)
    limits = dict.fromkeys(files, published.file_limit(count, suffix)) | {names_file: SMALL_FILE}
    inner = published.binary if suffix else published.python
    if place.is_file():
        entries = in_archive(place, inner, limits, published.archive_limit(suffix))
    else:
        entries = _in_folder(place, limits)
    for entry in entries:
        if entry.name == names_file:
            classes = _classes(entry, published, suffix)
        else:
            missing.remove(entry.name)
            row = files.index(entry.name)
            read(entry, published, images[row], labels[row])
    if missing:
        names = ", ".join(f"{inner}/{name}" if place.is_file() else name for name in missing)
        raise DataError(f"{place} lacks {names}; fetch or unpack its archive again")
    return Dataset(
        name=f"{name}/{split}",
        images=images.reshape(-1, 3, 32, 32),
        labels=labels.reshape(-1),
        classes=classes,
        mean=published.mean,
        std=published.std,
    )


def _find(data_dir: Path, published: Published, split: str) -> tuple[Path, str]:
    """Find what has the whole split, else any file of the set, and the files' ending."""
    suffixes = {archive.name: s for archive, s in zip(published.archives, SUFFIXES, strict=True)}
    if not data_dir.is_dir():
        if data_dir.is_file() and data_dir.name in suffixes:
            return data_dir, suffixes[data_dir.name]
        state = f"is neither a folder nor called {' or '.join(suffixes)}"
        state = state if data_dir.exists() else "does not exist"
        raise DataError(f"data_dir={str(data_dir)!r} {state}")
    partial = []
    for inner, suffix in zip((published.binary, published.python), SUFFIXES, strict=True):
        for folder in (data_dir / inner, data_dir):
            there = [f for f in published.files("all", suffix) if (folder / f).is_file()]
            if set(published.files(split, suffix)) <= set(there):
                return folder, suffix
            partial += [(folder, suffix)] * bool(there)
    for archive, suffix in suffixes.items():
        if (data_dir / archive).is_file():
            return data_dir / archive, suffix
    if partial:
        return partial[0]
    inside = sorted(path.name[:40] for path in data_dir.iterdir())
    shown = ", ".join(map(ascii, inside[:5])) + (", ..." if len(inside) > 5 else "")
    first = published.train[0]
    raise DataError(
        f"no {published.title} in {data_dir}: looked for {published.binary}/{first}.bin, "
        f"{published.python}/{first} and {' and '.join(suffixes)}, "
        f"found {shown or 'an empty folder'}; fetch {published.archives[0].name} and put it there"
    )


def _in_folder(folder: Path, limits: dict[str, int]) -> Iterator[Entry]:
    """Read those of the wanted files that lie in a folder, after a look at their sizes."""
    for name, limit in limits.items():
        if (path := folder / name).is_file():
            check_size(path.stat().st_size, limit, path)
            yield Entry(str(path), name, path.read_bytes())


def _binary(entry: Entry, published: Published, images: Images, labels: Labels) -> None:
    """Read records of label bytes and pixels into images (n, 3072) and labels (n,)."""
    place, count, heads = entry.place, len(images), len(published.labels)
    size, expected = len(entry.content), published.file_limit(count, ".bin")
    if size != expected:
        raise DataError(
            f"{place} has {size:,} bytes; "
            f"{count:,} records of {heads + PIXELS:,} bytes are {expected:,}"
        )
    records = np.frombuffer(entry.content, np.uint8).reshape(count, heads + PIXELS)
    for column, (kind, classes) in enumerate(published.labels):
        check_labels(place, records[:, column], range(classes), kind)
    images[:] = records[:, heads:]
    labels[:] = records[:, heads - 1]


def _python(entry: Entry, published: Published, images: Images, labels: Labels) -> None:
    """Read a pickled dict of data (n, 3072) and labels into images (n, 3072) and labels (n,)."""
    batch = _pickled_dict(entry)
    place, key, (kind, classes) = entry.place, published.label_key, published.labels[-1]
    data, found = batch.get("data"), batch.get(key)
    if not isinstance(data, np.ndarray) or data.shape != images.shape:
        what = f"of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(f"{place}: data must be a uint8 array of shape {images.shape}, not {what}")
    if not isinstance(found, list) or not all(
        type(n) is int and n.bit_length() < 32 for n in found
    ):
        raise DataError(f"{place}: {key} must be a list of 32-bit integers; {RESAVED}")
    if len(found) != len(images):
        raise DataError(f"{place}: {key} has {len(found):,} entries for {len(images):,} images")
    labels[:] = found
    check_labels(place, labels, range(classes), kind)
    images[:] = data


def _pickled_dict(entry: Entry) -> dict[str, object]:
    """Read a file that pickles a dict with text for keys."""
    try:
        value = load_pickle(entry.content)
    except DataError as error:
        raise DataError(f"{entry.place}: {error}; {RESAVED}") from error
    if not isinstance(value, dict):
        raise DataError(f"{entry.place}: holds a pickled {type(value).__name__}, not a dict")
    return {
        key.decode("latin-1") if isinstance(key, bytes) else key: item
        for key, item in value.items()
    }


def _classes(entry: Entry, published: Published, suffix: str) -> tuple[str, ...]:
    """Read the class names that lie beside the images, if they make sense."""
    names: object
    try:
        if suffix:
            lines = entry.content.decode().splitlines()
            names = [line.strip() for line in lines if line.strip()]
        else:
            names = _pickled_dict(entry).get(published.names[2])
    except ValueError:  # of decoding, or a DataError
        return published.classes
    if not isinstance(names, list) or len(names) != len(published.classes):
        return published.classes
    found = tuple(n.decode("latin-1") if isinstance(n, bytes) else n for n in names)
    sane = all(isinstance(n, str) and n.isprintable() and 0 < len(n) <= 40 for n in found)
    return found if sane and len(set(found)) == len(found) else published.classes
