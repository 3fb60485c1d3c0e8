"""Vectors, and how numba is told to use them; how kernels are cached.

A vector holds V numbers side by side, as `layout` says: of V images, or of V rows of fewer images.
The innermost loops are written in LLVM's own vector instructions, since a compiler that gets scalar
loops vectorises only some of them: `tiles` holds sums of products in registers, `rows` treats
numbers one by one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, reduce, wraps
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils, config
from numba.core.caching import FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.extending import intrinsic

from igc_ref.backends.numba import asked_lanes
from igc_ref.errors import describe

if config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set, but these kernels exist in compiled form only")

# NUMBA_CPU_FEATURES, if set, is what numba compiles for; else it is this processor.
_features = config.CPU_FEATURES or binding.get_host_cpu_features().flatten()
_wide = "+avx512f" in _features

AUTO = 16 if _wide else 8  # float32 numbers in a vector of this processor
VECTOR_BYTES = 4 * (asked_lanes or AUTO)  # one of ours is two of it, if it is wider

# Outputs a tile holds, and positions or taps beside them: sums, loads and one weight fit into 32
# registers, or into 16. No sum depends on it.
POSITIONS = {4: 4, 2: 8, 1: 8} if _wide else {4: 2, 2: 4, 1: 8}
TAPS = {4: 6, 2: 9, 1: 9} if _wide else {4: 2, 2: 4, 1: 8}
WINOGRAD = VECTOR_BYTES == 64  # with 24 sums a tile, it gained nothing where there are 16 registers


class _Part(JITCodeLibrary):  # type: ignore[misc]
    """Code of an inner function, for the kernels that call it: optimised and run only in them.

    numba would optimise it and make machine code of it at every level of calls: that doubles the
    time of compilation. There are no environments here, so inner functions must not raise.
    """

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:  # noqa: ARG002
        """Return 0: Python cannot call it."""
        return 0

    @property
    def codegen(self) -> _Part:
        """What numba tells where the environment lies."""
        return self

    def set_env(self, *_: object) -> None:
        """Do nothing."""


class _PartCompiler(Compiler):  # type: ignore[misc]
    def __init__(self, typing_context: Any, context: Any, library: Any, *others: Any) -> None:
        library = _Part(context.codegen(), "part")
        super().__init__(typing_context, context, library, *others)


_OPTIONS = {"error_model": "numpy", "no_cfunc_wrapper": True}

INNER = njit(no_cpython_wrapper=True, pipeline_class=_PartCompiler, **_OPTIONS)

_SOURCES = sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
)

_first = config.CACHE_DIR or Path(__file__).parent / "__pycache__"
UNCACHED = f"neither {_first} nor others can be written; set NUMBA_CACHE_DIR to a folder that can"
_warn_once = cache(warnings.warn)

KERNELS: list[Any] = []  # all that `kernel` made

_I64 = ir.IntType(64)
Body = Callable[[Any, list[Any]], list[Any]]  # of a loop: sums = body(i, sums)


class KernelCache(FunctionCache):  # type: ignore[misc]
    """numba's cache of a kernel on the disk; if it fails, a warning says so and work goes on."""

    @contextmanager
    def _guard_against_spurious_io_errors(self) -> Iterator[None]:
        """Read or write files; numba calls this, and compiles the kernel if nothing was read."""
        try:
            yield
        except Exception as error:  # a damaged file fails in ways of its own
            with suppress(OSError):
                self.flush()  # a damaged index would be in the way of a new one
            reason = getattr(error, "strerror", None) or describe(error)  # no file: said once
            text = (
                f"numba's cache {self.cache_path} is damaged or cannot be used, so kernels are "
                f"compiled again ({reason}); if this warning returns, remove that folder "
                "or set NUMBA_CACHE_DIR to another"
            )
            _warn_once(text, RuntimeWarning)

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        """Return what tells kernels apart: numba does not know our vectors."""
        return super()._index_key(signature, codegen), VECTOR_BYTES

    def has(self, signature: Any, context: Any) -> bool:
        """Say whether the kernel for these types of arguments can be read."""
        with self._guard_against_spurious_io_errors():
            return self._cache_file.load(self._index_key(signature, context.codegen())) is not None
        return False


def kernel(function: Callable[..., None]) -> Any:
    """Compile a function that Python calls: without the interpreter lock, kept on the disk.

    numba takes what it kept for current as long as the function's own file is the same. Here it
    depends on every file of this folder, since kernels are made of each other. And numba numbers
    the files that it keeps: of two processes that compile at the same time, one can overwrite what
    the index of the other points to, and a kernel of another dtype or source would run. So every
    file has a name of its own.
    """
    dispatcher = njit(nogil=True, **_OPTIONS)(function)
    KERNELS.append(dispatcher)
    with suppress(RuntimeError):  # numba finds no folder that it can write to: see `UNCACHED`
        dispatcher._cache = KernelCache(function)
        kept = dispatcher._cache._cache_file
        kept._source_stamp = _SOURCES.hexdigest()
        kept._data_name = lambda _: f"{function.__name__}.{uuid4().hex}.nbc"
    return dispatcher


def lanes(dtype: np.typing.DTypeLike) -> int:
    """Return V, the numbers of this dtype in one vector."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


class Emitter:
    """Writes vector instructions into the function that numba is compiling."""

    def __init__(self, context: Any, builder: Any, number: Any) -> None:
        self.context, self.builder = context, builder
        self.number = context.get_value_type(number)
        bits = number.bitwidth
        self.lanes = VECTOR_BYTES * 8 // bits
        self.vector = ir.VectorType(self.number, self.lanes)
        self.suffix = f"v{self.lanes}f{bits}"
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)

    def integer(self, value: int) -> Any:
        """Return a constant."""
        return ir.Constant(_I64, value)

    def argument(self, kind: Any, value: Any) -> Any:
        """Return an array's address, an integer as it is, a number as a vector of equal ones."""
        if isinstance(kind, types.Array):
            return self.context.make_array(kind)(self.context, self.builder, value).data
        return value if kind == types.intp else self.broadcast(value)

    def at(self, pointer: Any, index: Any, times: Any = 1) -> Any:
        """Return the address ``pointer + index*times``."""
        if times != 1:
            times = self.integer(times) if isinstance(times, int) else times
            index = self.builder.mul(index, times)
        return self.builder.gep(pointer, [index])

    def load(self, address: Any, mask: Any = None, align: int = VECTOR_BYTES) -> Any:
        """Load a vector; with a mask from any address, without touching the other lanes."""
        address = self.builder.bitcast(address, self.vector.as_pointer())
        if mask is not None:
            number = ir.Constant(ir.IntType(32), VECTOR_BYTES // self.lanes)
            name = f"masked.load.{self.suffix}.p0"
            return self._call(name, self.vector, address, number, mask, self.zero)
        vector = self.builder.load(address)
        vector.align = align
        return vector

    def _call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call one of LLVM's own functions."""
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}")
        return self.builder.call(function, arguments)

    def store(self, vector: Any, address: Any, align: int = VECTOR_BYTES) -> None:
        """Store one vector."""
        target = self.builder.bitcast(address, self.vector.as_pointer())
        self.builder.store(vector, target).align = align

    def transpose(self, vectors: list[Any]) -> list[Any]:
        """Return the columns of V vectors, the rows of a matrix (V, V).

        Each stage cuts the matrix into blocks (2n, 2n) and exchanges their (n, n) corners
        top right and bottom left; n is V/2, V/4, ..., 1.
        """
        n = self.lanes // 2
        while n:
            masks = self._halves(n)
            vectors = [
                self.builder.shuffle_vector(vectors[i & ~n], vectors[i | n], masks[bool(i & n)])
                for i in range(self.lanes)
            ]
            n //= 2
        return vectors

    def _halves(self, n: int) -> list[Any]:
        """Return, as masks, every other n lanes of two vectors: from the first on, from lane n."""
        kind = ir.VectorType(ir.IntType(32), self.lanes)
        first = [j + self.lanes - n if j & n else j for j in range(self.lanes)]
        return [ir.Constant(kind, [j + shift for j in first]) for shift in (0, n)]

    def broadcast(self, scalar: Any) -> Any:
        """Return a vector of equal numbers."""
        kind = ir.VectorType(scalar.type, self.lanes)
        undefined = ir.Constant(kind, ir.Undefined)
        one = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, undefined, zeros)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return a*b + c, rounded once."""
        return self._call(f"fma.{self.suffix}", self.vector, a, b, c)

    def scaled(self, slope: Any, x: Any, shift: Any) -> Any:
        """Return slope*x + shift; with a slope of 0 the shift, even where x is infinite."""
        flat = self.builder.fcmp_ordered("==", slope, self.zero)
        return self.builder.select(flat, shift, self.multiply_add(slope, x, shift))

    def at_least(self, vector: Any, floor: Any) -> Any:
        """Return max(vector, floor); NaN stays NaN."""
        below = self.builder.fcmp_ordered("<", vector, floor)
        return self.builder.select(below, floor, vector)

    def combined(self, matrix: Any, vectors: list[Any]) -> list[Any]:
        """Return ``matrix @ vectors``, for a matrix of constants."""
        results = []
        for row in matrix.tolist():
            first = row.index(1) if 1 in row else None  # one product less
            total = self.zero if first is None else vectors[first]
            for i, factor in enumerate(row):
                if factor and i != first:
                    constant = ir.Constant(self.vector, [float(factor)] * self.lanes)
                    total = self.multiply_add(constant, vectors[i], total)
            results.append(total)
        return results

    def mask(self, lanes: Any) -> Any:
        """Return a vector of truth values from an integer's bits."""
        bits = self.builder.trunc(lanes, ir.IntType(self.lanes))
        return self.builder.bitcast(bits, ir.VectorType(ir.IntType(1), self.lanes))

    def only(self, vector: Any, mask: Any) -> Any:
        """Return a vector with 0 outside of the mask."""
        return vector if mask is None else self.builder.select(mask, vector, self.zero)

    def masked(self, count: Any, lanes: Any, write: Callable[[Any, Any], None]) -> None:
        """Run ``write(i, mask)`` for i in range(count); if all lanes count, the mask is None."""
        bits = ir.IntType(self.lanes)
        some = self.builder.icmp_signed("!=", self.builder.trunc(lanes, bits), bits(-1))
        with self.builder.if_else(some, likely=False) as (masked, plain):
            with masked:
                mask = self.mask(lanes)
                self.repeat(count, lambda i: write(i, mask))
            with plain:
                self.repeat(count, lambda i: write(i, None))

    def repeat(self, count: Any, write: Callable[[Any], None]) -> None:
        """Run ``write(i)`` for i in range(count)."""

        def one(i: Any, none: list[Any]) -> list[Any]:
            write(i)
            return none

        self.accumulate(count, [], one)

    def sum_of_lanes(self, vector: Any, lanes: Any) -> Any:
        """Return the sum of some lanes, given as bits: again and again, the halves are added."""
        some = self.only(vector, self.mask(lanes))
        total = self._merged([some] * self.lanes)
        return self.builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    def sums_of_lanes(self, vectors: list[Any], lanes: Any) -> list[Any]:
        """Return the sums of some lanes of every vector, V of them in a vector."""
        mask = self.mask(lanes)
        some = [self.only(vector, mask) for vector in vectors]
        some += [self.zero] * (-len(some) % self.lanes)
        return [self._merged(some[i : i + self.lanes]) for i in range(0, len(some), self.lanes)]

    def _merged(self, vectors: list[Any]) -> Any:
        """Return the sums of V vectors: again and again, the halves of two are added."""
        b, n = self.builder, self.lanes // 2
        while n:
            low, high = self._halves(n)
            vectors = [
                b.fadd(b.shuffle_vector(one, two, low), b.shuffle_vector(one, two, high))
                for one, two in zip(vectors[:n], vectors[n:], strict=True)
            ]
            n //= 2
        return vectors[0]

    def reduce(self, count: Any, sums: int, body: Body, lanes: Any) -> list[Any]:
        """Return the sums over some lanes, given as bits, of `sums` vectors.

        ``body(i, vectors)`` adds to them for i in range(count): to four of each, which overlap.
        """
        b = self.builder

        def four(i: Any, held: list[Any]) -> list[Any]:
            at = b.mul(i, self.integer(4))
            parts = [held[k * sums : (k + 1) * sums] for k in range(4)]
            new = [body(b.add(at, self.integer(k)), part) for k, part in enumerate(parts)]
            return [vector for part in new for vector in part]

        whole = b.sdiv(count, self.integer(4))
        held = self.accumulate(whole, [self.zero] * sums * 4, four)
        total = [reduce(b.fadd, held[k::sums]) for k in range(sums)]
        done = b.mul(whole, self.integer(4))
        rest = b.sub(count, done)
        total = self.accumulate(rest, total, lambda i, held: body(b.add(done, i), held))
        return [self.sum_of_lanes(vector, lanes) for vector in total]

    def accumulate(self, count: Any, sums: list[Any], body: Body) -> list[Any]:
        """Run ``sums = body(i, sums)`` for i in range(count), in registers."""
        b, before = self.builder, self.builder.block
        loop, after = b.append_basic_block("loop"), b.append_basic_block("after")
        b.cbranch(b.icmp_signed(">", count, self.integer(0)), loop, after)
        b.position_at_end(loop)
        i = b.phi(_I64)
        i.add_incoming(self.integer(0), before)
        carried = [b.phi(value.type) for value in sums]
        for phi, value in zip(carried, sums, strict=True):
            phi.add_incoming(value, before)
        new = body(i, carried)
        i.add_incoming(following := b.add(i, self.integer(1)), b.block)
        for phi, value in zip(carried, new, strict=True):
            phi.add_incoming(value, b.block)
        end = b.block
        b.cbranch(b.icmp_signed("<", following, count), loop, after)
        b.position_at_end(after)
        results = [b.phi(value.type) for value in sums]
        for phi, none, some in zip(results, sums, new, strict=True):
            phi.add_incoming(none, before)
            phi.add_incoming(some, end)
        return results


def vectorised(write: Callable[..., Any], results: int = 0) -> Any:
    """Make a numba intrinsic of ``write(e, *arguments)``, e an `Emitter`.

    Kernels pass arrays, the first one of floats, integers and numbers; see `Emitter.argument`.
    `write` returns as many numbers as `results` says, for the kernel.
    """

    @intrinsic
    @wraps(write)
    def typed(_, *kinds):
        number = next(kind.dtype for kind in kinds if isinstance(kind, types.Array))

        def passed(kind: Any) -> Any:
            integer = isinstance(kind, types.Integer)
            return kind if isinstance(kind, types.Array) else types.intp if integer else number

        result = types.UniTuple(number, results) if results else types.void

        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            e = Emitter(context, builder, number)
            numbers = write(e, *map(e.argument, signature.args, values))
            if not results:
                return context.get_dummy_value()
            return context.make_tuple(builder, signature.return_type, numbers)

        return result(*map(passed, kinds)), emit

    return typed


@intrinsic
def take(_, counter):
    """Return the next number of an array of one integer, to one thread only."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        address = context.make_array(signature.args[0])(context, builder, values[0]).data
        return builder.atomic_rmw("add", address, ir.Constant(_I64, 1), "monotonic")

    return types.int64(counter), emit
