"""Everything worth knowing of a card that is lent for fifteen minutes.

Every item of `PLAN` is a process of its own (`items`) that writes a record of its own into a
temporary folder; after each item all of them are gathered into ``FILE``, and after each phase the
folder is packed into one archive beside it: machines that are lent give few files back. An item
that fails is noted; one that hangs, or is not done within its limit, is killed with all that it
started; one that dies is started again and goes on after the step in which it died. Ours is
measured before any rival is. torch.compile needs minutes of all cores: it starts first, is stopped
while something is timed, and is timed as soon as it is ready and nothing else runs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, NamedTuple

from benchmarks.gpu import check, items, steps, summary
from benchmarks.gpu.sections import Record
from igc_ref.bench.record import available_threads
from igc_ref.files import replacing
from igc_ref.report import say

SECONDS = 540  # of a lease; limits below are for these, and scale
RESERVE = 12  # seconds for the summary
LEAST = 4  # seconds without which no item is begun
STALL = 50  # seconds that one check may take, kernels compiled beside others included: a guess
COMPILED = ("compile exact", "compile TF32")
COMPILING, TIMING = 150, 30  # seconds without which torch.compile is not begun; to time its step
NAP, TRIES = 0.02, 3
ROOT = Path(__file__).parents[2]


class Phase(NamedTuple):
    """Items that run side by side, and the seconds that they may take.

    While a phase is `quiet`, nothing compiles; where `rivals` is set, ours has been measured: after
    it the compiled step may be timed.
    """

    seconds: float
    names: Sequence[str]
    quiet: bool = True
    rivals: bool = False


def numbered(kind: str, count: int) -> list[str]:
    """Return the items 0, 1, ... of a kind."""
    return [f"{kind} {number}" for number in range(count)]


PLAN = (  # expected: all but torch.compile within 300 s
    Phase(25, ["probe"], quiet=False),
    Phase(110, [
        *numbered("operators", check.SHARES), *numbered("training", len(check.NETWORKS)),
        *numbered("ahead", len(items.AHEAD)),
    ], quiet=False),
    *(Phase(30 if number < 4 else 50, [name])
      for number, name in enumerate(numbered("step", len(steps.OURS)))),
    Phase(30, ["blocks ours"]),
    Phase(30, ["floors"]),
    Phase(80, ["tiles"]),
    Phase(60, ["ncu"], rivals=True),
    Phase(60, ["eager NCHW 0"], rivals=True),
    Phase(55, ["eager channels_last 0"], rivals=True),
    *(Phase(40, [name], rivals=True) for name in numbered("blocks", 5)),
)  # fmt: skip
MORE = (  # only if they are asked for
    "eager NCHW 1", "eager channels_last 1", *numbered("blocks", 10)[5:], "tests", "train",
)  # fmt: skip
KNOWN = {*items.BODIES, *COMPILED, *(name for phase in PLAN for name in phase.names), *MORE}


def chosen(options: Any) -> tuple[list[Phase], list[str]]:
    """Return the phases, and the compiled steps, that were asked for and are possible.

    What was asked for has no limit of its own.
    """

    def wanted(names: Sequence[str]) -> list[str]:
        kinds = {name: name.split()[0] for name in names}
        return [
            name for name, kind in kinds.items()
            if (not options.only or {name, kind} & {"probe", *options.only})
            and (options.torch or kind not in ("eager", "compile"))
        ]  # fmt: skip

    phases = list(PLAN)
    if options.only:
        phases += [Phase(0, [name], rivals=True) for name in MORE]
        phases = [phase._replace(seconds=float("inf")) for phase in phases]
    phases = [phase._replace(names=wanted(phase.names)) for phase in phases]
    return [phase for phase in phases if phase.names], wanted(COMPILED)


@dataclass
class Child:
    """The process of an item."""

    name: str
    process: subprocess.Popen[bytes]
    began: float
    deadline: float
    nice: int = 0
    cores: int = 0  # for libraries that would take all; 0: all
    tries: int = 1
    rests: float | None = None  # since when it is stopped
    rested: float = 0.0  # seconds

    def signal(self, number: int) -> None:
        """Send a signal to the process and to all that it has started."""
        if number == signal.SIGSTOP:
            self.rests = self.rests or time.monotonic()
        elif self.rests is not None:
            self.rested += time.monotonic() - self.rests
            self.rests = None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End all of it; what hangs in the driver cannot be waited for."""
        self.signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(3)


@dataclass
class Lease:
    """A plan, and how far it is.

    Parameters
    ----------
    record : Record
    folder : Path
        Where every item has its record and its output.
    command : callable
        Returns what runs an item, from its name and the file for its record.
    seconds : float
        After which everything is over.
    scale : float
        Seconds of this run for one of the plan.
    """

    record: Record
    folder: Path
    command: Callable[[str, Path], list[str]]
    seconds: float
    scale: float = 1.0
    start: float = field(default_factory=time.monotonic)
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    live: list[Child] = field(default_factory=list)
    behind: Child | None = None  # a compiled step

    def path(self, name: str) -> Path:
        """Return the file of an item's record."""
        return self.folder / f"{name.replace(' ', '-')}.json"

    def now(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.start

    @property
    def end(self) -> float:
        """When the last item must have ended."""
        return self.seconds - RESERVE * self.scale

    # -- items -----------------------------------------------------------------------------------

    def run(self, plan: Sequence[Phase], compiled: Sequence[str] = ()) -> None:
        """Run all phases, and compile behind them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        later = list(compiled)
        try:
            if later:
                self.behind = self.begin(later.pop(0), self.end, nice=5)
            for phase in plan:
                self.together(phase)
            self.attend(wait=True)
            while later and self.end - self.now() > COMPILING * self.scale:
                self.behind = self.begin(later.pop(0), self.end)
                self.attend(wait=True)
            self.skip(later)
        finally:
            for child in [*self.live, *filter(None, [self.behind])]:
                self.ended(child, "its limit")
            self.gather()

    def begin(
        self, name: str, deadline: float, nice: int = 0, cores: int = 0, tries: int = 1
    ) -> Child:
        """Start the process of an item; its output goes to a file."""
        path = self.path(name)
        for file in (*steps.signals(path), *[path] * (tries == 1)):
            file.unlink(missing_ok=True)
        limited = {f"{library}_NUM_THREADS": str(cores) for library in ("OMP", "OPENBLAS", "MKL")}
        with path.with_suffix(".txt").open("ab") as log:
            process = subprocess.Popen(
                ["nice", "-n", str(nice), *self.command(name, path)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                env=os.environ | (limited if cores else {}), start_new_session=True,
            )  # fmt: skip
        return Child(name, process, self.now(), deadline, nice, cores, tries)

    def together(self, phase: Phase) -> None:
        """Run the items of a phase side by side."""
        if self.behind:
            self.behind.signal(signal.SIGSTOP if phase.quiet else signal.SIGCONT)
        deadline = min(self.end, self.now() + phase.seconds * self.scale)
        if self.now() > self.end - LEAST * self.scale:
            self.skip(phase.names)
            return
        several = len(phase.names)
        cores = max(2, available_threads() // several) if several > 1 else 0
        self.live = [self.begin(name, deadline, cores=cores) for name in phase.names]
        while self.live:
            time.sleep(NAP)
            self.live = [other for child in self.live for other in self.look(child)]
        self.pack()
        if phase.rivals:
            self.attend(wait=False)

    def look(self, child: Child) -> Iterator[Child]:
        """Yield the child if it lives on, or another one that takes its place."""
        status = child.process.poll()
        if status is None and self.now() > child.deadline:
            self.ended(child, "its limit")
        elif status is None and not self.stalled(child):
            yield child
        else:
            self.ended(child, "nothing new from it" if status is None else "")
            if status not in (0, 1) and child.tries < TRIES and self.now() < child.deadline:
                yield self.begin(
                    child.name, child.deadline, child.nice, child.cores, child.tries + 1
                )

    def stalled(self, child: Child) -> bool:
        """Say whether checks, which take seconds each, do not get on."""
        if not child.name.startswith("operators"):
            return False
        path = self.path(child.name)
        last = time.time() - path.stat().st_mtime if path.exists() else 0.0
        return min(last, self.now() - child.began) > STALL * self.scale

    def ended(self, child: Child, why: str = "") -> None:
        """Note how an item ended, and end what it has started."""
        status = child.process.poll()
        child.signal(signal.SIGCONT)
        child.kill()
        taken = self.now() - child.began
        value: dict[str, Any] = {"began": child.began, "taken": taken, "tries": child.tries}
        if child.rested:
            value["note"] = f"done; {child.rested:.0f} s of them stopped"
        if why:
            value["failed"] = f"killed after {taken:.0f} s: {why}"
        elif status not in (0, 1):
            value["failed"] = f"exit status {status}"
        elif status:
            value["note"] = "some of it failed"
        if status not in (0, 1) and self.path(child.name).exists():
            self.bury(self.path(child.name), value["failed"])
        self.note(child.name, value)

    def bury(self, path: Path, why: str) -> None:
        """Name the step in which a process ended: it is not tried again."""
        record = Record(path)
        for section in record.values["sections"].values():
            for name, value in section["items"].items():
                if "running" in value:
                    section["items"][name] = {"failed": f"its process ended in it: {why}"}
        record.save()

    def note(self, name: str, value: dict[str, Any]) -> None:
        """Keep how an item ended, say so, and write everything that is known."""
        self.done[name] = value
        text = summary.ending(value)
        say(f"[{self.now():5.1f}] {name}: {text} ({value.get('taken', 0):.1f} s)")
        self.gather()

    def skip(self, names: Sequence[str]) -> None:
        """Note that there is no time left for these; `run` writes it at its end."""
        self.done |= {name: {"skipped": "no time left"} for name in names}

    def gather(self) -> None:
        """Write the records of all items into one."""
        values = self.record.values
        values["sections"] = {"lease": {"items": self.done}}
        names = [*self.done, *([self.behind.name] if self.behind else [])]
        for path in map(self.path, names):
            with suppress(OSError, ValueError):
                found = json.loads(path.read_text())
                values["machine"] |= found["machine"]
                for section, value in found["sections"].items():
                    self.record.items(section).update(value["items"])
        self.record.save()

    def pack(self) -> None:
        """Write the folder into one archive beside the record; a file may vanish meanwhile."""
        path = self.record.path.with_suffix(".tar.gz")
        with (
            suppress(OSError),
            replacing(path) as file,
            tarfile.open(fileobj=file, mode="w:gz") as t,
        ):
            t.add(self.folder, self.record.path.stem)

    def attend(self, wait: bool) -> None:
        """Let the compiled step be timed if it is ready; with `wait`, give it all cores till then.

        Nothing else runs meanwhile.
        """
        if self.behind and wait:
            self.behind.signal(signal.SIGCONT)
        while self.behind:
            ready, go = steps.signals(self.path(self.behind.name))
            if not ready.exists():
                self.behind.deadline = self.end
            elif not go.exists():
                self.behind.signal(signal.SIGCONT)
                self.behind.deadline = min(self.end, self.now() + TIMING * self.scale)
                go.touch()
            self.behind = next(self.look(self.behind), None)
            if not wait and not ready.exists():
                return
            time.sleep(NAP)


def main(options: Any, arguments: Sequence[str]) -> int:
    """Run the lease; print the summary last, whatever happened; return how many items failed."""
    record = options.json.resolve()
    record.unlink(missing_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what it has started, as always
    # Another call finds the kernels of this one; torch.compile starts from nothing.
    os.environ.setdefault("CUPY_CACHE_DIR", f"{gettempdir()}/igc-lease-cupy")

    def command(name: str, path: Path) -> list[str]:
        here = [sys.executable, "-m", "benchmarks.gpu", *arguments]
        return [*here, "--item", name, "--json", str(path), "--seed", str(options.seed)]

    phases, compiled = chosen(options)
    scale = 1.0 if options.only else options.lease / SECONDS
    with TemporaryDirectory(prefix="igc-lease-", ignore_cleanup_errors=True) as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/inductor"
        lease = Lease(Record(record), Path(folder, "items"), command, options.lease, scale)
        here = [Path(a).name if Path(a).is_absolute() else a for a in arguments]  # any machine's
        settings = {"arguments": here, "seed": options.seed}
        lease.record.values["settings"] = settings | {"batch": options.batch, "tiny": options.tiny}
        try:
            lease.run(phases, compiled)
        finally:
            text = summary.of(lease.record)
            (lease.folder / "summary.txt").write_text(text)
            lease.pack()
            say(f"{text}\n{lease.now():.0f} s of {options.lease:.0f}")
    return len(summary.failed(lease.record))
