"""A batch that several ranks share: which images are whose, and the bits of what they learn."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igc_ref import data
from igc_ref.backends import NumpyBackend
from igc_ref.errors import BackendError
from igc_ref.networks.model import build
from igc_ref.training.config import TrainConfig
from igc_ref.training.evaluation import evaluate
from igc_ref.training.loop import Objective, StepByStep, draw
from igc_ref.training.optim import SGD
from tests.support.ranks import on_ranks

pytest.importorskip("numba")
from igc_ref.backends.numba.backend import NumbaBackend

NETWORKS = {
    "plain_igc": {"depth": 8, "L": 4, "M": 8},
    "resnet_igc": {"depth": 8, "L": 6, "M": 2},
    "plain_xception": {"depth": 8, "width": 12},
    "plain": {"depth": 5, "width": 12, "norm": "group"},
    "igcv3": {"depth": 54, "width": 8},
    "densenet_bc_igc": {"depth": 10, "L": 4, "M": 2},
    "channels": {"arch": "plain_igc", "depth": 5, "L": 4, "M": 2, "gate": "channels"},
    "partitions": {
        "arch": "plain_igc",
        "depth": 5,
        "L": 4,
        "M": 2,
        "gate": "partitions",
        "keep": 2,
    },
}


class Silent:
    """A rank that never gathers."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


@given(st.integers(1, 400), st.integers(1, 9))
def test_ranks_hold_whole_units_of_every_batch_and_nearly_equal_shares(images, size):
    unit, shares = NumbaBackend.unit, []
    for rank in range(size):
        backend = NumbaBackend(1)
        backend.join(Silent(rank, size))
        shares.append(range(images)[backend.share(images)])
    assert all(shares)  # nobody has an empty batch
    idle = max(0, size - -(-images // unit))
    owners = [share for share in shares if share.start or not idle]
    units = [-(-len(share) // unit) for share in owners]
    if not idle:
        assert [i for share in shares for i in share] == list(range(images))
        assert all(share.start % unit == 0 for share in shares)
        assert max(units) - min(units) <= 1


@pytest.fixture(scope="module")
def shapes():
    return data.load("shapes", "train", None, print, 130)


def learned(arch, dtype, dataset, batch_size, communicator, threads):
    """Hash the weights after an epoch, and what an evaluation finds."""
    backend = NumbaBackend(threads)
    if communicator is not None:
        backend.join(communicator)
    architecture = TrainConfig(**{"arch": arch} | NETWORKS[arch]).architecture(len(dataset.classes))
    model = build(architecture, backend, dtype, 0)
    teacher = build(architecture, backend, dtype, 1) if arch == "plain" else None
    steps = StepByStep(model, SGD(model), dataset, batch_size, Objective(teacher=teacher))
    rates = np.full(-(-len(dataset) // batch_size), 0.1)
    losses = list(steps.epoch(draw(0, 1, len(dataset), batch_size, True), rates))
    digest = hashlib.sha256(b"".join(a.tobytes() for a in model.state_dict().values()))
    return digest.hexdigest(), losses, evaluate(model, dataset, 70, mirror=True)


@pytest.mark.parametrize("arch", NETWORKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_rank_or_many_learn_the_same_bits(arch, dtype, shapes):
    size = 50 if arch != "igcv3" else 65  # 130 images: 50, 50 and 30; of 30, some ranks have none
    alone = learned(arch, dtype, shapes, size, None, threads=2)
    for ranks, threads in ((2, 2), (3, 1)):
        found = on_ranks(ranks, lambda c, t=threads: learned(arch, dtype, shapes, size, c, t))
        assert found == [alone] * ranks


def test_images_that_are_not_this_ranks_of_the_batch_are_refused():
    backend = NumbaBackend(1)
    backend.join(Silent(0, 2))
    backend.share(64)
    with pytest.raises(BackendError, match="has 32 images of the batch, not 64: call `share` fir"):
        backend.to_layout(np.zeros((64, 2, 4, 4), "float32"))


def test_the_numpy_backend_shares_no_batch():
    with pytest.raises(BackendError, match="numpy backend trains in one process"):
        NumpyBackend().join(Silent(0, 2))
