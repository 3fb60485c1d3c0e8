"""Where a kernel tap meets the image: the index arithmetic of a padded, strided window."""

from __future__ import annotations

from typing import NamedTuple

from igc_ref.spec.block import output_length


class Tap(NamedTuple):
    """One tap of a window along one axis: ``pixel = output*stride + tap - padding``.

    ``outputs`` and ``pixels`` are slices of equal length: the outputs at which the tap lies
    inside the image, and the pixels it reads there.
    """

    tap: int
    outputs: slice
    pixels: slice


def taps(length: int, kernel_size: int, stride: int, padding: int | None = None) -> list[Tap]:
    """Return the taps along an axis of this many pixels; padding is ``k // 2`` or given.

    A tap that reads nothing but padding is left out.
    """
    if padding is None:
        padding = kernel_size // 2
    last_output = output_length(length, kernel_size, stride, padding) - 1
    found = []
    for tap in range(kernel_size):
        shift = tap - padding
        first = max(0, -(shift // stride))  # the smallest output with output*stride + shift >= 0
        last = min(last_output, (length - 1 - shift) // stride)
        if first <= last:
            pixels = slice(first * stride + shift, last * stride + shift + 1, stride)
            found.append(Tap(tap, slice(first, last + 1), pixels))
    return found
