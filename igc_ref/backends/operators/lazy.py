"""Lazy backends (numba and cupy): batches with work pending, operators without a kernel.

A lazy backend does not hold a batch as a plain array but as a `Batch`: numbers in a layout of its
own, and what is still to be done to them. Layers only carry it from one operator to the next.

**What is pending.** Batch norm and ReLU cost a multiplication and a comparison per number, but two
passes over memory. So `batch_norm` computes no number of its output: it fills a table with one row
per channel, and returns its input with a *rule* pending. The next operator applies the rule to
every number v that it reads; with a ReLU the floor is 0, else -inf:

    Rule         read  max(scale*v + shift, floor)

`batch_norm_backward` returns the upstream gradient d with a *derivative* pending, where x is what
the batch norm had normalised:

    Derivative   read  a*(d if scale*x + shift > floor else 0) + b*(x - mean) + c

Both backends have the same tables. A row is a multiple of four numbers, so that a CUDA kernel
loads it in one or two instructions:

    rule         (C, 4)   scale, shift, mean, 1/std
    derivative   (C, 8)   scale, shift, mean, a, b, c, 0, 0

**What is noted.** Batch norm needs sums over all numbers of a channel. The kernel that writes a
batch notes them while the numbers are at hand, part by part, so that no further pass is needed:

    Moments      (parts, C, 3)   a pivot p (one of the numbers), sum of v - p, sum of (v - p)²
    Sums         (parts, C, 2)   sum of d, sum of d*(x - mean), where scale*x + shift > floor

**Operators without a kernel.** An operator that a lazy backend does not override runs all the
same: `LazyBackend` turns the batch into a plain array, calls the generic operator, turns the result
into a batch again, and warns once that it does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import numpy as np

from igc_ref.backends.operators.checks import check_numbers
from igc_ref.backends.operators.convolution import ConvolutionOperators
from igc_ref.backends.operators.generic import GenericBackend
from igc_ref.backends.operators.library import DTYPES, Array
from igc_ref.backends.operators.normalisation import NormalisationOperators
from igc_ref.backends.operators.pointwise import PointwiseOperators
from igc_ref.errors import Axes, kind_of
from igc_ref.spec.block import IGCSpec

NO_FLOOR = -np.inf


class Rule(NamedTuple):
    """Read ``max(scale*v + shift, floor)``; the table is (C, 4)."""

    table: Array
    floor: Any


class Derivative(NamedTuple):
    """Read ``a*(d if scale*x + shift > floor else 0) + b*(x - mean) + c``; the table is (C, 8)."""

    table: Array
    floor: Any
    x: Array


class Moments(NamedTuple):
    """Sums for the batch norm of a batch, (parts, C, 3), and how many numbers each part has.

    `counts` is an array (parts,), or one number if all parts but the last have equally many.
    """

    values: Array
    counts: Any


class Sums(NamedTuple):
    """Sums for the derivative of the batch norm that made the table `rule`, (parts, C, 2).

    Every `images` images have as many parts as `pieces` says.
    """

    rule: Array
    values: Array
    images: int
    pieces: int = 1


class BatchNormSaved(NamedTuple):
    """What the backward pass of a batch norm that is pending needs; x is a `Batch`."""

    x: Any
    rule: Rule
    gamma: Array
    train: bool


class Batch:
    """A batch inside a lazy backend: what `to_layout` returns and every operator takes.

    Attributes
    ----------
    data : array, shape (C, N, H, W), or another that a subclass knows
    pending : Rule, Derivative or None
        How to read the data; None: as they are.
    moments : Moments or None
    sums : Sums or None
    shape : tuple of int
        (C, N, H, W).
    dtype : dtype
        Of what operators compute with: numbers stored as float16 are read as float32.
    """

    def __init__(self, data: Array, pending: Rule | Derivative | None = None) -> None:
        self.data, self.pending = data, pending
        self.moments: Moments | None = None
        self.sums: Sums | None = None
        self.shape: tuple[int, int, int, int] = data.shape
        self.dtype = np.dtype("float32") if data.dtype == np.float16 else data.dtype

    def __reduce__(self) -> str:
        raise TypeError("a batch cannot be copied or pickled; use backend.from_layout")


class LazyBackend(GenericBackend):
    """Base of the backends that hold a batch as a `Batch`.

    Attributes
    ----------
    generic : str
        The first use of a generic operator since this was cleared, in words.
    """

    def __init__(self) -> None:
        self.generic = ""
        self._warned: set[str] = set()

    def check_batch(
        self, name: str, x: Array, dtype: Any = None, shape: Axes = "(C, N, H, W)"
    ) -> None:
        """Check that this is a `Batch`."""
        if not isinstance(x, Batch):
            raise TypeError(
                f"{name} is {kind_of(x)}; the {self.name} backend takes what its to_layout returns"
            )
        check_numbers(name, x, DTYPES if dtype is None else [dtype], shape)

    def to_array(self, x: Any) -> Array:
        """Return a batch as a plain array (C, N, H, W), with what is pending applied."""
        raise NotImplementedError

    def to_batch(self, array: Array) -> Batch:
        """Return a plain array (C, N, H, W) as a batch."""
        raise NotImplementedError

    def weight_gradient(self, array: Array) -> Array:
        """Return a weight's gradient, found from a batch of gradients, at its true scale."""
        return array

    def note_generic(self, operator: str, what: str) -> None:
        """Note that an operator has no kernel, and for what; warn at its first use."""
        self.generic = self.generic or what
        if operator not in self._warned:
            self._warned.add(operator)
            warnings.warn(f"{what}; the generic operator computes it", stacklevel=3)


def _through_arrays(name: str) -> Callable[..., Any]:
    """Return the operator of this name for batches: array in, generic operator, batch out.

    A batch, or a list of batches, comes first among the results, as y or dx. What a generic
    operator saves for its backward pass stays as it is.
    """
    backward = name.endswith("_backward")

    @wraps(getattr(GenericBackend, name))
    def operator(self: LazyBackend, x: Any, *others: Any, **options: Any) -> Any:
        for batch in x if name == "concat" else [x]:
            if not isinstance(batch, Batch) and getattr(batch, "ndim", 4) == 4:  # features: (N, C)
                self.check_batch("the gradient" if backward else "x", batch)
            dtype = np.dtype(batch.dtype)
        settings = ", ".join(str(a) for a in others if isinstance(a, int | IGCSpec))
        what = f"{name}({settings}) of {dtype} has no kernel in the {self.name} backend"
        self.note_generic(name, what)
        plain = GenericBackend()
        plain.name, plain.xp, plain.tile_bytes = self.name, self.xp, self.tile_bytes

        def opened(value: Any) -> Any:
            if isinstance(value, list):
                return [opened(part) for part in value]
            return self.to_array(value) if isinstance(value, Batch) else value

        options = {key: opened(value) for key, value in options.items()}
        results = getattr(plain, name)(*map(opened, (x, *others)), **options)
        if isinstance(results, list):
            return [self.to_batch(part) for part in results]
        first, *rest = results if isinstance(results, tuple) else (results,)
        if getattr(first, "ndim", 0) == 4:
            first = self.to_batch(first)
        if backward:
            rest = [self.weight_gradient(array) for array in rest]
        return (first, *rest) if isinstance(results, tuple) else first

    return operator


# The families whose operators take a batch; those of the others take plain arrays everywhere.
# The generic `shuffle_backward` calls nothing but `shuffle`, and so serves as it is.
for _family in (ConvolutionOperators, NormalisationOperators, PointwiseOperators):
    for _name in vars(_family):
        if not _name.startswith("_") and _name != "shuffle_backward":
            setattr(LazyBackend, _name, _through_arrays(_name))
