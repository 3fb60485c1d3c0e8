"""Means over seeds, differences by seed, their intervals, and the verdict that follows."""

from typing import NamedTuple

import numpy as np
from scipy.stats import t

LEVEL = 0.95
MOST_SEEDS = 10_000  # looked at, when asking how many would decide


class Estimate(NamedTuple):
    """Mean, sample standard deviation, count, and half the width of the 95 % t-interval.

    `sd` and `half` are None for one value.
    """

    mean: float
    sd: float | None
    count: int
    half: float | None


def estimate(values):
    """Return the `Estimate` of some numbers; None if there are none."""
    if not (count := len(values)):
        return None
    if count == 1:
        return Estimate(float(values[0]), None, 1, None)
    sd = float(np.std(values, ddof=1))
    return Estimate(float(np.mean(values)), sd, count, float(half_width(sd, count)))


def half_width(sd, count):
    """Return half the width of the t-interval of a mean of `count` values, an array of them too."""
    return t.ppf((1 + LEVEL) / 2, count - 1) * sd / np.sqrt(count)


def difference(ours, theirs):
    """Return the `Estimate` of the differences of two dicts by seed, over the seeds of both."""
    return estimate([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def seeds_to_decide(found):
    """Return how many seeds the interval would take to leave 0 out, if mean and sd stay.

    None if that is more than `MOST_SEEDS`.
    """
    counts = np.arange(2, MOST_SEEDS + 1)
    enough = counts[half_width(found.sd, counts) < abs(found.mean)]
    return int(enough[0]) if enough.size else None


def judge(found):
    """Say whether a difference, which the paper claims to be above 0, is seen to be so."""
    if found is None:
        return "not checked"
    if found.half is None:
        return "one seed: no interval"
    if abs(found.mean) > found.half:
        return "seen" if found.mean > 0 else "**not seen: the opposite**"
    count = seeds_to_decide(found)
    many = f"{count:,}" if count else f"more than {MOST_SEEDS:,}"
    return f"**undecided**; {many} seeds would decide it"


def points(found):
    """Write a difference in percentage points with its interval, if it has one."""
    if found.half is None:
        return f"{found.mean:+.2f} points"
    low, high = found.mean - found.half, found.mean + found.half
    return f"{found.mean:+.2f} [{low:+.2f}, {high:+.2f}] points"
