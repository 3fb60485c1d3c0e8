"""A network in training on random images, an epoch at a time; on a GPU or on the emulator."""

from functools import partial

import numpy as np

from igc_ref.backends.operators.library import Crops, Sampling, TrainingData
from igc_ref.networks.model import build
from igc_ref.training.loop import PADDING, training_step
from igc_ref.training.optim import SGD


class Epochs:
    """Steps on `size` random images of `side` x `side` pixels; `lines` is what was reported."""

    def __init__(self, architecture, backend, size, batch, side=32):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (size, 3, side, side), dtype=np.uint8)
        statistics = (125.0, 123.0, 114.0), (63.0, 62.0, 67.0)
        data = TrainingData(images, rng.integers(0, 10, size), *statistics)
        self.model, self.size, self.lines = build(architecture, backend), size, []
        learn = partial(training_step, self.model, SGD(self.model))
        self.rates = np.full(-(-size // batch), 1e-3)
        self.steps = backend.steps(learn, data, batch, PADDING, self.lines.append)

    def run(self, seed, pauses=lambda done: False):
        """Take the steps of an epoch drawn from this seed; return each one's loss and count."""
        rng, size = np.random.default_rng(seed), self.size
        top, left = rng.integers(0, 2 * PADDING + 1, (2, size))
        sampling = Sampling(rng.permutation(size), Crops(top, left, rng.random(size) < 0.5))
        return list(self.steps.epoch(sampling, self.rates, 0, pauses))
