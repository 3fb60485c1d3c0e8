"""The child process that feeds hostile files to the readers, under guard.

``python -m tests.stress.hostile_worker KIND SEED FIRST STOP [PLANT]`` prints a line of JSON a case.
While a reader has a file, an audit hook forbids what no reader needs to do, the address space is
limited, and a timer runs. The memory that the reader of checkpoints takes is measured.
PLANT makes every 20th reading misbehave on purpose: a guard that does not notice is no guard.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import resource
import signal
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from igc_ref.data.cifar import load_cifar
from igc_ref.data.published import PUBLISHED, SVHN, SVHN_PARTS
from igc_ref.data.svhn import load_svhn
from igc_ref.data.unpickle import load_pickle
from igc_ref.errors import CheckpointError, DataError
from igc_ref.training import checkpoint
from tests.stress import hostile_files

MEMORY = 16 << 20  # bytes that Python and NumPy may hold while reading a checkpoint of ~100 kB
ADDRESSES = 512 << 20  # bytes of address space beyond what the process has at its start
SECONDS = 5.0  # for one file

# Modules that readers import when they first need them, which is no harm.
LAZY = (
    *("ast", "bz2", "gzip", "lzma", "numpy.lib.format", "pickle", "pickletools", "scipy.io"),
    *("tarfile", "tokenize", "zipfile"),
    *(f"encodings.{name}" for name in ("ascii", "cp437", "latin_1", "utf_8")),
    *("encodings.raw_unicode_escape", "encodings.unicode_escape"),
)
FORBIDDEN = (
    *("exec", "import", "pickle.", "marshal.", "code.__new__", "ctypes.", "subprocess.", "socket."),
    *("pty.", "shutil.", "tempfile.", "urllib.", "webbrowser.", "mmap.", "os.system", "os.exec"),
    *("os.posix_spawn", "os.spawn", "os.fork", "os.remove", "os.rename", "os.mkdir", "os.rmdir"),
    *("os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate", "os.utime", "os.kill"),
    *("os.putenv", "os.startfile", "os.chdir"),
)


class Forbidden(BaseException):
    """Raised inside a reader that does what it must not; no reader may swallow it unnoticed."""


class Guard:
    """Watches one reading at a time."""

    def __init__(self, folder: Path, measured: bool) -> None:
        self.folder, self.measured = str(folder), measured
        self.armed = False
        self.violations: list[str] = []
        sys.addaudithook(self.hook)
        signal.signal(signal.SIGALRM, self.alarm)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Refuse an event that no reader needs."""
        if not self.armed:
            return
        if event == "open":
            path, _, flags = arguments
            writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            if not flags & writes and os.fspath(path).startswith(self.folder):
                return
        elif not event.startswith(FORBIDDEN):
            return
        self.violations.append(f"{event} {arguments!r:.100}")
        raise Forbidden(self.violations[-1])

    def alarm(self, *_: object) -> None:
        """End a reading that takes too long."""
        self.violations.append(f"took more than {SECONDS:g} s")
        raise Forbidden(self.violations[-1])

    def run(self, read: Callable[[], object]) -> dict[str, Any]:
        """Let a reader read; return what came of it."""
        self.violations.clear()
        outcome, reason, peak = "accepted", "", 0
        if self.measured:
            tracemalloc.start()
        start = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        self.armed = True
        try:
            read()
        except (DataError, CheckpointError) as error:
            outcome, reason = "refused", str(error)
            if self.measured and "MemoryError" in reason:
                self.violations.append(f"asked for all memory: {reason:.100}")
        except Forbidden:
            pass
        except BaseException as error:
            self.violations.append(f"uncaught {type(error).__name__}: {error!s:.100}")
        finally:
            self.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = time.perf_counter() - start
        if self.measured:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        if peak > MEMORY:
            self.violations.append(f"took {peak:,} bytes")
        if len(reason) > 1500 or not reason.isprintable():
            self.violations.append(f"says {reason!a:.100}")
        return {"outcome": outcome, "seconds": seconds}


def prepare(kind: str, rng: Random, folder: Path, spoil: bool) -> Callable[[], object]:
    """Write the files of one case, hostile or valid; return the reading of them."""
    if kind == "checkpoint":
        content, path = hostile_files.checkpoint(), folder / "checkpoint.npz"
        path.write_bytes(hostile_files.spoilt_checkpoint(rng, content) if spoil else content)
        return lambda: checkpoint.load(path)
    split = rng.choice(("train", "test"))
    if kind == "matlab file":
        name = rng.choice(list(SVHN_PARTS))
        bad = rng.choice(SVHN_PARTS[name][split]) if spoil else None
        for part in SVHN_PARTS[name][split]:
            content = hostile_files.matlab(rng, SVHN[part].count, part == bad)
            (folder / SVHN[part].file.name).write_bytes(content)
        return lambda: load_svhn(folder, name, split)
    name = rng.choice(list(PUBLISHED))
    layout, what = kind.split()
    suffix = ".bin" if layout == "binary" else ""
    if what == "pickle":
        valid = hostile_files.batch(rng, name, 3)
        content = hostile_files.spoilt_pickle(rng, valid) if spoil else valid
        return lambda: load_pickle(content)
    if what == "archive":
        path = folder / PUBLISHED[name].archives[0 if suffix else 1].name
        path.write_bytes(hostile_files.archive(rng, name, split, suffix, spoil))
        return lambda: load_cifar(folder, name, split)
    contents = hostile_files.cifar_files(rng, name, split, suffix)
    if spoil:
        file = rng.choice(list(contents))
        change = hostile_files.anywhere if suffix else hostile_files.spoilt_pickle
        contents[file] = change(rng, contents[file])
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return lambda: load_cifar(folder, name, split)


def _swallow() -> None:
    with suppress(BaseException):
        exec("1")


PLANTS: dict[str, Callable[[], object]] = {
    "swallowed": _swallow,
    "write": lambda: open("owned", "w"),  # noqa: SIM115
    "memory": lambda: bytes(MEMORY + 1),
    "exception": lambda: 1 // 0,
    "crash": lambda: os.abort(),
}


def main() -> None:
    """Run the cases that the command line names."""
    kind, (seed, first, stop), plant = sys.argv[1], map(int, sys.argv[2:5]), sys.argv[5:]
    hostile_files.shrink()
    faulthandler.enable()  # to say on stderr of what the process dies
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for module in LAZY:
        importlib.import_module(module)
    if kind == "checkpoint":
        hostile_files.checkpoint()
    with TemporaryDirectory() as root:
        folder = Path(root).resolve() / "case"
        guard = Guard(folder, measured=kind == "checkpoint")
        for case in range(10):  # valid files, which must be accepted
            _case(guard, kind, Random(case), folder, spoil=False)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        addresses = pages * resource.getpagesize() + ADDRESSES
        resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
        for case in range(first, stop):
            rng = Random(f"{seed}/{kind}/{case}")
            bad = PLANTS[plant[0]] if plant and case % 20 == 19 else None
            faulthandler.dump_traceback_later(6 * SECONDS, exit=True)  # if not even the timer helps
            result = _case(guard, kind, rng, folder, spoil=True, instead=bad)
            print(json.dumps({"case": case, **result}), flush=True)


def _case(
    guard: Guard,
    kind: str,
    rng: Random,
    folder: Path,
    spoil: bool,
    instead: Callable[[], object] | None = None,
) -> dict[str, Any]:
    folder.mkdir()
    read = prepare(kind, rng, folder, spoil)
    there = sorted(path.name for path in folder.iterdir())
    here = sorted(os.listdir())
    result = guard.run(instead or read)
    if sorted(path.name for path in folder.iterdir()) != there or sorted(os.listdir()) != here:
        guard.violations.append("left something behind, or removed it")
    if not spoil and (guard.violations or result["outcome"] != "accepted"):
        raise SystemExit(f"a valid {kind} is not accepted: {guard.violations}")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return {**result, "violations": list(guard.violations)}


if __name__ == "__main__":
    main()
