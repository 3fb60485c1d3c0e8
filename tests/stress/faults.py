"""Kill a training again and again, continue it, and compare its end with that of one left alone.

    python -m tests.stress.faults --kills 50 --backend numba

Each child process trains a small network and saves within the epochs; after a random time it gets
SIGKILL (two times out of five SIGTERM or SIGINT), and the run is resumed. In the end all weights,
velocities, running statistics and the log must have the same bits as those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.support.runs import outcome

ROOT = Path(__file__).resolve().parents[2]
# A child process that trains on a few images.
CHILD = """
import json, os, sys
from igc_ref import TrainConfig, data, resume, train
order = json.loads(sys.argv[1])
draw, data.shapes = data.shapes, lambda split, size=None: draw(split, size=size or order["images"])
def report(line):
    print(line, flush=True)
if os.path.exists(os.path.join(order["settings"]["out"], "config.json")):
    resume(order["settings"]["out"], report)
else:
    train(TrainConfig(**order["settings"]), report)
print("finished", flush=True)
"""


def start(folder: Path, options: argparse.Namespace) -> subprocess.Popen[str]:
    """Start or continue the run in this folder."""
    settings = {
        "depth": 5, "L": 2, "M": 2, "batch_size": 8, "epochs": options.epochs, "lr": 0.05,
        "backend": options.backend, "checkpoint_every": 3, "out": str(folder), "seed": options.seed,
    }  # fmt: skip
    order = {"settings": settings, "images": options.images}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(order)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
    )


def kill_often(folder: Path, options: argparse.Namespace, chance: random.Random) -> Counter[str]:
    """Kill and resume a run until it ends by itself; count how it was ended."""
    ends: Counter[str] = Counter()
    kinds = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    while True:
        child, first = start(folder, options), ""
        if sum(ends.values()) - ends["by itself"] < options.kills:
            assert child.stdout is not None
            first = child.stdout.readline()  # the headline: signals are taken from here on
            time.sleep(chance.uniform(0, options.longest))
            kind = chance.choice(kinds)
            child.send_signal(kind)
        out, err = child.communicate()
        if "finished" in first + out:
            ends["by itself"] += 1
            return ends
        if child.returncode != -kind and not (
            kind in (signal.SIGTERM, signal.SIGINT) and "Interrupted" in err
        ):
            raise SystemExit(f"a child failed otherwise, with status {child.returncode}:\n{err}")
        ends[signal.Signals(kind).name] += 1


def main() -> None:
    """Kill runs and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--longest", type=float, default=1.0, help="seconds before a kill")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder, begun = Path(name), time.perf_counter()
        child = start(folder / "whole", options)
        _, err = child.communicate()
        if child.returncode:
            raise SystemExit(err)
        expected = outcome(folder / "whole")
        kills, runs, broken, ends = 0, 0, 0, Counter[str]()
        while kills < options.kills:
            runs += 1
            ends += kill_often(folder / f"killed-{runs}", options, chance)
            kills = sum(ends.values()) - ends["by itself"]
            broken += outcome(folder / f"killed-{runs}") != expected
        print(f"{options.backend}: {time.perf_counter() - begun:.0f} s, seed {options.seed}")
        how = ", ".join(f"{count} {kind}" for kind, count in sorted(ends.items()))
        print(
            f"killed ({how}): {kills} times, {runs} runs, of which {broken} ended with other bits"
        )
        if broken:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
