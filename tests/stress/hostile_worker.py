"""The child process that feeds hostile files to the readers, under guard.

``python -m tests.stress.hostile_worker KIND SEED FIRST STOP [PLANT]`` prints a line of JSON a case.
While a reader has a file, an audit hook forbids whatever a reader has no business doing, the
address space is limited, the memory that Python and NumPy take is measured, and a timer runs.
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
from tests.stress import hostile_checkpoints, hostile_matlab
from tests.stress import hostile_corpus as corpus
from tests.stress import hostile_mutate as mutate

MEMORY = 16 << 20  # bytes that Python and NumPy may hold while reading one file of at most ~100 kB
ADDRESSES = 512 << 20  # bytes of address space beyond what the process has at its start
SECONDS = 5.0  # for one file

# Modules that readers import when they first need them, which is no harm.
LAZY = (
    *("ast", "bz2", "lzma", "numpy.lib.format", "pickle", "tokenize", "zipfile"),
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

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
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
        outcome, reason = "accepted", ""
        tracemalloc.start()
        start = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        self.armed = True
        try:
            read()
        except (DataError, CheckpointError) as error:
            outcome, reason = "refused", str(error)
            if _caused_by_memory(error):
                self.violations.append(f"asked for all memory: {reason:.100}")
        except Forbidden:
            pass
        except BaseException as error:
            self.violations.append(f"uncaught {type(error).__name__}: {error!s:.100}")
        finally:
            self.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if peak > MEMORY:
            self.violations.append(f"took {peak:,} bytes")
        if len(reason) > 1500 or not reason.isprintable():
            self.violations.append(f"says {reason!a:.100}")
        return {"outcome": outcome, "seconds": seconds, "peak": peak}


def _caused_by_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def prepare(kind: str, rng: Random, folder: Path, spoil: bool) -> Callable[[], object]:
    """Write the files of one case, hostile or valid; return the reading of them."""
    if kind == "checkpoint":
        content, path = corpus.checkpoint(), folder / "checkpoint.npz"
        path.write_bytes(hostile_checkpoints.checkpointed(rng, content) if spoil else content)
        return lambda: checkpoint.load(path)
    if kind == "matlab file":
        name, split = rng.choice(list(SVHN_PARTS)), rng.choice(("train", "test"))
        parts = SVHN_PARTS[name][split]
        bad = rng.choice(parts) if spoil else None
        for part in parts:
            make = hostile_matlab.spoilt if part == bad else hostile_matlab.valid
            (folder / SVHN[part].file.name).write_bytes(make(rng, SVHN[part].count))
        return lambda: load_svhn(folder, name, split)
    name, split = rng.choice(corpus.NAMES), rng.choice(("train", "test"))
    layout, what = kind.split()
    suffix = ".bin" if layout == "binary" else ""
    if what == "pickle":
        valid = corpus.python_file(rng, name, split, rng.randrange(6))
        content = mutate.pickled(rng, valid) if spoil else valid
        return lambda: load_pickle(content)
    if what == "archive":
        members = corpus.members(rng, name, split, suffix)
        archive = PUBLISHED[name].archives[0 if suffix else 1].name
        content = mutate.archived(rng, members) if spoil else corpus.zipped(corpus.tar(members))
        (folder / archive).write_bytes(content)
        return lambda: load_cifar(folder, name, split)
    contents = corpus.files(rng, name, split, suffix)
    if spoil:
        file = rng.choice(list(contents))
        change = mutate.anywhere if suffix else mutate.pickled
        contents[file] = change(rng, contents[file])
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return lambda: load_cifar(folder, name, split)


PLANTS: dict[str, Callable[[], object]] = {
    "exec": lambda: exec("1"),
    "system": lambda: os.system("true"),
    "swallowed": lambda: _swallow(lambda: exec("1")),
    "write": lambda: open("owned", "w"),  # noqa: SIM115
    "read": lambda: open("/etc/hostname"),  # noqa: SIM115
    "memory": lambda: bytes(MEMORY + 1),
    "addresses": lambda: _as_refusal(lambda: bytes(4 * ADDRESSES)),
    "slow": lambda: _forever(),
    "exception": lambda: 1 // 0,
    "crash": lambda: os.abort(),
}


def _swallow(function: Callable[[], object]) -> None:
    try:
        function()
    except BaseException:
        return


def _as_refusal(function: Callable[[], object]) -> None:
    try:
        function()
    except MemoryError as error:
        raise DataError("damaged") from error


def _forever() -> None:
    while True:
        pass


def main() -> None:
    """Run the cases that the command line names."""
    kind, (seed, first, stop), plant = sys.argv[1], map(int, sys.argv[2:5]), sys.argv[5:]
    corpus.shrink()
    faulthandler.enable()  # to say on stderr of what the process dies
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for module in LAZY:
        importlib.import_module(module)
    if kind == "checkpoint":
        corpus.checkpoint()
    with TemporaryDirectory() as root:
        folder = Path(root).resolve() / "case"
        guard = Guard(folder)
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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"resident": peak}), flush=True)


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
