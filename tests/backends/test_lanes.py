"""How many numbers a vector has, and that with as many the bits do not depend on the processor."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from igc_ref.backends import get_backend, numba_problem
from igc_ref.errors import BackendError, CheckpointError, SpecError
from igc_ref.training.session import resume, train
from tests.support.runs import config

needs_numba = pytest.mark.skipif(bool(numba_problem()), reason=str(numba_problem()))
# What NumPy, the C library, its BLAS and numba take for a processor without AVX-512.
AVX2 = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+sse4.2,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe,+popcnt",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Haswell",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD",
}


def run(code, *arguments, check=True, **variables):
    command, folder = [sys.executable, "-c", code, *arguments], Path(__file__).parents[2]
    options = {"env": os.environ | variables, "cwd": folder, "check": check}
    return subprocess.run(command, capture_output=True, text=True, **options)


LEARN = """
from igc_ref import data
from igc_ref.backends import get_backend
backend = get_backend("numba", lanes="16")
from tests.backends.test_shared import NETWORKS, learned

images = data.load("shapes", "train", None, print, 130)  # batches of 50, 50 and 30
for arch in NETWORKS:
    print(arch, learned(arch, "float64", images, 50, None, 2))
"""


@needs_numba
@pytest.mark.slow
def test_with_the_same_lanes_two_kinds_of_processors_learn_the_same():
    with ThreadPoolExecutor(2) as pool:
        here, there = pool.map(lambda v: run(LEARN, **v).stdout, ({}, AVX2))
    assert here == there


@needs_numba
@pytest.mark.slow
@pytest.mark.parametrize("processor", [{}, AVX2], ids=["this processor", "AVX2"])
def test_the_commands_of_docs_scale_print_its_hashes_on(processor, monkeypatch):
    scale = pytest.importorskip("benchmarks.scale")
    for name, value in processor.items():
        monkeypatch.setenv(name, value)
    assert scale.rehashed(page := scale.PAGE.read_text("utf-8")) == page


LANES = """
import sys
import numpy as np
from igc_ref.backends import get_backend
backend = get_backend("numba", lanes=sys.argv[1])
x = backend.to_layout(images := np.arange(32, dtype="float32").reshape(32, 1, 1, 1))
print(x.layout.lanes, np.array_equal(x.data.ravel(), images.ravel()), get_backend("numba").unit)
get_backend("numba", lanes=sys.argv[2])
"""


@needs_numba
def test_a_process_has_one_kind_of_lanes_and_a_cache_has_kernels_for_each(tmp_path):
    for files, (lanes, other) in enumerate((("8", "16"), ("16", "8")), start=1):
        done = run(LANES, lanes, other, check=False, NUMBA_CACHE_DIR=str(tmp_path))
        assert done.stdout == f"{lanes} True {lanes}\n"
        refusal = f"BackendError: lanes={other} needs a new process: this one computes with lanes="
        assert refusal + lanes in done.stderr
        assert len([*tmp_path.rglob("*.nbc")]) == files


@pytest.mark.parametrize("name", ["numpy", "cupy"])
def test_other_backends_have_no_lanes(name):
    with pytest.raises(BackendError, match=f"lanes=8 needs the numba backend, not {name}"):
        get_backend(name, lanes="8")
    with pytest.raises(SpecError, match="lanes='4' is unknown; choose one of auto, 8, 16"):
        get_backend(name, lanes="4")


@pytest.mark.usefixtures("few_images")
def test_a_run_keeps_its_lanes(tmp_path):
    train(config(tmp_path, epochs=1))
    with pytest.raises(BackendError, match="lanes=8 needs the numba backend"):
        train(config(tmp_path, "other", lanes=8))  # a number is taken, too
    with pytest.raises(CheckpointError, match=r"holds another run: .*lanes"):
        resume(tmp_path / "run", lanes="8")
