"""``mpiexec igc-ref train``: the bits of one process, refusals by name, one end for all ranks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import igc_ref
from igc_ref.errors import BackendError
from igc_ref.report import silent
from igc_ref.training import folder as runs
from igc_ref.training import ranks
from tests.support.runs import outcome

pytest.importorskip("mpi4py")
pytest.importorskip("numba")
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
pytestmark = pytest.mark.skipif(not MPIEXEC, reason="there is no mpiexec")

# 130 images in batches of 50: of the last, with 30, the third of three ranks has none.
OPTIONS = "--depth 5 -L 2 -M 4 --backend numba --data-size 130 --batch-size 50".split()
OPTIONS += "--epochs 2 --checkpoint-every 1".split()

# What a rank runs: the command, after something that makes it different.
RANK = """
import os, sys, time
from itertools import count
import igc_ref
from igc_ref import cli, data
from igc_ref.training import checkpoint, loop, session

def at(call, module, name, happen):
    calls, before = count(1), getattr(module, name)
    def counting(*arguments):
        if next(calls) == call:
            happen()
        return before(*arguments)
    setattr(module, name, counting)
def fail(error):
    raise error
draw, data.shapes = data.shapes, lambda split, size=None: draw(split, size or 40)
{}
sys.exit(cli.main(sys.argv[1:]))
"""
CAUGHT = """
try:
    igc_ref.train(igc_ref.TrainConfig(backend="numba", lr=1e20, data_size=40, out=sys.argv[-1]))
except igc_ref.errors.TrainingError as error:
    sys.exit(print(error))
"""


def started(*ranks_of):
    """Run ranks, each (number, what makes it different, arguments); return what they printed."""
    command = [MPIEXEC]
    for number, code, arguments in ranks_of:
        rank = [sys.executable, "-c", RANK.format(code), "train", *map(str, arguments)]
        command += [*[":"][: len(command) - 1], "-n", str(number), *rank]
    command = command if number else rank  # 0: without mpiexec
    root = Path(igc_ref.__file__).parents[1]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=99)


def only_line(result, status):
    """Return what ranks said when they ended so: one line, whatever their number."""
    said = [line for line in result.stderr.splitlines() if line.startswith("igc-ref: ")]
    assert (result.returncode, len(said)) == (status, 1), result.stderr + result.stdout
    return said[0]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process learns."""
    folder = tmp_path_factory.mktemp("ranks") / "alone"
    assert started((0, "", [*OPTIONS, "--out", folder])).returncode == 0
    return outcome(folder)


@pytest.mark.parametrize("size", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))])
def test_ranks_learn_the_bits_of_one_process_and_only_one_speaks(size, alone, tmp_path):
    result = started((size, "", [*OPTIONS, "--out", tmp_path]))
    assert (result.returncode, result.stderr) == (0, "")
    assert outcome(tmp_path) == alone
    assert sum(line.startswith(("epoch ", "test ")) for line in result.stdout.splitlines()) == 3


REFUSALS = {  # what makes rank 1 different, or options of both
    "version": ("session.__version__ = '9'", "", "rank 1 has igc_ref 9, rank 0 has "),
    "images": ("data.fingerprint = lambda *_: '9'", "", "images of fingerprint 9, "),
    "setting": ("sys.argv += ['--seed', '3']", "", "rank 1 has seed 3, rank 0 has 0: ranks that "),
    "value": ("sys.argv += ['--lr', '0']", "", "rank 1: lr=0.0 is not allowed; it must be greater"),
    "no data": ("data.load = lambda *_: fail(OSError('gone'))", "", "rank 1: OSError: gone"),
    "batch": ("", "--batch-size 16", "2 ranks: at least 17 is needed, or fewer ranks: 1"),
    "numpy": ("", "--backend numpy", "the numpy backend trains in one process"),
    "folder": ("", f"--out {Path(__file__).parent}", "is not an empty folder"),
}
SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in REFUSALS if n not in ("version", "numpy")]


@pytest.mark.parametrize("name", ["version", "numpy", *SLOW])
def test_ranks_that_cannot_train_together_say_why_in_one_line(name, tmp_path):
    code, options, expected = REFUSALS[name]
    run = [*OPTIONS, "--out", tmp_path / "run", *options.split()]
    assert re.search(expected, only_line(started((1, "", run), (1, code, run)), 1))
    assert not (tmp_path / "run").exists()


STEP, SAVE, KILL = "loop, 'training_step'", "checkpoint, 'save'", "os.kill(os.getpid(), {})"
ENDS = {  # which rank, in which call of what, what happens; status; what is said
    "killed": (1, 3, STEP, KILL.format(9), 9, ""),
    "SIGINT": (1, 1, STEP, KILL.format(2), 130, "interrupted at epoch 1, step 1; saved in "),
    "SIGTERM": (1, 2, STEP, KILL.format(15), 143, "interrupted at epoch 1, step 2; saved in "),
    "memory": (1, 3, STEP, "fail(MemoryError())", 1, "rank 1: MemoryError:; continue with: "),
    "disk": (0, 3, SAVE, "fail(OSError(28, 'full'))", 1, "rank 0: OSError: .*; continue with: "),
    "fault": (1, 3, STEP, "fail(KeyError(7))", 1, "rank 1: KeyError: 7; continue with: "),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS)
def test_a_rank_that_ends_ends_all_and_another_number_continues(name, alone, tmp_path):
    rank, call, what, happens, status, expected = ENDS[name]
    code, run = f"at({call}, {what}, lambda: {happens})", [*OPTIONS, "--out", tmp_path]
    slow = "at(2, checkpoint, 'save', lambda: time.sleep(0.5))"  # the others wait for it
    result = started((1, slow if rank else code, run), (1, code if rank else "", run))
    assert f"if one is killed, continue with: igc-ref train --resume {tmp_path}" in result.stdout
    assert result.stderr.count("Traceback") == (name == "fault")
    assert not expected or re.search(expected, only_line(result, status))
    position = runs.load_newest(tmp_path, silent).position  # rank 0 may have died while it saved
    assert (result.returncode, position[:13]) == (status, "epoch 1, step")
    assert started((3 if rank else 0, "", ["--resume", tmp_path])).returncode == 0
    assert outcome(tmp_path) == alone


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_an_error_that_every_rank_can_catch(tmp_path):
    result = started((2, CAUGHT, [tmp_path]))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("the last checkpoint is of epoch 0") == 2


def test_without_mpi4py_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv("PMI_SIZE", "2")
    ranks.world.cache_clear()
    with pytest.raises(BackendError, match=r'PMI_SIZE=2 .*: pip install "igc-ref\[mpi\]"'):
        igc_ref.train(igc_ref.TrainConfig())
