"""What every backend refuses, in the same words: another library, dtype or shape than is meant.

Kernels trust what they are given. Only dtypes and shapes are looked at, which takes microseconds:
to look at numbers is to wait for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from igc_ref.backends.operators.library import DTYPES, INTEGERS, Array, Library
from igc_ref.errors import SpecError, divides, instance, integer, is_array, kind_of
from igc_ref.spec.block import IGCSpec, output_length

Lengths = tuple[int, ...]


class Checks(Library):
    """A check raises a TypeError for a wrong library or dtype, a SpecError for a wrong shape."""

    name: str

    def check(
        self, name: str, array: Array, *dtypes: Any, shape: Lengths | None = None, axes: str = ""
    ) -> None:
        """Check an array: the backend's library, one of these dtypes, its shape, or its axes."""
        if not is_array(array, self.xp.ndarray):
            raise TypeError(
                f"{name} is {kind_of(array)}; the {self.name} backend takes "
                f"{self.xp.__name__}.ndarray, as its asarray makes of a numpy.ndarray"
            )
        check_numbers(name, array, dtypes, shape)
        if axes and (array.ndim != len(axes.split(",")) or 0 in array.shape):
            raise SpecError(f"{name} has shape {array.shape}; {axes}, each at least 1, is needed")

    def check_batch(self, name: str, x: Array, *dtypes: Any, shape: Lengths | None = None) -> None:
        """Check that this is a batch inside, (C, N, H, W), as `to_layout` returns it."""
        self.check(name, x, *(dtypes or DTYPES), shape=shape, axes="(C, N, H, W)")

    def check_gradient(self, dy: Array, dtype: Any, shape: Lengths) -> None:
        """Check that a batch of gradients belongs to an output of this dtype and shape."""
        self.check_batch("the gradient", dy, dtype, shape=shape)

    def check_pair(self, a: Array, b: Array) -> None:
        """Check that two batches can be added."""
        self.check_batch("a", a)
        self.check_batch("b", b, a.dtype, shape=a.shape)

    def check_images(self, images: Array, *dtypes: Any) -> None:
        """Check public images (N, C, H, W)."""
        self.check("images", images, *dtypes, *DTYPES, axes="(N, C, H, W)")

    def check_conv2d(self, x: Array, weight: Array, groups: int, stride: int) -> tuple[int, int]:
        """Check the arguments of `conv2d`; return groups and stride."""
        self.check_batch("x", x)
        self.check("weight", weight, x.dtype, axes="(out, in/groups, k, k)")
        channels, out, k = x.shape[0], len(weight), weight.shape[3]
        divides("groups", groups, "in_channels", channels)
        divides("groups", groups, "out_channels", out)
        self.check("weight", weight, shape=(out, channels // int(groups), k, k))
        return int(groups), integer("stride", stride)

    def check_igc(self, x: Array, primary: Array, secondary: Array, spec: IGCSpec) -> None:
        """Check the arguments of `igc`."""
        self.check_batch("x", x)
        instance("spec", spec, IGCSpec)
        self.check("primary", primary, x.dtype)
        self.check("secondary", secondary, x.dtype)
        spec.check_weights(primary, secondary)
        if x.shape[0] != spec.in_channels:
            raise SpecError(f"x has {x.shape[0]} channels; {spec} needs {spec.in_channels}")

    def check_channels(self, x: Array, contiguous: bool = False, **arrays: Array) -> None:
        """Check that each of these arrays has one number for each channel of a batch."""
        self.check_batch("x", x)
        for name, array in arrays.items():
            self.check(name, array, x.dtype, shape=x.shape[:1])
            if contiguous and not array.flags.c_contiguous:
                raise SpecError(f"{name} has gaps; a contiguous array is needed")

    def check_shuffle(self, x: Array, groups: int) -> int:
        """Check that the channels of a batch make equal groups; return how many groups."""
        self.check_batch("x", x)
        divides("groups", groups, "channels", x.shape[0])
        return int(groups)

    def check_window(self, x: Array, kernel_size: int, stride: int, padding: int) -> Lengths:
        """Check the arguments of `max_pool`; return the three numbers."""
        self.check_batch("x", x)
        k, stride = integer("kernel_size", kernel_size), integer("stride", stride)
        if (padding := integer("padding", padding, 0)) > k // 2:
            raise SpecError(f"padding={padding} is more than half of kernel_size={k}")
        if min(output_length(size, k, stride, padding) for size in x.shape[2:]) < 1:
            raise SpecError(f"a window of {k} is too large for images of {x.shape[2]}x{x.shape[3]}")
        return k, stride, padding

    def check_linear(self, x: Array, weight: Array, bias: Array) -> None:
        """Check the arguments of `linear`."""
        self.check("x", x, *DTYPES, axes="(N, in)")
        self.check("weight", weight, x.dtype, axes="(out, in)")
        self.check("weight", weight, shape=(len(weight), x.shape[1]))
        self.check("bias", bias, x.dtype, shape=weight.shape[:1])

    def check_loss(self, logits: Array, labels: Array) -> None:
        """Check the arguments of `loss`, but not that each label is a class."""
        self.check("logits", logits, *DTYPES, axes="(N, classes)")
        self.check("labels", labels, *INTEGERS, shape=logits.shape[:1])

    def check_step(self, weight: Array, gradient: Array, velocity: Array) -> None:
        """Check the arrays of an optimiser's step."""
        self.check("weight", weight, *DTYPES)
        self.check("gradient", gradient, weight.dtype, shape=weight.shape)
        self.check("velocity", velocity, weight.dtype, shape=weight.shape)


def check_numbers(name: str, x: Array, dtypes: Sequence[Any], shape: Lengths | None) -> None:
    """Check dtype and shape of an array or a batch."""
    if dtypes and x.dtype not in dtypes:
        raise TypeError(f"{name} is {x.dtype}; {' or '.join(map(str, dtypes))} is needed")
    if shape is not None and x.shape != shape:
        raise SpecError(f"{name} has shape {x.shape}; {shape} is needed")


def within(name: str, values: Array, most: int) -> None:
    """Raise a SpecError unless all of these are from 0 to `most`: kernels trust an index."""
    outside = values[(values < 0) | (values > most)]
    if outside.size:
        raise SpecError(f"{name} have {int(outside[0])}; 0 to {most} are allowed")
