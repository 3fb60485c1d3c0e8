"""The cupy backend's other operators, run without a card, against float64 and definitions."""

from itertools import product

import numpy as np
import pytest

from igc_ref.networks import BatchNorm
from igc_ref.testing import assert_close
from tests.backends.cuda import emulator
from tests.backends.cuda.cases import batch_norm, channels, normalised
from tests.backends.cuda.emulator.backend import EmulatedBackend
from tests.support import oracles
from tests.support.guarded import internal, kernels_alone, public
from tests.support.rounding import assert_rounding
from tests.support.subjects import Case, Subject, drawn

pytestmark = pytest.mark.skipif(bool(emulator.problem()), reason=str(emulator.problem()))
backend = kernels_alone
SMALL, PARTS = (2, 3, 5, 7), (5, 2, 45, 41)  # (N, C, H, W); the second: two parts of a channel


def draw(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


def exactly(*arrays):
    return [array.astype("float64") for array in arrays]


def read(backend, x, gamma, beta, relu):
    """Images with a pending rule, and what they are read as, in float64."""
    images, _ = batch_norm(
        backend, internal(backend, x), *map(backend.asarray, (gamma, beta)), relu=relu
    )
    x, gamma, beta = exactly(x, gamma, beta)
    y = normalised(x)[0] * channels(gamma) + channels(beta)
    return images, np.maximum(y, 0) if relu else y


# -- batch norm ------------------------------------------------------------------------------


CASES = set(product([SMALL, (1, 1, 1, 1), PARTS], [False, True], [False, True]))


# In training, one of so many numbers is always too close to the kink of the ReLU.
@pytest.mark.parametrize(("shape", "train", "relu"), sorted(CASES - {(PARTS, True, True)}), ids=str)
def test_batch_norm_its_gradients_and_statistics_are_right_to_rounding(backend, shape, train, relu):
    def make(backend, dtype):
        return BatchNorm(backend, shape[1], momentum=0.75, relu=relu, dtype=dtype)

    case = Case(make, shape)
    x, values, d = drawn(case, shape, np.random.default_rng(0), train)
    assert_rounding(backend, case, x, values, d, train)
    layer = Subject(case, backend, "float32")
    layer.forward(x, values, train)
    for name, f in (("running_mean", np.mean), ("running_var", np.var)):
        batch, old = f(x, axis=(0, 2, 3)), values[name]
        new = layer.arrays("buffers")[name]
        assert_close(new, 0.75 * old + 0.25 * batch if train else old, 10)


def test_batch_norm_keeps_its_precision_far_from_zero(backend):
    x = 1000 + draw((8, 2, 40, 40))[0]
    x[0, 0, 0, 0] = 990  # the pivot is far from the mean
    ones, zeros = np.ones(2, "float32"), np.zeros(2, "float32")
    images, exact = read(backend, x, ones, zeros, relu=False)
    assert np.abs(public(backend, images) - exact).max() < 2e-4  # scale*x is rounded at 1000
    table = backend.to_numpy(images.pending.table)
    assert_close(table[:, 3], normalised(x.astype("float64"))[1].ravel(), 100)  # 10² - 99


# -- pointwise -------------------------------------------------------------------------------

RULES = [None, False, True]  # nothing pending, batch norm pending, batch norm and ReLU pending


def operand(backend, x, seed, relu):
    if relu is None:
        return internal(backend, x), x.astype("float64")
    return read(backend, x, *draw(x.shape[1], x.shape[1], seed=seed), relu)


@pytest.mark.parametrize("right", RULES)
@pytest.mark.parametrize("left", RULES)
def test_sums_read_both_sides_by_their_rules(backend, left, right):
    a, b, d = draw(PARTS, PARTS, PARTS)
    (a, exact_a), (b, exact_b) = operand(backend, a, 1, left), operand(backend, b, 2, right)
    total = exact_a + exact_b
    assert_close(public(backend, backend.add(a, b)), total, 10)
    y, saved = backend.add_relu(a, b)
    assert_close(public(backend, y), np.maximum(total, 0), 10)
    dx = backend.relu_backward(internal(backend, d), saved)
    assert np.array_equal(public(backend, dx), np.where(public(backend, y) > 0, d, 0))
    if left is None and right is None:
        assert np.array_equal(
            public(backend, y), np.maximum(public(backend, a) + public(backend, b), 0)
        )


def test_relu_passes_the_gradient_of_positive_numbers_also_of_a_pending_one(backend):
    x, d = draw((3, 4, 5, 6), (3, 4, 5, 6))
    x[0, 0, 0, 0] = 0
    x = internal(backend, x)
    y, saved = backend.add_relu(x, x)
    d, saved_d = batch_norm(
        backend, internal(backend, d), *map(backend.asarray, draw(4, 4)), relu=False
    )
    pending, *_ = backend.batch_norm_backward(d, saved_d)  # a gradient with a pending derivative
    plain = public(backend, pending)
    dx = public(backend, backend.relu_backward(pending, saved))
    assert np.array_equal(dx, np.where(public(backend, y) > 0, plain, 0))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_a_shuffle_reads_by_the_rule_and_deals_the_channels(backend, groups, rule):
    x, d = draw((5, 6, 45, 41), (5, 6, 45, 41))
    images, exact = operand(backend, x, 1, rule)
    y, saved = backend.shuffle(images, groups)
    assert_close(public(backend, y), oracles.shuffle(exact, groups), 10)
    _, saved_d = batch_norm(
        backend, internal(backend, x), *map(backend.asarray, draw(6, 6)), relu=rule is True
    )
    for gradient in (internal(backend, d), backend.batch_norm_backward(y, saved_d)[0]):
        dx = public(backend, backend.shuffle_backward(gradient, saved))
        assert np.array_equal(oracles.shuffle(dx, groups), public(backend, gradient))
    assert "shuffle" in backend.device.launches


def test_a_shuffle_of_images_in_16_bits_moves_them_as_they_are():
    backend, x = EmulatedBackend("float16"), draw((2, 6, 5, 7))[0]
    y, _ = backend.shuffle(internal(backend, x), 3)
    expected = oracles.shuffle(x.astype("float16"), 3)
    assert y.data.dtype == np.float16
    assert np.array_equal(public(backend, y), expected.astype("float32"))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [SMALL, PARTS, (19, 3, 2, 2)], ids=str)
def test_global_average_pooling_is_the_mean_and_spreads_the_gradient(backend, shape, rule):
    x, d = draw(shape, shape[:2])
    x, exact = operand(backend, x, 1, rule)
    y, saved = backend.global_average_pool(x)
    positions = shape[2] * shape[3]
    assert_close(1 + backend.to_numpy(y), 1 + exact.mean(axis=(2, 3)), positions)
    dx = public(backend, backend.global_average_pool_backward(backend.asarray(d), saved))
    assert_close(dx, np.broadcast_to(exactly(d)[0][:, :, None, None] / positions, shape), 1)


def test_a_nan_is_not_hidden_by_a_floor_nor_by_the_loss(backend):
    """A network that diverges must show it in its loss, whatever clips on the way."""
    x = draw((3, 4, 6, 6))[0]
    x[1, 2, 3, 3] = np.nan
    here = np.isnan(x)
    for pair in ((x, -np.abs(x)), (np.zeros_like(x), x)):
        y, _ = backend.add_relu(*(internal(backend, u) for u in pair))
        assert np.array_equal(np.isnan(public(backend, y)), here)
    pooled, _ = backend.global_average_pool(internal(backend, x))
    loss, _, dlogits = backend.loss(pooled, backend.asarray(np.zeros(3, int)))
    assert np.isnan(loss)
    assert np.isnan(dlogits[1]).all()
