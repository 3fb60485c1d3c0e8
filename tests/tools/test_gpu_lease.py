"""benchmarks.gpu --lease without a card: failures at every place, and a rehearsal of the whole."""

import os
import re
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import lease, summary
from benchmarks.gpu.sections import Record
from tests.backends.cuda import emulator

needs_emulator = pytest.mark.skipif(bool(emulator.problem()), reason=str(emulator.problem()))
STUB = """
import os, subprocess, sys, time
from pathlib import Path
name, path, fault = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
began = '{"machine": {}, "sections": {"one": {"items": {"NAME": {"running": true}}}}}'
path.write_text(began.replace("NAME", name))
if fault == "raise": sys.exit("no such luck")
if fault == "die": os.abort()
if fault == "hang":
    child = subprocess.Popen(["sleep", "1000"])
    path.with_suffix(".child").write_text(str(child.pid))
    time.sleep(1000)
if name.startswith("compile"):
    path.with_suffix(".ready").touch()
    while not path.with_suffix(".go").exists(): time.sleep(0.01)
path.write_text(path.read_text().replace('"running": true', f'"at": {time.monotonic()}'))
"""
NAMES = [*(name for phase in lease.PLAN for name in phase.names), *lease.COMPILED]


def leased(folder, faults, seconds):
    """Run the plan with an item's faults by name; return the record, and the seconds it took."""
    record = Record(folder / "gpu.json")
    record.values["settings"] = {"batch": 4, "tiny": True}

    def command(name, path):
        return [sys.executable, "-S", "-E", "-c", STUB, name, str(path), faults.get(name, "")]

    start = time.monotonic()
    lease.Lease(record, folder, command, seconds, seconds / lease.SECONDS).run(
        lease.PLAN, lease.COMPILED
    )
    return Record(folder / "gpu.json"), time.monotonic() - start


def alive(pid):
    """Whether a process runs, and is not only waiting to be reaped."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def bad(half):
    """Every second item; what is behind another one is never bad."""
    return set(NAMES[half::2]) - {"compile TF32"}


HANGING = {0: bad(0), 1: bad(1), "all": NAMES}
LIMIT = 27  # seconds of a lease in which items hang


@pytest.fixture(scope="module")
def hanging(tmp_path_factory):
    """Leases in which items hang: side by side, since they wait for most of their time."""
    folders = {name: tmp_path_factory.mktemp("hanging") for name in HANGING}

    def run(name):
        return folders[name], *leased(folders[name], dict.fromkeys(HANGING[name], "hang"), LIMIT)

    with ThreadPoolExecutor(len(HANGING)) as pool:
        return dict(zip(HANGING, pool.map(run, HANGING), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("fault", ["raise", "die"])
def test_wherever_an_item_of_a_lease_fails_all_others_run_and_it_ends_in_time(
    fault, half, tmp_path
):
    record, seconds = leased(tmp_path, dict.fromkeys(bad(half), fault), limit := 18)
    check_that_all_others_ran(tmp_path, record, seconds, limit, bad(half), fault)


@pytest.mark.slow
@pytest.mark.parametrize("half", [0, 1])
def test_wherever_an_item_of_a_lease_hangs_all_others_run_and_it_ends_in_time(half, hanging):
    check_that_all_others_ran(*hanging[half], LIMIT, bad(half), "hang")


def check_that_all_others_ran(folder, record, seconds, limit, bad, fault):
    assert seconds < limit
    items, ends = record.items("one"), record.items("lease")
    skipped = {"compile TF32"} if "skipped" in ends["compile TF32"] else set()
    assert set(NAMES) == set(ends)
    assert {name for name, value in items.items() if "at" in value} == set(NAMES) - bad - skipped
    if fault != "raise":  # an item that raises tells its own record itself
        assert {
            n for n, v in items.items() if "its process ended in it" in v.get("failed", "")
        } == bad
    for path in folder.glob("*.child"):
        assert not alive(path.read_text())
    ours = max(items[n]["at"] for n in NAMES if n.startswith("step") and n not in bad)
    rivals = [
        items[n]["at"]
        for n in NAMES
        if n.startswith(("eager", "compile")) and "at" in items.get(n, {})
    ]
    assert all(ours < at for at in rivals)
    assert summary.of(record).count("\n") > len(NAMES)


@pytest.mark.slow
def test_a_lease_in_which_all_items_hang_ends_in_time(hanging):
    _, record, seconds = hanging["all"]
    assert seconds < LIMIT  # of which the summary may take 0.6
    assert all({"failed", "skipped"} & set(value) for value in record.items("lease").values())


@pytest.fixture
def profiler(tmp_path, monkeypatch):
    """A ``ncu`` that runs its program, and prints a page as the real one does; no nvidia-smi."""
    script = tmp_path / "bin" / "ncu"
    script.parent.mkdir()
    table = '"ID","Kernel Name","gpu__time_duration.sum","sm__warps_active.avg.per_cycle_active"\\n'
    table += '"","","us",""\\n"0","f","1,064.5","no data"\\n"1","f","1","8"\\n'
    script.write_text(f"""#!/bin/sh
if [ "$1" = --import ]; then printf 'a line\\n{table}'; exit; fi
while [ "$1" != -o ]; do shift; done; touch "$2"
while [ "$1" != -c ]; do shift; done; shift 2; exec "$@"
""")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")


def test_only_what_was_asked_for_is_run_and_has_all_the_time():
    options = gpu.parse(["--only", "tiles,step 3,eager,compile TF32"])
    options.torch = True
    phases, compiled = lease.chosen(options)
    eager = [f"eager {layout} {a}" for a in (0, 1) for layout in ("NCHW", "channels_last")]
    names = [name for phase in phases for name in phase.names]
    assert names == ["probe", "step 3", "tiles", *eager]
    assert min(phase.seconds for phase in phases) == float("inf")
    assert compiled == ["compile TF32"]
    options.torch = False
    phases, compiled = lease.chosen(options)
    assert (len(phases), compiled) == (3, [])


@needs_emulator
@pytest.mark.slow
def test_a_lease_is_rehearsed_on_the_emulator(tmp_path, profiler):
    pytest.importorskip("torch")
    path = tmp_path / "gpu.json"
    skipped = ["compile TF32", "eager channels_last 0", "ahead 1", "ahead 3", "ahead 4", "ahead 5"]
    plants = [f"{name}:skip" for name in skipped] + ["step 1:raise", "operators 3:die"]
    command = [sys.executable, "-m", "benchmarks.gpu", "--lease", "--emulate", "--json", str(path)]
    command += ["--seed", "0"]  # else drawn; float16 ties in a window fail 1 of 40
    command += [word for plant in plants for word in ("--plant", plant)]
    root, one = lease.ROOT, {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=os.environ | one, capture_output=True, text=True)
    text = done.stdout
    record = Record(path)
    failed = {line.partition(":")[0] for line in summary.failed(record)}
    wanted = {"probe, card", "steps, planted in step 1", "check, planted in operators 3"}
    assert failed == wanted, text
    assert len(record.items("check")) > 20
    for name in (
        "ours float32 uncaptured",
        "torch graph NCHW benchmark TF32",
        "torch compile NCHW",
    ):
        assert re.search(rf"{name}.*  \d+\.\d\d\d  ", text), name
    assert "torch.compile, exact: " in text
    assert re.search(r"^0 f +1064 +-\n1 f +1 +8$", text, re.MULTILINE)
    again = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--show", str(path)],
        cwd=root, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert again.strip() in text
    assert {file.name for file in tmp_path.iterdir()} == {"bin", "gpu.json", "gpu.tar.gz"}
    with tarfile.open(tmp_path / "gpu.tar.gz") as archive:
        assert archive.extractfile("gpu/summary.txt").read().decode().strip() in text
        assert "gpu/ncu.details.txt" in archive.getnames()
