"""Timings: contenders in processes of their own, taking turns, beside a measured roofline."""

from igc_ref.bench.cases import BlockCase, Case, StepCase
from igc_ref.bench.compare import Comparison, compare, contenders
from igc_ref.bench.roofline import Roofline, measure

__all__ = [
    "BlockCase",
    "Case",
    "Comparison",
    "Roofline",
    "StepCase",
    "compare",
    "contenders",
    "measure",
]
