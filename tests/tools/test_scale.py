"""``docs/scale.md``: its bytes are those of a step, its tables its record's."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("numba")
from benchmarks import scale


@pytest.mark.parametrize(("arch", "batch"), [("plain_igc", 6), ("resnet_igc", 40)])
def test_a_step_gathers_the_bytes_that_the_plans_say(arch, batch):
    a, sizes = scale.Architecture(arch, 8, L=6, M=8), []
    alone = SimpleNamespace(rank=0, size=1, allgather=lambda rows, _: sizes.append(rows) or rows)
    scale.step_seconds(a, alone, batch=batch, n=1)  # two steps
    planned = zip(*scale.gathers(a, batch).values(), strict=True)
    assert [len(sizes), sum(rows.nbytes for rows in sizes)] == [2 * sum(n) for n in planned]


def test_the_page_has_the_tables_of_its_record():
    assert scale.tables(json.loads(scale.RECORD.read_text())) in scale.PAGE.read_text("utf-8")
