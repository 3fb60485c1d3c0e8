"""CIFAR readers: both layouts give back what was written, and every damage has its own message."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from igc_ref.data import NUM_CLASSES, load
from igc_ref.data.cifar import load_cifar
from igc_ref.data.published import PUBLISHED
from igc_ref.errors import DataError
from tests.data.cifar_files import (
    BINARY,
    DUMPS,
    FILES,
    PYTHON,
    as_python_2,
    batch_of,
    draw,
    write_binary,
    write_python,
)

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = np.zeros((2, 3072), np.uint8)
STATISTICS = {
    "cifar10": ((125.307, 122.950, 113.865), (62.993, 62.089, 66.705)),
    "cifar100": ((129.304, 124.070, 112.434), (68.170, 65.392, 70.418)),
}
few_records = pytest.mark.usefixtures("few_records")


def assert_is_what_was_written(dataset, name, split, seed=0):
    drawn = draw(name, split, seed).values()
    assert dataset.name == f"{name}/{split}"
    assert (dataset.mean, dataset.std) == STATISTICS[name]
    assert (dataset.images.dtype, dataset.labels.dtype) == (np.uint8, np.int64)
    assert len(dataset.classes) == NUM_CLASSES[name]
    np.testing.assert_array_equal(dataset.images, np.concatenate([images for images, _ in drawn]))
    np.testing.assert_array_equal(dataset.labels, np.concatenate([labels for _, labels in drawn]))


@few_records
@pytest.mark.parametrize(("name", "split"), FILES)
def test_the_binary_layout_comes_back_as_written(tmp_path, name, split):
    folder = write_binary(tmp_path, name, split)
    for data_dir in (tmp_path, folder, str(folder)):
        assert_is_what_was_written(load(name, split, data_dir), name, split)


@few_records
@pytest.mark.parametrize(("name", "split"), FILES)
@pytest.mark.parametrize("dump", DUMPS.values(), ids=DUMPS)
def test_the_python_layout_comes_back_as_written(tmp_path, name, split, dump):
    folder = write_python(tmp_path, name, split, dump)
    for data_dir in (tmp_path, folder):
        assert_is_what_was_written(load(name, split, data_dir), name, split)


def test_the_python_2_fixture_is_what_pythons_own_pickle_reads():
    batch = batch_of("cifar10", *draw("cifar10", "test")["test_batch"])
    found = pickle.loads(as_python_2(batch), encoding="bytes")  # noqa: S301
    np.testing.assert_array_equal(found[b"data"], batch[b"data"])
    assert found[b"labels"] == batch[b"labels"]


@few_records
def test_the_binary_layout_is_preferred(tmp_path):
    write_python(tmp_path, "cifar10", "test")
    write_binary(tmp_path, "cifar10", "test", seed=7)
    assert_is_what_was_written(load_cifar(tmp_path, "cifar10", "test"), "cifar10", "test", seed=7)


@few_records
def test_a_whole_split_goes_before_a_part_of_one(tmp_path):
    binary, python = (w(tmp_path, "cifar10", "train") for w in (write_binary, write_python))
    (binary / "data_batch_5.bin").unlink()
    assert_is_what_was_written(load_cifar(tmp_path, "cifar10", "train"), "cifar10", "train")
    (python / "data_batch_1").unlink()
    fails(f"{binary} lacks data_batch_5.bin;", tmp_path)


TEN = [b"kind %d" % i for i in range(10)]
ODD = [TEN[:9], [*TEN, b"x"], *([*TEN[:9], x] for x in (TEN[0], b"\x1b[31mred", b"x" * 50))]


@few_records
@pytest.mark.parametrize("names", [None, TEN, *ODD])
def test_class_names_are_read_if_they_make_sense(tmp_path, names):
    binary = write_binary(tmp_path, "cifar10", "test")
    python = write_python(tmp_path, "cifar10", "test")
    if names is not None:
        (binary / "batches.meta.txt").write_bytes(b"\n".join(names) + b"\n\n")
        (python / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, 2))
    expected = tuple(f"kind {i}" for i in range(10)) if names is TEN else NAMES
    assert load_cifar(binary, "cifar10", "test").classes == expected
    assert load_cifar(python, "cifar10", "test").classes == expected


@few_records
@pytest.mark.parametrize("content", [b"\xff" * 99, b"cos\nsystem\n.", b"(dVlabel_names\nK\x01s."])
def test_class_names_that_cannot_be_read_are_done_without(tmp_path, content):
    binary = write_binary(tmp_path, "cifar100", "test")
    python = write_python(tmp_path, "cifar100", "test")
    (binary / "fine_label_names.txt").write_bytes(content)
    (python / "meta").write_bytes(content)
    for folder in (binary, python):
        assert load_cifar(folder, "cifar100", "test").classes[::99] == ("class 0", "class 99")


def fails(match, data_dir, name="cifar10", split="train"):
    with pytest.raises(DataError, match=match) as caught:
        load_cifar(data_dir, name, split)
    assert str(caught.value).isprintable()


def test_unknown_names_and_splits_are_refused(tmp_path):
    fails("name='cifar11' is unknown; choose one of cifar10, cifar100", tmp_path, name="cifar11")
    fails("split='valid' is unknown; choose one of train, test", tmp_path, split="valid")


def test_a_folder_without_cifar_says_what_was_looked_for_and_what_to_fetch(tmp_path):
    fails("looked for cifar-10-batches-bin/data_batch_1.bin,.* found an empty folder", tmp_path)
    fails(r"cifar-10-batches-py/data_batch_1 .* fetch cifar-10-binary.tar.gz and put it", tmp_path)
    fails("looked for .*/train and cifar-100-binary.tar.gz and cifar", tmp_path, "cifar100")
    (tmp_path / "a.tar.gz").touch()
    fails("found 'a.tar.gz'; fetch", tmp_path)
    fails("a.tar.gz' is neither a folder nor called cifar-10-b.* or", tmp_path / "a.tar.gz")
    fails("absent' does not exist", tmp_path / "absent")
    (tmp_path / BINARY["cifar10"]).mkdir()
    fails("no CIFAR-10 in", tmp_path)
    fails("cannot read .*: File name too long", tmp_path / ("x" * 5000))


@few_records
@pytest.mark.parametrize("write", [write_binary, write_python])
def test_a_missing_file_is_named(tmp_path, write):
    folder = write(tmp_path, "cifar10", "train")
    suffix = ".bin" if write is write_binary else ""
    fails(f"{folder} lacks test_batch{suffix};", tmp_path, split="test")
    (folder / f"data_batch_3{suffix}").unlink()
    (folder / f"data_batch_4{suffix}").unlink()
    (folder / f"data_batch_4{suffix}").mkdir()
    fails(f"lacks data_batch_3{suffix}, data_batch_4{suffix};", tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "size", "message"),
    [
        ("cifar10", "test_batch.bin", 30_730_001, "at most 30,730,000 are expected"),
        ("cifar10", "test_batch.bin", 30_729_999, "10,000 records of 3,073 bytes are 30,730,000"),
        ("cifar100", "test.bin", 30_730_000, "10,000 records of 3,074 bytes are 30,740,000"),
        ("cifar10", "test_batch", 64_065_537, "at most 64,065,536 are expected"),
        ("cifar100", "test", 64_065_537, "at most 64,065,536 are expected"),
    ],
)
def test_a_file_of_a_wrong_size_is_refused(tmp_path, name, file, size, message):
    (tmp_path / file).touch()
    os.truncate(tmp_path / file, size)  # sparse: it takes no space
    fails(f"{file} has {size:,} bytes; {message}$", tmp_path, name, "test")


@few_records
@pytest.mark.parametrize(
    ("name", "byte", "message"),
    [
        ("cifar10", 3073, "test_batch.bin: record 1 has label 222; allowed are 0 to 9"),
        ("cifar100", 3074, "test.bin: record 1 has coarse label 222; allowed are 0 to 19"),
        ("cifar100", 3075, "test.bin: record 1 has fine label 222; allowed are 0 to 99"),
    ],
)
def test_a_label_byte_out_of_range_is_named(tmp_path, name, byte, message):
    file = write_binary(tmp_path, name, "test") / f"{FILES[name, 'test'][0]}.bin"
    content = bytearray(file.read_bytes())
    content[byte] = 222
    file.write_bytes(content)
    fails(message, tmp_path, name, "test")


@few_records
@pytest.mark.parametrize(
    ("labels", "pixels", "message"),
    [
        ([0, 10], PIXELS, "record 1 has label 10; allowed are 0 to 9"),
        ([-1, 0], PIXELS, "record 0 has label -1; allowed are 0 to 9"),
        (np.array([0, 1]), PIXELS, "fetch the published file: .*, say with NumPy labels"),
        ([np.int64(0), 1], PIXELS, "fetch the published file: .*, say with NumPy labels"),
        ([0, 2**40], PIXELS, "labels must be a list of 32-bit integers"),
        ([0, True], PIXELS, "labels must be a list of 32-bit integers"),
        ([0], PIXELS, "labels has 1 entries for 2 images"),
        ([0, 1], PIXELS[:1], r"of shape \(2, 3072\), not of shape \(1, 3072\)"),
        ([0, 1], PIXELS.T, r"of shape \(2, 3072\), not of shape \(3072, 2\)"),
        ([0, 1], None, r"data must be a uint8 array of shape \(2, 3072\), not NoneType"),
        ([0, 1], PIXELS + 0.0, "test_batch: the pickle calls dtype with"),
        ([0, 1], Path("x"), "test_batch: the pickle names 'pathlib"),
    ],
)
def test_a_batch_of_something_else_is_refused(tmp_path, labels, pixels, message):
    (tmp_path / "test_batch").write_bytes(pickle.dumps([]))
    fails("test_batch: holds a pickled list, not a dict", tmp_path, split="test")
    (tmp_path / "test_batch").write_bytes(pickle.dumps({"labels": labels, "data": pixels}, 2))
    fails(message, tmp_path, split="test")


@few_records
@pytest.mark.parametrize("write", [write_binary, write_python])
def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch, write):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    folder = write(tmp_path, "cifar10", "test")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    fails(f"cannot read {folder}/test.*: Permission denied", tmp_path, split="test")


def test_the_published_counts_are_those_of_the_sets():
    for name, (train, test) in {"cifar10": (5, 1), "cifar100": (1, 1)}.items():
        published = PUBLISHED[name]
        assert (published.binary, published.python) == (BINARY[name], PYTHON[name])
        assert (len(published.train), len(published.test)) == (train, test)
        assert train * published.records["train"] == 50_000
        assert test * published.records["test"] == 10_000
