"""That CuPy has the names and takes the arguments on which the cupy backend relies; no GPU."""

import ast
import inspect
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from igc_ref import backends
from igc_ref.backends import cupy_problem

cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
pytestmark = pytest.mark.slow  # needs the extra `dev`

FOLDER = Path(backends.__file__).parent
ADAPTER = FOLDER / "cupy" / "backend.py"
SHARED = [*(FOLDER / "operators").glob("*.py"), *(FOLDER / "cupy").glob("*.py")]


def dotted(node):
    """The names of ``a.b.c``, or None."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return (*before, node.attr)
    return None


def names(files, *roots):
    """Every name that files take from a root, such as ``lib.stride_tricks`` of ``self.xp``."""
    paths = {
        path
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and (path := dotted(node))
    }
    return {path[len(r) :] for r in roots for path in paths if path[: len(r)] == r and path != r}


def reached(path):
    """What CuPy has under a name, or None."""
    thing = cupy
    for name in path:
        thing = getattr(thing, name, None)
    return thing


@pytest.mark.parametrize(
    ("files", "roots", "known"),
    [
        ([ADAPTER, ADAPTER.with_name("nccl.py")], [("cupy",)], ("cuda", "Stream")),
        (SHARED, [("xp",), ("self", "xp")], ("lib", "stride_tricks", "sliding_window_view")),
    ],
    ids=["adapter", "operators"],
)
def test_cupy_has_every_name_that_is_used(files, roots, known):
    used = names(files, *roots)
    assert known in used
    assert [path for path in used if reached(path) is None] == []


def test_arrays_modules_streams_and_pools_have_our_methods_and_take_our_arguments():
    for method in ("set", "astype", "reshape", "swapaxes", "argmax", "mean", "T"):
        assert hasattr(cupy.ndarray, method), method
    inspect.signature(cupy.asarray).bind([], order="C")
    inspect.signature(cupy.array).bind([], dtype="float32", order="C")
    assert inspect.signature(cupy.asnumpy).parameters["blocking"].default is True
    module = cupy.RawModule(code="", options=("-std=c++17",))  # compiles at the first kernel
    assert callable(module.get_function)
    assert inspect.isgetsetdescriptor(cupy.RawKernel.max_dynamic_shared_size_bytes)
    stream = cupy.cuda.Stream
    assert "non_blocking" in inspect.signature(stream).parameters
    inspect.signature(stream.begin_capture).bind(None)
    inspect.signature(stream.end_capture).bind(None)
    inspect.signature(cupy.cuda.using_allocator).bind(cupy.cuda.MemoryPool.malloc)


@pytest.fixture
def machine(monkeypatch):
    """What the backend uses of `cupy.cuda`; `told` notes who waits, and which pool is emptied."""
    from igc_ref.backends.cupy import backend

    allocator = cupy.cuda.using_allocator
    m = SimpleNamespace(told=[], current=0, capturing=False, in_use=0, using_allocator=allocator)

    class Device:
        def __init__(self):
            self.number = m.current

        def __enter__(self):
            self.before, m.current = m.current, self.number

        def __exit__(self, *error):
            m.current = self.before

        def synchronize(self):
            m.told.append(f"wait for {self.number}")

    pool = SimpleNamespace(malloc=None, total_bytes=lambda: m.in_use)
    pool.free_all_blocks = lambda: m.told.append(f"free on {m.current}")
    stream = SimpleNamespace(is_capturing=lambda: m.capturing, begin_capture=bool, end_capture=bool)
    vars(m).update(Device=Device, MemoryPool=lambda: pool, get_current_stream=lambda: stream)
    monkeypatch.setattr(backend, "cupy", SimpleNamespace(cuda=m))
    return m


def test_memory_of_a_dropped_graph_is_freed_after_its_work_and_not_within_a_capture(machine):
    from igc_ref.backends.cupy.backend import CupyDevice, give_back

    told, freed = machine.told, ["wait for 0", "free on 0"]
    one, two = (CupyDevice.memory(None) for _ in range(2))
    with one():
        assert told == []
    machine.in_use = 1  # a gradient of the model
    del one
    assert told == freed
    machine.in_use = 0
    machine.capturing = True
    del two
    assert told == freed
    machine.capturing = False
    give_back()
    assert told == freed * 3
    give_back()
    assert told == freed * 3


def test_memory_dropped_in_another_thread_is_freed_on_its_device_and_not_within_a_capture(machine):
    from igc_ref.backends.cupy.backend import CupyDevice, give_back

    machine.current = 1
    dropped, device = [CupyDevice.memory(None)], CupyDevice.__new__(CupyDevice)
    machine.current = 0

    def step():  # meanwhile the garbage collector runs in a thread that captures nothing
        thread = Thread(target=dropped.clear)
        thread.start()
        thread.join()
        assert dropped == machine.told == []

    device.capture(step)
    give_back()
    assert machine.told == ["wait for 1", "free on 1"]


def test_the_attributes_of_a_device_have_the_names_we_ask_for():
    tree = ast.walk(ast.parse(ADAPTER.read_text(encoding="utf-8")))
    keys = [
        node.slice.value
        for node in tree
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith(".attributes")
    ]
    assert keys
    assert [key for key in keys if not hasattr(cupy.cuda.runtime, f"cudaDevAttr{key}")] == []


def test_without_a_driver_importing_works_and_the_backend_says_what_is_missing():
    if not cupy.cuda.is_available():
        assert "no CUDA device" in cupy_problem()
