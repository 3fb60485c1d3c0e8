"""The loop: what is in a batch, which rates its steps have, what batch norm remembers."""

from itertools import pairwise

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import igc_ref
from igc_ref import data
from igc_ref.backends import NumpyBackend
from igc_ref.networks import BatchNorm
from igc_ref.testing import assert_close
from igc_ref.training import loop
from igc_ref.training.loop import StepByStep, draw, training_step
from igc_ref.training.optim import SGD
from igc_ref.training.session import Session, train
from tests.support.runs import config

pytestmark = pytest.mark.usefixtures("few_images")


def test_an_epoch_sees_every_image_once_each_epoch_in_another_order():
    one, two, again, other = (
        draw(seed, epoch, 60, 16, augment=False).order
        for seed, epoch in ((0, 1), (0, 2), (0, 1), (1, 1))
    )
    assert sorted(one) == sorted(two) == list(range(60))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_of_two_epochs_in_a_row_alternating_mirrors_an_image_in_exactly_one():
    seen = []
    for epoch in range(1, 6):
        random = draw(3, epoch, 60, 16, augment=True)
        order, crops = draw(3, epoch, 60, 16, augment=True, mirror="alternating")
        assert np.array_equal(order, random.order)
        assert np.array_equal(crops[:2], random.crops[:2])  # so that nothing else differs
        seen.append(crops.mirror[np.argsort(order)])
    assert all(np.array_equal(one, ~two) for one, two in pairwise(seen))
    halves = [draw(seed, 1, 60, 16, True, "alternating").crops.mirror for seed in range(40)]
    assert 0.45 < np.mean(halves) < 0.55


@pytest.mark.parametrize("augment", [True, False])
def test_a_batch_is_normalised_padded_cropped_and_mirrored_by_the_numbers_of_its_epoch(augment):
    model = igc_ref.build_model("plain_igc", 5, L=2, M=2, backend="numpy", dtype="float64")
    images = data.shapes("train")
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (images.mean, images.std))
    steps, draws = StepByStep(model, SGD(model), images, 16), draw(5, 2, 60, 16, augment)
    rng = np.random.default_rng([5, 2])  # seed, epoch
    order = rng.permutation(60)
    for number, start in enumerate(range(0, 60, 16)):
        x, labels = steps.batch(draws, number)
        rows = order[start : start + 16]
        top = left = np.full(len(rows), 4)
        mirror = np.zeros(len(rows), bool)
        if augment:
            top, left = rng.integers(0, 9, (2, len(rows)))
            mirror = rng.random(len(rows)) < 0.5
        assert np.array_equal(labels, images.labels[rows])
        for n, row in enumerate(rows):
            padded = np.zeros((3, 40, 40))
            padded[:, 4:36, 4:36] = (images.images[row] - mean) / std
            z = padded[:, top[n] : top[n] + 32, left[n] : left[n] + 32]
            assert_close(x[n], z[:, :, ::-1] if mirror[n] else z, 10)


STEP = [0.5] * 8 + [0.05] * 4 + [0.005] * 2 + [0.0005] * 2  # 16 steps, four an epoch
CYCLE = [0.5 * min((i + 0.5) / 4, (15.5 - i) / 12) for i in range(16)]


@pytest.mark.parametrize(("schedule", "expected"), [("step", STEP), ("onecycle", CYCLE)])
def test_a_run_follows_the_schedule_with_its_momentum_and_weight_decay(
    tmp_path, monkeypatch, schedule, expected
):
    used = []

    def record(self, weight, gradient, velocity, *, lr, momentum, weight_decay):
        used.append((lr, momentum, weight_decay))

    monkeypatch.setattr(NumpyBackend, "sgd_step", record)
    numbers = {"schedule": schedule, "lr": 0.5, "momentum": 0.7, "weight_decay": 0.01, "epochs": 4}
    train(config(tmp_path, **numbers))
    rates = [lr for lr, _, _ in used[:: len(used) // 16]]
    assert rates == pytest.approx(expected)
    assert set(used) == {(lr, 0.7, 0.01) for lr in rates}


def test_the_mean_loss_of_an_epoch_weighs_images_not_batches(tmp_path, monkeypatch):
    results = iter([(1.0, 3), (1.0, 3), (1.0, 3), (5.0, 1)])  # the last batch has 12 of 60
    monkeypatch.setattr(loop, "training_step", lambda *arguments: next(results))
    (record,) = train(config(tmp_path, epochs=1)).records
    assert record["train_loss"] == pytest.approx((48 * 1.0 + 12 * 5.0) / 60)
    assert record["train_accuracy"] == pytest.approx(10 / 60)


def test_the_loss_of_a_run_is_smoothed_but_not_that_of_its_tests(tmp_path, monkeypatch):
    seen, loss = [], NumpyBackend.loss
    monkeypatch.setattr(NumpyBackend, "loss", lambda *a: seen.append(sum(a[3:])) or loss(*a))
    train(config(tmp_path, epochs=1, label_smoothing=0.3))
    assert seen == [0.3] * 4 + [0]


def test_the_seed_of_a_run_is_the_seed_of_its_weights(tmp_path):
    ours = Session(config(tmp_path, seed=5)).model.state_dict()
    expected = igc_ref.build_model("plain_igc", 5, L=2, M=2, backend="numpy", seed=5).state_dict()
    assert all(np.array_equal(ours[name], array) for name, array in expected.items())


@pytest.mark.parametrize(
    ("changes", "momentum"),
    [
        ({}, 0.9),
        ({"bn_momentum": 0.5}, 0.5),
        ({"bn_momentum": None}, 0.99),
        ({"bn_momentum": None, "arch": "resnet_igc", "depth": 8}, 0.9),
    ],
)
def test_running_averages_keep_of_the_past_what_the_run_says(tmp_path, changes, momentum):
    session = Session(config(tmp_path, dtype="float64", **changes))
    model, optimiser = session.model, session.optimiser
    norms = [
        (name, layer)
        for name, layer in model.network.named_layers()
        if isinstance(layer, BatchNorm)
    ]
    assert {norm.momentum for _, norm in norms} == {momentum}
    x = np.random.default_rng(0).normal(size=(4, 3, 32, 32))
    stem = model.network.children["stem"].children["conv"].forward(model.backend.to_layout(x))
    mean = model.backend.from_layout(stem).mean(axis=(0, 2, 3))
    training_step(model, optimiser, model.backend.to_layout(x), np.array([1, 2, 3, 4]), 0.1)
    assert_close(model.state_dict()["stem.bn.running_mean"], (1 - momentum) * mean, 1000)


def test_numpy_trains_with_blas_on_one_thread_after_preparing_and_gives_the_threads_back(
    tmp_path, monkeypatch
):
    def blas_threads():
        return [m["num_threads"] for m in threadpool_info() if m["user_api"] == "blas"]

    def watching(*arguments):
        seen.append(blas_threads())
        return training_step(*arguments)

    before, seen = blas_threads(), []
    monkeypatch.setattr(NumpyBackend, "prepare", lambda self, *call: seen.append(call))
    monkeypatch.setattr(loop, "training_step", watching)
    lines = []
    report = lines.append
    train(config(tmp_path, epochs=1), report)
    assert seen[0] == ("float32", report)
    assert len(seen) == 5
    assert all(set(threads) <= {1} for threads in seen[1:])
    assert blas_threads() == before


def test_a_small_network_learns(tmp_path):
    changes = {"L": 4, "M": 4, "epochs": 20, "lr": 0.1, "augment": False}
    first, *_, last = train(config(tmp_path, **changes)).records
    assert last["train_accuracy"] > 0.5  # chance is 0.1
    assert last["train_loss"] < 0.7 * first["train_loss"]
    assert last["test_accuracy"] > 0.2


def test_a_data_set_with_other_than_ten_classes_trains_a_network_with_as_many(
    tmp_path, monkeypatch
):
    def three_classes(name, split, *rest):
        drawn = data.shapes("test")
        statistics = drawn.mean, drawn.std
        return data.Dataset(
            f"three/{split}", drawn.images, drawn.labels % 3, drawn.classes[:3], *statistics
        )

    monkeypatch.setattr(data, "load", three_classes)
    run = igc_ref.train(config(tmp_path, epochs=1)).run
    model, _ = igc_ref.training.folder.load_run(run, "numpy")
    assert model.state_dict()["linear.bias"].shape == (3,)
