"""The built-in data set: reproducible, balanced, fair, and out of a linear model's reach."""

import numpy as np
import pytest

from benchmarks.linear_baseline import linear_softmax
from igc_ref.data.dataset import Dataset
from igc_ref.data.shapes import FIGURES, _cover, shapes
from igc_ref.errors import DataError, SpecError


@pytest.fixture(scope="module")
def training() -> Dataset:
    return shapes("train")


@pytest.fixture(scope="module")
def held_out() -> Dataset:
    return shapes("test")


def test_default_sizes_dtypes_and_names(training: Dataset, held_out: Dataset) -> None:
    assert training.images.shape == (3000, 3, 32, 32)
    assert held_out.images.shape == (1000, 3, 32, 32)
    assert training.images.dtype == np.uint8
    assert training.labels.dtype == np.int64
    assert training.classes == held_out.classes == tuple(FIGURES)
    assert len(set(training.classes)) == 10
    assert (training.name, held_out.name) == ("shapes/train", "shapes/test")
    assert (held_out.images.min(), held_out.images.max()) == (0, 255)


@pytest.mark.parametrize("split", ["train", "test"])
def test_same_seed_same_bytes(split: str) -> None:
    a, b = shapes(split, 200, seed=7), shapes(split, 200, seed=7)
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.labels, b.labels)


def test_the_global_generator_has_no_say() -> None:
    drawn = []
    for size in (0, 20):
        np.random.seed(1)  # noqa: NPY002
        if size:
            shapes("test", size)
        drawn.append(np.random.random())  # noqa: NPY002
    assert drawn[0] == drawn[1]


PUBLISHED_LABELS = [1, 7, 9, 1, 5, 5, 6, 1, 6, 0]
PUBLISHED_PIXELS = [
    [[215, 207, 231, 209], [208, 128, 117, 223], [207, 107, 169, 223], [222, 221, 220, 245]],
    [[68, 35, 42, 22], [34, 160, 148, 21], [43, 147, 91, 27], [60, 41, 16, 42]],
    [[204, 210, 232, 224], [190, 94, 92, 215], [199, 85, 144, 224], [220, 212, 207, 221]],
]


def test_an_image_of_the_default_set_is_the_one_published() -> None:
    """Another image here is another data set: quoted accuracies would no longer hold."""
    data = shapes("test", 30)
    assert data.labels[:10].tolist() == PUBLISHED_LABELS
    got = data.images[0, :, ::8, ::8].astype(int)  # rounding may differ in one unit elsewhere
    np.testing.assert_allclose(got, PUBLISHED_PIXELS, atol=1)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        pytest.param(("train", 0), ("test", 0), id="splits"),
        pytest.param(("train", 0), ("train", 1), id="seeds"),
        pytest.param(("train", 1), ("test", 0), id="both"),
    ],
)
def test_other_streams_share_no_image(a: tuple[str, int], b: tuple[str, int]) -> None:
    sets = [shapes(split, 300, seed=seed) for split, seed in (a, b)]
    assert not np.array_equal(sets[0].labels, sets[1].labels)
    first, second = ({image.tobytes() for image in data.images} for data in sets)
    assert len(first) == len(second) == 300
    assert not first & second


def test_classes_are_balanced_exactly_and_shuffled(training: Dataset, held_out: Dataset) -> None:
    assert np.bincount(training.labels).tolist() == [300] * 10
    assert np.bincount(held_out.labels).tolist() == [100] * 10
    assert np.bincount(training.labels[:1000], minlength=10).min() > 60
    assert np.any(np.diff(training.labels) < 0)


@pytest.mark.parametrize("size", [1, 3, 17])
def test_any_size_is_balanced_within_one(size: int) -> None:
    counts = np.bincount(shapes("train", size).labels, minlength=10)
    assert counts.sum() == size
    assert counts.max() - counts.min() <= 1


def test_both_splits_are_normalised_by_the_statistics_of_train(
    training: Dataset, held_out: Dataset
) -> None:
    assert (training.mean, training.std) == (held_out.mean, held_out.std)
    np.testing.assert_allclose(training.mean, training.images.mean(axis=(0, 2, 3)), atol=0.1)
    np.testing.assert_allclose(training.std, training.images.std(axis=(0, 2, 3)), atol=0.1)


@pytest.mark.parametrize("name", FIGURES)
def test_mirrored_figure_is_the_same_figure(name: str) -> None:
    """d(-x, y) = d(x, y), so a mirrored image is one that the class could have drawn."""
    figure, _ = FIGURES[name]
    x, y = np.random.default_rng(0).uniform(-2.0, 2.0, (2, 1000))
    t = np.linspace(0.0, 1.0, 1000)
    np.testing.assert_allclose(figure(-x, y, t), figure(x, y, t), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", FIGURES)
def test_distance_is_no_steeper_than_the_plane(name: str) -> None:
    """|d(p) - d(q)| <= |p - q|, so edges are as soft as asked; and there is an in and an out."""
    figure, _ = FIGURES[name]
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-1.3, 1.3, (2, 5000))
    t, step, angle = rng.uniform(0.0, 1.0, 5000), 1e-3, rng.uniform(0.0, 6.28, 5000)
    here = figure(x, y, t)
    there = figure(x + step * np.cos(angle), y + step * np.sin(angle), t)
    assert np.abs(there - here).max() <= step * (1 + 1e-6)
    assert 0.1 < np.mean(here < 0) < 0.9


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("rows", [slice(4, 36), slice(-4, 28)], ids=["up", "down"])
@pytest.mark.parametrize("columns", [slice(4, 36), slice(-4, 28)], ids=["left", "right"])
def test_shift_by_four_pixels_keeps_most_of_the_figure(
    name: str, rows: slice, columns: slice
) -> None:
    figure, turn = FIGURES[name]
    cover = _cover(figure, turn, 500, np.random.default_rng(2))[:, 0]
    kept = cover[:, max(rows.start, 0) : rows.stop, max(columns.start, 0) : columns.stop]
    share = kept.sum(axis=(1, 2)) / cover.sum(axis=(1, 2))
    assert np.quantile(share, 0.01) > 0.5
    assert share.mean() > 0.75


@pytest.mark.parametrize("name", FIGURES)
def test_images_of_a_class_vary(training: Dataset, name: str) -> None:
    """Every pixel varies about as much within the class as within the whole set."""
    figures = training.images[training.labels == training.classes.index(name)].astype(float)
    assert len({image.tobytes() for image in figures}) == len(figures)
    assert figures.std(axis=0).min() > 50
    assert np.abs(figures.mean(axis=0) - 127.5).max() < 20


def test_either_colour_is_the_brighter(held_out: Dataset) -> None:
    """The middle of a square's image lies mostly within it, the corners mostly outside."""
    squares = held_out.images[held_out.labels == held_out.classes.index("square")].mean(axis=1)
    middle = squares[:, 14:18, 14:18].mean(axis=(1, 2))
    corners = squares[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=1)
    assert 0.3 < np.mean(middle > corners) < 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Train",), "split='Train' is unknown; choose one of train, test"),
        (("train", 0), "size=0 is not an integer of at least 1"),
        (("train", 2.5), r"size=2\.5 is not an integer of at least 1"),
        (("train", 10, -1), "seed=-1 is not an integer of at least 0"),
    ],
)
def test_arguments_that_make_no_set_are_named(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises((DataError, SpecError), match=message):
        shapes(*arguments)  # type: ignore[arg-type]


def test_brightness_and_contrast_do_not_tell_the_classes(
    training: Dataset, held_out: Dataset
) -> None:
    """Nearest class centroid on the mean and deviation of each channel stays near chance."""

    def statistics(data: Dataset) -> np.ndarray:
        pixels = data.images.reshape(len(data), 3, -1)
        return np.concatenate([pixels.mean(axis=2), pixels.std(axis=2)], axis=1)  # (n, 6)

    known = statistics(training)
    centroids = np.stack([known[training.labels == label].mean(axis=0) for label in range(10)])
    apart = (statistics(held_out)[:, None] - centroids) / known.std(axis=0)
    guess = np.argmin((apart**2).sum(axis=2), axis=1)
    assert np.mean(guess == held_out.labels) < 0.4


@pytest.mark.slow
def test_linear_softmax_fails(training: Dataset, held_out: Dataset) -> None:
    fit = linear_softmax(training, held_out, epochs=30)
    assert fit.train_accuracy > 0.2  # it did learn what it could
    assert fit.test_accuracy < 0.6
