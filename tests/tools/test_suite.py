"""The tests themselves where a library or a GPU is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPTIONAL = "IPython cupy ipykernel ipywidgets matplotlib nbclient nbformat numba torch xdist"
HIDE = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def seek(name, *more):
    return None if name.partition(".")[0] in {hidden} else find(name, *more)
PathFinder.find_spec = seek
"""


def run_pytest(folder, hidden, *options, **variables):
    """Run pytest where these libraries cannot be found."""
    (folder / "hide.py").write_text(HIDE.format(hidden=set(hidden.split())))
    env = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"} | variables
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # plugins may be of hidden libraries
    command = [sys.executable, "-m", "pytest", "-p", "hide", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)


@pytest.mark.parametrize(
    ("hidden", "options"),
    [(OPTIONAL, ["-m", "gpu"]), (f"{OPTIONAL} hypothesis", ["tests/backends/cuda/test_gpu.py"])],
    ids=["-m gpu", "test_gpu.py"],
)
def test_tests_of_a_gpu_are_collected_without_libraries_that_they_do_not_need(
    tmp_path, hidden, options
):
    done = run_pytest(tmp_path, hidden, "--collect-only", "-q", *options, IGC_GPU="")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "tests/backends/cuda/test_gpu.py::test_auto_takes_the_gpu" in done.stdout


def test_a_gpu_that_was_asked_for_and_cannot_be_used_fails_the_run_and_first_says_why(tmp_path):
    options = ["tests/backends/cuda/test_gpu.py", "-q"]
    done = run_pytest(tmp_path, "cupy", *options, IGC_GPU="1")
    assert done.returncode not in (0, 5)
    first = (done.stderr + done.stdout).splitlines()[0]
    assert "IGC_GPU=1" in first
    assert "CuPy is not installed" in first
