"""``docs/forms.md`` is what its record says; differences are paired by seed."""

from benchmarks import forms
from benchmarks.runs import read
from igc_ref.training.config import TrainConfig

MACHINE = {"commit": "c", "date": "2000-01-01", "processor": "P", "threads": 2}


def run(form, seed, accuracy):
    config = TrainConfig.recipe("fast", data="cifar10", **forms.FORMS[form], seed=seed)
    settings = {name: value for name, value in config.to_dict().items() if value is not None}
    records = [{"epoch": 1, "test_accuracy": 0.1}, {"epoch": 2, "test_accuracy": accuracy}]
    return {
        "way": form, "config": settings, "records": records, "sha256": "0", "machine": MACHINE
    }  # fmt: skip


def test_the_page_is_what_its_record_says():
    assert forms.PAGE.read_text(encoding="utf-8") == forms.page(read(forms.RECORD))


def test_forms_are_compared_by_seed_with_the_paper_s_block():
    runs = [run(forms.BASE, seed, a) for seed, a in ((0, 0.8), (1, 0.81), (2, 0.9))]
    runs += [run("kernels of 3 and 5", seed, a) for seed, a in ((0, 0.7), (1, 0.712))]
    runs += [run("gated channels", seed, a) for seed, a in ((0, 0.81), (1, 0.83), (2, 0.93))]
    runs += [run(forms.DISTILLED, 2, 0.95), run(forms.TEACHER, 0, 0.99)]
    text = forms.page({str(number): run for number, run in enumerate(runs)})
    # t is 12.706 for two seeds, and 4.303 for three.
    assert "0: 70.00, 1: 71.20 | 70.60 | -9.90 [-11.17, -8.63] points | worse |" in text
    assert "| 85.67 | +2.00 [-0.48, +4.48] points | undecided |" in text
    assert "2: 95.00 | 95.00 | +5.00 points | undecided |" in text
    assert "0: 99.00 | 99.00 |  |  |" in text


def test_the_forms_have_about_the_parameters_of_the_paper_s_block():
    costs = {
        form: forms.cost(TrainConfig(**settings).architecture()).parameters
        for form, settings in forms.FORMS.items()
        if form != forms.TEACHER
    }
    assert costs[forms.BASE] == 155_962
    assert all(abs(number / 155_962 - 1) < 0.03 for number in costs.values()), costs
