"""The rooms of the package: who may import what, how long a file is, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import igc_ref

ROOT = Path(igc_ref.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
STANDARD = set(sys.stdlib_module_names)
GROUND = {"cores", "errors", "report", "files", "testing"}

# Room: the rooms that it may import beside the ground, and the libraries beside NumPy.
LAW = dict.fromkeys(GROUND, (set(), set())) | {
    "files": (set(), {"filelock"}),
    "report": (set(), {"tqdm"}),
    "spec": (set(), set()),
    "reference": ({"spec"}, {"scipy"}),
    "backends": ({"spec"}, {"threadpoolctl"}),
    "backends.numba": ({"spec", "backends"}, {"numba", "llvmlite", "threadpoolctl"}),
    "backends.cupy": ({"spec", "backends"}, {"cupy"}),
    "data": (set(), {"scipy", "pooch", "PIL"}),
    "networks": ({"spec", "backends"}, set()),
    "training": ({"networks", "data", "backends"}, {"mpi4py"}),
    "plots": ({"spec"}, {"matplotlib"}),
    "studies": (
        {"spec", "reference", "networks", "training", "data", "plots"},
        {"submitit", "optuna"},
    ),
    "exchange": (
        {"spec", "reference", "backends", "networks", "training"},
        {"onnx", "safetensors", "torch"},
    ),
    "bench": (
        {"spec", "backends", "data", "networks", "training", "exchange"},
        {"torch", "threadpoolctl", "onnxruntime", "openvino", "jax"},
    ),
    "cli": (
        {"spec", "backends", "data", "networks", "training", "studies", "plots", "bench"}
        | {"exchange"},
        set(),
    ),
    "__main__": ({"cli"}, set()),
    "__init__": ({"spec", "networks", "training", "reference"}, set()),
}
ROOMS = {room.split(".")[0] for room in LAW} - {"__init__", "__main__"}
LONGEST_FILE, LONGEST_FUNCTION = 500, 45  # lines; a function's docstring does not count


def imports(path):
    """Full names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")  # a relative import breaks the law
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(path):
    """The most special row of the law that a file falls under."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    names = (".".join(parts[:depth]) for depth in (2, 1))
    return next(name for name in names if name in LAW)


def violations(path):
    room = room_of(path)
    rooms, libraries = LAW[room]
    own = room.split(".")[0]
    allowed = {own} if own in GROUND else {own} | GROUND | rooms
    for name in imports(path):
        top, _, inside = name.partition(".")
        other = inside.split(".")[0]
        if top == "igc_ref" and other in ROOMS and other not in allowed:
            yield f"{path.relative_to(ROOT)} imports {name}"
        if top not in {"igc_ref", "numpy"} | STANDARD | libraries:
            yield f"{path.relative_to(ROOT)} imports {name}"


def test_a_room_imports_only_what_the_law_allows():
    found = [line for path in FILES for line in violations(path)]
    assert not found, "\n".join(found)


def too_long(path):
    source = path.read_text(encoding="utf-8")
    if (lines := source.count("\n")) > LONGEST_FILE:
        yield f"{path.relative_to(ROOT)} has {lines} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node, clean=False) or ""
            lines = node.end_lineno - node.lineno + 1 - documented.count("\n")
            if lines > LONGEST_FUNCTION:
                yield f"{path.relative_to(ROOT)}: {node.name} has {lines} lines"


def test_no_file_and_no_function_is_too_long():
    found = [line for path in FILES for line in too_long(path)]
    assert not found, "\n".join(found)


def test_importing_the_package_loads_no_optional_library_and_no_reference():
    code = (
        "import sys, igc_ref.cli; "
        "assert 'numpy' not in sys.modules; "  # the command answers Ctrl-C before it imports more
        "assert {'train', 'reference'} <= set(dir(igc_ref)) and igc_ref.train; "
        "bad = {'cupy', 'numba', 'matplotlib', 'torch', 'scipy', 'pooch', 'igc_ref.reference'}; "
        "assert not bad & set(sys.modules), bad & set(sys.modules); "
        "assert igc_ref.reference.forward and callable(igc_ref.train)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_of_the_design_exists_and_is_documented():
    for module in (igc_ref, igc_ref.reference):
        for name in module.__all__:
            assert getattr(module, name).__doc__, name
