"""``docs/complaints.md`` is its record's, and what is exact stays so."""

import json
from dataclasses import replace

import pytest

from benchmarks.complaints.__main__ import NAMES, PAGE, RECORD, script, written
from igc_ref.networks.architecture import Architecture

SMALL = {
    "grouped": {"small": (2, 2, 2, 4)},
    "channels_last": {"small": (2, 2, 2, 4)},
    "jax_gradient": {"small": (4, 2, 2, 4)},
    "determinism": {"small": (Architecture("plain_igc", 5, L=2, M=2), 2)},
    "clock": {"small": (2, 4)},
}


def test_the_page_has_the_tables_and_outputs_of_its_record():
    page, record = PAGE.read_text("utf-8"), json.loads(RECORD.read_text())
    assert tuple(record) == NAMES
    assert written(page, record) == page


@pytest.mark.parametrize("name", ["shuffles", "igcv3"])
def test_what_is_exact_is_what_the_record_has(name):
    assert json.loads(RECORD.read_text())[name]["found"] == script(name).measure()


@pytest.mark.parametrize(("slower", "seconds", "seen"), [
    (False, 1.0, "c step"), (False, 0.9, "no"), (True, 1.0, "no"), (True, 1.1, "c step"),
])  # fmt: skip
def test_a_complaint_is_seen_where_the_figures_say_so(slower, seconds, seen):
    of = replace(script("grouped"), slower=slower)
    times = {"PyTorch dense": 1.0, "PyTorch grouped": seconds, "our IGC block": 0.25}
    answer = of.answer({"times": {"c": {"step": times}}, "notes": []})
    assert answer.seen == seen
    assert answer.ours == "our IGC block against PyTorch dense: c 4"


@pytest.mark.parametrize("name", SMALL)
def test_a_script_measures_every_contender(name):
    for library in {"jax_gradient": ["jax", "numba"]}.get(name, ["torch", "numba"]):
        pytest.importorskip(library)
    notes = {"determinism": lambda: script(name).ways and []}.get(name, script(name).notes)
    small = replace(script(name), cases=SMALL[name], notes=notes)
    found = small.measure(rounds=1, seconds=0)
    assert all(
        s > 0 for kinds in found["times"].values() for t in kinds.values() for s in t.values()
    )
    assert small.answer(found).ours
