"""That CuPy has the names and takes the arguments on which the cupy backend relies; no GPU."""

import ast
import inspect
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

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
        ([ADAPTER], [("cupy",)], ("cuda", "Stream")),
        (SHARED, [("xp",), ("self", "xp")], ("lib", "stride_tricks", "sliding_window_view")),
    ],
    ids=["adapter", "operators"],
)
def test_cupy_has_every_name_that_is_used(files, roots, known):
    used = names(files, *roots)
    assert known in used
    assert [path for path in used if reached(path) is None] == []


def test_an_array_has_the_methods_of_the_operators():
    for method in ("set", "astype", "reshape", "swapaxes", "argmax", "mean", "T"):
        assert hasattr(cupy.ndarray, method), method


def test_modules_and_kernels_take_our_arguments():
    module = cupy.RawModule(code="", options=("-std=c++17",))  # compiles at the first kernel
    assert callable(module.get_function)
    assert inspect.isgetsetdescriptor(cupy.RawKernel.max_dynamic_shared_size_bytes)


def test_streams_graphs_and_pools_take_our_arguments():
    stream = cupy.cuda.Stream
    assert "non_blocking" in inspect.signature(stream).parameters
    inspect.signature(stream.begin_capture).bind(None)
    inspect.signature(stream.end_capture).bind(None)
    inspect.signature(cupy.cuda.using_allocator).bind(cupy.cuda.MemoryPool.malloc)


def test_memory_of_a_dropped_graph_is_freed_after_its_work_and_not_within_a_capture(monkeypatch):
    from igc_ref.backends.cupy import backend

    told, capturing = [], []
    pools = [Mock(**{"total_bytes.return_value": 0}) for _ in range(2)]
    for pool in pools:
        pool.free_all_blocks = partial(told.append, "free")
    fake = SimpleNamespace(
        MemoryPool=Mock(side_effect=pools),
        using_allocator=cupy.cuda.using_allocator,
        Device=lambda: SimpleNamespace(synchronize=lambda: told.append("wait")),
        get_current_stream=lambda: SimpleNamespace(is_capturing=lambda: bool(capturing)),
    )
    monkeypatch.setattr(backend, "cupy", SimpleNamespace(cuda=fake))
    one, two = (backend.CupyDevice.memory(None) for _ in range(2))
    with one():
        assert told == []
    pools[0].total_bytes.return_value = 1  # a gradient of the model
    del one
    assert told == ["wait", "free"]
    pools[0].total_bytes.return_value = 0
    capturing.append(True)
    del two
    assert told == ["wait", "free"]
    capturing.clear()
    backend.give_back()
    assert told == ["wait", "free", "wait", "free", "free"]
    backend.give_back()
    assert len(told) == 5


def test_the_attributes_of_a_device_have_the_names_we_ask_for():
    tree = ast.walk(ast.parse(ADAPTER.read_text(encoding="utf-8")))
    keys = [
        node.slice.value
        for node in tree
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith(".attributes")
    ]
    assert keys
    assert [key for key in keys if not hasattr(cupy.cuda.runtime, f"cudaDevAttr{key}")] == []


def test_arrays_are_copied_as_we_ask():
    inspect.signature(cupy.asarray).bind([], order="C")
    inspect.signature(cupy.array).bind([], dtype="float32", order="C")
    assert inspect.signature(cupy.asnumpy).parameters["blocking"].default is True


def test_without_a_driver_importing_works_and_the_backend_says_what_is_missing():
    if not cupy.cuda.is_available():
        assert "no CUDA device" in cupy_problem()
