"""docs/exchange.md, step by step, as a new user would go; and the weights that it offers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from igc_ref import exchange

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/exchange.md").read_text(encoding="utf-8")
STEPS = re.findall(r"```(sh|py)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_walk_of_the_page_runs_as_it_stands(tmp_path, monkeypatch):
    for library in ("PIL", "onnx", "onnxruntime", "safetensors", "torch"):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, block in STEPS:
        if language == "py":
            exec(compile(block, "docs/exchange.md", "exec"), names)
        else:
            command = f'igc-ref() {{ "{sys.executable}" -m igc_ref "$@"; }}\nset -e\n{block}'
            done = subprocess.run(
                ["bash", "-c", command],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            print(done.stdout)
    assert len(STEPS) == 9


@pytest.mark.slow
def test_both_files_of_published_weights_hold_one_network_and_are_small():
    for library in ("onnx", "safetensors"):
        pytest.importorskip(library)
    paths = sorted((ROOT / "docs/weights").glob("*-cifar10.*"))
    assert [path.suffix for path in paths] == [".onnx", ".safetensors"]
    assert max(path.stat().st_size for path in paths) < 1_000_000
    first, second = (exchange.load(path, "numpy") for path in paths)
    assert first.num_parameters == 155_962
    assert first.metadata == second.metadata
    for name, array in first.state_dict().items():
        assert np.array_equal(array, second.state_dict()[name]), name
