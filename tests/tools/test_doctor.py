"""``igc-ref doctor``: it says what is wrong with an installation, and never fails over it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import igc_ref
from igc_ref import backends
from igc_ref.backends import NumpyBackend
from igc_ref.cli import main

BROKEN = {  # a library, what its import raises, what the doctor must say of it
    "numba": ('ImportError("needs NumPy 2.2")', "ImportError: needs NumPy 2.2"),
    "cupy": (
        'OSError("\\n====\\nFailed to import CuPy.\\n\\nlibcudart.so.13: cannot open\\n")',
        "OSError: ==== Failed to import CuPy. libcudart.so.13: cannot open",
    ),
}


def table(text):
    """The rows by name, in order."""
    width = text.index(igc_ref.__version__)
    return {line[:width].rstrip(): line[width:] for line in text.splitlines()}


def doctor(capsys, *options):
    """Exit status, rows and error of the command in this process."""
    status = main(["doctor", *options])
    out, err = capsys.readouterr()
    return status, table(out), err


def run(*options, command="doctor", **variables):
    """Run the command in a process of its own, with these environment variables."""
    command = [sys.executable, "-m", "igc_ref", command, *options]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | variables)


def test_it_shows_the_machine_and_what_a_backend_computes(capsys, monkeypatch):
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 8}, raising=False)
    status, rows, err = doctor(capsys, "--backend", "numpy")
    assert (status, err) == (0, "")
    assert rows["Python"].startswith(sys.version.split()[0])
    assert "numpy " in rows["packages"]
    assert rows["processor"].endswith(", 3 threads for this process")
    assert "NUMBA_NUM_THREADS=1" in rows["variables"]
    assert rows["backend=numpy"] == "takes numpy; one kernel tried: right"


def test_broken_libraries_are_lines_of_the_output_and_auto_takes_numpy(tmp_path):
    for library, (source, _) in BROKEN.items():
        (tmp_path / library).mkdir()
        (tmp_path / library / "__init__.py").write_text(f"raise {source}")
    done = run(PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    rows = table(done.stdout)
    assert done.returncode == 0
    assert "warning: backend='auto' takes numpy; CuPy is installed but fails: " in done.stderr
    for library, (_, text) in BROKEN.items():
        assert rows[f"{library} backend"].endswith(f" is installed but fails: {text}")
    assert rows["backend=auto"].startswith("takes numpy")


def test_numba_without_its_compiler_is_exit_status_1_and_the_last_line_the_reason():
    pytest.importorskip("numba")
    done = run("--backend", "numba", NUMBA_DISABLE_JIT="1")
    assert done.returncode == 1
    assert "fails: ImportError: NUMBA_DISABLE_JIT is set" in done.stdout.splitlines()[-1]
    assert done.stderr.startswith("igc-ref: error: backend=numba does not compute here")
    assert done.stderr.count("\n") == 1


def test_a_backend_that_computes_nonsense_is_exit_status_1(capsys, monkeypatch):
    monkeypatch.setattr(NumpyBackend, "shuffle", lambda self, x, groups: (x, groups))
    status, rows, _ = doctor(capsys, "--backend", "numpy")
    assert status == 1
    assert "the numpy backend shuffles wrongly" in rows["backend=numpy"]


def test_a_fact_that_cannot_be_had_is_its_error_and_the_others_are_shown(capsys, monkeypatch):
    def no_driver():
        raise RuntimeError("no driver\nat all")

    facts = {"CUDA": no_driver, "GPU": lambda: "NVIDIA H100"}
    fake = SimpleNamespace(device_problem=lambda: None, facts=lambda: facts)
    monkeypatch.setitem(sys.modules, "igc_ref.backends.cupy.backend", fake)
    monkeypatch.setattr(backends, "find_spec", lambda name: object())
    status, rows, _ = doctor(capsys, "--backend", "numpy")
    assert status == 0
    assert rows["cupy backend"] == "can run"
    assert rows["CUDA"] == "RuntimeError: no driver at all"
    assert rows["GPU"] == "NVIDIA H100"


def test_the_card_is_named_with_its_capability_and_memory(monkeypatch):
    cupy = pytest.importorskip("cupy")
    from igc_ref.backends.cupy.backend import facts

    card = SimpleNamespace(id=0, compute_capability="90", mem_info=(70 << 30, 80 << 30))
    monkeypatch.setattr(cupy.cuda, "Device", lambda: card)
    names = {"name": b"NVIDIA H100"}
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceProperties", lambda number: names)
    monkeypatch.setattr(cupy.cuda.runtime, "driverGetVersion", lambda: 12080)
    found = facts()
    assert found["GPU"]() == "NVIDIA H100, compute capability 9.0, 70.0 of 80.0 GiB free"
    assert found["CUDA of driver"]() == "12.8"


@pytest.mark.skipif(bool(backends.numba_problem()), reason="needs numba")
def test_warm_up_says_where_the_kernels_are_and_fails_if_that_is_not_where_they_should(tmp_path):
    done = run("--dtype", "float32", command="warm-up")
    count, folder, seconds = re.search(
        r"^(\d+) kernels for float32 in (.*), after (.*) s$", done.stdout, re.MULTILINE
    ).groups()
    assert (done.returncode, done.stderr) == (0, "")
    assert int(count) >= 10 <= len([*Path(folder).glob("*.nbc")])
    assert 0 < float(seconds) < 600
    (tmp_path / "file").touch()
    failed = run(command="warm-up", NUMBA_CACHE_DIR=str(tmp_path / "file"))
    assert failed.returncode == 1
    assert "cannot be written: the kernels are in" in failed.stderr
