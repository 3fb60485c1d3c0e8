"""What every backend refuses, in the same words: another library, dtype or shape than is meant.

Kernels trust what they are given. Only dtypes and shapes are looked at, which takes microseconds:
to look at numbers is to wait for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from igc_ref.backends.operators.library import DTYPES, INTEGERS, Array, Library
from igc_ref.errors import (
    Axes,
    SpecError,
    divides,
    fits,
    instance,
    integer,
    is_array,
    kernel_pair,
    kind_of,
    shown,
)
from igc_ref.spec.block import IGCSpec, output_length


class Checks(Library):
    """A check raises a TypeError for a wrong library or dtype, a SpecError for a wrong shape."""

    name: str

    def check(self, name: str, array: Array, *dtypes: Any, shape: Axes = "") -> None:
        """Check an array: the backend's library, one of these dtypes, and its shape."""
        if not is_array(array, self.xp.ndarray):
            raise TypeError(
                f"{name} is {kind_of(array)}; the {self.name} backend takes "
                f"{self.xp.__name__}.ndarray, as its asarray makes of a numpy.ndarray"
            )
        check_numbers(name, array, dtypes, shape)

    def check_batch(
        self, name: str, x: Array, dtype: Any = None, shape: Axes = "(C, N, H, W)"
    ) -> None:
        """Check that this is a batch inside, (C, N, H, W), as `to_layout` returns it."""
        self.check(name, x, *(DTYPES if dtype is None else [dtype]), shape=shape)

    def check_pair(self, name: str, x: Array, other: str, y: Array) -> None:
        """Check that these are two batches of one dtype and shape."""
        self.check_batch(name, x)
        self.check_batch(other, y, x.dtype, x.shape)

    def check_conv2d(self, x: Array, weight: Array, groups: int, stride: int) -> tuple[int, int]:
        """Check the arguments of `conv2d`; return groups and stride."""
        self.check_batch("x", x)
        self.check("weight", weight, x.dtype, shape="(out, in/groups, kh, kw)")
        each = divides("groups", groups, "in_channels", x.shape[0])
        divides("groups", groups, "out_channels", len(weight))
        self.check("weight", weight, shape=f"(out, {each}, kh, kw)")
        return int(groups), integer("stride", stride)

    def check_igc(self, x: Array, primary: Array, secondary: Array, spec: IGCSpec) -> None:
        """Check the arguments of `igc`."""
        instance("spec", spec, IGCSpec)
        self.check_batch("x", x, shape=f"({spec.in_channels}, N, H, W)")
        self.check("primary", primary, x.dtype, shape=spec.primary_shape)
        self.check("secondary", secondary, x.dtype, shape=spec.secondary_shape)

    def check_channels(self, x: Array, *arrays: Array, contiguous: bool = False) -> None:
        """Check the arguments of `batch_norm`: one number for each channel of a batch."""
        self.check_batch("x", x)
        names = "gamma", "beta", "running_mean", "running_var"
        for name, array in zip(names, arrays, strict=False):  # `group_norm` has the first two
            self.check(name, array, x.dtype, shape=x.shape[:1])
            if contiguous and not array.flags.c_contiguous:
                raise SpecError(f"{name} has gaps; a contiguous array is needed")

    def check_shuffle(self, x: Array, groups: int) -> int:
        """Check that the channels of a batch make equal groups; return how many groups."""
        self.check_batch("x", x)
        divides("groups", groups, "channels", x.shape[0])
        return int(groups)

    def check_concat(self, batches: Sequence[Array]) -> None:
        """Check that these are batches of one dtype, which differ in their channels alone."""
        instance("batches", batches, Sequence)
        if not batches:
            raise SpecError("batches=[] is not allowed: at least one batch is needed")
        first, *others = batches
        self.check_batch("batches[0]", first)
        rest = ", ".join(map(str, first.shape[1:]))
        for i, x in enumerate(others, start=1):
            self.check_batch(f"batches[{i}]", x, first.dtype, f"(C, {rest})")

    def check_split(self, x: Array, sizes: Sequence[int]) -> list[int]:
        """Check that these are numbers of channels that make up those of a batch."""
        self.check_batch("x", x)
        instance("sizes", sizes, Sequence)
        sizes = [integer("sizes", size) for size in sizes]
        if sum(sizes) != x.shape[0]:
            raise SpecError(f"sizes={shown(sizes)} make {sum(sizes)} channels; x has {x.shape[0]}")
        return sizes

    def check_gates(self, x: Array, gates: Array, images: int) -> None:
        """Check the arguments of `scale_channels`: an image has a number for each group."""
        self.check_batch("x", x)
        self.check("gates", gates, x.dtype, shape=f"({images}, groups)")
        divides("groups of the gates", gates.shape[1], "channels", x.shape[0])

    def check_window(self, x: Array, k: int, stride: int, padding: int) -> tuple[int, int, int]:
        """Check the arguments of `max_pool`; return the three numbers."""
        self.check_batch("x", x)
        k, stride = integer("kernel_size", k), integer("stride", stride)
        if (padding := integer("padding", padding, 0)) > k // 2:
            raise SpecError(f"padding={padding} is more than half of kernel_size={k}")
        if min(output_length(size, k, stride, padding) for size in x.shape[2:]) < 1:
            raise SpecError(f"a window of {k} is too large for images of {x.shape[2]}x{x.shape[3]}")
        return k, stride, padding

    def check_pool(self, x: Array, kernel_size: int | tuple[int, int]) -> tuple[int, int]:
        """Check the arguments of `average_pool`; return height and width of a window."""
        self.check_batch("x", x)
        kh, kw = (
            integer("kernel_size", k, maximum=size)
            for k, size in zip(kernel_pair(kernel_size), x.shape[2:], strict=True)
        )
        return kh, kw

    def check_linear(self, x: Array, weight: Array, bias: Array) -> None:
        """Check the arguments of `linear`."""
        self.check("x", x, *DTYPES, shape="(N, in)")
        self.check("weight", weight, x.dtype, shape=f"(out, {x.shape[1]})")
        self.check("bias", bias, x.dtype, shape=weight.shape[:1])

    def check_loss(self, logits: Array, labels: Array, smoothing: float) -> None:
        """Check the arguments of `loss`, but not that each label is a class."""
        if not 0 <= smoothing < 1:
            raise SpecError(f"smoothing={smoothing} is not allowed; it must be in [0, 1)")
        self.check("logits", logits, *DTYPES, shape="(N, classes)")
        self.check("labels", labels, *INTEGERS, shape=logits.shape[:1])

    def check_step(self, weight: Array, gradient: Array, velocity: Array) -> None:
        """Check the arrays of an optimiser's step."""
        self.check("weight", weight, *DTYPES)
        self.check("gradient", gradient, weight.dtype, shape=weight.shape)
        self.check("velocity", velocity, weight.dtype, shape=weight.shape)


def check_numbers(name: str, x: Array, dtypes: Sequence[Any], shape: Axes) -> None:
    """Check dtype and shape of an array or a batch; a shape that has names is not empty."""
    if dtypes and x.dtype not in dtypes:
        raise TypeError(f"{name} is {x.dtype}; {' or '.join(map(str, dtypes))} is needed")
    if isinstance(shape, str):
        if shape and (0 in x.shape or not fits(x.shape, shape)):
            raise SpecError(f"{name} has shape {x.shape}; {shape}, each at least 1, is needed")
    elif x.shape != shape:
        raise SpecError(f"{name} has shape {x.shape}; {shape} is needed")


def within(name: str, values: Array, most: int) -> None:
    """Raise a SpecError unless all of these are from 0 to `most`: kernels trust an index."""
    values = values.astype("int64", copy=False)  # CuPy refuses to compare int8 with 1000
    outside = values[(values < 0) | (values > most)]
    if outside.size:
        raise SpecError(f"{name} have {int(outside[0])}; 0 to {most} are allowed")
