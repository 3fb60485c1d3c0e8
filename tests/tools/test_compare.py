"""Networks side by side: every count against a sum written out here, budgets by trying all."""

import csv
import math
from itertools import product

import pytest

from igc_ref import build_model
from igc_ref.cli import main
from igc_ref.errors import SpecError
from igc_ref.networks.architecture import ARCHITECTURES, Architecture, numbers_of
from igc_ref.networks.builder import cost
from igc_ref.networks.model import build
from igc_ref.spec import IGCSpec
from igc_ref.studies.compare import (
    PAPER,
    compare_networks,
    of_equal_cost,
    regular_of_equal_cost,
    summary,
    with_size,
)
from igc_ref.studies.sweep import settings_near
from tests.support.strategies import depth_of

IGC_8 = Architecture("plain_igc", 8, 4, 8)


def by_hand(unit, C, L, M, classes=10):
    """Parameters and multiply-adds of a plain network of depth 8, block after block."""
    parameters, adds = 27 * C + 2 * C, 27 * C * 1024
    channels = C
    for stage, positions in ((1, 1024), (2, 256), (4, 64)):
        out = stage * C
        for _ in range(2):
            if unit == "regular":
                convolution = 9 * channels * out
            elif unit == "xception":
                convolution = 9 * out + out * out
            else:
                secondary = out * out // (M * stage) if unit == "igc" else 0
                convolution = 9 * channels // L * out + secondary
            parameters += convolution + 2 * out
            adds += convolution * positions
            channels = out
    return parameters + channels * classes + classes, adds + channels * classes


@pytest.mark.parametrize(("L", "M"), [(4, 8), (24, 2), (1, 5)])
def test_networks_of_equal_depth_cost_what_their_layers_add_up_to(L, M):
    counted = compare_networks(Architecture("plain_igc", 8, L, M))
    units = ["igc", "regular", "fusion", "xception"]
    assert [row.architecture.unit for row in counted] == units
    for unit, row in zip(units, counted, strict=True):
        assert row.architecture.channels == L * M
        assert tuple(row.cost) == by_hand(unit, L * M, L, M), unit
        assert row.parameters_ratio == row.cost.parameters / counted[0].cost.parameters
        assert row.multiply_adds_ratio == row.cost.multiply_adds / counted[0].cost.multiply_adds


@pytest.mark.parametrize("what", ["parameters", "multiply_adds"])
@pytest.mark.parametrize("unit", ["regular", "fusion", "xception"])
@pytest.mark.parametrize(("L", "M"), [(4, 8), (24, 2), (1, 1)])
def test_at_an_equal_budget_no_other_width_is_nearer(what, unit, L, M):
    ours = Architecture("plain_igc", 8, L, M)
    target = getattr(cost(ours), what)
    row = next(row for row in compare_networks(ours, what) if row.architecture.unit == unit)
    chosen = abs(getattr(row.cost, what) - target)
    column = ("parameters", "multiply_adds").index(what)
    for C in range(L, 150, L) if unit == "fusion" else range(1, 150):
        assert abs(by_hand(unit, C, L, C // L)[column] - target) >= chosen, C


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_what_is_counted_without_weights_is_what_the_network_has(arch):
    numbers = {name: {"L": 2, "M": 4, "width": 8}[name] for name in numbers_of(arch)}
    depth = depth_of(arch)
    model = build_model(arch, depth, **numbers, backend="numpy")
    counted = cost(model.architecture)
    assert counted.parameters == model.num_parameters
    assert counted.multiply_adds == sum(row.multiply_adds for row in model.rows())


@pytest.mark.parametrize("architecture", [a for a in PAPER if a.family == "imagenet"], ids=str)
def test_imagenet_multiply_adds_are_the_published_ones_to_their_digits(architecture):
    published = {"W64": 1.8, "W69": 2.1, "L4M32": 1.9, "L16M16": 2.2, "L100M2": 1.3}  # 10^9
    name = str(architecture).split()[1]
    # L16M16 is published as 2.2, counted 2.27: cut off, not rounded.
    assert math.floor(cost(architecture).multiply_adds / 1e8 + 0.5) / 10 == pytest.approx(
        published[name] + (0.1 if name == "L16M16" else 0)
    )


def test_a_network_that_is_no_igc_network_has_nothing_to_compare_with():
    with pytest.raises(SpecError, match="plain-8 W16 is not an IGC network"):
        compare_networks(Architecture("plain", 8, width=16))
    with pytest.raises(SpecError, match="equal='money' is unknown; choose one of depth"):
        compare_networks(IGC_8, "money")


def test_imagenet_networks_are_compared_with_regular_ones_alone():
    ours = Architecture("imagenet_igc", 18, 100, 2, num_classes=1000, doubling="L")
    found = [row.architecture for row in compare_networks(ours, "parameters")]
    assert [a.arch for a in found] == ["imagenet_igc", "imagenet"]
    assert found[1] == regular_of_equal_cost(ours)
    assert found[1].num_classes == 1000


def test_the_first_width_is_nearest_when_every_width_costs_more():
    assert of_equal_cost(with_size(IGC_8, "regular"), "parameters", 1).width == 1


# -- the summary of one network ------------------------------------------------------------------


def test_the_summary_sets_an_igc_network_beside_the_nearest_regular_one():
    model = build_model("plain_igc", 8, L=4, M=8, backend="numpy")
    text = summary(model)
    assert "78,634" in text
    assert "plain-8 W16" in text
    assert "75,290" in text
    assert len({line.count("|") for line in text.splitlines()}) == 1
    assert "|" not in summary(build_model("plain", 8, width=16, backend="numpy"))


def test_the_summary_names_shape_parameters_and_multiply_adds_of_every_layer():
    model = build_model("plain_igc", 5, L=2, M=3, num_classes=7, backend="numpy")
    lines = [[half.split() for half in row.split("|")] for row in summary(model).splitlines()]
    igc, regular = lines[4]  # stage1.block1: after the name, the header, the stem
    spec = IGCSpec.square(2, 3)
    assert igc[0] == "stage1.block1.igc"
    counted = f"{spec.parameters:,} {spec.parameters * 1024:,}"
    assert igc[1:] == f"igc 3x3 6-6 L2 M3 6x32x32 {counted}".split()
    assert regular[0] == "conv"
    total, beside = lines[-1]
    adds = sum(row.multiply_adds for row in model.rows())
    assert total == ["total", f"{model.num_parameters:,}", f"{adds:,}"]
    regular = regular_of_equal_cost(model.architecture)
    assert beside[0] == f"{build(regular, 'numpy').num_parameters:,}"
    assert regular.num_classes == 7


# -- settings of nearly one cost -------------------------------------------------------------------


@pytest.mark.parametrize("what", ["parameters", "multiply_adds"])
@pytest.mark.parametrize(("budget", "tolerance"), [(48_442, 0.05), (20_000, 0.1), (3_000, 0.02)])
def test_settings_are_for_each_m_the_nearest_l_and_always_the_extremes(what, budget, tolerance):
    budget *= 1 if what == "parameters" else 150
    column = ("parameters", "multiply_adds").index(what)

    def distance(L, M):
        return abs(by_hand("igc", L * M, L, M)[column] / budget - 1)

    expected = {min(((1, M) for M in range(1, 80)), key=lambda p: distance(*p))}
    expected.add(min(((L, 1) for L in range(1, 80)), key=lambda p: distance(*p)))
    for M in range(2, 40):
        best = min(((L, M) for L in range(1, 80)), key=lambda p: distance(*p))
        if distance(*best) <= tolerance:
            expected.add(best)
    found = settings_near(IGC_8, budget, what, tolerance)
    assert [(s.L, s.M) for s in found] == sorted(expected)
    for s in found:
        assert tuple(s.cost) == by_hand("igc", s.L * s.M, s.L, s.M)
        assert s.width == s.L * s.M


def test_the_paper_s_l24m2_is_the_widest_of_its_cost():
    found = settings_near(IGC_8, 48_442)
    assert [(s.L, s.M) for s in found if s.width == max(f.width for f in found)] == [(24, 2)]


@pytest.mark.parametrize(
    ("architecture", "numbers", "message"),
    [
        (Architecture("plain", 8, width=4), {}, "plain-8 W4 is no IGC network that doubles M"),
        (Architecture("plain_igc", 8, 2, 2, doubling="L"), {}, "doubling L is no IGC network"),
        (IGC_8, {"budget": 0}, "budget=0 is not an integer of at least 1"),
        (IGC_8, {"tolerance": 0}, "tolerance=0 is not allowed; it must be between 0 and 1"),
        (IGC_8, {"tolerance": math.nan}, "tolerance=nan is not allowed"),
        (IGC_8, {"what": "flops"}, "what='flops' is unknown; choose one of parameters"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(architecture, numbers, message):
    with pytest.raises(SpecError, match=message):
        settings_near(architecture, **{"budget": 1000, **numbers})


# -- the command -----------------------------------------------------------------------------------


def test_the_command_prints_a_comparison_and_writes_the_same_as_csv(capsys, tmp_path):
    path = tmp_path / "compared.csv"
    command = "params --compare --depth 20 -L 24 -M 2 --equal parameters"
    assert main([*command.split(), "--csv", str(path)]) == 0
    out = capsys.readouterr().out
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[0] == ["network", "depth", "L", "M", "channels", "parameters", "multiply_adds"]
    assert rows[1] == ["plain_igc", "20", "24", "2", "48", "155962", "28755840"]
    assert [row[0] for row in rows[1:]] == "plain_igc plain plain_fusion plain_xception".split()
    for row in rows[1:]:
        assert f"{int(row[5]):,}" in out
    assert len({len(line) for line in out.splitlines()}) == 1


def test_the_command_counts_all_networks_of_the_paper(capsys):
    assert main(["params", "--paper"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1 + 28 + 5
    for number in ("8,607,700", "8,637,900", "863,290", "1,943,164", "532,282"):
        assert number in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--csv=x.csv", "give --compare as well"),
        ("--equal=depth", "give --compare as well"),
        ("--paper --compare -L 4 --csv=x.csv", "no other options: leave out "),
    ],
)
def test_options_that_do_not_go_together(capsys, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["params", *options.split()]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_network_has_its_own_name():
    named = {Architecture(a, depth_of(a), **dict.fromkeys(numbers_of(a), 4)) for a in ARCHITECTURES}
    assert len({str(architecture) for architecture in named}) == len(ARCHITECTURES)
    for L, M in product((2, 4), repeat=2):
        assert str(Architecture("plain_igc", 8, L, M)) == f"plain_igc-8 L{L}M{M}"
