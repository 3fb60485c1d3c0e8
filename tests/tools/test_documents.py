"""What the README and the docstrings show, run as it stands there."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import igc_ref
from igc_ref import data

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
MODULES = [m.name for m in pkgutil.walk_packages(igc_ref.__path__, "igc_ref.")]
NEEDS = {  # a library that may not be there
    "igc_ref.backends.cupy.backend": "cupy",
    "igc_ref.backends.numba.backend": "numba",
    "igc_ref.backends.numba": "numba",
    "igc_ref.bench.torch_twins": "torch",
}
SKIP = {"igc_ref.__main__"}  # a command


@pytest.mark.parametrize("block", BLOCKS, ids=["matrices", "training"])
def test_a_block_of_the_readme_runs_as_it_stands(block, tmp_path, monkeypatch):
    sizes, draw = {"train": 20, "test": 10}, data.shapes
    monkeypatch.setattr(data, "shapes", lambda split: draw(split, size=sizes[split]))
    monkeypatch.chdir(tmp_path)
    exec(compile(block, str(README), "exec"), {})


@pytest.mark.parametrize("name", sorted(set(MODULES) - SKIP), ids=lambda n: n.replace("_", "-"))
def test_the_examples_of_the_docstrings_are_true(name):
    for module, library in NEEDS.items():
        if name.startswith(module):
            pytest.importorskip(library)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_files_that_the_readme_names_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / link).exists(), link
