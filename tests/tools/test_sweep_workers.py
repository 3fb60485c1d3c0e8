"""A sweep by several workers: the table of one process, whatever ends in the middle of it."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from igc_ref import TrainConfig
from igc_ref.cli import main
from igc_ref.errors import TrainingError
from igc_ref.studies.sweep import Sweep
from igc_ref.training import checkpoint
from tests.support.runs import error_of

SWEEP = "sweep --budget 1500 --depths 5 --epochs 2 --tolerance 0.3 --backend numpy --data-size 300"
FAST = {"backend": "numpy", "epochs": 2, "data_size": 300}
MPIEXEC = Path(sys.executable).with_name("mpiexec")


def plan(folder, **training):
    return Sweep(TrainConfig(**FAST | training), str(folder), 1500, tolerance=0.3, depths=(5,))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """What one process writes."""
    folder = tmp_path_factory.mktemp("whole")
    plan(folder).run(str)
    return (folder / "sweep.csv").read_bytes()


def started(folder, *options, launcher=()):
    command = [*launcher, sys.executable, "-m", "igc_ref", *SWEEP.split(), "--out", str(folder)]
    return subprocess.Popen(
        [*command, *options], stdout=-1, stderr=-1, text=True, start_new_session=True
    )


def workers_of(parent):
    """Process ids of a sweep's workers."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True)
    lines = listed.stdout.decode().splitlines()
    return [int(line.split()[0]) for line in lines if "popen_loky" in line]


def until(condition):
    end = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


@pytest.mark.slow
def test_processes_make_the_same_table(tmp_path, table):
    lines = []
    results = plan(tmp_path).run(lines.append, jobs=4)  # more than runs
    assert (tmp_path / "sweep.csv").read_bytes() == table
    assert [line.partition(":")[0] for line in lines[1:-1]] == [
        f"L{r.L}M{r.M}-5-seed0" for r in results
    ]


def test_a_failing_run_is_named_at_the_end_and_the_order_is_that_of_the_runs(tmp_path, table):
    class LastFirst(ThreadPoolExecutor):
        """The last run ends first; the one in the middle fails."""

        def submit(self, function, config):
            if "L2M2" in config.out and fails:
                return failed
            return super().submit(lambda: (time.sleep("L1" in config.out), function(config))[1])

    fails, failed = True, Future()
    failed.set_exception(RuntimeError("killed by the system"))
    with LastFirst(3) as pool:
        with pytest.raises(TrainingError, match=r"^1 of 3 runs failed: L2M2-5-seed0: .*killed by"):
            plan(tmp_path).run(str, executor=pool)
        header, first, _, last = table.splitlines()
        assert (tmp_path / "sweep.csv").read_bytes().splitlines() == [header, first, last]
        fails = False
        plan(tmp_path).run(str, executor=pool)
    assert (tmp_path / "sweep.csv").read_bytes() == table


def test_a_run_without_a_finite_loss_does_not_stop_the_others(tmp_path):
    names = "; ".join(f"{name}-5-seed0: the loss is .*" for name in ("L1M3", "L2M2", "L7M1"))
    with pytest.raises(TrainingError, match=f"^3 of 3 runs failed: {names}"):
        plan(tmp_path, lr=1e28).run(str)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--jobs 0", "jobs=0 is not an integer of at least 1"),
        (
            "--jobs 2",
            'jobs=2 needs a library that is not installed: pip install "igc-ref[workers]"',
        ),
        ("--slurm time=9", "slurm=time=9 needs a library that"),
        ("--slurm time=9", "slurm='time=9' is not allowed; it must be as partition=gpu,time=MINUT"),
        ("--slurm partition=a", "'partition=a' is not allowed; it must be as partition=gpu,time="),
        ("--slurm x", "slurm='x' is not allowed; it must be as partition=gpu,time=MINUTES"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, capsys, monkeypatch, options, message):
    if "library" in message:
        monkeypatch.setitem(sys.modules, "joblib", None)
        monkeypatch.setitem(sys.modules, "submitit", None)
    assert message in error_of(capsys, *SWEEP.split(), "--out", tmp_path / "s", *options.split())
    assert not list(tmp_path.rglob("*.csv"))


def test_jobs_and_an_executor_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="choose one of --jobs, --slurm"):
        plan(tmp_path).run(str, jobs=2, executor=object())


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["group by Ctrl-C", "worker by -9", "parent by -9"])
def test_whatever_ends_in_the_middle_the_same_command_goes_on(tmp_path, table, killed):
    sweep = started(tmp_path, "--jobs", "2", "--checkpoint-every", "1")
    until(lambda: len(list(tmp_path.glob("*/checkpoint.npz"))) == 2)
    workers = workers_of(sweep.pid)
    if "group" in killed:
        os.killpg(sweep.pid, signal.SIGINT)
    else:
        os.kill(workers[0] if "worker" in killed else sweep.pid, signal.SIGKILL)
    if "parent" in killed:  # the workers end after the epoch, and let go of their runs
        assert sweep.wait(60) == -signal.SIGKILL
        sweep.stdout.close()
        sweep.stderr.close()
        until(lambda: main([*SWEEP.split(), "--out", str(tmp_path), "--jobs", "2"]) == 0)
    else:
        err = sweep.communicate(timeout=60)[1]
        interrupted = "igc-ref: interrupted\n"
        assert err == interrupted if "group" in killed else err.startswith("igc-ref: error: a wor")
        assert err.count("\n") == 1
        assert not [pid for pid in workers if Path(f"/proc/{pid}/exe").exists()]
        assert not checkpoint.load(next(tmp_path.glob("*/checkpoint.npz"))).finished
        assert main([*SWEEP.split(), "--out", str(tmp_path), "--jobs", "2"]) == 0
    assert (tmp_path / "sweep.csv").read_bytes() == table


@pytest.mark.slow
def test_submitit_makes_the_same_table(tmp_path, table):
    submitit = pytest.importorskip("submitit")
    plan(tmp_path).run(str, executor=submitit.LocalExecutor(tmp_path / "logs"))
    assert (tmp_path / "sweep.csv").read_bytes() == table


@pytest.mark.slow
@pytest.mark.skipif(not MPIEXEC.exists(), reason="needs mpiexec: pip install igc-ref[mpi]")
def test_the_ranks_of_mpi_make_the_same_table_also_after_ctrl_c(tmp_path, table):
    launcher = [str(MPIEXEC), "-n", "2"]
    err = started(tmp_path, "--jobs", "2", launcher=launcher).communicate(timeout=60)[1]
    assert err == "igc-ref: error: choose one of --jobs, --slurm and several ranks of mpiexec\n"
    sweep = started(tmp_path, "--checkpoint-every", "1", launcher=launcher)
    until(lambda: len(list(tmp_path.glob("*/checkpoint.npz"))) == 2)
    os.killpg(sweep.pid, signal.SIGINT)
    assert "Traceback" not in sweep.communicate(timeout=60)[1]
    assert sweep.returncode != 0
    sweep = started(tmp_path, launcher=launcher)
    out, err = sweep.communicate(timeout=60)
    assert (sweep.returncode, err) == (0, "")
    assert out.count("table in") == 1
    assert (tmp_path / "sweep.csv").read_bytes() == table
