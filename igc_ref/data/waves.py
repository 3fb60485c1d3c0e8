"""The built-in sequences: ten kinds of noisy signals of 128 samples, drawn by NumPy from a seed.

Each class is one equation of the time and the *phase*, in turns, of a carrier. Frequency, phase,
amplitude, offset, sign and noise are drawn independently of the class. The phase is uniform, so the
average signal of every class is flat, and no linear model of the samples gets far.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from igc_ref.data.dataset import Dataset
from igc_ref.errors import DataError, choice, integer

Array = npt.NDArray[np.float64]
Signal = Callable[[Array, np.random.Generator], Array]

LENGTH = 128
SIZES = {"train": 3000, "test": 1000}
MEAN, STD = (127.5,), (46.8,)  # of waves("train"), rounded
TIME = np.arange(LENGTH) / LENGTH

# Below, n signals are drawn at once; an array is (n, 128), or (n, 1): one number for each signal.


def _some(rng: np.random.Generator, n: int, low: float, high: float) -> Array:
    return rng.uniform(low, high, (n, 1))


def sine(phase: Array, _: np.random.Generator) -> Array:
    """One frequency."""
    return np.sin(2.0 * math.pi * phase)


def square(phase: Array, _: np.random.Generator) -> Array:
    """High for half of every period, then low."""
    return np.sign(np.sin(2.0 * math.pi * phase))


def triangle(phase: Array, _: np.random.Generator) -> Array:
    """Up and down along straight lines."""
    return 4.0 * np.abs(phase % 1.0 - 0.5) - 1.0


def sawtooth(phase: Array, _: np.random.Generator) -> Array:
    """Along a straight line, then back at once."""
    return 2.0 * (phase % 1.0) - 1.0


def chirp_up(_: Array, rng: np.random.Generator, rate: float = 1.0) -> Array:
    """A sine whose frequency grows exponentially, 8 to 12 times."""
    growth = np.log(_some(rng, len(_), 8.0, 12.0))
    first, start = _some(rng, len(_), 2.0, 3.0), _some(rng, len(_), 0.0, 1.0)
    time = TIME if rate > 0 else 1.0 - TIME
    return sine(first * np.expm1(growth * time) / growth + start, rng)


def chirp_down(phase: Array, rng: np.random.Generator) -> Array:
    """The same backwards: its frequency falls."""
    return chirp_up(phase, rng, rate=-1.0)


def _slow(phase: Array, rng: np.random.Generator) -> Array:
    """A sine of 1.5 to 3 periods, to multiply a carrier by."""
    n = len(phase)
    return sine(_some(rng, n, 1.5, 3.0) * TIME + _some(rng, n, 0.0, 1.0), rng)


def beat(phase: Array, rng: np.random.Generator) -> Array:
    """Two near frequencies: a slow sine times a fast one, which turns over where it vanishes."""
    return sine(1.5 * phase, rng) * _slow(phase, rng)


def modulated(phase: Array, rng: np.random.Generator) -> Array:
    """Amplitude modulation: a fast sine that swells and fades, and never turns over."""
    return sine(1.5 * phase, rng) * (1.0 + 0.7 * _slow(phase, rng)) / 1.7


def impulses(phase: Array, _: np.random.Generator) -> Array:
    """A narrow peak once in a period."""
    return 2.0 * np.exp(-40.0 * (1.0 - np.cos(2.0 * math.pi * phase))) - 0.3


def noise(phase: Array, rng: np.random.Generator) -> Array:
    """White noise, smoothed: no period."""
    white = rng.standard_normal((len(phase), LENGTH + 6))
    windows = np.lib.stride_tricks.sliding_window_view(white, 7, axis=1)  # (n, 128, 7)
    return np.asarray(1.7 * windows.mean(axis=2))


SIGNALS: dict[str, Signal] = {
    "sine": sine,
    "square": square,
    "triangle": triangle,
    "sawtooth": sawtooth,
    "chirp up": chirp_up,
    "chirp down": chirp_down,
    "beat": beat,
    "modulated": modulated,
    "impulses": impulses,
    "noise": noise,
}


def waves(split: str, size: int | None = None, seed: int = 0) -> Dataset:
    """Draw one split of the built-in sequences.

    Parameters
    ----------
    split : {"train", "test"}
        The two share no random numbers.
    size : int, optional
        Number of sequences; 3,000 to train and 1,000 to test on unless given.
    seed : int
        Another seed gives other signals of the same kinds; the same seed the same bytes.

    Returns
    -------
    Dataset
        Every class has the same number of sequences (within one, if ten does not divide `size`),
        in shuffled order.

    Raises
    ------
    DataError
        For an unknown split.
    SpecError
        For a size that is no integer of at least 1, or a seed that is none of at least 0.

    Examples
    --------
    >>> waves("test").images.shape
    (1000, 1, 1, 128)
    """
    choice("split", split, tuple(SIZES), DataError)
    size = integer("size", SIZES[split] if size is None else size)
    # The third number keeps these streams apart from those of `shapes`.
    rng = np.random.default_rng([integer("seed", seed, 0), list(SIZES).index(split), 1])
    labels = rng.permutation(np.arange(size, dtype=np.int64) % len(SIGNALS))
    images = np.empty((size, 1, 1, LENGTH), dtype=np.uint8)
    for label, signal in enumerate(SIGNALS.values()):
        rows = np.flatnonzero(labels == label)
        images[rows, 0, 0] = _sample(signal, len(rows), rng)
    return Dataset(f"waves/{split}", images, labels, tuple(SIGNALS), MEAN, STD)


def _sample(signal: Signal, n: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Signals of one class as bytes: (n, 128)."""
    phase = _some(rng, n, 5.0, 10.0) * TIME + _some(rng, n, 0.0, 1.0)
    height = _some(rng, n, 40.0, 90.0) * rng.choice((-1.0, 1.0), (n, 1))
    level = 127.5 + _some(rng, n, -25.0, 25.0)
    y = level + height * signal(phase, rng)
    y += rng.standard_normal((n, LENGTH)) * _some(rng, n, 4.0, 16.0)
    return np.asarray(np.rint(np.clip(y, 0.0, 255.0)), np.uint8)
