"""A user's own sequences, as images of height 1: the next byte of a text, or files of time series.

A sequence is (channels, 1, length) bytes. ``text`` is any file: a sample is a window of 64 bytes,
and its class the byte after it. ``ts`` is the form of the UCR and UEA archives: ``NAME_TRAIN.ts``
and ``NAME_TEST.ts``, with ``@classLabel true LABEL ...``, and after ``@data`` a series in a line,
``1.5,2.5,...:LABEL``, its channels separated by colons.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from igc_ref.data.dataset import Dataset, statistics
from igc_ref.errors import DataError, integer, shown
from igc_ref.report import Report, silent

WINDOW = 64  # bytes that a text's next one is told from
SIZES = {"train": 50_000, "test": 10_000}  # windows of a text, at most, unless a size is given
BYTES = tuple("space" if b == 32 else repr(bytes([b]))[2:-1] for b in range(256))  # their names
RAMP = np.arange(1, WINDOW + 1) * 255 // WINDOW
MOST = 1e300  # a greater value of a time series is no measurement


def load_text(path: Path, split: str, _: Report = silent, size: int | None = None) -> Dataset:
    """Draw windows of a file, always the same; of its last tenth to test on, else of the rest.

    Parameters
    ----------
    path : Path
    split : {"train", "test"}
    size : int, optional
        Windows to train on; 50,000 unless given, or all, if the file has fewer. 10,000 to test on.

    Returns
    -------
    Dataset
        Images (n, 9, 1, 64): the bits of each byte, the highest first, as 0 or 255, and a channel
        that rises from left to right, for the average over positions forgets where a byte stood.

    Raises
    ------
    DataError
        If the file is missing, or too short for one window of either split.
    SpecError
        If it has fewer windows than `size`.
    """
    text = np.frombuffer(_read(path), np.uint8)
    cut = len(text) * 9 // 10
    if min(cut, len(text) - cut) <= WINDOW:
        least = f"its last tenth must be longer than a window of {WINDOW}"
        raise DataError(f"{path} is too short for data=text: {len(text)} bytes; {least}")
    part = text[:cut] if split == "train" else text[cut:]
    every = np.lib.stride_tricks.sliding_window_view(part, WINDOW + 1)
    count = min(SIZES[split], len(every))
    if size is not None and split == "train":
        count = integer("data_size", size, maximum=len(every))
    starts = np.random.default_rng(list(SIZES).index(split)).choice(len(every), count, False)
    windows = every[starts]  # (n, 65)
    images = np.empty((count, 9, 1, WINDOW), np.uint8)
    images[:, :8, 0] = 255 * np.unpackbits(windows[:, None, :-1], axis=1)
    images[:, 8, 0] = RAMP
    labels = windows[:, -1].astype(np.int64)
    # The same for any text, so that statistics of one split do not depend on the other.
    return Dataset(f"text/{split}", images, labels, BYTES, (127.5,) * 9, (127.5,) * 9)


def load_ts(path: Path, split: str, _: Report = silent) -> Dataset:
    """Read one split of a set of time series of equal length without missing values.

    Values become bytes: of each channel, the least and the greatest value of the training set are
    0 and 255, and what is beyond them in the test set is cut off.

    Parameters
    ----------
    path : Path
        The folder of one ``NAME_TRAIN.ts`` and its ``NAME_TEST.ts``, or, of several, that folder
        with ``/NAME``.
    split : {"train", "test"}

    Returns
    -------
    Dataset
        Images (n, channels, 1, length), normalised by the training set.

    Raises
    ------
    DataError
        If a file is missing or not as described; names the file and the line.
    """
    if path.is_dir():
        found = sorted(path.glob("*_TRAIN.ts"))
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise DataError(f"{path} must hold one NAME_TRAIN.ts, not {names}; or give {path}/NAME")
        path = path / found[0].name.removesuffix("_TRAIN.ts")
    elif path.is_file():
        raise DataError(f"{path} is one file; give its folder, or NAME of NAME_TRAIN.ts in it")
    train, labels, classes = _series(path.with_name(f"{path.name}_TRAIN.ts"))
    low = train.min(axis=(0, 2), keepdims=True)
    span = train.max(axis=(0, 2), keepdims=True) - low
    span[span == 0] = 1  # a channel that never varies

    def quantised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        levels = np.clip((values - low) / span, 0, 1) * 255
        return np.asarray(np.rint(levels)[:, :, None], np.uint8)  # (n, channels, 1, length)

    images = quantised(train)
    about = classes, *statistics(images)
    if split == "test":
        file = path.with_name(f"{path.name}_TEST.ts")
        test, labels, _classes = _series(file, classes)
        if test.shape[1:] != (shape := train.shape[1:]):
            raise DataError(f"{file} has series of {_sizes(test.shape[1:])}, not {_sizes(shape)}")
        images = quantised(test)
    return Dataset(f"ts/{split}", images, np.array(labels, np.int64), *about)


def _read(path: Path) -> bytes:
    """Return the content of a file."""
    if not path.is_file():
        raise DataError(f"{path} is no file" if path.exists() else f"{path} does not exist")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _sizes(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} channels of {shape[1]} values"


def _series(
    path: Path, classes: tuple[str, ...] = ()
) -> tuple[npt.NDArray[np.float64], list[int], tuple[str, ...]]:
    """Read series (n, channels, length), their labels and the classes, unless those are given."""
    try:
        lines = _read(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text: {error}") from error
    series, labels, begun = list[npt.NDArray[np.float64]](), list[int](), False
    for number, line in enumerate(map(str.strip, lines), start=1):
        key, *words = line.split() or ("",)
        try:
            if begun and line:
                values, label = _values(line, series[0].shape if series else None)
                if label not in classes:
                    raise ValueError(f"{shown(label)} is none of the classes {shown(classes)}")
                series.append(values)
                labels.append(classes.index(label))
            elif key.lower() == "@classlabel" and not classes:
                classes = tuple(words[1:])
                if words[:1] != ["true"] or not 0 < len(set(classes)) == len(classes):
                    raise ValueError("it must say true, and name every class once")
            elif key.lower() == "@data":
                begun = True
                if not classes:
                    raise ValueError("no @classLabel true LABEL ... stands before it")
            elif line and not begun and line[0] not in "@#%":
                raise ValueError(f"{shown(line[:40])} is neither @..., # nor %")
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
    if not series:
        raise DataError(f"{path} has no series after a line @data")
    return np.stack(series), labels, classes


def _values(line: str, shape: tuple[int, ...] | None) -> tuple[npt.NDArray[np.float64], str]:
    """Return the values (channels, length) of a series and its label, or raise a ValueError."""
    *channels, label = line.split(":")
    rows = [channel.split(",") for channel in channels]
    if not rows or len({len(row) for row in rows}) > 1:
        raise ValueError(f"{shown(line[:40])} is not channels of equal length and a label")
    if shape is not None and (found := (len(rows), len(rows[0]))) != shape:
        raise ValueError(f"the series has {_sizes(found)}, the first one {_sizes(shape)}")
    try:
        values = np.array(rows, float)
    except ValueError:
        values = np.full((1, 1), np.nan)
    if not (np.abs(values) < MOST).all():
        raise ValueError(f"a value is missing, or no number below {MOST:g}: no such series is read")
    return values, label.strip()
