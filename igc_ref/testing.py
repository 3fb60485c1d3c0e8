"""Tools that test derivatives: random-direction gradient checks, adjoint tests, tolerances."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def check_grads(
    f: Callable[..., Array],
    vjp: Callable[[Array], Sequence[Array]],
    arguments: Sequence[Array],
    rng: np.random.Generator,
    *,
    directions: int = 3,
    eps: float = 1e-5,
    rtol: float = 1e-6,
) -> None:
    """Compare written-out derivatives with central differences along random directions.

    For a random cotangent c and a random direction v of one argument, the derivative of
    ``sum(c * f)`` along v must equal ``sum(gradient * v)``.

    Parameters
    ----------
    f : callable
        ``f(*arguments)`` returns an array.
    vjp : callable
        ``vjp(c)`` returns the gradients of ``sum(c * f(*arguments))``, one per argument.
    arguments : sequence of float64 ndarrays
        Where to differentiate.
    rng : numpy Generator
        Draws cotangents and directions.
    directions : int
        Directions for each argument.
    eps : float
        Step of the central difference, relative to unit-variance directions.
    rtol : float
        Greatest error allowed, relative to ``|c| |f(a+v) - f(a-v)| / (2 eps)`` and to
        ``|gradient| |v|``.

    Raises
    ------
    AssertionError
        Names the argument and both numbers.
    TypeError
        If an argument is not float64: differences of coarser numbers prove nothing.
    """
    for i, argument in enumerate(arguments):
        if argument.dtype != np.float64:
            raise TypeError(f"argument {i} is {argument.dtype}; gradient checks need float64")
    c = rng.normal(size=np.shape(f(*arguments)))
    gradients = vjp(c)
    if len(gradients) != len(arguments):
        raise AssertionError(f"{len(gradients)} gradients for {len(arguments)} arguments")
    for i, (argument, gradient) in enumerate(zip(arguments, gradients, strict=True)):
        if gradient.shape != argument.shape:
            raise AssertionError(
                f"gradient {i} has shape {gradient.shape}, its argument {argument.shape}"
            )
        for _ in range(directions):
            v = rng.normal(size=argument.shape)
            difference = _moved(f, arguments, i, eps * v) - _moved(f, arguments, i, -eps * v)
            numerical = float(np.vdot(c, difference)) / (2 * eps)
            written = float(np.vdot(gradient, v))
            scale = max(_norms(c, difference) / (2 * eps), _norms(gradient, v))
            if not abs(numerical - written) <= rtol * scale:
                raise AssertionError(
                    f"argument {i}: the written derivative along a random direction is "
                    f"{written:.12g}, central differences give {numerical:.12g}"
                )


def _norms(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a)) * float(np.linalg.norm(b))


def _moved(f: Callable[..., Array], arguments: Sequence[Array], i: int, step: Array) -> Array:
    return f(*(a + step if j == i else a for j, a in enumerate(arguments)))


def dot_test(
    forward: Callable[[Array], Array],
    adjoint: Callable[[Array], Array],
    shape: tuple[int, ...],
    rng: np.random.Generator,
    *,
    dtype: npt.DTypeLike = np.float64,
    length: int | None = None,
) -> None:
    """Check <A u, v> = <u, Aᵀ v> for random u and v: that `adjoint` is the adjoint of `forward`.

    Parameters
    ----------
    forward, adjoint : callables
        A linear operator and its transpose (no conjugation), on arrays.
    shape : tuple of int
        Shape of u; that of v follows.
    rng : numpy Generator
    dtype : real or complex dtype
    length : int, optional
        Terms summed for one entry of A u; by default the size of u.

    Raises
    ------
    AssertionError
        With both numbers.
    """
    u = _normal(rng, shape, dtype)
    Au = forward(u)
    v = _normal(rng, Au.shape, dtype)
    Atv = adjoint(v)
    if Atv.shape != u.shape:
        raise AssertionError(f"the adjoint returns shape {Atv.shape}, not {u.shape}")
    left, right = np.sum(Au * v), np.sum(u * Atv)
    scale = _norms(Au, v) + _norms(u, Atv)
    if not abs(left - right) <= tolerance(dtype, length or u.size) * scale:
        raise AssertionError(f"<Au, v> = {left:.12g}, but <u, Aᵀv> = {right:.12g}")


def _normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    values = rng.normal(size=shape)
    if np.issubdtype(np.dtype(dtype), np.complexfloating):
        return (values + 1j * rng.normal(size=shape)).astype(dtype)
    return values.astype(dtype)


def tolerance(dtype: npt.DTypeLike, length: int) -> float:
    """Return the relative rounding error to expect of a sum of so many products.

    The worst case grows like the length, the typical one like its square root; this is ten
    times the typical one, in units of the dtype's machine epsilon.

    Examples
    --------
    >>> tolerance("float64", 100) < 1e-13
    True
    """
    return 10 * float(np.finfo(dtype).eps) * math.sqrt(max(length, 1))


def assert_close(actual: Array, expected: Array, length: int) -> None:
    """Assert that two arrays agree to the rounding of sums of so many products.

    The error of every entry is measured against the largest entry of `expected`: small entries
    are sums of large products that cancel.

    Raises
    ------
    AssertionError
        If shapes differ, one array is complex and the other is not, either holds integers,
        `expected` is not finite, or an entry is too far off; says where.
    """
    if actual.shape != expected.shape:
        raise AssertionError(f"shape {actual.shape} is not {expected.shape}")
    if np.iscomplexobj(actual) != np.iscomplexobj(expected):
        raise AssertionError(f"dtype {actual.dtype} is not {expected.dtype}")
    if not np.isfinite(expected).all():
        raise AssertionError("the expected array is not finite: nothing is close to it")
    if not all(np.issubdtype(array.dtype, np.inexact) for array in (actual, expected)):
        raise AssertionError(f"dtypes {actual.dtype} and {expected.dtype} are not both inexact")
    dtype = max(actual.dtype, expected.dtype, key=lambda dtype: np.finfo(dtype).eps)
    error = np.abs(actual - expected)
    allowed = tolerance(dtype, length) * max(float(np.abs(expected).max(initial=0)), 1e-300)
    if error.size and not float(error.max()) <= allowed:
        where = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
        raise AssertionError(
            f"at {where}: {actual[where]} is not {expected[where]}; "
            f"error {error.max():.3g}, allowed {allowed:.3g}"
        )
