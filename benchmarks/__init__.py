"""Measurements behind the numbers that the documentation quotes; run each with `python -m`."""
