"""What the documents and the docstrings show, run as it stands there."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import igc_ref
from igc_ref import data

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
}
BLOCKS = [
    pytest.param(block, id=f"{page}-{number}")
    for page, text in PAGES.items()
    if page != "CONTRIBUTING.md"  # its code is meant for other files
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL), start=1)
]
MODULES = [m.name for m in pkgutil.walk_packages(igc_ref.__path__, "igc_ref.")]
NEEDS = {  # a library that may not be there
    "igc_ref.backends.cupy.backend": "cupy",
    "igc_ref.backends.numba.backend": "numba",
    "igc_ref.backends.numba": "numba",
    "igc_ref.bench.torch_twins": "torch",
}
SKIP = {"igc_ref.__main__"}  # a command


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_a_document_runs_as_it_stands(block, tmp_path, monkeypatch):
    sizes, draw = {"train": 20, "test": 10}, data.shapes
    monkeypatch.setattr(data, "shapes", lambda split: draw(split, size=sizes[split]))
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "document", "exec"), {})


@pytest.mark.parametrize("name", sorted(set(MODULES) - SKIP), ids=lambda n: n.replace("_", "-"))
def test_the_examples_of_the_docstrings_are_true(name):
    for module, library in NEEDS.items():
        if name.startswith(module):
            pytest.importorskip(library)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_a_document_links_to_exist(page):
    for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", PAGES[page]):
        assert ((ROOT / page).parent / link).exists(), link
