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
from igc_ref.training import checkpoint, ranks
from igc_ref.training import folder as runs
from tests.support.runs import outcome

pytest.importorskip("mpi4py")
pytest.importorskip("numba")
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
pytestmark = pytest.mark.skipif(not MPIEXEC, reason="there is no mpiexec")

# 130 images in batches of 50: of the last, with 30, the third of three ranks has none.
OPTIONS = (
    "--depth 5 -L 2 -M 4 --backend numba --data-size 130 --batch-size 50 --epochs 2 "
    "--checkpoint-every 1"
).split()
STEPS = 3  # of an epoch

# What a rank runs: the command, after something that makes it different.
RANK = """
import os, sys, time
from dataclasses import replace
import igc_ref
from igc_ref import data
from igc_ref.cli import main
from igc_ref.training import checkpoint, loop, ranks

def at(call, module, name, happen):
    taken, before = [], getattr(module, name)
    def counting(*arguments):
        taken.append(arguments)
        if len(taken) == call:
            happen()
        return before(*arguments)
    setattr(module, name, counting)

def fail(error):
    raise error

draw = data.shapes
data.shapes = lambda split, size=None: draw(split, size or 40)
{}
sys.exit(main(sys.argv[1:]))
"""
OTHER_IMAGES = """
def other(split, size=None, draw=data.shapes):
    images = draw(split, size).images.copy()
    images[0, 0, 0, 0] ^= 1
    return replace(draw(split, size), images=images)
data.shapes = other
"""


def started(*ranks_of):
    """Run ranks, each (number, what makes it different, arguments); return what they printed."""
    command = [MPIEXEC]
    for number, code, arguments in ranks_of:
        rank = [sys.executable, "-c", RANK.format(code), "train", *map(str, arguments)]
        command += [":", "-n", str(number), *rank] if command[1:] else ["-n", str(number), *rank]
    if not ranks_of[0][0]:  # no mpiexec
        command = rank
    root = str(Path(igc_ref.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def only_line(result, status):
    """Return what ranks said when they ended so: one line, whatever their number."""
    said = [line for line in result.stderr.splitlines() if line.startswith("igc-ref: ")]
    assert (result.returncode, len(said)) == (status, 1), result.stderr + result.stdout
    assert "Traceback" not in result.stderr
    return said[0]


def position(folder):
    return checkpoint.load(folder / runs.CHECKPOINT).position


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process learns."""
    folder = tmp_path_factory.mktemp("ranks") / "alone"
    assert started((0, "", [*OPTIONS, "--out", folder])).returncode == 0
    return outcome(folder)


@pytest.mark.parametrize("size", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))])
def test_ranks_learn_the_bits_of_one_process_and_only_one_speaks(size, alone, tmp_path):
    result = started((size, "", [*OPTIONS, "--out", tmp_path / "run"]))
    assert (result.returncode, result.stderr) == (0, "")
    assert outcome(tmp_path / "run") == alone
    assert sum(line.startswith(("epoch ", "test ")) for line in result.stdout.splitlines()) == 3


@pytest.mark.slow
def test_ranks_that_are_killed_are_continued_by_another_number_of_ranks(alone, tmp_path):
    killed, folder = (
        "at({}, loop, 'training_step', lambda: os.kill(os.getpid(), 9))",
        tmp_path / "a",
    )
    run = [*OPTIONS, "--out", folder]
    first = started((1, "", run), (2, killed.format(2), run))
    assert first.returncode != 0
    assert f"if one is killed, continue with: igc-ref train --resume {folder}" in first.stdout
    assert position(folder) == "epoch 1, step 1"
    again = ["--resume", folder]
    assert started((1, killed.format(STEPS), again), (1, "", again)).returncode != 0
    assert position(folder) == "epoch 1"
    assert started((0, "", again)).returncode == 0
    assert outcome(folder) == alone


REFUSALS = {
    "version": (
        "ranks.__version__ = '9'",
        "",
        "rank 1 has igc_ref 9, rank 0 has ",
    ),
    "images": (OTHER_IMAGES, "", "rank 1 has images of fingerprint "),
    "setting": ("sys.argv += ['--seed', '3']", "", "rank 1 has seed 3, rank 0 has 0: ranks that "),
    "value": ("sys.argv += ['--lr', '0']", "", "rank 1: lr=0.0 is not allowed; it must be greater"),
    "no data": ("data.load = lambda *_: fail(OSError('gone'))", "", "rank 1: OSError: gone"),
    "batch": ("", "--batch-size 16", "16 is too small for 2 ranks, .* 1 ranks have work, .* 17$"),
    "numpy": ("", "--backend numpy", "the numpy backend trains in one process"),
}
FAST = ("version", "numpy")


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in REFUSALS]
)
def test_ranks_that_cannot_train_together_say_why_in_one_line(name, tmp_path):
    code, options, expected = REFUSALS[name]
    run = [*OPTIONS, *options.split(), "--out", tmp_path / "run"]
    line = only_line(started((1, "", run), (2 if code else 1, code, run)), 1)
    assert re.search(expected, line), line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_folder_that_is_taken_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    line = only_line(started((2, "", [*OPTIONS, "--out", tmp_path])), 1)
    assert "is not an empty folder" in line


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 15])
def test_a_signal_that_one_rank_gets_stops_all_at_the_same_step(number, alone, tmp_path):
    run = [*OPTIONS, "--out", tmp_path / "run"]
    code = f"at(2, loop, 'training_step', lambda: os.kill(os.getpid(), {number}))"
    slow = "at(3, checkpoint, 'save', lambda: time.sleep(2))"  # the others wait for it
    line = only_line(started((1, slow, run), (1, code, run)), 128 + number)
    assert "interrupted at epoch 1, step 2; saved in " in line
    assert position(tmp_path / "run") == "epoch 1, step 2"
    assert started((2, "", ["--resume", tmp_path / "run"])).returncode == 0
    assert outcome(tmp_path / "run") == alone


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "code", "status", "expected"),
    [
        (
            1,
            "at(2, loop, 'training_step', lambda: fail(MemoryError()))",
            1,
            "rank 1: out of memory",
        ),
        (0, "at(3, checkpoint, 'save', lambda: fail(OSError(28, 'full')))", 1, "rank 0: OSError: "),
        (
            0,
            "at(3, checkpoint, 'save', lambda: fail(BrokenPipeError()))",
            141,
            "interrupted at epo",
        ),
    ],
    ids=["memory", "disk", "pipe"],
)
def test_a_rank_that_fails_ends_all_of_them_and_the_checkpoint_is_good(
    rank, code, status, expected, tmp_path
):
    run = [*OPTIONS, "--out", tmp_path / "run"]
    result = started((1, "" if rank else code, run), (1, code if rank else "", run))
    assert expected in only_line(result, status)
    assert position(tmp_path / "run") == "epoch 1, step 1"


def test_without_mpi4py_one_of_the_ranks_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv("PMI_SIZE", "2")
    ranks.world.cache_clear()
    with pytest.raises(BackendError, match=r'PMI_SIZE=2 .*: pip install "igc-ref\[mpi\]"'):
        igc_ref.train(igc_ref.TrainConfig())
    monkeypatch.setenv("PMI_RANK", "1")
    with pytest.raises(SystemExit):
        igc_ref.train(igc_ref.TrainConfig())
