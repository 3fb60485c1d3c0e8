"""Checks and times of the cupy backend on a card: ``python -m benchmarks.gpu --help``."""
