"""CIFAR readers: both layouts give back what was written, and every damage has its own message."""

import io
import os
import pickle
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from igc_ref.data import cifar, load
from igc_ref.data.cifar import PUBLISHED, load_cifar
from igc_ref.errors import DataError

RECORDS = {"train": 3, "test": 2}  # in each file of these tests
FILES = {
    ("cifar10", "train"): [f"data_batch_{i}" for i in range(1, 6)],
    ("cifar10", "test"): ["test_batch"],
    **{("cifar100", split): [split] for split in RECORDS},
}
BINARY = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
PYTHON = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = np.zeros((2, 3072), np.uint8)
STATISTICS = {
    "cifar10": ((125.307, 122.950, 113.865), (62.993, 62.089, 66.705)),
    "cifar100": ((129.304, 124.070, 112.434), (68.170, 65.392, 70.418)),
}


@pytest.fixture(autouse=True)
def _few_records(monkeypatch):
    for name, published in PUBLISHED.items():
        monkeypatch.setitem(PUBLISHED, name, replace(published, records=RECORDS))


def draw(name, split, seed=0):
    """Pictures and labels of a small set, file by file."""
    rng = np.random.default_rng([seed, len(name), len(split)])
    count, classes = RECORDS[split], {"cifar10": 10, "cifar100": 100}[name]
    return {
        file: (rng.integers(0, 256, (count, 3, 32, 32), np.uint8), rng.integers(0, classes, count))
        for file in FILES[name, split]
    }


def write_binary(root, name, split, seed=0):
    folder = root / BINARY[name]
    folder.mkdir(exist_ok=True)
    for file, (images, labels) in draw(name, split, seed).items():
        with (folder / f"{file}.bin").open("wb") as out:
            for (red, green, blue), label in zip(images, labels, strict=True):
                out.write(bytes([label // 5, label] if name == "cifar100" else [label]))
                out.write(red.tobytes() + green.tobytes() + blue.tobytes())
    return folder


def batch_of(name, images, labels):
    rows = np.stack([np.concatenate([plane.ravel() for plane in image]) for image in images])
    key = b"fine_labels" if name == "cifar100" else b"labels"
    return {key: [int(label) for label in labels], b"data": rows}


def write_python(root, name, split, dump):
    folder = root / PYTHON[name]
    folder.mkdir(exist_ok=True)
    for file, (images, labels) in draw(name, split).items():
        (folder / file).write_bytes(dump(batch_of(name, images, labels)))
    return folder


PYTHON_2 = (  # as its cPickle wrote in protocol 2, where all text is bytes
    b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x0ftesting batch 1q\x03U%c%bq\x04]q\x05(%be"
    b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\t"
    b"U\x01bq\n\x87q\x0bRq\x0c(K\x01K%cM\x00\x0c\x86q\rcnumpy\ndtype\nq\x0eU\x02u1q\x0f"
    b"K\x00K\x01\x87q\x10Rq\x11(K\x03U\x01|q\x12NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x13b\x89T%b%btq\x14bu."
)


def as_python_2(batch):
    (key, labels), (_, data) = batch.items()
    pushed = b"".join(b"K%c" % label for label in labels)
    size = data.size.to_bytes(4, "little")
    return PYTHON_2 % (len(key), key, pushed, len(labels), size, data.tobytes())


DUMPS = {f"protocol {p}": lambda batch, p=p: pickle.dumps(batch, p) for p in range(6)}
DUMPS["text keys"] = lambda batch: pickle.dumps({key.decode(): batch[key] for key in batch})
DUMPS["Python 2"] = as_python_2


def assert_is_what_was_written(dataset, name, split, seed=0):
    drawn = draw(name, split, seed).values()
    assert dataset.name == f"{name}/{split}"
    assert (dataset.mean, dataset.std) == STATISTICS[name]
    assert (dataset.images.dtype, dataset.labels.dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(dataset.images, np.concatenate([images for images, _ in drawn]))
    np.testing.assert_array_equal(dataset.labels, np.concatenate([labels for _, labels in drawn]))


@pytest.mark.parametrize(("name", "split"), FILES)
@pytest.mark.parametrize("chunk", [1, 2, 1000])
def test_the_binary_layout_comes_back_as_written(tmp_path, monkeypatch, name, split, chunk):
    monkeypatch.setattr(cifar, "CHUNK", chunk)
    folder = write_binary(tmp_path, name, split)
    for data_dir in (tmp_path, folder, str(folder)):
        assert_is_what_was_written(load(name, split, data_dir), name, split)


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


def test_the_binary_layout_is_preferred(tmp_path):
    write_python(tmp_path, "cifar10", "test", pickle.dumps)
    write_binary(tmp_path, "cifar10", "test", seed=7)
    assert_is_what_was_written(load_cifar(tmp_path, "cifar10", "test"), "cifar10", "test", seed=7)


TEN = [b"kind %d" % i for i in range(10)]
ODD = [TEN[:9], [*TEN, b"x"], *([*TEN[:9], x] for x in (TEN[0], b"\x1b[31mred", b"x" * 50))]


@pytest.mark.parametrize("names", [None, TEN, *ODD])
def test_class_names_are_read_if_they_make_sense(tmp_path, names):
    binary = write_binary(tmp_path, "cifar10", "test")
    python = write_python(tmp_path, "cifar10", "test", pickle.dumps)
    if names is not None:
        (binary / "batches.meta.txt").write_bytes(b"\n".join(names) + b"\n\n")
        (python / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, 2))
    expected = tuple(f"kind {i}" for i in range(10)) if names is TEN else NAMES
    assert load_cifar(binary, "cifar10", "test").classes == expected
    assert load_cifar(python, "cifar10", "test").classes == expected


@pytest.mark.parametrize(
    "content", [b"\xff" * 99, b"\n" * 70_000, b"cos\nsystem\n.", b"(dVlabel_names\nK\x01s."]
)
def test_class_names_that_cannot_be_read_are_done_without(tmp_path, content):
    binary = write_binary(tmp_path, "cifar100", "test")
    python = write_python(tmp_path, "cifar100", "test", pickle.dumps)
    (binary / "fine_label_names.txt").write_bytes(content)
    (python / "meta").write_bytes(content)
    for folder in (binary, python):
        assert load_cifar(folder, "cifar100", "test").classes[::99] == ("class 0", "class 99")


def fails(match, data_dir, name="cifar10", split="train"):
    with pytest.raises(DataError, match=match):
        load_cifar(data_dir, name, split)


def test_unknown_names_and_splits_are_refused(tmp_path):
    fails("name='cifar11' is unknown; choose one of cifar10, cifar100", tmp_path, name="cifar11")
    fails("split='valid' is unknown; choose train or test", tmp_path, split="valid")


def test_a_folder_without_cifar_says_what_was_looked_for_and_what_to_fetch(tmp_path):
    fails("looked for cifar-10-batches-bin/data_batch_1.bin,.* found an empty folder", tmp_path)
    fails(r"cifar-10-batches-py/data_batch_1 .* fetch cifar-10-binary.tar.gz and put it", tmp_path)
    fails("looked for .*/train and cifar-100-binary.tar.gz and cifar", tmp_path, "cifar100")
    (tmp_path / "a.tar.gz").touch()
    fails("found 'a.tar.gz'; fetch", tmp_path)
    fails("a.tar.gz' is not a folder", tmp_path / "a.tar.gz")
    fails("absent' does not exist", tmp_path / "absent")
    (tmp_path / BINARY["cifar10"]).mkdir()
    fails("no CIFAR-10 in", tmp_path)
    fails("cannot read .*: File name too long", tmp_path / ("x" * 5000))


@pytest.mark.parametrize("write", [write_binary, lambda *args: write_python(*args, pickle.dumps)])
def test_a_missing_file_is_named(tmp_path, write):
    folder = write(tmp_path, "cifar10", "train")
    suffix = ".bin" if folder.name.endswith("bin") else ""
    fails(f"{folder} lacks test_batch{suffix};", tmp_path, split="test")
    (folder / f"data_batch_3{suffix}").unlink()
    (folder / f"data_batch_4{suffix}").unlink()
    (folder / f"data_batch_4{suffix}").mkdir()
    fails(f"lacks data_batch_3{suffix}, data_batch_4{suffix};", tmp_path)


@pytest.mark.parametrize(
    ("name", "split", "size", "message"),
    [
        ("cifar10", "train", 30_729_999, "10,000 records of 3,073 bytes are 30,730,000"),
        ("cifar10", "test", 0, "10,000 records of 3,073 bytes are 30,730,000"),
        ("cifar100", "train", 153_700_001, "50,000 records of 3,074 bytes are 153,700,000"),
        ("cifar100", "test", 30_730_000, "10,000 records of 3,074 bytes are 30,740,000"),
    ],
)
def test_a_binary_file_of_wrong_size_is_refused(tmp_path, monkeypatch, name, split, size, message):
    monkeypatch.undo()  # the published counts
    for file in FILES[name, split]:  # sparse: they take no space
        (tmp_path / f"{file}.bin").touch()
        os.truncate(tmp_path / f"{file}.bin", 30_730_000)
    os.truncate(tmp_path / f"{FILES[name, split][0]}.bin", size)
    fails(f"{FILES[name, split][0]}.bin has {size:,} bytes; {message}$", tmp_path, name, split)


@pytest.mark.parametrize("name", PYTHON)
def test_an_oversized_pickle_is_not_read(tmp_path, monkeypatch, name):
    monkeypatch.undo()  # the published counts
    file = tmp_path / FILES[name, "test"][0]
    file.touch()
    os.truncate(file, 64_065_537)
    fails("has 64,065,537 bytes; at most 64,065,536 are expected", tmp_path, name, "test")


@pytest.mark.parametrize(
    ("name", "byte", "message"),
    [
        ("cifar10", 3073, "test_batch.bin: record 1 has label 222; allowed are 0 to 9"),
        ("cifar100", 3074, "test.bin: record 1 has coarse label 222; allowed are 0 to 19"),
        ("cifar100", 3075, "test.bin: record 1 has fine label 222; allowed are 0 to 99"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1000])
def test_a_label_byte_out_of_range_is_named(tmp_path, monkeypatch, name, byte, message, chunk):
    monkeypatch.setattr(cifar, "CHUNK", chunk)
    file = write_binary(tmp_path, name, "test") / f"{FILES[name, 'test'][0]}.bin"
    content = bytearray(file.read_bytes())
    content[byte] = 222
    file.write_bytes(content)
    fails(message, tmp_path, name, "test")


@pytest.mark.parametrize(
    ("labels", "pixels", "message"),
    [
        ([0, 10], PIXELS, "record 1 has label 10; allowed are 0 to 9"),
        ([-1, 0], PIXELS, "record 0 has label -1; allowed are 0 to 9"),
        ([0, 2**40], PIXELS, "labels must be a list of 32-bit integers"),
        ([0, True], PIXELS, "labels must be a list of 32-bit integers"),
        ([0], PIXELS, "labels has 1 entries for 2 pictures"),
        ([0, 1], PIXELS[:1], r"of shape \(2, 3072\), not of shape \(1, 3072\)"),
        ([0, 1], PIXELS.T, r"of shape \(2, 3072\), not of shape \(3072, 2\)"),
        ([0, 1], None, r"data must be a uint8 array of shape \(2, 3072\), not NoneType"),
        ([0, 1], PIXELS + 0.0, "test_batch: the pickle calls dtype with"),
        ([0, 1], Path("x"), "test_batch: the pickle names 'pathlib"),
    ],
)
def test_a_batch_of_something_else_is_refused(tmp_path, labels, pixels, message):
    (tmp_path / "test_batch").write_bytes(pickle.dumps([labels]))
    fails("test_batch: holds a pickled list, not a dict", tmp_path, split="test")
    (tmp_path / "test_batch").write_bytes(pickle.dumps({"labels": labels, "data": pixels}, 2))
    fails(message, tmp_path, split="test")


@pytest.mark.parametrize("name", BINARY)
def test_a_file_that_cannot_be_opened_or_shrinks_is_named(tmp_path, monkeypatch, name):
    folder = write_binary(tmp_path, name, "test")

    def refuse(path, _):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    fails(f"cannot read {folder}/test.*bin: Permission denied", tmp_path, name, "test")
    monkeypatch.setattr(Path, "open", lambda *_: io.BytesIO(b"\0" * 4000))
    fails("bin became shorter while it was read", tmp_path, name, "test")


def test_reading_takes_little_more_memory_than_the_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "CHUNK", 10)
    many = replace(PUBLISHED["cifar100"], records={"test": 999})
    monkeypatch.setitem(PUBLISHED, "cifar100", many)
    (tmp_path / "test.bin").write_bytes(bytes(999 * 3074))
    tracemalloc.start()
    size = load_cifar(tmp_path, "cifar100", "test").images.nbytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * size


@settings(max_examples=100)
@given(st.sampled_from(sorted(DUMPS)), st.data())
def test_a_mutated_batch_loads_or_raises_a_data_error(tmp_path_factory, dump, data):
    content = bytearray(DUMPS[dump](batch_of("cifar10", *draw("cifar10", "test")["test_batch"])))
    for at in data.draw(st.lists(st.integers(-200, 199), min_size=1, max_size=3)):  # not the pixels
        content[at] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("mutated") / "test_batch"
    file.write_bytes(content)
    with suppress(DataError):
        assert len(load_cifar(file.parent, "cifar10", "test")) == 2
