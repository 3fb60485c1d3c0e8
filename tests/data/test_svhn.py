"""SVHN: the published MATLAB files come back as written; everything else is refused by its name."""

import hashlib
import os
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import savemat

from igc_ref.data import NUM_CLASSES, load
from igc_ref.data.published import SVHN, Digits
from igc_ref.data.svhn import load_svhn
from igc_ref.errors import DataError

PUBLISHED = {part: SVHN[part].count for part in SVHN}
COUNTS = {"train": 7, "test": 4, "extra": 9}  # images in the files of these tests


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


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write the files of some parts, which become the published ones."""

    def written(*parts, folder=tmp_path, packed=True, **changes):
        for part in parts:
            path = folder / f"{part}_32x32.mat"
            savemat(path, arrays(part) | changes, do_compression=packed)
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            file = replace(SVHN[part].file, size=len(content), sha256=digest)
            monkeypatch.setitem(SVHN, part, Digits(file, COUNTS[part]))

    return written


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
def test_the_published_files_come_back_as_written(write, tmp_path, name, split, parts, packed):
    write(*parts, packed=packed)
    dataset = load(name, split, str(tmp_path))
    assert dataset.name == f"{name}/{split}"
    assert len(dataset.classes) == NUM_CLASSES[name]
    assert dataset.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert dataset.mean == (111.609, 113.161, 120.565)
    assert dataset.std == (50.498, 51.259, 50.244)
    images, labels = zip(*map(draw, parts), strict=True)
    np.testing.assert_array_equal(dataset.images, np.concatenate(images))
    np.testing.assert_array_equal(dataset.labels, np.concatenate(labels))


def test_the_published_counts_are_those_of_the_paper():
    assert PUBLISHED == {"train": 73_257, "test": 26_032, "extra": 531_131}
    assert PUBLISHED["train"] + PUBLISHED["extra"] == 604_388  # the authors' num_examples


@pytest.mark.parametrize("label", [0, 11, 255])
def test_a_label_out_of_range_is_named(write, tmp_path, label):
    write("test", y=np.array([[1], [2], [label], [3]], np.uint8))
    refused(
        tmp_path, f"^{tmp_path}/test_32x32.mat: record 2 has label {label}; allowed are 1 to 10"
    )


def test_what_is_missing_is_named_with_where_to_get_it(write, tmp_path):
    refused(tmp_path / "none", "none' does not exist")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "file' is not the folder of test_32x32.mat")
    write("train")
    digest = SVHN["extra"].file.sha256
    refused(
        tmp_path,
        f"{tmp_path}/extra_32x32.mat is not the published file .it is not there.; fetch "
        "http://ufldl.stanford.edu/housenumbers/extra_32x32.mat "
        rf"\(1,329,278,602 bytes, SHA-256 {digest}\) and put it there",
        "svhn_extra",
        "train",
    )
    refused(tmp_path, "name='mnist' is unknown; choose one of svhn", "mnist")
    refused(tmp_path, "split='extra' is unknown; choose one of train, test", split="extra")


def test_another_file_is_refused_before_scipy_reads_it(write, tmp_path, monkeypatch):
    write("test")
    monkeypatch.setattr("scipy.io.loadmat", None)  # some damaged files make it crash
    path = tmp_path / "test_32x32.mat"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    refused(tmp_path, f"it has {len(good) - 1:,} bytes, not {len(good):,}")
    path.write_bytes(good[:-1] + b"?")
    refused(tmp_path, "its SHA-256 is [0-9a-f]{64}, not [0-9a-f]{64}")


@pytest.mark.parametrize("changes", [{"X": "text"}, {"y": []}, {"X": np.zeros((2, 2, 3, 4))}])
def test_contents_that_scipy_reads_otherwise_are_refused(write, tmp_path, changes):
    write("test", **changes)
    refused(tmp_path, f"SciPy cannot read {tmp_path}/test_32x32.mat: ")


def test_load_fetches_the_files_of_a_split_and_no_others(write, tmp_path, monkeypatch):
    cache, lines = tmp_path / "cache", []
    write(*COUNTS)
    monkeypatch.setenv("IGC_REF_CACHE", str(cache))
    monkeypatch.setenv("IGC_REF_DATA_URL", f"file://{tmp_path}")
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
