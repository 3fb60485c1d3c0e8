"""docs/exchange.md, step by step, as a new user would go: every block, in order, in one folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
