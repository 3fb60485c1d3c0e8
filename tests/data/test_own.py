"""A user's own images: from a folder and from an ``.npz``, with their statistics and refusals."""

import os
import sys

import numpy as np
import pytest

from igc_ref import data
from igc_ref.data.download import cache_folder
from igc_ref.errors import DataError, SpecError
from igc_ref.report import silent

Image = pytest.importorskip("PIL.Image")
PETS = ("bird", "cat", "dog")
TRAIN, TEST = np.split(np.random.default_rng(0).integers(0, 256, (12, 24, 20, 3), np.uint8), [9])
ARRAYS = {
    "images": TRAIN, "labels": np.arange(9) // 3, "test_images": TEST, "test_labels": np.arange(3),
    "classes": np.array(PETS),
}  # fmt: skip


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def pets(tmp_path):
    """Nine images to train on and two to test on: no bird among these."""
    for number, image in enumerate(TRAIN):
        write(tmp_path / f"pets/train/{PETS[number // 3]}/{number}.PNG", image)
    for name, image in zip(PETS[1:], TEST[1:], strict=True):
        write(tmp_path / f"pets/test/{name}/0.png", image)
    return tmp_path / "pets"


def test_a_folder_is_read_by_class_and_normalised_by_its_training_images(pets):
    for name in (".hidden.png", "notes.txt"):
        (pets / "train/cat" / name).write_text("no image")
    lines = []
    train, test = (data.load("folder", split, pets, lines.append) for split in ("train", "test"))
    np.testing.assert_array_equal(train.images.transpose(0, 2, 3, 1), TRAIN)
    np.testing.assert_array_equal(test.images.transpose(0, 2, 3, 1), TEST[1:])
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 0, 1, 1, 1, 2, 2, 2], [1, 2])
    pixels = TRAIN.astype(np.float64).reshape(-1, 3)
    for dataset in (train, test):
        assert (dataset.name.split("/")[0], dataset.classes) == ("folder", PETS)
        np.testing.assert_allclose(dataset.mean, pixels.mean(axis=0), rtol=1e-14)
        np.testing.assert_allclose(dataset.std, pixels.std(axis=0), rtol=1e-12)
    assert [line.split()[:3] for line in lines[:-1]] == [["reading", "11", "images"]]
    assert lines[-1] == "there are no test images of bird"


def test_the_cache_is_read_until_a_file_changes(pets):
    def loads():
        lines = []
        images = data.load("folder", "train", pets, lines.append).images
        return images[0, :, 0, 0].tolist(), len(lines)

    file, old, new = pets / "train/bird/0.PNG", TRAIN[0], 255 - TRAIN[0]
    before = len([*cache_folder().glob("folder-*.npz")])
    assert [loads() for _ in range(2)] == [(old[0, 0].tolist(), lines) for lines in (2, 0)]
    time = file.stat().st_mtime_ns
    write(file, new)
    os.utime(file, ns=(time, time + 1))
    assert loads() == (new[0, 0].tolist(), 2)
    assert len([*cache_folder().glob("folder-*.npz")]) == before + 1  # in place of the old one


BROKEN = {
    "no train": (lambda p: (p / "train").rename(p / "tra"), "train holds no classes: DIR"),
    "no test": (lambda p: (p / "test").rename(p / "val"), "test holds no classes: DIR"),
    "empty": (lambda p: (p / "train/ant").mkdir(), r"the class .*ant has no image \(\.png, "),
    "unknown": (lambda p: (p / "test/cat").rename(p / "test/cow"), "cow is a class that train"),
    "sizes": (
        lambda p: write(p / "train/dog/7.png", np.zeros((30, 40, 3), np.uint8)),
        r"7\.png has shape \(3, 30, 40\), .*0\.PNG \(3, 24, 20\): all .* one size",
    ),
    "truncated": (lambda p: os.truncate(p / "train/dog/8.PNG", 300), r"cannot read .*8\.PNG"),
    "a file": (lambda p: (p / "train/dog/9.png").mkdir(), r"9\.png is no file"),
    "no Pillow": (lambda p: None, r'pip install "igc-ref\[images\]"'),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_that_cannot_be_read_is_refused_and_not_cached(pets, name, monkeypatch):
    before, (spoil, match) = sorted(cache_folder().glob("*.npz")), BROKEN[name]
    spoil(pets)
    if name == "no Pillow":
        monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=match):
        data.load("folder", "test", pets)
    assert sorted(cache_folder().glob("*.npz")) == before


def saved(tmp_path, **changes):
    np.savez(tmp_path / "a.npz", **{n: a for n, a in (ARRAYS | changes).items() if a is not None})
    return tmp_path / "a.npz"


def test_arrays_are_taken_in_three_layouts(tmp_path):
    turned = {n: ARRAYS[n].transpose(0, 3, 1, 2) for n in ("images", "test_images")}
    for changes in ({}, turned | {"labels": ARRAYS["labels"].astype("u1")[:, None]}):
        found = data.load("npz", "train", saved(tmp_path, **changes))
        np.testing.assert_array_equal(found.images, TRAIN.transpose(0, 3, 1, 2))
        assert (found.labels.tolist(), found.classes) == (ARRAYS["labels"].tolist(), PETS)
    grey = saved(tmp_path, images=np.full((9, 24, 20), 7, np.uint8), test_images=TEST[..., 0])
    constant, test = (data.load("npz", split, grey) for split in ("train", "test"))
    assert (constant.mean, constant.std) == ((7.0,) * 3, (1.0,) * 3)
    np.testing.assert_array_equal(test.images, np.stack([TEST[..., 0]] * 3, axis=1))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"images": TRAIN / 255}, r"npz/train: images must be uint8 .* not float64 of"),
        ({"images": TRAIN[..., :2]}, r"images of shape \(9, 24, 20, 2\) have no 3 channels"),
        ({"images": TRAIN[:, :0]}, r"is empty: its images have shape \(9, 3, 0, 20\)"),
        ({"labels": np.arange(9.0)}, r"npz/train: 9 images, but labels are float64"),
        ({"labels": np.array(["cat"] * 9)}, r"labels are <U3 of shape \(9,\); one int64"),
        ({"test_labels": np.arange(2)}, r"npz/test: 3 images, but labels are int64 of shape \(2,"),
        ({"test_labels": np.arange(3) + 1}, "npz/test: record 2 has label 3; allowed are 0 to 2"),
        ({"classes": None}, "has no array 'classes'"),
        ({"test_images": TEST[:, :8]}, r"\(3, 24, 20\) and test_images of \(3, 8, 20\)"),
    ],
)
def test_arrays_that_are_not_as_described_are_refused_with_their_numbers(tmp_path, changes, match):
    for split in ("train", "test"):
        with pytest.raises(DataError, match=rf"a\.npz.*{match}"):
            data.load("npz", split, saved(tmp_path, **changes))
    with pytest.raises(DataError, match=r"cannot use .*No such file"):
        data.load("npz", "train", tmp_path / "b.npz")


def test_a_size_draws_so_many_shapes_and_chooses_of_other_images_always_the_same(tmp_path):
    assert len(data.load("shapes", "train", size=40)) == 40
    path = saved(tmp_path)
    part, again = (data.load("npz", "train", path, silent, 5) for _ in range(2))
    rows = [[(image == one).all() for one in TRAIN].index(True)
            for image in part.images.transpose(0, 2, 3, 1)]  # fmt: skip
    assert len(set(rows)) == 5
    assert sorted(rows) != list(range(5))
    assert part.labels.tolist() == [row // 3 for row in rows]
    assert data.fingerprint(part) == data.fingerprint(again)
    assert len(data.load("npz", "test", path, silent, 2)) == 3
    with pytest.raises(SpecError, match="data_size=10 is too large; at most 9"):
        data.load("npz", "train", path, silent, 10)
