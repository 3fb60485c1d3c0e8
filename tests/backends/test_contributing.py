"""CONTRIBUTING's "Add an operator", carried out as it stands, in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from igc_ref.backends import numba_problem
from tests.backends.cuda import emulator

ROOT = Path(__file__).parents[2]
PROBLEM = numba_problem() or emulator.problem()


def blocks():
    """The code blocks of the section, by the path in their first line."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.search(r"^## Add an operator\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)[1]
    return dict(re.findall(r"```python\n# (\S+)\n(.*?)```", section, re.DOTALL))


def run(folder, test):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.skipif(bool(PROBLEM), reason=str(PROBLEM))
def test_the_example_works_on_all_backends_and_its_test_finds_the_fault(tmp_path):
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "igc_ref", tmp_path / "igc_ref", ignore=skip)
    for folder in ("tests/support", "tests/backends/cuda"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=skip)
    for file in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py",
                 "tests/backends/__init__.py"):  # fmt: skip
        shutil.copy(ROOT / file, tmp_path / file)

    (family, operator), (test, code) = blocks().items()
    (tmp_path / test).write_text(code, encoding="utf-8")
    source = (tmp_path / family).read_text(encoding="utf-8") + "\n" + operator
    (tmp_path / family).write_text(source, encoding="utf-8")
    done = run(tmp_path, test)
    assert "15 passed" in done.stdout, done.stdout

    assert source.count("slope * dy)") == 1
    (tmp_path / family).write_text(source.replace("slope * dy)", "dy)"), encoding="utf-8")
    done = run(tmp_path, test)
    assert "9 failed, 6 passed" in done.stdout, done.stdout
