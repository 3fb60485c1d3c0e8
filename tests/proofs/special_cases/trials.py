"""What the theorems are tried on: drawn convolutions, and how two sides must agree."""

import hypothesis
import numpy as np
from hypothesis import strategies as st

from igc_ref.testing import assert_close
from tests.support import oracles
from tests.support.strategies import kernel_sizes, normal, seeds, sizes, strides


def given(*strategies):
    """`hypothesis.given` with at least 100 examples: the theorems are tried most often."""
    count = max(100, hypothesis.settings.default.max_examples)
    return lambda test: hypothesis.settings(max_examples=count)(hypothesis.given(*strategies)(test))


numbers = st.integers(1, 3)
partitions = st.integers(1, 4)
dtypes = st.sampled_from([np.float64, np.complex128])


class Trial:
    """Drawn numbers of one convolution: batch, image, kernel, stride, dtype, random stream."""

    def __init__(self, N, H, W, k, stride, dtype, seed):
        self.N, self.H, self.W, self.k, self.stride = N, H, W, k, stride
        self.sides = k if isinstance(k, tuple) else (k, k)
        self.dtype, self.rng = dtype, np.random.default_rng(seed)

    def images(self, channels):
        return normal(self.rng, (self.N, channels, self.H, self.W), self.dtype)

    def kernel(self, out, per_group):
        return normal(self.rng, (out, per_group, *self.sides), self.dtype)

    def matrix(self, *shape):
        return normal(self.rng, shape, self.dtype)

    def like(self, array):
        return normal(self.rng, array.shape, self.dtype)

    def loop(self, x, kernel, groups=1):
        return oracles.convolve(x, kernel, self.stride, groups)

    def loop_gradients(self, d, x, kernel, groups=1):
        return oracles.convolve_gradients(d, x, kernel, self.stride, groups)


trials = st.builds(Trial, numbers, sizes, sizes, kernel_sizes, strides, dtypes, seeds)


def agree(actual, expected):
    assert_close(np.asarray(actual), np.asarray(expected), 2000)
