"""Run CUDA source on the CPU: the bit of ``cupy.RawModule`` that we use, on NumPy arrays.

The very text that CuPy gives to NVRTC goes to g++ together with ``emulator.h``; ctypes calls the
result. One CUDA thread is one fiber. See ``emulator.h`` for what is checked; what it cannot see is
speed: bank conflicts, coalescing, occupancy.

>>> module = RawModule(code=source, options=("-DIGC_L=4",))  # doctest: +SKIP
>>> with running(order="reversed"):  # doctest: +SKIP
...     module.get_function("scale")((8,), (256,), (array, np.int32(array.size)))

``running(sanitize=True)`` builds with ASan and UBSan, which name the line of a bad access and then
end the process. Such a build runs only in a process started for it, by `run_sanitized`.

It differs from the card where ``a * b + c`` is rounded twice unless written ``fmaf`` (NVRTC
contracts it), and where a loop waits for another thread to write: that never ends here. Kernels
are found by their text, ``extern "C" __global__ void name(...)``. There are no atomics, no
``__device__`` variables (they would be taken for shared memory), no shuffles of another width.
"""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tests.support.cache import cached

__all__ = ["CompileError", "Kernel", "LaunchError", "RawModule", "run_sanitized", "running"]

HEADER = Path(__file__).with_name("emulator.h")
STATIC_LIMIT, DYNAMIC_LIMIT = 48 * 1024, 227 * 1024  # bytes of shared memory a block, as on sm_90
FLAGS = (
    *("-std=c++17", "-march=native", "-ffp-contract=off", "-fPIC", "-shared"),
    # Hidden and not unique: two modules never share the statics of a template.
    *("-fno-gnu-unique", "-fvisibility=hidden", "-fno-exceptions", "-Wl,-z,defs"),
    "-fno-strict-aliasing",  # as NVRTC: kernels read floats as uint4
)
FAST = ("-O1", "-g0", "-Werror=frame-larger-than=49152")  # of a stack of 64 KiB
SANITIZED = (
    *("-O1", "-g", "-fno-omit-frame-pointer"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
)
DTYPES = {
    "float": "f4",
    "double": "f8",
    "signed char": "i1",
    "unsigned char": "u1",
    "short": "i2",
    "unsigned short": "u2",
    "int": "i4",
    "unsigned": "u4",
    "unsigned int": "u4",
    "long long": "i8",
    "unsigned long long": "u8",
    "size_t": "u8",
    "uint": "u4",  # as in uint4
    "ushort": "u2",
    "uchar": "u1",
}
Order = Literal["forward", "reversed", "shuffled"]


class CompileError(RuntimeError):
    """g++ refused the source; the message is g++'s."""


class LaunchError(RuntimeError):
    """A kernel did what a card would punish, or worse, forgive."""


@dataclass(frozen=True)
class Settings:
    """How launches run; `running` changes them."""

    order: Order = "forward"  # of the threads of a block
    blocks: Order = "forward"  # of the blocks of a grid
    seed: int = 0  # of "shuffled"
    sanitize: bool = False


_settings: ContextVar[Settings] = ContextVar("settings", default=Settings())  # noqa: B039


@contextmanager
def running(**changes: Any) -> Iterator[None]:
    """Change the `Settings` of the launches within: ``with running(order="reversed"): ...``."""
    token = _settings.set(replace(_settings.get(), **changes))
    try:
        yield
    finally:
        _settings.reset(token)


def run_sanitized(
    script: str, timeout: float | None = None
) -> subprocess.CompletedProcess[str] | None:
    """Run a script in a process where ``running(sanitize=True)`` works; None without libasan."""
    command = ["gcc", "-print-file-name=libasan.so"]
    library = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(library):
        return None
    environment = os.environ | {
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command, root = [sys.executable, "-c", script], Path(__file__).parents[4]
    output = {"capture_output": True, "text": True}
    return subprocess.run(command, env=environment, cwd=root, timeout=timeout, **output)


class RawModule:
    """CUDA source with its options; ``-D``, ``-I`` and ``-std=`` count, others are for NVRTC."""

    def __init__(self, *, code: str, options: tuple[str, ...] = ()):
        self.options = tuple(o for o in options if o.startswith(("-D", "-I", "-std=")))
        self.bare = bare = _declarations(code, self.options)
        half = {"-DIGC_HALF", "-DIGC_HALF=1"} & set(options)
        types = DTYPES | {"storage": "f2" if half else "f4"}
        self.kernels = {
            name: (bound, [Parameter.parse(p, types) for p in _split(parameters)])
            for bound, name, parameters in _KERNEL.findall(bare)
        }
        arrays = sorted(set(_DYNAMIC.findall(bare)))
        self.source = "\n".join(
            [
                '#include "emulator.h"\n#line 1 "kernel.cu"',
                re.sub(r"\bextern(\s+)__shared__\b", r"extern\1__extern_shared__", code),
                *(f'asm(".globl {a}\\n.hidden {a}\\n.set {a}, igc_dynamic");' for a in arrays),
                *(f"EMU_ENTRY({name}, igc::bound({b}))" for name, (b, _) in self.kernels.items()),
                "",
            ]
        )
        self.library(_settings.get().sanitize)  # a compile error comes here

    def library(self, sanitize: bool) -> ctypes.PyDLL:
        """The built module, under the GIL: a launch is alone with the module's shared memory."""
        if sanitize and not hasattr(ctypes.CDLL(None), "__asan_init"):
            raise RuntimeError("sanitize needs a process started by run_sanitized")
        flags = (*FLAGS, *(SANITIZED if sanitize else FAST), *self.options)
        return _load(self.source, flags, self.bare)

    def get_function(self, name: str) -> "Kernel":
        """The kernel `name`, an ``extern "C" __global__ void`` of the source."""
        if name not in self.kernels:
            raise KeyError(f"no kernel {name!r}; the source has {sorted(self.kernels)}")
        return Kernel(self, name, self.kernels[name][1])


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel; `dtype` of the pointee where it is a pointer, None for void."""

    name: str
    dtype: np.dtype | None
    pointer: bool
    constant: bool

    @classmethod
    def parse(cls, text: str, types: dict[str, str]) -> "Parameter":
        words = re.findall(r"\w+|\S", text)
        name, words = words[-1], words[:-1]
        pointer = "*" in words
        rest = [w for w in words if w not in ("const", "*", "__restrict__", "volatile")]
        kind = re.sub(r"(?<=[a-z])[24]$", "", " ".join(rest)) if pointer else " ".join(rest)
        if words.count("*") > 1 or (kind not in types and not (pointer and kind == "void")):
            raise CompileError(
                f"parameter {name!r}: the emulator does not know {' '.join(words)!r}"
            )
        dtype = None if kind == "void" else np.dtype(types[kind])
        return cls(name, dtype, pointer, "const" in words)

    def value(self, arg: Any) -> np.ndarray:
        """The bytes which the kernel gets for `arg`, or TypeError."""
        if self.pointer and isinstance(arg, np.ndarray):
            if not arg.flags.c_contiguous:
                raise TypeError(f"parameter {self.name!r}: the array is not C-contiguous")
            if self.dtype not in (None, arg.dtype):
                raise TypeError(
                    f"parameter {self.name!r} points to {self.dtype}, the array is {arg.dtype}"
                )
            if not (self.constant or arg.flags.writeable):
                raise TypeError(f"parameter {self.name!r} is not const, the array is read-only")
            return np.asarray(arg.ctypes.data, np.uint64)
        wanted = np.dtype(np.uint64) if self.pointer else self.dtype
        if not isinstance(arg, np.generic):
            what = "an array or an address" if self.pointer else f"a NumPy scalar of {wanted}"
            raise TypeError(f"parameter {self.name!r} needs {what}, not {type(arg).__name__}")
        if arg.dtype.itemsize != wanted.itemsize or (arg.dtype.kind == "f") != (wanted.kind == "f"):
            raise TypeError(f"parameter {self.name!r} is {wanted}, the argument is {arg.dtype}")
        return np.asarray(arg)


class _Launch(ctypes.Structure):  # igc::Launch
    _fields_ = (
        *(("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("dynamic", ctypes.c_uint)),
        *(("threads", ctypes.c_void_p), ("blocks", ctypes.c_void_p)),
    )


class Kernel:
    """One kernel; call it as CuPy's: ``kernel(grid, block, args, shared_mem=bytes)``."""

    def __init__(self, module: RawModule, name: str, parameters: list[Parameter]):
        self.module, self.name, self.parameters = module, name, parameters
        self._dynamic_limit = STATIC_LIMIT

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        """The most ``shared_mem`` that a launch may ask for."""
        return self._dynamic_limit

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if not 0 <= size <= DYNAMIC_LIMIT:
            raise ValueError(f"kernel {self.name!r}: {size} bytes of {DYNAMIC_LIMIT} at most")
        self._dynamic_limit = size

    def __call__(self, grid: tuple, block: tuple, args: tuple, *, shared_mem: int = 0) -> None:
        settings = _settings.get()
        where = f"kernel {self.name!r}"
        grid, block = (tuple(s) + (1,) * (3 - len(s)) for s in (grid, block))
        if min(grid + block) < 1 or max(grid[1:]) > 65535 or prod(block) > 1024 or block[2] > 64:
            raise LaunchError(f"{where}: no card launches grid {grid} of blocks {block}")
        if not 0 <= shared_mem <= self._dynamic_limit:
            raise LaunchError(
                f"{where}: {shared_mem} bytes of dynamic shared memory, "
                f"max_dynamic_shared_size_bytes is {self._dynamic_limit}"
            )
        if len(args) != len(self.parameters):
            raise TypeError(f"{where} has {len(self.parameters)} parameters, {len(args)} arguments")
        try:
            values = [p.value(a) for p, a in zip(self.parameters, args, strict=True)]
        except TypeError as error:
            raise TypeError(f"{where}, {error}") from None
        threads = _arrange(prod(block), settings.order, settings.seed)
        blocks = _arrange(prod(grid), settings.blocks, settings.seed)
        launch = _Launch(grid, block, shared_mem, threads.ctypes.data, blocks.ctypes.data)
        pointers = (ctypes.c_void_p * max(1, len(values)))(*(v.ctypes.data for v in values))
        function = self.module.library(settings.sanitize)[f"igc_launch_{self.name}"]
        function.restype = ctypes.c_char_p
        if problem := function(ctypes.byref(launch), pointers):
            raise LaunchError(f"{where}, {problem.decode()}")


# extern "C" __global__ void __launch_bounds__(IGC_THREADS, 2) name(parameters)
_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\(((?:[^()]|\([^()]*\))*)\)\s*)?'
    r"(\w+)\s*\(([^)]*)\)"
)
_DYNAMIC = re.compile(r"\bextern\s+__shared__\b[^;{]*?(\w+)\s*\[\s*\]\s*;")


def _split(parameters: str) -> list[str]:
    return [p for p in parameters.split(",") if p.strip() not in ("", "void")]


def _arrange(count: int, order: Order, seed: int) -> np.ndarray:
    forward = np.arange(count, dtype=np.int32)
    return {
        "forward": lambda: forward,
        "reversed": lambda: forward[::-1].copy(),
        "shuffled": lambda: np.random.default_rng(seed).permutation(forward),
    }[order]()


@cache
def _declarations(code: str, options: tuple[str, ...]) -> str:
    """What ``#if`` and ``#include`` leave of the code: no comments, but unexpanded macros."""
    command = ["g++", *options, "-DIGC_EMULATED=1", "-E", "-fdirectives-only", "-x", "c++", "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True)
    if done.returncode:
        raise CompileError(done.stderr)
    return re.sub(r"//[^\n]*|/\*.*?\*/|^#[^\n]*", " ", done.stdout, flags=re.DOTALL | re.MULTILINE)


@cache
def _compiler() -> str:
    """The version of g++ and what ``-march=native`` means here: a part of the cache's key."""
    command = ["g++", *FLAGS, "-E", "-v", "-x", "c++", os.devnull]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


@cache
def _load(source: str, flags: tuple[str, ...], included: str) -> ctypes.PyDLL:
    """Compile, unless an earlier run did, and load; `included` tells versions of headers apart."""

    def build(library: Path) -> None:
        (library.parent / "kernel.cpp").write_text(source)
        command = ["g++", *flags, f"-I{HEADER.parent}", "kernel.cpp", "-o", library.name]
        plain = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        folder = library.parent
        done = subprocess.run(command, cwd=folder, env=plain, capture_output=True, text=True)
        if done.returncode:
            raise CompileError(done.stderr)

    key = (source, *flags, included, HEADER.read_text(), _compiler())
    return ctypes.PyDLL(str(cached(key, ".so", build)))


def problem() -> str | None:
    """Why nothing can be emulated here, or None."""
    return None if shutil.which("g++") else "g++ is not installed"
