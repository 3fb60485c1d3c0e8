"""``mpiexec igc-ref train``: the bits of one process, refusals by name, one end for all ranks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import igc_ref
from igc_ref.cli import main
from igc_ref.errors import BackendError
from igc_ref.files import locked
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
from contextlib import nullcontext
from itertools import count
from unittest.mock import patch
import igc_ref
from igc_ref import cli, data
from igc_ref.training import checkpoint, loop, ranks

def at(call, module, name, happen):
    calls, before = count(1), getattr(module, name)
    def counting(*arguments):
        if next(calls) == call:
            happen()
        return before(*arguments)
    setattr(module, name, counting)
def fail(error):
    raise error
draw, data.shapes = data.shapes, lambda split, size=None: draw(split, size or 30)
ranks.PATIENCE = 0  # rank 0 never has the error of rank 1 here
{}
sys.exit(cli.main(sys.argv[1:]))
"""


def started(*ranks_of):
    """Run ranks, each (number, what makes it different, arguments); return what they printed."""
    command = [MPIEXEC]
    for number, code, arguments in ranks_of:
        rank = [sys.executable, "-c", RANK.format(code), "train", *map(str, arguments)]
        command += [*[":"][: len(command) - 1], "-n", str(number), *rank]
    root = Path(igc_ref.__file__).parents[1]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=99)


def matches(result, status, *expected):
    """Whether ranks ended so, and said these lines of ours, whatever their number."""
    said = [line for line in result.stderr.splitlines() if line.startswith("igc-ref: ")]
    assert (result.returncode, len(said)) == (status, len(expected)), result.stderr + result.stdout
    return all(map(re.search, expected, said)) or pytest.fail(result.stderr)


@pytest.fixture
def alone(few_images, tmp_path_factory):
    """What one process learns."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert main(["train", *OPTIONS, "--out", str(folder)]) == 0
    return outcome(folder)


@pytest.mark.parametrize("size", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_ranks_learn_the_bits_of_one_process_and_only_one_speaks(size, alone, tmp_path):
    result = started((size, "", [*OPTIONS, "--out", tmp_path]))
    assert (result.returncode, result.stderr) == (0, "")
    assert outcome(tmp_path) == alone
    assert sum(line.startswith(("epoch ", "test ")) for line in result.stdout.splitlines()) == 3


REFUSALS = [  # on rank 1: what is patched, and options; options of both; what is said
    ("session.__version__', '9'", "", "", "rank 1 has igc_ref 9, rank 0 has "),
    ("session.data.fingerprint', lambda *_: '9'", "", "", "images of fingerprint 9, "),
    ("session.data.load', side_effect=OSError('gone')", "", "", "rank 1: OSError: gone"),
    ("", "--seed 3", "", "rank 1 has seed 3, rank 0 has 0: ranks that train together must agree"),
    ("", "--lr 0", "", "rank 1: lr=0.0 is not allowed; it must be greater"),
    ("", "--resume no", "", "rank 1 continues a run, rank 0 begins to train: ranks must agree"),
    ("", "", "--batch-size 16", "2 ranks: at least 17 is needed, or fewer ranks: 1"),
    ("", "", "--backend numpy", "the numpy backend trains in one process"),
    ("", "", f"--out {Path(__file__).parent}", "is not an empty folder"),
    # It gets as far as this only if the others have made no folder.
    ("", "", "--lr 1e20", "the loss is .*; the last checkpoint is of epoch 1, step "),
]
REFUSED = """
for target, options in {}:
    with eval("patch('igc_ref.training." + target + ")") if target else nullcontext():
        cli.main([*sys.argv[1:], *options.split()]) == 1 or sys.exit(5)
sys.exit()
"""


def test_ranks_that_cannot_train_together_say_why_in_one_line_and_go_on(tmp_path):
    run = [*OPTIONS, "--out", tmp_path / "run"]
    zero = REFUSED.format([("", both) for _, _, both, _ in REFUSALS])
    one = REFUSED.format([(target, own + both) for target, own, both, _ in REFUSALS])
    assert matches(started((1, zero, run), (1, one, run)), 0, *(said for *_, said in REFUSALS))


STEP, SAVE, KILL = "loop, 'training_step'", "checkpoint, 'save'", "os.kill(os.getpid(), {})"
SLOW = "at(2, checkpoint, 'save', lambda: time.sleep(0.3))"  # the others wait for it
ENDS = {  # which rank, in which call of what, what happens; status; what is said
    "killed": (1, 3, STEP, KILL.format(9), 9),
    "memory": (1, 3, STEP, "fail(MemoryError())", 1, "rank 1: MemoryError:; continue with: "),
    "disk": (0, 3, SAVE, "fail(OSError(28, 'full'))", 1, "rank 0: OSError: .*; continue with: "),
    "fault": (1, 3, STEP, "fail(KeyError(7))", 1, "rank 1: KeyError: 7; continue with: "),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS)
def test_a_rank_that_ends_ends_all_and_one_process_continues(name, alone, tmp_path):
    rank, call, what, happens, *expected = ENDS[name]
    code, run = f"at({call}, {what}, lambda: {happens})", [*OPTIONS, "--out", tmp_path]
    result = started((1, SLOW if rank else code, run), (1, code if rank else "", run))
    assert f"if one is killed, continue with: igc-ref train --resume {tmp_path}" in result.stdout
    assert matches(result, *expected)
    assert result.stderr.count("Traceback") == (name == "fault")
    with locked(tmp_path / runs.LOCK, 9, silent):  # rank 0 may outlive mpiexec by a moment
        assert runs.load_newest(tmp_path, silent).position.startswith("epoch 1, step")
    assert main(["train", "--resume", str(tmp_path)]) == 0
    assert outcome(tmp_path) == alone


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_at_one_step_and_another_number_continues(alone, tmp_path):
    code = "".join(f"at({n}, {STEP}, lambda: {KILL.format(s)})\n" for n, s in ((1, 2), (2, 15)))
    then = "cli.main(sys.argv[1:]) == 130 or sys.exit(5)\nsys.argv[2:] = ['--resume', sys.argv[-1]]"
    run, stopped = [*OPTIONS, "--out", tmp_path], "interrupted at epoch 1, step {}; saved in "
    result = started((1, f"{SLOW}\n{then}", run), (1, code + then, run))
    assert matches(result, 143, stopped.format(1), stopped.format(2))
    assert started((3, "", ["--resume", tmp_path])).returncode == 0
    assert outcome(tmp_path) == alone


def test_without_mpi4py_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv("PMI_SIZE", "2")
    ranks.world.cache_clear()
    with pytest.raises(BackendError, match=r'PMI_SIZE=2 .*: pip install "igc-ref\[mpi\]"'):
        igc_ref.train(igc_ref.TrainConfig())
