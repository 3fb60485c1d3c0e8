"""Batches put side by side along their channels, and apart again: on every backend."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igc_ref.errors import SpecError
from igc_ref.testing import assert_close, dot_test
from tests.support.guarded import internal, public
from tests.support.strategies import normal, seeds
from tests.support.subjects import EVERYWHERE, shared_backend

runs = st.lists(st.integers(1, 4), min_size=1, max_size=4)
pixels = st.tuples(st.sampled_from([1, 2, 3, 5, 17]), st.integers(1, 7), st.integers(1, 7))
each = pytest.mark.parametrize(("name", "dtype"), EVERYWHERE)
# float64 has no CUDA kernels: there the `backend` fixture runs the generic form of a lazy backend.


def side_by_side(parts):
    """The oracle: channel by channel, image by image."""
    N, _, *size = parts[0].shape
    y = np.empty((N, sum(part.shape[1] for part in parts), *size), parts[0].dtype)
    for n in range(N):
        for c, channel in enumerate(channel for part in parts for channel in part[n]):
            y[n, c] = channel
    return y


@each
@given(sizes=runs, shape=pixels, seed=seeds)
def test_concat_puts_channels_side_by_side_and_split_takes_them_apart(
    name, dtype, sizes, shape, seed
):
    backend, rng, (N, H, W) = shared_backend(name), np.random.default_rng(seed), shape
    parts = [normal(rng, (N, C, H, W), dtype) for C in sizes]
    y = backend.concat([internal(backend, part) for part in parts])
    assert y.shape == (sum(sizes), N, H, W)
    assert np.array_equal(public(backend, y), side_by_side(parts))
    apart = backend.split(y, sizes)
    for part, found in zip(parts, apart, strict=True):
        assert np.array_equal(public(backend, found), part)
    # What is split is no view: a part outlives what happens to the whole.
    assert not any(np.shares_memory(found.data, y.data) for found in apart)


def test_concat_and_split_are_each_other_s_adjoint(backend):
    rng, sizes, shape = np.random.default_rng(0), (3, 1, 2), (5, 3, 4)

    def concat(flat):
        parts = np.split(flat, np.cumsum(sizes)[:-1], axis=1)
        return public(backend, backend.concat([internal(backend, part) for part in parts]))

    def split(y):
        parts = backend.split(internal(backend, y), sizes)
        return np.concatenate([public(backend, part) for part in parts], axis=1)

    shape = (shape[0], sum(sizes), *shape[1:])
    dot_test(concat, split, shape, rng)
    dot_test(split, concat, shape, rng)


NORM = {"momentum": 0.75, "eps": 1e-3}


def pending(backend, x, kind, relu, train):
    """A batch with a rule or a derivative pending, and the numbers that it is read as."""
    C = x.shape[1]
    lines = np.random.default_rng(3).uniform(0.5, 2, (4, C)).astype(x.dtype)

    def norm():
        copies = [backend.asarray(line) for line in lines]
        return backend.batch_norm(internal(backend, x), *copies, **NORM, train=train, relu=relu)

    y, saved = norm()
    if kind == "derivative":
        y = backend.batch_norm_backward(internal(backend, x[::-1].copy()), saved)[0]
    return y, public(backend, y)


@each
@pytest.mark.parametrize(("relu", "train"), [(True, True), (False, False)], ids=["relu", "eval"])
@pytest.mark.parametrize("kind", ["rule", "derivative"])
def test_what_is_pending_is_applied(name, dtype, kind, relu, train):
    backend, rng = shared_backend(name), np.random.default_rng(0)
    first, second = (normal(rng, (5, C, 3, 7), dtype) for C in (3, 2))
    images, exact = pending(backend, first, kind, relu, train)
    y = backend.concat([internal(backend, second), images, images])
    assert_close(public(backend, y), side_by_side([second, exact, exact]), 10)
    images, exact = pending(backend, side_by_side([first, second]), kind, relu, train)
    for found, part in zip(
        backend.split(images, [2, 3]), (exact[:, :2], exact[:, 2:]), strict=True
    ):
        assert_close(public(backend, found), part, 10)


def statistics(backend, batch):
    """Mean and variance of every channel, as batch norm finds them."""
    line = [np.full(batch.shape[0], number, batch.dtype) for number in (1, 0, 0, 0)]
    arrays = [backend.asarray(array) for array in line]
    backend.batch_norm(batch, *arrays, momentum=0, eps=1e-3, train=True)
    return [backend.to_numpy(array) for array in arrays[2:]]


@each
@pytest.mark.parametrize("noted", [False, True])  # convolutions note sums, piece by piece
@pytest.mark.parametrize("N", [3, 16, 37])
def test_batch_norm_of_what_was_put_together_has_its_statistics(name, dtype, noted, N):
    backend, rng = shared_backend(name), np.random.default_rng(0)
    x = internal(backend, normal(rng, (N, 4, 17, 6), dtype))
    weights = [normal(rng, (3, 4, k, k), dtype) for k in (1, 3)]
    parts = [backend.conv2d(x, backend.asarray(weight))[0] for weight in weights]
    if noted:  # of x as a whole
        statistics(backend, x)
        parts.append(x)
    y = backend.concat(parts)
    for batch in (y, *backend.split(y, [2, y.shape[0] - 2])):
        numbers = public(backend, batch).astype("float64")
        for found, f in zip(statistics(backend, batch), (np.mean, np.var), strict=True):
            assert_close(10 + found, 10 + f(numbers, axis=(0, 2, 3)), 100)


@pytest.mark.filterwarnings("ignore:.* has no kernel")
def test_what_does_not_fit_together_is_refused(backend):
    x, other = (internal(backend, np.ones(s, "float32")) for s in ((2, 3, 4, 5), (2, 3, 4, 4)))
    with pytest.raises(SpecError, match=r"batches\[1\] has shape \(3, 2, 4, 4\); \(C, 2, 4, 5\)"):
        backend.concat([x, other])
    with pytest.raises(TypeError, match=r"batches\[1\] is float64; float32 is needed"):
        backend.concat([x, internal(backend, np.ones((2, 3, 4, 5)))])
    with pytest.raises(SpecError, match="at least one batch is needed"):
        backend.concat([])
    with pytest.raises(TypeError, match=r"batches is .*; Sequence is needed"):
        backend.concat(x)
    with pytest.raises(TypeError, match=r"batches\[1\] is builtins.int"):
        backend.concat([x, 1])
    with pytest.raises(SpecError, match=r"sizes=\[1, 1\] make 2 channels; x has 3"):
        backend.split(x, [1, 1])
    with pytest.raises(SpecError, match="sizes=0 is not an integer of at least 1"):
        backend.split(x, [3, 0])
