"""The emulated cupy backend in guarded memory, and kernels that are built ahead of their tests."""

import ctypes
import mmap
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from math import prod

import numpy as np
import pytest

from tests.backends.cuda.emulator import RawModule
from tests.backends.cuda.emulator.backend import EmulatedBackend, EmulatedDevice

GUARD = 1 << 16  # bytes on both sides of every array
ORDERS = ("forward", "reversed", "shuffled")


class GuardedNumpy:
    """NumPy, but new arrays lie between guards, and in and around them all bytes are 0xFF.

    That is NaN: memory that nobody wrote, or a read past the end, shows in the result; `check`
    finds writes past the end. A CuPy array is aligned to 512 bytes, and so are these. `fill` is
    another byte for what `empty` returns.
    """

    def __init__(self, fill=0xFF):
        self.fill, self.guarded = fill, []

    def __getattr__(self, name):
        return getattr(np, name)

    def empty(self, shape, dtype="float64"):
        shape = (shape,) if np.ndim(shape) == 0 else tuple(shape)
        size = prod(shape) * np.dtype(dtype).itemsize
        memory = np.full(2 * GUARD + size + 512, 0xFF, np.uint8)
        start = GUARD + -memory.ctypes.data % 512
        memory[start : start + size] = self.fill
        self.guarded.append((memory, start, start + size))
        return memory[start : start + size].view(dtype).reshape(shape)

    def empty_like(self, array):
        return self.empty(array.shape, array.dtype)

    def array(self, values, dtype=None, order="C"):  # noqa: ARG002
        values = np.asarray(values, dtype)
        copy = self.empty(values.shape, values.dtype)
        copy[...] = values
        return copy

    def check(self):
        """Assert that nothing was written outside of the arrays, and forget them."""
        for memory, start, end in self.guarded:
            assert (memory[:start] == 0xFF).all(), "written before an array"
            assert (memory[end:] == 0xFF).all(), "written past the end of an array"
        self.guarded.clear()


def protected(shape, dtype):
    """An array of NaN between pages that end the process if they are read or written.

    Its end lies at most 63 bytes before the page: it begins where vectors may.
    """
    size, page = prod(shape) * np.dtype(dtype).itemsize, mmap.PAGESIZE
    vectors = max(64, -(-size // 64) * 64)
    length = -(-vectors // page) * page
    memory = mmap.mmap(-1, length + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for at in (start, start + page + length):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(at), page, 0) == 0
    array = np.frombuffer(memory, np.uint8, vectors, page + length - vectors)
    array[:] = 0xFF
    return array[:size].view(dtype).reshape(shape)


class GuardedDevice(EmulatedDevice):
    """An `EmulatedDevice` with guarded memory; `edit` changes kernels before they are built."""

    def __init__(self):
        super().__init__()
        self.xp, self.edit = GuardedNumpy(), None

    def upload(self, array):
        return self.xp.array(super().upload(array))

    def module(self, code, options):
        return super().module(self.edit(code) if self.edit else code, options)


class GuardedBackend(EmulatedBackend):
    """`EmulatedBackend` in guarded memory.

    Parameters
    ----------
    device : GuardedDevice, optional
    forced : dict of bool to Tile
        The tile of the forward pass, False, and of the backward pass, True; else it is chosen.
    edit : callable, optional
        ``edit(code)`` returns the code that is compiled instead.
    """

    def __init__(self, device=None, forced=None, edit=None):
        super(EmulatedBackend, self).__init__(device or GuardedDevice(), "float32")
        self.capture, self.forced = False, forced or {}
        self.device.edit = edit

    def _tile(self, g, backward, dx):
        return self.forced.get(backward) or super()._tile(g, backward, dx)


@pytest.fixture
def kernels_alone():
    """A backend of which a test may use our kernels only, within their arrays."""
    backend = GuardedBackend()
    yield backend
    backend.xp.check()
    assert backend.generic == ""


class AheadDevice(GuardedDevice):
    """Has every kernel built by a pool of threads, and launches none."""

    max_dynamic_shared_size_bytes = 0

    def __init__(self, pool):
        super().__init__()
        self.pool, self.builds = pool, []

    def module(self, code, options):
        code = self.edit(code) if self.edit else code
        self.builds.append(self.pool.submit(RawModule, code=code, options=options))
        return self

    def get_function(self, name):  # noqa: ARG002
        return lambda *arguments, **options: None


def build_ahead(tests):
    """Build the kernels that these run, one on each core at a time, and launch none.

    A test has ``backend(device)`` and ``run(backend)``.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for test in tests:
            test.run(test.backend(AheadDevice(pool)))


@pytest.fixture(scope="module", autouse=True)
def built(request):
    """Build the kernels of a module's collected tests: of the parameters that have a `backend`.

    For ``built_ahead = built`` in the module.
    """
    items = (item for item in request.session.items if item.module is request.module)
    parameters = [
        value for i in items if hasattr(i, "callspec") for value in i.callspec.params.values()
    ]
    build_ahead(dict.fromkeys(value for value in parameters if hasattr(value, "backend")))


def public(backend, x):
    return backend.to_numpy(backend.from_layout(x))


def internal(backend, x):
    return backend.to_layout(backend.asarray(x))
