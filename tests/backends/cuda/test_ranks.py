"""Ranks that share every batch on the emulated cupy backend: the same bits, however many."""

import hashlib

import numpy as np
import pytest

from igc_ref.backends.cupy import base, convolution
from igc_ref.errors import BackendError
from igc_ref.networks.architecture import Architecture
from tests.backends.cuda import emulator
from tests.backends.cuda.epochs import Epochs
from tests.support.ranks import on_ranks

if emulator.problem():
    pytest.skip(emulator.problem(), allow_module_level=True)

from tests.backends.cuda.emulator.backend import EmulatedBackend


def learned(arch, depth, storage, communicator, capture=True):
    """Hash the weights after three epochs, and return what is seen of them."""
    backend = EmulatedBackend(storage, capture=capture)
    if communicator is not None:
        backend.join(communicator)
    # Batches of 33 and 3 images: three units, the last of 1, then one, so that ranks have none.
    epochs = Epochs(Architecture(arch, depth, L=2, M=2), backend, 36, 33, side=8)
    epochs.rates += 0.1  # or a weight rounds the last bits of its gradient away
    seen = [epochs.run(seed) for seed in range(3)]
    weights = b"".join(array.tobytes() for array in epochs.model.state_dict().values())
    assert backend.device.graphs == 2 * capture
    return hashlib.sha256(weights).hexdigest(), seen


SLOW = pytest.param(("resnet_igc", 8, "float16"), marks=pytest.mark.slow)


@pytest.mark.parametrize("network", [("plain_igc", 5, "float32"), SLOW])
def test_one_rank_or_many_learn_the_same_bits_replayed_or_not(network, monkeypatch):
    sizes, choose = set(), convolution.choose  # tiles are chosen for the whole batch
    monkeypatch.setattr(convolution, "choose", lambda g, *a: sizes.add(g.N) or choose(g, *a))
    monkeypatch.setattr(base, "WAITING_BYTES", 20_000)  # gradients are gathered more than once
    alone = learned(*network, None)
    for size, capture in ((2, False), (3, True)):
        assert on_ranks(size, lambda c, on=capture: learned(*network, c, on)) == [alone] * size
    assert sizes == {33, 3}


def test_a_batch_may_be_larger_than_the_last_that_was_begun_alone():
    backend = EmulatedBackend()
    backend.share(2)
    dx = backend.global_average_pool_backward(np.ones((3, 5), "float32").T, (3, 5, 2, 2))
    assert (backend.from_layout(dx) == 0.25).all()


def normalised(communicator, side):
    """Return images, (N, C, H, W), and one number a channel, of a batch norm and its backward."""
    backend = EmulatedBackend()
    backend.join(communicator)
    images = 3 + np.random.default_rng(side).normal(size=(2, 35, 2, side, side)).astype("float32")
    vectors = list(np.full((4, 2), 1.5, "float32"))
    x, d = map(backend.to_layout, images[:, backend.share(35)])
    options = {"momentum": 0.9, "eps": 1e-5, "train": True, "relu": True}
    y, saved = backend.batch_norm(x, *vectors, **options)
    dx, *gradients = backend.batch_norm_backward(d, saved)
    images = np.stack(list(map(backend.from_layout, (y, dx))))
    return images, np.stack([*vectors, *gradients]).tobytes()


@pytest.mark.parametrize("side", [5, 26, 96])
def test_sums_of_a_batch_norm_are_cut_at_images_that_make_up_a_unit(side):
    ((whole, numbers),) = on_ranks(1, lambda c: normalised(c, side))
    ranks = on_ranks(3, lambda c: normalised(c, side))
    assert np.array_equal(np.concatenate([images for images, _ in ranks], axis=1), whole)
    assert [found for _, found in ranks] == [numbers] * 3


def test_an_operator_without_a_kernel_refuses_a_shared_batch_but_for_max_pooling():
    def refused(communicator):
        backend = EmulatedBackend()
        backend.join(communicator)
        mine = np.ones((40, 2, 8, 8), "float32")[backend.share(40)]
        with pytest.warns(UserWarning, match="max_pool"):
            backend.max_pool(backend.to_layout(mine), 3, 2, 1)
        x, vectors = backend.to_layout(mine.astype("float64")), np.ones((4, 2))
        with pytest.raises(BackendError, match=r"batch_norm\(\) of float64 .* ranks share a batch"):
            backend.batch_norm(x, *vectors, momentum=0.9, eps=0.0, train=True)

    on_ranks(2, refused)
