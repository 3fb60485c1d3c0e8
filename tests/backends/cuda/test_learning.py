"""The cupy backend from features to new weights, and its batches, run without a card."""

import numpy as np
import pytest

from igc_ref.backends import NumpyBackend
from igc_ref.backends.operators.library import Crops, Sampling, TrainingData
from igc_ref.testing import assert_close
from tests.backends.cuda import emulator
from tests.backends.cuda.test_pointwise import draw, exactly
from tests.support.guarded import kernels_alone, public

pytestmark = pytest.mark.skipif(bool(emulator.problem()), reason=str(emulator.problem()))
backend = kernels_alone


@pytest.mark.parametrize(("N", "inputs", "out"), [(1, 1, 1), (5, 31, 3), (9, 33, 10), (17, 96, 7)])
def test_the_linear_layer_and_its_gradients(backend, N, inputs, out):
    x, weight, bias, d = draw((N, inputs), (out, inputs), (out,), (N, out))
    y, saved = backend.linear(*map(backend.asarray, (x, weight, bias)))
    gradients = backend.linear_backward(backend.asarray(d), saved)
    x, weight, bias, d = exactly(x, weight, bias, d)
    assert_close(backend.to_numpy(y), x @ weight.T + bias, inputs + 1)
    for actual, exact in zip(gradients, (d @ weight, d.T @ x, d.sum(axis=0)), strict=True):
        assert_close(backend.to_numpy(actual), exact, N + out)


def test_the_linear_layer_takes_what_is_not_contiguous(backend):
    """A kernel gets an address: it would read what lies between."""
    x, weight, bias = draw((32, 5), (32, 3), (6,))
    y, _ = backend.linear(backend.asarray(x).T, backend.asarray(weight).T, bias[::2])
    assert_close(backend.to_numpy(y), exactly(x)[0].T @ exactly(weight)[0] + bias[::2], 33)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize(
    ("N", "classes"), [(1, 2), (9, 10), (8, 33), (300, 5), (3, 257), (2, 1000)]
)
def test_the_loss_its_right_answers_and_its_gradient(backend, N, classes, smoothing):
    logits, labels = 3 * draw((N, classes))[0], np.random.default_rng(1).integers(0, classes, N)
    logits[::2, labels[0]] += 9
    arrays = backend.asarray(logits), backend.asarray(labels)
    loss, correct, dlogits = backend.loss(*arrays, smoothing)
    exact = NumpyBackend().loss(logits.astype("float64"), labels, smoothing)
    assert_close(1 + backend.to_numpy(loss), 1 + exact[0], classes + N)
    assert int(correct) == exact[1] > 0
    right = np.eye(classes)[labels] / N
    assert_close(backend.to_numpy(dlogits) + right.astype("f4"), exact[2] + right, classes)
    assert loss.shape == correct.shape == ()
    for kind in ("int32", "uint8"):
        if classes <= 256:
            assert np.array_equal(backend.loss(logits, labels.astype(kind), smoothing)[0], loss)


def test_the_loss_survives_huge_logits(backend):
    rows = np.array([[1e4, -1e4, 0], [3e38, -3e38, 0], [-1e4, -1e4 - 1, -2e4]], "float32")
    loss, _, dlogits = backend.loss(backend.asarray(rows), backend.asarray(np.zeros(3, int)))
    assert float(loss) == pytest.approx(np.log1p(np.exp(-1)) / 3)
    assert np.isfinite(dlogits).all()
    loss, *_ = backend.loss(backend.asarray(rows[:1]), backend.asarray(np.ones(1, int)))
    assert float(loss) == 2e4


@pytest.mark.parametrize(
    "equal", [(3, 17), (0, 31), (5, 40), (40, 72), (31, 32), (9, 10, 11), (64, 95)]
)
def test_of_equal_logits_the_first_is_the_answer(backend, equal):
    logits = np.zeros((len(equal), 96), "float32")
    logits[:, equal] = 1
    correct = [int(backend.loss(logits[:1], np.array([label]))[1]) for label in equal]
    assert correct == [1] + [0] * (len(equal) - 1)


@pytest.mark.parametrize("label", [-1, 3, 2**32])
def test_a_label_that_is_no_class_makes_the_loss_nan(backend, label):
    """Nobody looks at labels on the device; the loss stops the training instead."""
    labels = backend.asarray(np.array([0, label]))
    loss, correct, _ = backend.loss(backend.asarray(np.ones((2, 3), "float32")), labels)
    assert np.isnan(loss)
    assert int(correct) == 1


def test_a_step_for_many_parameters_is_the_written_out_recurrence(backend):
    shapes = [(1,), (3, 5), (48, 2, 3, 3), (2048,), (0, 4), (7, 1), (5000,)] * 3
    arrays = [draw(*shapes, seed=seed) for seed in range(3)]
    on = [{str(i): backend.asarray(a) for i, a in enumerate(group)} for group in arrays]
    before = [array.copy() for array in on[1].values()]
    numbers = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    for _ in range(2):
        backend.sgd_steps(*on, **numbers)
    for i, (w, g, v) in enumerate(zip(*(exactly(*group) for group in arrays), strict=True)):
        for _ in range(2):
            total = g + 0.01 * w
            v = 0.9 * v + total
            w = w - 0.1 * (total + 0.9 * v)
        assert_close(on[0][str(i)], w, 4)
        assert_close(on[2][str(i)], v, 4)
    assert all(np.array_equal(a, b) for a, b in zip(before, on[1].values(), strict=True))
    assert backend.device.launches == ["sgd"] * 2
    one = [backend.asarray(group[2]) for group in arrays]
    for _ in range(2):
        backend.sgd_step(*one, **numbers)
    assert np.array_equal(one[0], on[0]["2"])


@pytest.mark.parametrize("layout", ["augmented", "in order"])
@pytest.mark.parametrize(("C", "H", "W", "padding"), [(3, 8, 8, 2), (1, 5, 7, 4), (2, 6, 3, 0)])
def test_the_augmented_batch_has_the_bits_of_the_operators_one_after_another(
    backend, layout, C, H, W, padding
):
    rng, size, batch = np.random.default_rng(0), 11, 4
    images = rng.integers(0, 256, (size, C, H, W), dtype=np.uint8)
    labels, order = rng.integers(0, 10, size), rng.permutation(size)
    mean, std = rng.uniform(100, 150, C), rng.uniform(50, 70, C)
    windows = None
    if layout == "augmented":
        top, left = rng.integers(0, 2 * padding + 1, (2, size))
        windows = Crops(top, left, rng.random(size) < 0.5)
    seen, numbers = [], []

    def learn(x, labels, rates):
        step = int(rates.counter[0])
        seen.append((public(backend, x), backend.to_numpy(labels)))
        numbers.append(float(rates.values[step]))
        return backend.asarray(np.array([step], "float32")), backend.asarray(np.array([9], "int32"))

    pool = TrainingData(images, labels, tuple(mean), tuple(std))
    steps = backend.steps(learn, pool, batch, padding, pytest.fail)
    rates = np.array([0.5, 0.25, 0.125])
    assert list(steps.epoch(Sampling(order, windows), rates)) == [(0, 9), (1, 9), (2, 9)]
    assert numbers == rates.tolist()
    plain = NumpyBackend()
    for step, (x, kept) in enumerate(seen):
        chosen = slice(step * batch, (step + 1) * batch)
        expected = plain.normalise(images[order[chosen]], mean, std, "float32")
        if windows:
            expected = plain.pad_crop_mirror(expected, *(u[chosen] for u in windows), padding)
        assert np.array_equal(x, expected)
        assert np.array_equal(kept, labels[order[chosen]])
    assert len(seen[-1][0]) == 3  # what is left of eleven images
