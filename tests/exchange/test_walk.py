"""docs/exchange.md, step by step, as a new user would go; and the weights that it offers."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from igc_ref import exchange

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/exchange.md").read_text(encoding="utf-8")
STEPS = re.findall(r"```(sh|py)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
@pytest.mark.usefixtures("few_images")  # the page draws 3000; that is all it is spared
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
    assert first.sha256() == second.sha256()
    card = (ROOT / "docs/weights/README.md").read_text(encoding="utf-8")
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert re.findall("[0-9a-f]{64}", card) == [hashes[1], first.sha256(), *hashes]
    found = re.findall(r"^\d \w+ +(.*) ([\d.]+)%$", card, re.MULTILINE)
    counts, recalls = np.array([row.split() for row, _ in found], int), [float(r) for _, r in found]
    assert np.allclose(counts.diagonal() / counts.sum(1) * 100, recalls, atol=0.051)
    stated = re.findall(r"accuracy ([\d.]+)%.*95 % interval ([\d.]+)% to ([\d.]+)%", card)
    assert stated[0] == stated[1]  # as logged; evaluated here; with statistics anew
    assert float(stated[2][0]) == round(counts.trace() / counts.sum() * 100, 2)
    for reached, *ends in np.array(stated, float):
        interval = binomtest(round(reached * 100), 10_000).proportion_ci(method="wilson")
        assert np.allclose(ends, np.multiply(interval[:], 100), atol=0.006)
