"""SVHN: the published MATLAB files come back as written; everything else is refused by its name."""

import hashlib
import io
import os
import struct
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import savemat

from igc_ref.data import load
from igc_ref.data.published import SVHN
from igc_ref.data.svhn import load_svhn
from igc_ref.errors import DataError

PUBLISHED = {part: SVHN[part].count for part in SVHN}
COUNTS = {"train": 7, "test": 4, "extra": 9}  # images in the files of these tests


@pytest.fixture(autouse=True)
def _few_records(monkeypatch):
    for part, count in COUNTS.items():
        monkeypatch.setitem(SVHN, part, replace(SVHN[part], count=count))


def draw(part):
    """Images (n, 3, 32, 32) and digits of one file."""
    rng = np.random.default_rng(len(part))
    shape = (COUNTS[part], 3, 32, 32)
    return rng.integers(0, 256, shape, np.uint8), rng.integers(0, 10, COUNTS[part])


def arrays(part):
    """X and y of one file, written out image by image, colour by colour, row by row."""
    images, digits = draw(part)
    X = np.empty((32, 32, 3, len(images)), np.uint8)
    for n, image in enumerate(images):
        for colour, plane in enumerate(image):
            for row, pixels in enumerate(plane):
                X[row, :, colour, n] = pixels
    y = np.array([[10 if digit == 0 else digit] for digit in digits], np.uint8)
    return {"X": X, "y": y}


def saved(packed=True, **variables):
    file = io.BytesIO()
    savemat(file, variables, do_compression=packed)
    return file.getvalue()


def write(folder, *parts, packed=True):
    for part in parts:
        (folder / f"{part}_32x32.mat").write_bytes(saved(packed, **arrays(part)))


def refused(folder, match, name="svhn", split="test"):
    with pytest.raises(DataError, match=match) as caught:
        load_svhn(folder, name, split)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("name", "split", "parts"),
    [
        ("svhn", "train", ["train"]),
        ("svhn", "test", ["test"]),
        ("svhn_extra", "train", ["train", "extra"]),
        ("svhn_extra", "test", ["test"]),
    ],
)
def test_the_published_files_come_back_as_written(tmp_path, name, split, parts, packed):
    write(tmp_path, *parts, packed=packed)
    dataset = load(name, split, str(tmp_path))
    assert dataset.name == f"{name}/{split}"
    assert dataset.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert dataset.mean == (111.609, 113.161, 120.565)
    assert dataset.std == (50.498, 51.259, 50.244)
    images, labels = zip(*map(draw, parts), strict=True)
    np.testing.assert_array_equal(dataset.images, np.concatenate(images))
    np.testing.assert_array_equal(dataset.labels, np.concatenate(labels))


def test_labels_that_are_doubles_stored_as_bytes_are_read(tmp_path):
    # So are the published ones. In a plain file, the class stands 16 bytes into the array.
    write(tmp_path, "test", packed=False)
    content = bytearray((tmp_path / "test_32x32.mat").read_bytes())
    at = content.rindex(struct.pack("<II", 6, 8)) + 8
    assert content[at] == 9
    content[at] = 6
    (tmp_path / "test_32x32.mat").write_bytes(content)
    np.testing.assert_array_equal(load_svhn(tmp_path, "svhn", "test").labels, draw("test")[1])


def test_the_published_counts_are_those_of_the_paper():
    assert PUBLISHED == {"train": 73_257, "test": 26_032, "extra": 531_131}
    assert PUBLISHED["train"] + PUBLISHED["extra"] == 604_388  # the authors' num_examples


@pytest.mark.parametrize("label", [0, 11, 255])
def test_a_label_out_of_range_is_named(tmp_path, label):
    variables = arrays("test")
    variables["y"][2] = label
    (tmp_path / "test_32x32.mat").write_bytes(saved(**variables))
    refused(tmp_path, f"record 2 has label {label}; allowed are 1 to 10")


def test_what_is_missing_is_named_with_where_to_get_it(tmp_path):
    refused(tmp_path / "none", "none' does not exist")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "file' is not a folder")
    write(tmp_path, "train")
    digest = SVHN["extra"].file.sha256
    refused(
        tmp_path,
        f"no SVHN in {tmp_path}: it lacks extra_32x32.mat; fetch "
        "http://ufldl.stanford.edu/housenumbers/extra_32x32.mat "
        rf"\(1,329,278,602 bytes, SHA-256 {digest}\) and put it there",
        "svhn_extra",
        "train",
    )
    refused(tmp_path, "name='mnist' is unknown; choose one of svhn", "mnist")
    refused(tmp_path, "split='extra' is unknown; choose one of train, test", split="extra")


GOOD = arrays("test")
HUGE = saved(False, **GOOD).replace(struct.pack("<4i", 32, 32, 3, 4), b"\x7f" * 16)
REFUSED = {
    "nothing": (b"", ""),
    "a web page": (b"<html>Please log in.</html>" * 9, ""),
    "no labels": (saved(X=GOOD["X"]), "y is None"),
    "other images": (saved(X=GOOD["X"].repeat(2, axis=3), y=GOOD["y"]), r"X is .*3, 8\), 'uint8'"),
    "rows of labels": (saved(X=GOOD["X"], y=GOOD["y"].T), r"y is .*1, 4\), 'uint8'"),
    "fractions": (saved(X=GOOD["X"] / 2, y=GOOD["y"]), "X is float64"),
    "floats": (saved(X=GOOD["X"].astype("f4"), y=GOOD["y"]), "X is .*'single'"),
    "text": (saved(X="touch owned", y=GOOD["y"]), "X is .*'char'"),
    "a struct": (saved(X={"a": 1}, y=GOOD["y"]), "X is .*'struct'"),
    "objects": (saved(X=GOOD["X"], y=np.array(["a", [1]], object)), "y is .*'cell'"),
    "half": (saved(**GOOD)[:-900], ""),
    "a wrong checksum": (saved(**GOOD)[:-1] + b"?", ""),
    "a larger claim": (HUGE, "X is .*2139062143"),
}


@pytest.mark.parametrize(("content", "match"), REFUSED.values(), ids=REFUSED)
def test_a_file_of_something_else_is_refused(tmp_path, content, match):
    (tmp_path / "test_32x32.mat").write_bytes(content)
    refused(tmp_path, f"{tmp_path}/test_32x32.mat is damaged or not SVHN's: {match}")


def test_load_fetches_the_files_of_a_split_and_no_others(tmp_path, monkeypatch):
    mirror, cache, lines = tmp_path / "mirror", tmp_path / "cache", []
    mirror.mkdir()
    write(mirror, *COUNTS)
    for part in COUNTS:
        content = (mirror / f"{part}_32x32.mat").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        right = replace(SVHN[part].file, size=len(content), sha256=digest)
        monkeypatch.setitem(SVHN, part, replace(SVHN[part], file=right))
    monkeypatch.setenv("IGC_REF_CACHE", str(cache))
    monkeypatch.setenv("IGC_REF_DATA_URL", f"file://{mirror}")
    for name, split, parts in (
        ("svhn", "test", {"test"}),
        ("svhn", "train", {"test", "train"}),
        ("svhn_extra", "train", {"test", "train", "extra"}),
        ("svhn_extra", "test", {"test", "train", "extra"}),
    ):
        dataset = load(name, split, report=lines.append)
        np.testing.assert_array_equal(dataset.images[:4], draw(split)[0][:4])
        found = {file for file in os.listdir(cache) if file.endswith(".mat")}
        assert found == {f"{part}_32x32.mat" for part in parts}
    assert len(lines) == 3
