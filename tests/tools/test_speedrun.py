"""``docs/speedrun.md`` is what its record says; differences are paired by seed."""

from benchmarks import speedrun
from benchmarks.runs import read

MACHINE = {"commit": "c", "date": "2000-01-01", "processor": "P", "threads": 2, "numba": 1}
CONFIG = {"arch": "plain", "depth": 5, "width": 4, "doubling": "M", "data": "cifar10"}
CONFIG |= {"epochs": 2, "batch_size": 256, "backend": "numba"}


def run(kind, way, seed, *accuracies, **more):
    records = [{"epoch": n, "test_accuracy": a, "seconds": 90} for n, a in enumerate(accuracies, 1)]
    found = {"kind": kind, "way": way, "config": CONFIG | more | {"seed": seed}, "sha256": "0"}
    return found | {"records": records, "network": "plain-5 W4", "machine": MACHINE}


def test_the_page_is_what_its_record_says():
    assert speedrun.PAGE.read_text(encoding="utf-8") == speedrun.page(read(speedrun.RECORD))


def test_differences_are_paired_by_seed_and_seconds_end_where_the_target_was_reached():
    full, other = {0: 0.5, 1: 0.6, 2: 0.9}, {0: 0.51, 1: 0.63}  # mean 2, sd √2; t = 12.706
    runs = [run("ablate", speedrun.ALL, seed, a) for seed, a in full.items()]
    runs += [run("ablate", "other", seed, a) for seed, a in other.items()]
    runs += [run("until", "speedrun", 0, *a, until=0.8) for a in ((0.8, 0.9), (0.7, 0.8), (0.1,))]
    text = speedrun.page({str(n): r for n, r in enumerate(runs)})
    assert "| other | 2 | 57.00 | 8.49 | +2.00 [-10.71, +14.71] points | undecided |" in text
    assert "| 80% | 2 | 256 | numba | 2 of 3 | 2.2 (1.5 to 3.0) |" in text
