"""SVHN: the published MATLAB files come back as written; everything else is refused by its name."""

import hashlib
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from igc_ref.data import fetch, load
from igc_ref.data.published import SVHN
from igc_ref.data.svhn import load_svhn
from igc_ref.data.transfer import Limits
from igc_ref.errors import DataError
from tests.support.server import serving, well

PUBLISHED = {part: SVHN[part].count for part in SVHN}
COUNTS = {"train": 7, "test": 4, "extra": 9}  # pictures in the files of these tests


@pytest.fixture(autouse=True)
def _few_records(monkeypatch):
    for part, count in COUNTS.items():
        monkeypatch.setitem(SVHN, part, replace(SVHN[part], count=count))


def draw(part, seed=0):
    """Pictures (n, 3, 32, 32) and digits of one file."""
    rng = np.random.default_rng([seed, len(part)])
    shape = (COUNTS[part], 3, 32, 32)
    return rng.integers(0, 256, shape, np.uint8), rng.integers(0, 10, COUNTS[part])


def arrays(part, seed=0):
    """X and y of one file, written out picture by picture, colour by colour, row by row."""
    images, digits = draw(part, seed)
    X = np.empty((32, 32, 3, len(images)), np.uint8)
    for n, image in enumerate(images):
        for colour, plane in enumerate(image):
            for row, pixels in enumerate(plane):
                X[row, :, colour, n] = pixels
    y = np.array([[10 if digit == 0 else digit] for digit in digits], np.uint8)
    return {"X": X, "y": y}


def write(folder, *parts, packed=True, seed=0):
    for part in parts:
        savemat(folder / f"{part}_32x32.mat", arrays(part, seed), do_compression=packed)
    return folder


def refused(folder, match, name="svhn", split="train"):
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


def test_what_is_published_is_described_completely():
    assert PUBLISHED == {"train": 73_257, "test": 26_032, "extra": 531_131}
    assert PUBLISHED["train"] + PUBLISHED["extra"] == 604_388  # the authors' num_examples
    for part in SVHN.values():
        assert len(part.file.sha256) == 64
        assert set(part.file.sha256) <= set("0123456789abcdef")


@pytest.mark.parametrize("label", [0, 11, 255])
def test_a_label_out_of_range_is_named(tmp_path, label):
    variables = arrays("test")
    variables["y"][2] = label
    savemat(tmp_path / "test_32x32.mat", variables)
    refused(tmp_path, f"record 2 has label {label}; allowed are 1 to 10", split="test")


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
    )
    refused(tmp_path, "name='mnist' is unknown; choose one of svhn", "mnist")
    refused(tmp_path, "split='extra' is unknown; choose train or test", split="extra")


def test_a_file_too_large_for_the_published_counts_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.undo()  # the published counts
    for part in SVHN.values():
        assert part.file.size < part.limit
    limit = SVHN["test"].limit
    (tmp_path / "test_32x32.mat").touch()
    os.truncate(tmp_path / "test_32x32.mat", limit + 1)  # sparse: it takes no space
    message = f"has {limit + 1:,} bytes; for 26,032 pictures at most {limit:,} are expected"
    refused(tmp_path, message, split="test")


def test_a_file_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    write(tmp_path, "test")

    def refuse(path, _):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    refused(tmp_path, f"cannot read {tmp_path}/test_32x32.mat: Permission denied", split="test")


@pytest.mark.parametrize("packed", [True, False])
def test_reading_takes_twice_the_memory_of_the_pictures(tmp_path, monkeypatch, packed):
    monkeypatch.setitem(COUNTS, "test", 4000)
    monkeypatch.setitem(SVHN, "test", replace(SVHN["test"], count=4000))
    write(tmp_path, "test", packed=packed)
    tracemalloc.start()
    size = load_svhn(tmp_path, "svhn", "test").images.nbytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.1 * size


@pytest.mark.parametrize("found", [ValueError("odd\x1b"), {}, {"X": "text", "y": []}])
def test_whatever_scipy_does_with_a_checked_file_ends_in_a_data_error(tmp_path, monkeypatch, found):
    def loadmat(*_, **__):
        if isinstance(found, Exception):
            raise found
        return found

    write(tmp_path, "test")
    monkeypatch.setattr("scipy.io.loadmat", loadmat)
    refused(tmp_path, "test_32x32.mat is damaged: ('odd|X is no uint8)", split="test")


# -- fetching --------------------------------------------------------------------------------------


def test_load_fetches_the_files_of_a_split_and_no_others(tmp_path, monkeypatch):
    contents = {}
    for part in COUNTS:
        content = write(tmp_path, part).joinpath(f"{part}_32x32.mat").read_bytes()
        file = SVHN[part].file
        contents[file.name] = content
        digest = hashlib.sha256(content).hexdigest()
        right = replace(file, size=len(content), sha256=digest)
        monkeypatch.setitem(SVHN, part, replace(SVHN[part], file=right))
    cache, lines = tmp_path / "cache", []
    monkeypatch.setenv("IGC_REF_CACHE", str(cache))
    with serving(well(None, contents)) as server:
        monkeypatch.setenv("IGC_REF_DATA_URL", server.address)
        for name, split, asked in (
            ("svhn", "test", ["/test_32x32.mat"]),
            ("svhn", "train", ["/train_32x32.mat"]),
            ("svhn_extra", "train", ["/extra_32x32.mat"]),
            ("svhn_extra", "test", []),
        ):
            server.requests.clear()
            dataset = load(name, split, report=lines.append)
            assert [path for path, _ in server.requests] == asked
            np.testing.assert_array_equal(dataset.images[:4], draw(split)[0][:4])
    assert sorted(os.listdir(cache)) == sorted(contents)
    assert len(lines) == 3


def test_what_is_no_matlab_file_or_another_one_is_not_kept(tmp_path, monkeypatch):
    fast = Limits(connect=2.0, window=0.3, speeds=(100_000.0,), pause=0.01)
    size = SVHN["test"].file.size
    for content, reason in (
        (b"<html>" * 999, "does not begin like test_32x32.mat"),
        (b"MATLAB 5.0", f"ended after 10 of {size:,} bytes"),
    ):
        with serving(lambda r, c=content: (r.head(200), r.wfile.write(c))) as server:
            monkeypatch.setenv("IGC_REF_DATA_URL", f"{server.address}/test_32x32.mat")
            with pytest.raises(DataError, match=f"cannot fetch SVHN .*{reason}"):
                fetch("svhn", tmp_path, limits=fast, split="test")
    with pytest.raises(DataError, match=r"names no address.*Fetch train_32x32.mat"):
        fetch("svhn", tmp_path, limits=fast)  # that address is of the other file
    assert not any(path.suffix == ".mat" for path in tmp_path.iterdir())
