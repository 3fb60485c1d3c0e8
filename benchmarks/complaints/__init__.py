"""Known complaints about group convolutions, answered with numbers: ``docs/complaints.md``.

A module for each. Its ``SCRIPT``, see `timing.Script`, has a title, a thread, and what to measure.
"""
