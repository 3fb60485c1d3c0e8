"""The import law: who may import what, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import igc_ref

ROOT = Path(igc_ref.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
STANDARD = set(sys.stdlib_module_names)


def imports(path):
    """Full names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path):
    return path.relative_to(ROOT).as_posix().replace("_", "-")  # -k special_cases picks theorems


def within(path, *parts):
    return path.relative_to(ROOT).parts[: len(parts)] == parts


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_what_the_law_allows(path):
    for name in imports(path):
        top = name.split(".")[0]
        if within(path, "reference"):
            allowed = name.startswith(("igc_ref.reference", "igc_ref.spec", "igc_ref.errors"))
            assert top in {"numpy", "scipy", *STANDARD} or allowed, name
        else:
            assert not name.startswith("igc_ref.reference"), name
            # The reader of MATLAB files, in a function: `import igc_ref` loads no SciPy (below).
            allowed = within(path, "data", "svhn.py") and name.startswith("scipy.io")
            assert top != "scipy" or allowed, name
        if not within(path, "backends"):
            assert top not in {"cupy", "numba"}, name
        if not within(path, "bench", "torch_twins.py"):  # the rival of a benchmark
            assert top != "torch", name
        assert top != "jax", name


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_room_is_too_full(path):
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= 310, "a file has about 300 lines at most"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node, clean=False) or ""
            lines = node.end_lineno - node.lineno + 1 - documented.count("\n")
            assert lines <= 45, f"{node.name} has {lines} lines besides its docstring"


def test_importing_the_package_loads_no_optional_library_and_no_reference():
    code = (
        "import sys, igc_ref; "
        "bad = {'cupy', 'numba', 'matplotlib', 'torch', 'scipy', 'igc_ref.reference'}; "
        "assert not bad & set(sys.modules), bad & set(sys.modules); "
        "assert igc_ref.reference.forward and callable(igc_ref.train)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_of_the_design_exists_and_is_documented():
    for name in igc_ref.__all__:
        assert getattr(igc_ref, name).__doc__, name
