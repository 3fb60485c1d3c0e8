"""Training as in a browser: without threads, ssl, file locks, numba, and with folders unsynced."""

import subprocess
import sys

BROWSER = """
import errno, os, stat, sys, threading, warnings
warnings.simplefilter("error")
lacking = "ssl _ssl fcntl _multiprocessing numba cupy termios resource"
sys.modules |= dict.fromkeys(lacking.split())  # importing one raises ImportError
sync = os.fsync

def start(thread):
    raise RuntimeError("can't start new thread")

def fsync(descriptor):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.EBADF, "Bad file descriptor")
    sync(descriptor)

threading.Thread.start, os.fsync = start, fsync
import igc_ref
from igc_ref import bench, data
data.load = lambda name, split, *rest: data.shapes(split, 60)
config = igc_ref.TrainConfig(depth=5, L=2, M=2, epochs=1, backend="numpy", out=sys.argv[1])
print(igc_ref.train(config, print).test_accuracy)
bench.measure(threads=1, size=64, megabytes=1)
"""


def test_a_run_needs_nothing_that_a_browser_lacks(tmp_path):
    command = [sys.executable, "-c", BROWSER, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cannot be locked here: use it from one process at a time" in done.stdout
    assert (tmp_path / "run" / "log.jsonl").stat().st_size
