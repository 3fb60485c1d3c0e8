"""Counters of the block kernels by Nsight Compute, NVIDIA's profiler (`ncu`)."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import blocks, ours
from benchmarks.gpu.sections import Section

SHAPES = slice(0, 5, 2)  # 32x32, 16x16, 8x8 without a stride
SECONDS = 40
METRICS = {  # column of the table, a line a kernel, in the order of `SHAPES`: metric
    "us": "gpu__time_duration.sum",
    "IPC": "sm__inst_executed.avg.per_cycle_active",
    "eligible": "smsp__warps_eligible.avg.per_cycle_active",
    "warps": "sm__warps_active.avg.per_cycle_active",
    "registers": "launch__registers_per_thread",
    "DRAM %": "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
    "conflicts ld": "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum",
    "of ld": "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum",
    "conflicts st": "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum",
    "of st": "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_st.sum",
}
STALLS = ("long_scoreboard", "short_scoreboard", "wait", "barrier", "lg_throttle", "no_instruction")
METRICS |= {
    f"stall {why}": f"smsp__average_warps_issue_stalled_{why}_per_issue_active.ratio"
    for why in STALLS
}


def target(options: Any) -> None:
    """Run a training block of each shape: what is profiled."""
    backend = ours.make_backend(options.emulate)
    with backend.session():
        for case in blocks.cases(options.batch, options.tiny)[SHAPES]:
            ours.OurBlock(backend, case, 1).training(0)


def section(section: Section, argument: str, options: Any) -> None:
    """Let Nsight Compute profile a few blocks, or be what it runs."""
    if argument == "target":
        target(options)
    else:
        section.item("counters", partial(counters, options))


def counters(options: Any) -> dict[str, Any]:
    """Profile `target` in a process of its own; keep the profiler's text beside the record."""
    count = 2 * len(blocks.cases(options.batch, options.tiny)[SHAPES])
    report = options.json.with_suffix(".ncu-rep")
    command = ["ncu", "--clock-control", "none", "--set", "full", "-f", "-o", str(report)]
    command += ["-k", "regex:block_(forward|backward)", "-c", str(count)]
    command += [sys.executable, "-m", "benchmarks.gpu", "--item", "ncu target"]
    command += ["--batch", str(options.batch), "--json", str(report.with_suffix(".target.json"))]
    subprocess.run([*command, *["--emulate"] * options.emulate], check=True, timeout=SECONDS)
    options.json.with_suffix(".details.txt").write_text(page(report, "details"))
    table = page(report, "raw", "--csv")
    report.unlink()  # large
    return {"counters": read(table)}


def page(report: Path, name: str, *more: str) -> str:
    """Return a page of a report as text."""
    command = ["ncu", "--import", str(report), "--page", name, *more]
    return subprocess.run(
        command, check=True, timeout=SECONDS, capture_output=True, text=True
    ).stdout


def read(table: str) -> dict[str, dict[str, float]]:
    r"""Return the wanted metrics of every kernel in a raw page.

    >>> read('"ID","Kernel Name","gpu__time_duration.sum"\n"","","us"\n"0","f","1,064.5"\n')
    {'0 f': {'us': 1064.5}}
    """
    header, _, *rows = csv.reader(io.StringIO(table[table.index('"ID"') :]))
    found = {}
    for row in rows:
        values = dict(zip(header, row, strict=True))
        found[f"{values['ID']} {values['Kernel Name']}"] = {
            column: float(values[metric].replace(",", ""))
            for column, metric in METRICS.items()
            if values.get(metric, "")[:1].isdigit()
        }
    return found
