"""Timings: contenders in processes of their own, taking turns, beside a measured roofline."""

from igc_ref.bench.cases import BlockCase, Case, StepCase
from igc_ref.bench.harness import Comparison, compare, contenders
from igc_ref.bench.record import available_threads, write_json
from igc_ref.bench.roofline import Roofline, measure

__all__ = [
    "BlockCase",
    "Case",
    "Comparison",
    "Roofline",
    "StepCase",
    "available_threads",
    "compare",
    "contenders",
    "measure",
    "write_json",
]
