"""Timings: contenders in processes of their own, taking turns, beside a measured roofline."""

from igc_ref.bench.cases import BlockCase, Case, StepCase
from igc_ref.bench.harness import Comparison, contenders, time_case
from igc_ref.bench.record import available_threads, write_comparisons
from igc_ref.bench.roofline import Roofline, measure

__all__ = [
    "BlockCase", "Case", "Comparison", "Roofline", "StepCase", "available_threads", "contenders",
    "measure", "time_case", "write_comparisons",
]  # fmt: skip
