"""What the documents and the docstrings show, run as it stands there."""

import doctest
import importlib
import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import igc_ref

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
    "igc_ref.backends.cupy.nccl": "cupy",
    "igc_ref.backends.numba.": "numba",
    "igc_ref.bench.torch_twins": "torch",
    "igc_ref.exchange.onnx": "onnx",
    "igc_ref.exchange.safetensors": "safetensors",
    "igc_ref.exchange.torch": "torch",
}


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_a_document_runs_as_it_stands(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "document", "exec"), {})


def test_the_examples_of_the_docstrings_are_true(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    missing = tuple(module for module, library in NEEDS.items() if not find_spec(library))
    finder, told, tried = doctest.DocTestFinder(exclude_empty=True), [], 0
    for name in MODULES:
        if name != "igc_ref.__main__" and not f"{name}.".startswith(missing):
            runner = doctest.DocTestRunner()
            for example in finder.find(importlib.import_module(name), name):
                runner.run(example, out=told.append)
            tried += runner.summarize(verbose=False).attempted
    assert not told, "".join(told)
    assert tried > 50


def test_the_files_that_documents_link_to_exist():
    links = [
        (page, link)
        for page, text in PAGES.items()
        for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", text)
    ]
    assert [
        (page, link) for page, link in links if not (ROOT / page).parent.joinpath(link).exists()
    ] == []
