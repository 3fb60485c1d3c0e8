"""The built-in sequences: reproducible, balanced, and out of a linear model's reach."""

import numpy as np
import pytest

from benchmarks.linear_baseline import linear_softmax
from igc_ref import TrainConfig, data, train
from igc_ref.data.waves import SIGNALS, waves
from igc_ref.errors import DataError, SpecError

TRAIN, TEST = waves("train"), waves("test")
LABELS = [4, 2, 6, 2, 6, 4, 4, 4, 1, 1]
SAMPLES = [[160, 148, 126, 95, 98, 185, 136, 145], [144, 191, 142, 107, 76, 104, 152, 166]]


def test_sizes_classes_and_statistics():
    for dataset, size in ((TRAIN, 3000), (TEST, 1000)):
        assert (dataset.images.shape, dataset.images.dtype) == ((size, 1, 1, 128), np.uint8)
        assert np.bincount(dataset.labels).tolist() == [size // 10] * 10
        assert np.any(np.diff(dataset.labels) < 0)
        assert dataset.about == data.ABOUT["waves"]
    np.testing.assert_allclose(TRAIN.mean, TRAIN.images.mean(), atol=0.1)
    np.testing.assert_allclose(TRAIN.std, TRAIN.images.std(), atol=0.1)
    assert len(data.load("waves", "train", size=17)) == 17
    assert data.fingerprint(data.load("waves", "test", size=17)) == data.fingerprint(TEST)


def test_a_seed_gives_the_same_bytes_and_streams_share_no_signal():
    again = [waves(split, 200, seed) for split, seed in (("train", 7), ("train", 7), ("test", 7))]
    assert data.fingerprint(again[0]) == data.fingerprint(again[1])
    streams = [TRAIN, TEST, again[0], again[2]]
    bytes_of = [{image.tobytes() for image in of.images} for of in streams]
    assert len(set().union(*bytes_of)) == sum(map(len, streams))


def test_a_signal_of_the_default_set_is_the_one_published():
    """Another signal here is another data set: quoted accuracies would no longer hold."""
    assert TEST.labels[:10].tolist() == LABELS
    np.testing.assert_allclose(TEST.images[:2, 0, 0, ::16].astype(int), SAMPLES, atol=1)


def clean(name, frequency, n=50):
    """Signals of a class without noise, and the turns of their carrier."""
    phase = frequency * np.arange(128) / 128 + np.linspace(0.003, 0.99, n)[:, None]
    return phase, SIGNALS[name](phase, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["sine", "square", "triangle", "sawtooth", "impulses"])
def test_a_periodic_signal_repeats_after_a_turn_and_no_sooner(name):
    _, y = clean(name, 8)  # 16 samples a period
    np.testing.assert_allclose(y[:, 16:], y[:, :-16], atol=1e-9)
    assert all(abs(y[:, d:] - y[:, :-d]).max() > 0.2 for d in range(1, 16))


def test_chirps_rise_and_fall_and_only_a_beat_turns_over():
    for name, sign in (("chirp up", 1), ("chirp down", -1)):
        half = [np.abs(np.diff(np.sign(part))).sum() for part in np.split(clean(name, 8)[1], 2, 1)]
        assert sign * (half[1] - half[0]) > half[0] / 2  # crossings of zero
    for name, turned in (("beat", True), ("modulated", False)):
        phase, y = clean(name, 6)
        agrees = y * np.sin(3 * np.pi * phase)  # with the carrier
        assert (agrees.min() < -0.5) == turned
        assert agrees.max() > 0.9


def test_a_linear_model_stays_below_60_percent():
    assert linear_softmax(TRAIN, TEST, epochs=12, decays=(0.1,)).test_accuracy < 0.6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("valid",), "split='valid' is unknown; choose one of train, test"),
        (("train", 0), "size=0 is not an integer of at least 1"),
        (("train", 10, -1), "seed=-1 is not an integer of at least 0"),
    ],
)
def test_arguments_that_make_no_set_are_named(arguments, message):
    with pytest.raises((DataError, SpecError), match=message):
        waves(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_small_igc_network_of_one_dimension_reaches_95_percent(tmp_path, seed):
    config = TrainConfig(data="waves", dims="1", seed=seed, out=str(tmp_path / "run"))
    assert train(config).test_accuracy >= 0.95
