"""That CuPy has what `igc_ref.backends.cupy.backend` asks of it; no card, no driver."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import igc_ref
from tests.backends.cuda import nvrtc

cupy = pytest.importorskip("cupy", reason="CuPy is not installed")

BACKENDS = Path(igc_ref.__file__).parent / "backends"
ADAPTER = (BACKENDS / "cupy_backend.py").read_text(encoding="utf-8")


def dotted(node):
    """The names of ``a.b.c``, or None."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return (*before, node.attr)
    return None


def names(root, *files):
    """Every name that files take from `root`, such as ``("xp", "lib", "stride_tricks")``."""
    return sorted(
        {
            path[len(root) :]
            for file in files
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute) and (path := dotted(node))
            if path[: len(root)] == root and len(path) > len(root)
        }
    )


def reached(path):
    """What CuPy has under a name."""
    thing = cupy
    for name in path:
        thing = getattr(thing, name)
    return thing


@pytest.mark.parametrize(
    "path", names(("cupy",), BACKENDS / "cupy_backend.py"), ids=lambda path: ".".join(path)
)
def test_the_adapter_uses_names_that_cupy_has(path):
    assert reached(path) is not None


GENERIC = [*BACKENDS.glob("*.py"), *(BACKENDS / "cuda").glob("*.py")]
USED = {path for root in (("xp",), ("self", "xp")) for path in names(root, *GENERIC)}


@pytest.mark.parametrize("path", sorted(USED), ids=lambda path: ".".join(path))
def test_operators_use_names_that_cupy_has(path):
    assert reached(path) is not None


def test_some_names_were_found():
    assert ("lib", "stride_tricks", "sliding_window_view") in USED
    assert ("empty",) in USED


@pytest.mark.parametrize("method", ["set", "astype", "reshape", "swapaxes", "argmax", "mean", "T"])
def test_an_array_has_the_methods_of_the_operators(method):
    assert hasattr(cupy.ndarray, method)


def test_modules_and_kernels_take_our_arguments():
    module = cupy.RawModule(code="", options=("-std=c++17",))  # compiles at the first kernel
    assert callable(module.get_function)
    kernel = cupy.RawKernel
    assert inspect.isgetsetdescriptor(kernel.max_dynamic_shared_size_bytes)
    assert "(self, grid, block, args, " in kernel.__call__.__doc__
    assert "shared_mem=0)" in kernel.__call__.__doc__


def test_streams_graphs_and_pools_take_our_arguments():
    from cupy.cuda.graph import Graph

    stream = cupy.cuda.Stream
    assert "non_blocking" in inspect.signature(stream).parameters
    inspect.signature(stream.begin_capture).bind(None)
    inspect.signature(stream.end_capture).bind(None)
    assert "launch(self, stream=None)" in Graph.launch.__doc__
    inspect.signature(cupy.cuda.using_allocator).bind(cupy.cuda.MemoryPool.malloc)


def test_the_attributes_of_a_device_have_the_names_we_ask_for():
    keys = re.findall(r'attributes\["(\w+)"\]', ADAPTER)
    assert keys
    for key in keys:
        assert hasattr(cupy.cuda.runtime, f"cudaDevAttr{key}")
    assert "`cudaDevAttr` has been trimmed" in inspect.getdoc(cupy.cuda.Device.attributes)


def test_arrays_are_copied_as_we_ask():
    inspect.signature(cupy.asarray).bind([], order="C")
    inspect.signature(cupy.array).bind([], dtype="float32", order="C")
    inspect.signature(cupy.asnumpy).bind([])
    assert inspect.signature(cupy.asnumpy).parameters["blocking"].default is True


def test_cupy_compiles_with_the_options_that_our_tests_use():
    compiler = inspect.getsource(cupy.cuda.compiler)
    for option in nvrtc.CUPY_OPTIONS:
        assert f"options += ('{option}',)" in compiler
    assert re.search(r"-arch=sm_\{arch\}", compiler)  # cubins, so that the assembler runs here


def test_without_a_driver_nothing_is_available_but_importing_works():
    if not cupy.cuda.is_available():
        from igc_ref.backends import cupy_problem

        assert "no CUDA device" in cupy_problem()
