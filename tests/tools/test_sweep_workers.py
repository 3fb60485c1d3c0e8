"""A sweep by several workers: the table of one process, whatever ends in the middle of it."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from igc_ref import TrainConfig
from igc_ref.errors import CheckpointError, TrainingError
from igc_ref.files import write_json
from igc_ref.studies.sweep import Sweep
from igc_ref.training import checkpoint
from tests.support.runs import error_of

SWEEP = "sweep --budget 1500 --depths 5 --epochs 2 --tolerance 0.3 --backend numpy --data-size 300"
MPIEXEC = Path(sys.executable).with_name("mpiexec")


def plan(folder, **training):
    training = {"backend": "numpy", "epochs": 2, "data_size": 300, **training}
    return Sweep(TrainConfig(**training), str(folder), 1500, tolerance=0.3, depths=(5,))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """What one process writes."""
    folder = tmp_path_factory.mktemp("whole")
    plan(folder).run(str)
    return (folder / "sweep.csv").read_bytes()


def started(folder, launcher=(), options="--jobs 2"):
    command = [*launcher, sys.executable, *f"-m igc_ref {SWEEP} {options} --out".split(), folder]
    return subprocess.Popen(command, stdout=-1, stderr=-1, text=True, start_new_session=True)


def two(sweep):
    """Process ids of the two children of a sweep, once there are two checkpoints."""
    for _ in range(6000):
        listed = subprocess.run(["pgrep", "-P", str(sweep.pid), "-f", "workers"], stdout=-1).stdout
        if listed.count(b"\n") == 2 == len(list(sweep.args[-1].glob("*/checkpoint.npz"))):
            break
        time.sleep(0.01)
    return map(int, listed.split())


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_without_a_finite_loss_does_not_stop_the_others(tmp_path, jobs):
    names = "; ".join(f"{name}-5-seed0: .*the loss is .*" for name in ("L1M3", "L2M2", "L7M1"))
    with pytest.raises(TrainingError, match=f"^3 of 3 runs failed: {names}"):
        plan(tmp_path, lr=1e28).run(str, jobs)


def test_rows_are_in_the_order_of_the_runs_and_a_failed_run_is_named_at_the_end(tmp_path):
    class LastFirst(ThreadPoolExecutor):
        def submit(self, _, config):
            if config.L != 2:
                return super().submit(lambda: time.sleep(0.3 / config.L) or config.L / 10)
            (failed := Future()).set_exception(RuntimeError("killed by Slurm"))
            return failed

    with pytest.raises(TrainingError, match=r"^1 of 3 runs failed: L2M2-5-seed0: .*killed by Sl"):
        plan(tmp_path).run(str, executor=LastFirst(3))
    _, *rows = (tmp_path / "sweep.csv").read_text().splitlines()
    assert [(row[:3], row[-4:]) for row in rows] == [("1,3", ",0.1"), ("7,1", ",0.7")]


@pytest.mark.parametrize("options", ["jobs 0", "slurm a=b", "slurm time=9", "slurm x"])
def test_what_cannot_be_is_refused_in_one_line(tmp_path, capsys, monkeypatch, options):
    command = [*SWEEP.split(), "--out", tmp_path / "s", *f"--{options}".split()]
    for text in ("it must be as partition=gpu,time=", 'pip install "igc-ref[workers]"'):
        assert ("jobs=0 is" if "jobs" in options else text) in error_of(capsys, *command)
        monkeypatch.setitem(sys.modules, "submitit", None)
    assert not list(tmp_path.rglob("*.csv"))


def test_a_run_with_other_settings_is_refused_before_any_is_trained(tmp_path):
    *_, last = plan(tmp_path).configs()
    Path(last.out).mkdir()
    write_json(Path(last.out) / "config.json", replace(last, lr=0.25).to_dict())
    with pytest.raises(CheckpointError, match=r"L7M1-5-seed0 holds another run: lr=0\.3 \(the run"):
        plan(tmp_path).run(str)
    assert [path.name for path in tmp_path.iterdir()] == ["L7M1-5-seed0"]


@pytest.mark.slow
def test_after_ctrl_c_and_after_the_death_of_a_child_the_same_command_goes_on(tmp_path, table):
    sweep = started(tmp_path)
    pids = list(two(sweep))
    assert list(map(os.getsid, pids)) == pids  # the terminal's Ctrl-C does not reach them
    children = [Path(f"/proc/{pid}/environ") for pid in pids]
    threads = f"NUMBA_NUM_THREADS={max(1, len(os.sched_getaffinity(0)) // 2)}".encode()
    assert all(threads in path.read_bytes().split(b"\0") for path in children)
    os.killpg(sweep.pid, signal.SIGINT)
    assert sweep.communicate(timeout=60)[1] == "igc-ref: interrupted\n"
    assert sweep.returncode == 130
    assert not any(path.exists() for path in children)
    one, other = map(checkpoint.load, tmp_path.glob("*/checkpoint.npz"))  # no third run has begun
    assert all(saved.partial.step or saved.records for saved in (one, other))
    assert not (one.finished and other.finished)
    sweep = started(tmp_path)
    os.kill(next(two(sweep)), signal.SIGKILL)
    out, err = sweep.communicate(timeout=60)
    assert re.match(r"igc-ref: error: 1 of 3 runs failed: L.M.-5-seed0: killed by signal 9,", err)
    assert out.count("-5-seed0: test accuracy") == 2
    plan(tmp_path).run(str, jobs=4)
    assert (tmp_path / "sweep.csv").read_bytes() == table


@pytest.mark.slow
@pytest.mark.parametrize("by", ["submitit", "mpi4py"])
def test_submitit_and_the_ranks_of_mpi_make_the_same_table(tmp_path, table, by):
    library, launcher = pytest.importorskip(by), [str(MPIEXEC), "-n", "2"]
    if by == "submitit":
        executor = library.LocalExecutor(tmp_path / "logs")
        with pytest.raises(ValueError, match="choose one of --jobs, --slurm"):
            plan(tmp_path).run(str, 2, executor)
        plan(tmp_path).run(str, executor=executor)
    else:
        assert "choose one of --jobs" in started(tmp_path, launcher).communicate(timeout=60)[1]
        out, err = started(tmp_path, launcher, "").communicate(timeout=60)
        assert (out.count("table in"), err) == (1, "")
    assert (tmp_path / "sweep.csv").read_bytes() == table
