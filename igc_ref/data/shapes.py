"""The built-in data set: ten kinds of small colour images, drawn by NumPy from a seed.

Each class is one equation, a *signed distance* d(x, y): negative inside the figure, zero on its
edge, positive outside. Distances compose: ``max`` intersects two, ``min`` joins them, and a minus
sign turns one inside out. The origin lies in the middle of the figure and the unit is its size, so
that one equation serves every position, size and angle; ``t`` in 0..1 varies what the class leaves
open, such as the breadth of a ring. Every equation is even in x: seen in a mirror, a figure is the
same figure at another angle.

Nothing but the figure tells the class. Its colour and the ground's are drawn independently of it,
either being the brighter, so that the average image of every class is the same grey and no linear
model gets far.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from igc_ref.data.dataset import Dataset, shuffled_labels

Array = npt.NDArray[np.float64]
Figure = Callable[[Array, Array, Array], Array]

SIDE = 32
MEAN, STD = (128.7, 127.8, 128.0), (70.6, 70.5, 71.1)  # of shapes("train"), rounded


def disk(x: Array, y: Array, _t: Array) -> Array:
    """All that is nearer to the middle than 1."""
    return np.hypot(x, y) - 1.0


def ring(x: Array, y: Array, t: Array) -> Array:
    """A band along the circle of radius 0.8."""
    return np.abs(np.hypot(x, y) - 0.8) - (0.15 + 0.15 * t)


def crescent(x: Array, y: Array, t: Array) -> Array:
    """A disk, less a second disk further up."""
    return np.maximum(disk(x, y, t), 0.85 - np.hypot(x, y - (0.5 + 0.2 * t)))


def square(x: Array, y: Array, _t: Array) -> Array:
    """Neither coordinate beyond 0.85."""
    return np.maximum(np.abs(x), np.abs(y)) - 0.85


def triangle(x: Array, y: Array, _t: Array) -> Array:
    """Three half-planes; their edges face down, and up to the right and left."""
    return np.maximum(math.sqrt(0.75) * np.abs(x) + 0.5 * y, -y) - 0.6


def star(x: Array, y: Array, t: Array) -> Array:
    """Five points: fold the plane onto half a point, then cut along its one straight edge."""
    radius, angle = np.hypot(x, y), np.arctan2(np.abs(x), y)
    fifth = 2.0 * math.pi / 5.0
    angle = np.abs(angle - fifth * np.rint(angle / fifth))  # from the axis of the nearest point
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    half = np.radians(16.0 + 8.0 * t)  # half the angle at which a point opens
    edge: Array = (along - 1.15) * np.sin(half) + across * np.cos(half)
    return edge


def cross(x: Array, y: Array, t: Array) -> Array:
    """Two bars at right angles."""
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - 1.0, np.minimum(x, y) - (0.22 + 0.12 * t))


def heart(x: Array, y: Array, _t: Array) -> Array:
    """A square that stands on its corner, and a disk about the middle of each upper side."""
    half = 0.6  # of the side
    x, y = np.abs(x), y + 0.2
    standing = (x + np.abs(y)) / math.sqrt(2.0) - half
    middle = half / math.sqrt(2.0)
    return np.minimum(standing, np.hypot(x - middle, y - middle) - half)


def stripes(x: Array, _y: Array, t: Array) -> Array:
    """Upright bands, as broad as the gaps between them."""
    period = 0.6 + 0.4 * t
    return np.abs(x - period * np.rint(x / period)) - 0.25 * period


def checkerboard(x: Array, y: Array, t: Array) -> Array:
    """Upright stripes or level stripes, but not both."""
    a, b = stripes(x, y, t), stripes(y, x, t)
    return np.maximum(np.minimum(a, b), -np.maximum(a, b))


TURNED, TILTED = math.pi, 0.4  # how far a figure leans to either side, in radians
FIGURES: dict[str, tuple[Figure, float]] = {
    "disk": (disk, TURNED),
    "ring": (ring, TURNED),
    "crescent": (crescent, TURNED),
    "square": (square, TILTED),
    "triangle": (triangle, TILTED),
    "star": (star, TILTED),
    "cross": (cross, TILTED),
    "heart": (heart, TILTED),
    "stripes": (stripes, TURNED),
    "checkerboard": (checkerboard, TILTED),
}


def shapes(split: str, size: int | None = None, seed: int = 0) -> Dataset:
    """Draw one split of the built-in data set.

    Parameters
    ----------
    split : {"train", "test"}
        The two share no random numbers.
    size : int, optional
        Number of images; 3,000 to train and 1,000 to test on unless given.
    seed : int
        Another seed gives other images of the same kinds; the same seed the same bytes.

    Returns
    -------
    Dataset
        Every class has the same number of images (within one, if ten does not divide `size`), in
        shuffled order.

    Raises
    ------
    DataError
        For an unknown split.
    SpecError
        For a size that is no integer of at least 1, or a seed that is none of at least 0.

    Examples
    --------
    >>> shapes("test").images.shape
    (1000, 3, 32, 32)
    """
    labels, rng = shuffled_labels(split, size, seed, len(FIGURES))
    images = np.empty((len(labels), 3, SIDE, SIDE), dtype=np.uint8)
    for label, (figure, turn) in enumerate(FIGURES.values()):
        rows = np.flatnonzero(labels == label)
        images[rows] = _paint(_cover(figure, turn, len(rows), rng), rng)
    return Dataset(f"shapes/{split}", images, labels, tuple(FIGURES), MEAN, STD)


# Below, n images are drawn at once, and every array is (n or 1, channels or 1, height, width).

ACROSS = np.arange(SIDE) - (SIDE - 1) / 2.0  # of the middles of the pixels, in pixels
UP = -ACROSS[:, None]


def _some(rng: np.random.Generator, n: int, low: float, high: float, channels: int = 1) -> Array:
    """One number for each image, or one for each of its channels."""
    return rng.uniform(low, high, (n, channels, 1, 1))


def _cover(figure: Figure, turn: float, n: int, rng: np.random.Generator) -> Array:
    """How much of each pixel the figure covers, 0 to 1: (n, 1, height, width)."""
    size = _some(rng, n, 9.0, 13.0)
    room = SIDE / 2.0 - size  # to move about in without leaving the image
    x = ACROSS - room * _some(rng, n, -1.0, 1.0)
    y = UP - room * _some(rng, n, -1.0, 1.0)
    angle = _some(rng, n, -turn, turn)
    cos, sin = np.cos(angle) / size, np.sin(angle) / size
    distance = size * figure(cos * x + sin * y, cos * y - sin * x, _some(rng, n, 0.0, 1.0))
    softness = _some(rng, n, 1.0, 2.0)  # the breadth of the edge, in pixels
    return np.clip(0.5 - distance / softness, 0.0, 1.0)


def _paint(cover: Array, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Images of figures with this cover: (n, 3, height, width)."""
    n = len(cover)
    ground = _some(rng, n, 0.0, 256.0, channels=3)
    # Round the circle of 256 values by at least 96 either way: seen, and as often up as down.
    ink = (ground + _some(rng, n, 96.0, 160.0, channels=3)) % 256.0
    ground = ground + _texture(n, rng)
    ink = ink + _texture(n, rng)
    noise = rng.standard_normal((n, 3, SIDE, SIDE)) * _some(rng, n, 2.0, 8.0)
    image = ground + (ink - ground) * cover + noise
    return np.rint(np.clip(image, 0.0, 255.0)).astype(np.uint8)


def _texture(n: int, rng: np.random.Generator) -> Array:
    """How a colour varies over the image: a slope of its own in each channel, and ripples."""
    slope = _some(rng, n, -30.0, 30.0, channels=3) * _along(n, rng) / SIDE
    waves = _along(n, rng) / _some(rng, n, 4.0, 16.0) + _some(rng, n, 0.0, 1.0)
    return slope + _some(rng, n, 0.0, 8.0) * np.sin(2.0 * math.pi * waves)


def _along(n: int, rng: np.random.Generator) -> Array:
    """How far each pixel lies from the middle along some direction: (n, 1, height, width)."""
    angle = _some(rng, n, -math.pi, math.pi)
    along: Array = np.cos(angle) * ACROSS + np.sin(angle) * UP
    return along
