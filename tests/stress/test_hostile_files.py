"""Hostile files in short: 600 mutated ones, and guards that notice when a reader misbehaves.

The long run is ``python -m tests.stress.hostile``.
"""

import pytest

from tests.stress import hostile
from tests.stress.hostile_worker import PLANTS


def test_mutated_files_are_accepted_or_refused_and_nothing_else():
    tallies = hostile.run(600, seed=0)
    assert not [problem for tally in tallies for problem in tally.problems]
    assert sum(tally.counts.total() for tally in tallies) == 600
    for tally in tallies:
        # Accepted are mutants that differ only in pixels, or nowhere that matters.
        assert tally.counts["accepted"] > 2
        assert tally.counts["refused"] > 20
    print(hostile.table(tallies))


NOTICED = {
    "swallowed": "exec ",
    "write": "open ",
    "memory": "took 16,777,",
    "exception": "uncaught ZeroDivisionError",
    "crash": "the process died: Fatal Python error: Aborted",
}


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS)
def test_a_reader_that_misbehaves_is_noticed(plant):
    (tally,) = hostile.run(25, seed=0, kinds=("checkpoint",), plant=plant)
    (problem,) = [p for p in tally.problems if NOTICED[plant] in p]
    assert "case 19: " in problem
    assert tally.counts.total() == 25
    assert tally.counts["bad"] == 1
