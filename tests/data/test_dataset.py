"""What a data set is, and the one way in."""

import numpy as np
import pytest

from igc_ref import data
from igc_ref.data import Dataset
from igc_ref.errors import DataError


def make(images=None, labels=(0, 1, 2), classes=("a", "b", "c")):
    images = np.zeros((3, 3, 4, 5), np.uint8) if images is None else images
    return Dataset("some/set", images, np.array(labels), classes, (0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": [1, 2]}, r"images must be a NumPy array, not \[1, 2\]"),
        ({"images": np.zeros((3, 3, 4, 5))}, "must be uint8 .* not float64"),
        ({"images": np.zeros((3, 1, 4, 5), np.uint8)}, r"mean=\(0, 0, 0\) and std=.* not of 1 ch"),
        ({"images": np.zeros((3, 4, 5), np.uint8)}, r"of shape \(3, 4, 5\)"),
        ({"labels": (0, 1)}, r"3 images, but labels are int64 of shape \(2,\)"),
        ({"labels": (0.0, 1.0, 2.0)}, "labels are float64 .*; one int64 an image is needed"),
        ({"labels": (0, -1, 2)}, "record 1 has label -1; allowed are 0 to 2"),
        ({"labels": (0, 1, 3)}, "record 2 has label 3; allowed are 0 to 2"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused_with_their_numbers(arguments, message):
    with pytest.raises(DataError, match=f"some/set: .*{message}"):
        make(**arguments)


def test_a_slice_of_a_data_set_keeps_images_and_labels_together():
    images = np.arange(180, dtype=np.uint8).reshape(3, 3, 4, 5)
    part = make(images)[1:]
    assert len(part) == 2
    assert np.array_equal(part.images, images[1:])
    assert part.labels.tolist() == [1, 2]
    assert (part.classes, part.std) == (("a", "b", "c"), (1, 1, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnist", "train"), "data='mnist' is unknown; choose one of shapes, waves, cifar10, cif"),
        (("shapes", "valid"), "split='valid' is unknown; choose one of train, test"),
        (("cifar100", "test", "/nowhere"), "data_dir='/nowhere' does not exist"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_what_can(arguments, message):
    with pytest.raises(DataError, match=message):
        data.load(*arguments)
