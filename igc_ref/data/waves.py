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

from igc_ref.data.dataset import Dataset, shuffled_labels

Array = npt.NDArray[np.float64]
Signal = Callable[[Array, np.random.Generator], Array]

LENGTH = 128
MEAN, STD = (127.5,), (46.8,)  # of waves("train"), rounded
TIME = np.arange(LENGTH) / LENGTH

# Below, n signals are drawn at once; an array is (n, 128), or (n, 1): one number for each signal.


def sine(phase: Array) -> Array:
    """One frequency; the phase is in turns."""
    return np.sin(2.0 * math.pi * phase)


def _chirp(n: int, time: Array, rng: np.random.Generator) -> Array:
    """Sines whose frequency grows exponentially with time, 8 to 12 times."""
    growth = np.log(rng.uniform(8.0, 12.0, (n, 1)))
    first, start = rng.uniform(2.0, 3.0, (n, 1)), rng.uniform(0.0, 1.0, (n, 1))
    return sine(first * np.expm1(growth * time) / growth + start)


def _slow(n: int, rng: np.random.Generator) -> Array:
    """Sines of 1.5 to 3 periods, to multiply a carrier by."""
    return sine(rng.uniform(1.5, 3.0, (n, 1)) * TIME + rng.uniform(0.0, 1.0, (n, 1)))


def _noise(phase: Array, rng: np.random.Generator) -> Array:
    """White noise, smoothed: no period."""
    white = rng.standard_normal((len(phase), LENGTH + 6))
    windows = np.lib.stride_tricks.sliding_window_view(white, 7, axis=1)  # (n, 128, 7)
    return np.asarray(1.7 * windows.mean(axis=2))


SIGNALS: dict[str, Signal] = {
    "sine": lambda p, _: sine(p),
    "square": lambda p, _: np.sign(sine(p)),
    "triangle": lambda p, _: 4.0 * np.abs(p % 1.0 - 0.5) - 1.0,
    "sawtooth": lambda p, _: 2.0 * (p % 1.0) - 1.0,
    "chirp up": lambda p, rng: _chirp(len(p), TIME, rng),
    "chirp down": lambda p, rng: _chirp(len(p), 1.0 - TIME, rng),
    # The carrier turns over where a beat vanishes, and never if its amplitude is modulated.
    "beat": lambda p, rng: sine(1.5 * p) * _slow(len(p), rng),
    "modulated": lambda p, rng: sine(1.5 * p) * (1.0 + 0.7 * _slow(len(p), rng)) / 1.7,
    "impulses": lambda p, _: 2.0 * np.exp(-40.0 * (1.0 - np.cos(2.0 * math.pi * p))) - 0.3,
    "noise": _noise,
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
    # The 1 keeps these streams apart from those of `shapes`.
    labels, rng = shuffled_labels(split, size, seed, len(SIGNALS), 1)
    images = np.empty((len(labels), 1, 1, LENGTH), dtype=np.uint8)
    for label, signal in enumerate(SIGNALS.values()):
        rows = np.flatnonzero(labels == label)
        images[rows, 0, 0] = _sample(signal, len(rows), rng)
    return Dataset(f"waves/{split}", images, labels, tuple(SIGNALS), MEAN, STD)


def _sample(signal: Signal, n: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Signals of one class as bytes: (n, 128)."""
    phase = rng.uniform(5.0, 10.0, (n, 1)) * TIME + rng.uniform(0.0, 1.0, (n, 1))
    height = rng.uniform(40.0, 90.0, (n, 1)) * rng.choice((-1.0, 1.0), (n, 1))
    level = 127.5 + rng.uniform(-25.0, 25.0, (n, 1))
    y = level + height * signal(phase, rng)
    y += rng.standard_normal((n, LENGTH)) * rng.uniform(4.0, 16.0, (n, 1))
    return np.asarray(np.rint(np.clip(y, 0.0, 255.0)), np.uint8)
