"""Runs that a program trains for its page: what is missing is trained, what is finished recorded.

A record is a dict of runs by name, and a JSON file beside the program. Every run has its network,
settings, curves, the SHA-256 of its weights, and machine, date and commit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.paper.record import PATHS
from igc_ref import data
from igc_ref.bench.record import available_threads, machine, output
from igc_ref.files import replacing, write_json
from igc_ref.report import say
from igc_ref.training.config import TrainConfig
from igc_ref.training.session import run_to_end

ROOT = Path(__file__).parents[1]
Record = dict[str, dict[str, Any]]


def read(file: Path) -> Record:
    """Return the recorded runs by name; none if there is no file."""
    return json.loads(file.read_text())["runs"] if file.exists() else {}


def trained(file: Path, record: Record, config: TrainConfig, out: Path, kind: str, way: str) -> str:
    """Train a run below `out`, or what is left of it, unless it is recorded; record where and how.

    Returns the name of the run's folder.
    """
    network = str(config.architecture(data.NUM_CLASSES[config.data]))
    words = f"{network} {config.data} {way} {config.epochs} seed{config.seed}"
    folder = re.sub(r"[^\w.]+", "-", words)
    name = f"{kind} {folder}"
    bare = replace(config, **dict.fromkeys(PATHS))
    if name in record and TrainConfig.from_dict(record[name]["config"]) == bare:
        return folder
    settings = {n: v for n, v in bare.to_dict().items() if v is not None}
    where = machine(available_threads())
    if config.backend == "cupy":
        where["card"] = output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    history = run_to_end(replace(config, out=str(out / folder)), say)
    record[name] = {
        "kind": kind, "way": way, "network": network, "config": settings,
        "records": history.records, "sha256": history.sha256, "machine": where,
    }  # fmt: skip
    write_json(file, {"runs": dict(sorted(record.items()))})
    return folder


def places(record: Record) -> Iterator[str]:
    """Yield a line for every machine, day and commit."""
    found: dict[str, list[str]] = {}
    for name, run in record.items():
        m = run["machine"]
        device = m.get("card") or f"{m['processor']}, {m['threads']} cores"
        line = f"commit {m['commit']}, {m['date']}, {device}"
        of_run = [f"`{name}` {run['sha256'][:16]}"] if run["sha256"] else []
        found.setdefault(line, []).extend(of_run)
    for line, names in found.items():
        yield f"* {line}: {', '.join(names) or 'the runs without a hash'}"


def write_page(file: Path, text: str) -> None:
    """Replace a page, whole or not at all."""
    with replacing(file) as stream:
        stream.write(text.encode())
