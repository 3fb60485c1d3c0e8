"""Readers of CIFAR-10 and CIFAR-100 in both published layouts, binary and python.

Nothing is believed before it is checked: the sizes of the files before they are read, and every
label before it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from igc_ref.data.dataset import Dataset
from igc_ref.data.unpickle import load_pickle
from igc_ref.errors import DataError

__all__ = ["PUBLISHED", "Published", "load_cifar"]

PIXELS = 3 * 32 * 32
SMALL_FILE = 65_536  # bytes; more than any list of class names
CHUNK = 1_000  # records read at a time


@dataclass(frozen=True)
class Published:
    """What the published archives of one CIFAR set hold, in both layouts.

    Parameters
    ----------
    title, archive : str
        The set's own name, and the archive to fetch.
    binary, python : str
        Folder of each layout.
    train, test : tuple of str
        Files of each split; in the binary layout they end in ``.bin``.
    records : dict of str to int
        Pictures in each file of a split.
    labels : tuple of (str, int)
        The label bytes of a binary record in order, each with its number of classes; the last one
        is the class.
    label_key : str
        The class labels in the python layout.
    names : tuple of str
        Where the class names are: binary file, python file, key in the latter.
    classes : tuple of str
        The class names where those files are absent or make no sense.
    mean, std : tuple of three floats
        Channel statistics of the training pictures, in 0..255.
    """

    title: str
    archive: str
    binary: str
    python: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    records: dict[str, int]
    labels: tuple[tuple[str, int], ...]
    label_key: str
    names: tuple[str, str, str]
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def files(self, split: str, suffix: str) -> tuple[str, ...]:
        """Name the files of one split, or of both for ``split="all"``."""
        stems = {"train": self.train, "test": self.test, "all": self.train + self.test}[split]
        return tuple(stem + suffix for stem in stems)


PUBLISHED = {
    "cifar10": Published(
        title="CIFAR-10",
        archive="cifar-10-binary.tar.gz",
        binary="cifar-10-batches-bin",
        python="cifar-10-batches-py",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test=("test_batch",),
        records={"train": 10_000, "test": 10_000},
        labels=(("label", 10),),
        label_key="labels",
        names=("batches.meta.txt", "batches.meta", "label_names"),
        classes=(
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        mean=(125.307, 122.950, 113.865),
        std=(62.993, 62.089, 66.705),
    ),
    "cifar100": Published(
        title="CIFAR-100",
        archive="cifar-100-binary.tar.gz",
        binary="cifar-100-binary",
        python="cifar-100-python",
        train=("train",),
        test=("test",),
        records={"train": 50_000, "test": 10_000},
        labels=(("coarse label", 20), ("fine label", 100)),
        label_key="fine_labels",
        names=("fine_label_names.txt", "meta", "fine_label_names"),
        classes=tuple(f"class {i}" for i in range(100)),
        mean=(129.304, 124.070, 112.434),
        std=(68.170, 65.392, 70.418),
    ),
}


def load_cifar(data_dir: Path, name: str, split: str) -> Dataset:
    """Read one split of CIFAR-10 or CIFAR-100 from the published files.

    Parameters
    ----------
    data_dir : Path
        The folder the archives were unpacked in, or the folder that came out of one. If both
        layouts are there, the binary one is read.
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
    folder, suffix = _find(data_dir, published)
    paths = [folder / file for file in published.files(split, suffix)]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise DataError(f"{folder} lacks {', '.join(missing)}; unpack its archive again")
    count = published.records[split]
    images = np.empty((count * len(paths), 3, 32, 32), np.uint8)
    labels = np.empty(count * len(paths), np.int64)
    read = _binary if suffix else _python
    for i, path in enumerate(paths):
        rows = slice(i * count, (i + 1) * count)
        read(path, published, images[rows].reshape(count, PIXELS), labels[rows])
    classes = _classes(folder, published, suffix)
    return Dataset(f"{name}/{split}", images, labels, classes, published.mean, published.std)


def _find(data_dir: Path, published: Published) -> tuple[Path, str]:
    """Find the folder that holds any file of the set, and the ending of its files."""
    if not data_dir.is_dir():
        state = "is not a folder" if data_dir.exists() else "does not exist"
        raise DataError(f"data_dir={str(data_dir)!r} {state}")
    for inner, suffix in ((published.binary, ".bin"), (published.python, "")):
        for folder in (data_dir / inner, data_dir):
            if any((folder / file).is_file() for file in published.files("all", suffix)):
                return folder, suffix
    inside = sorted(path.name[:40] for path in data_dir.iterdir())
    shown = ", ".join(map(ascii, inside[:5])) + (", ..." if len(inside) > 5 else "")
    first = published.train[0]
    raise DataError(
        f"no {published.title} in {data_dir}: looked for {published.binary}/{first}.bin and "
        f"{published.python}/{first}, found {shown or 'an empty folder'}; fetch "
        f"{published.archive} and unpack it there, so that {data_dir / published.binary} exists"
    )


def _binary(
    path: Path, published: Published, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]
) -> None:
    """Read records of label bytes and pixels into images (n, 3072) and labels (n,)."""
    count, heads = len(images), len(published.labels)
    size, expected = path.stat().st_size, count * (heads + PIXELS)
    if size != expected:
        raise DataError(
            f"{path} has {size:,} bytes; "
            f"{count:,} records of {heads + PIXELS:,} bytes are {expected:,}"
        )
    chunk = np.empty((min(CHUNK, count), heads + PIXELS), np.uint8)
    with path.open("rb") as file:
        for start in range(0, count, CHUNK):
            block = chunk[: count - start]
            if file.readinto(block.data) != block.nbytes:
                raise DataError(f"{path} became shorter while it was read")
            for column, (kind, classes) in enumerate(published.labels):
                _check_labels(path, kind, block[:, column], classes, start)
            images[start : start + CHUNK] = block[:, heads:]
            labels[start : start + CHUNK] = block[:, heads - 1]


def _python(
    path: Path, published: Published, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]
) -> None:
    """Read a pickled dict of data (n, 3072) and labels into images (n, 3072) and labels (n,)."""
    # Python 3 writes the pixels in protocol 2 as UTF-8, two bytes for a bright one.
    batch = _pickled_dict(path, limit=len(images) * (2 * PIXELS + 256) + SMALL_FILE)
    key, (kind, classes) = published.label_key, published.labels[-1]
    data, found = batch.get("data"), batch.get(key)
    if not isinstance(data, np.ndarray) or data.shape != images.shape:
        what = f"of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(f"{path}: data must be a uint8 array of shape {images.shape}, not {what}")
    if not isinstance(found, list) or not all(
        type(n) is int and n.bit_length() < 32 for n in found
    ):
        raise DataError(f"{path}: {key} must be a list of 32-bit integers")
    if len(found) != len(images):
        raise DataError(f"{path}: {key} has {len(found):,} entries for {len(images):,} pictures")
    _check_labels(path, kind, found, classes, 0)
    images[:] = data
    labels[:] = found


def _pickled_dict(path: Path, limit: int) -> dict[str, object]:
    """Read a file of at most `limit` bytes that pickles a dict with text for keys."""
    data = _bounded(path, limit)
    try:
        value = load_pickle(data)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds a pickled {type(value).__name__}, not a dict")
    return {
        key.decode("latin-1") if isinstance(key, bytes) else key: item
        for key, item in value.items()
    }


def _bounded(path: Path, limit: int) -> bytes:
    size = path.stat().st_size
    if size > limit:
        raise DataError(f"{path} has {size:,} bytes; at most {limit:,} are expected")
    with path.open("rb") as file:
        return file.read(size)


def _check_labels(
    path: Path, kind: str, labels: Iterable[int], classes: int, first_record: int
) -> None:
    for record, label in enumerate(labels, first_record):
        if not 0 <= label < classes:
            raise DataError(
                f"{path}: record {record} has {kind} {label}; allowed are 0 to {classes - 1}"
            )


def _classes(folder: Path, published: Published, suffix: str) -> tuple[str, ...]:
    """Read the class names that lie beside the pictures, if they are there and make sense."""
    text_file, pickle_file, key = published.names
    names: object
    try:
        if suffix:
            lines = _bounded(folder / text_file, SMALL_FILE).decode().splitlines()
            names = [line.strip() for line in lines if line.strip()]
        else:
            names = _pickled_dict(folder / pickle_file, SMALL_FILE).get(key)
    except (OSError, ValueError):  # DataError is a ValueError
        return published.classes
    if not isinstance(names, list) or len(names) != len(published.classes):
        return published.classes
    found = tuple(n.decode("latin-1") if isinstance(n, bytes) else n for n in names)
    sane = all(isinstance(n, str) and n.isprintable() and 0 < len(n) <= 40 for n in found)
    return found if sane and len(set(found)) == len(found) else published.classes
