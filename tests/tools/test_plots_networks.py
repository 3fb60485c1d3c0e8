"""Pictures of widths, networks and time: what is drawn is what was given; every axis is named."""

import numpy as np
import pytest

from igc_ref import IGCSpec, plots
from igc_ref.plots.matrices import blocks_of
from igc_ref.spec.block import equal_cost_width, maximal_width

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib.colors import to_hex  # noqa: E402 - only where matplotlib is installed
from matplotlib.patches import Rectangle  # noqa: E402

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (3, 3, 4, 5), dtype=np.uint8)
CLASSES = ("cat", "dog", "owl")
SERIES = {"one": ([1, 2], [3.0, 4.0]), "two": ([1, 2], [5.0, 6.0])}
LEFT, RIGHT = np.kron(np.eye(2), np.ones((1, 2))), np.kron(np.ones((2, 1)), np.eye(2))

FIGURES = {
    "lines": lambda: plots.draw_lines(SERIES, x="epoch", y="loss (nats)", log="xy"),
    "bars": lambda: plots.draw_bars(CLASSES, {"a": [1, 2, 3], "b": [3, 2, 1]}, y="pictures"),
    "equal_cost": lambda: plots.draw_equal_cost(IGCSpec.square(18, 2)),
    "width_map": lambda: plots.draw_width_map((1, 3), limit=5),
    "width_trade": lambda: plots.draw_width_trade(2016),
    "answer": lambda: plots.draw_answer(IMAGES[0], np.array([0.1, 0.7, 0.2]), CLASSES, 2),
    "confusion": lambda: plots.draw_confusion(np.diag([3, 2, 1]), CLASSES),
    "filters": lambda: plots.draw_filters(np.ones((3, 3, 2, 2)), np.ones((3, 4, 4))),
    "weights": lambda: plots.draw_weights([np.eye(2)], ["W"], "column", "row"),
    "roofline": lambda: plots.draw_roofline(2e10, 2e11, {"numba": (10.0, 5e10)}, "title"),
    "band": lambda: plots.draw_band(32, 5, 2),
    "ratios": lambda: plots.draw_ratios({"a": 2.0, "b": 0.5}, "torch / numba", "title"),
}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    matplotlib.pyplot.close("all")


def rectangles(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


NAMES_INSTEAD = {"bars": "x", "band": "x", "ratios": "y", "answer": "y"}  # at the ticks


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_with_numbers_on_it_has_a_label(name):
    figure = FIGURES[name]()
    for letter in "xy":
        axes_with_ticks = [a for a in figure.axes if len(getattr(a, f"get_{letter}ticks")())]
        labels = [getattr(axes, f"get_{letter}label")() for axes in axes_with_ticks]
        shared = getattr(figure, f"get_sup{letter}label")()
        if name == "width_map" and letter == "y":
            labels[1] = labels[0]  # the panels stand side by side
        if letter == "x" and figure.axes[-1].get_label() == "<colorbar>":
            labels.pop()
        if NAMES_INSTEAD.get(name) != letter:
            assert all(label or shared for label in labels), labels


# -- lines and bars --------------------------------------------------------------------------


def test_lines_are_the_series_and_differ_in_marker_and_dash():
    (axes,) = FIGURES["lines"]().axes
    for line, (name, (xs, ys)) in zip(axes.lines, SERIES.items(), strict=True):
        assert line.get_label() == name
        assert np.array_equal(line.get_xydata(), np.transpose([xs, ys]))
    one, two = axes.lines
    assert one.get_marker() != two.get_marker()
    assert one.get_linestyle() != two.get_linestyle()
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_bars_are_the_series_and_differ_in_hatch():
    (axes,) = FIGURES["bars"]().axes
    one, two = axes.containers
    assert [bar.get_height() for bar in one] == [1, 2, 3]
    assert [bar.get_height() for bar in two] == [3, 2, 1]
    assert one[0].get_hatch() != two[0].get_hatch()
    assert one[0].get_x() < two[0].get_x()
    assert one[1].get_x() > two[0].get_x()


# -- widths ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("L", "M", "k"), [(18, 2, 3), (4, 3, 1), (2, 5, 3)])
def test_equal_costs_have_equal_coloured_areas(L, M, k):
    spec = IGCSpec.square(L, M, kernel_size=k)
    (axes,) = plots.draw_equal_cost(spec).axes
    coloured = [p for p in rectangles(axes) if to_hex(p.get_facecolor()) != "#ffffff"]
    areas = [p.get_width() * p.get_height() for p in coloured]
    assert len(areas) == 1 + M + L
    assert areas[0] == pytest.approx(spec.parameters)  # the regular convolution
    assert sum(areas[1 : 1 + M]) == pytest.approx(M * L * L)
    assert sum(areas[1 + M :]) == pytest.approx(L * M * M * k * k)


def test_the_width_map_is_g_over_c():
    figure = plots.draw_width_map((1, 3), limit=5)
    for axes, k in zip(figure.axes, (1, 3), strict=False):
        drawn = np.reshape(axes.collections[0].get_array(), (5, 5))
        for M, L in np.ndindex(5, 5):
            spec = IGCSpec.square(L + 1, M + 1, kernel_size=k)
            C = equal_cost_width(spec.parameters, k)
            assert drawn[M, L] == pytest.approx(spec.out_channels / C)


@pytest.mark.parametrize(("T", "k"), [(2016, 3), (500, 1), (20_000, 5)])
def test_every_block_on_the_trade_has_the_same_parameters_and_the_star_has_the_bound_s_width(T, k):
    (axes,) = plots.draw_width_trade(T, k).axes
    by_label = {line.get_label().split(",")[0]: line for line in axes.lines}
    for name in ("IGC", "M = 1"):
        L, G = by_label[name].get_data()
        M = G / L
        assert L * M * (M * k * k + L) == pytest.approx(T)
    assert np.allclose(M, np.arange(1, len(M) + 1))
    (L,), (G,) = by_label["L = MS"].get_data()
    assert G == pytest.approx(maximal_width(T, k))
    assert pytest.approx(G / L * k * k) == L


# -- what a network sees and says -------------------------------------------------------------


def test_pictures_are_shown_as_they_are():
    figure = plots.draw_pictures(IMAGES, ["a", "b", "c"], columns=2)
    shown = [axes for axes in figure.axes if axes.images]
    assert len(figure.axes) == 4
    for axes, image, title in zip(shown, IMAGES, "abc", strict=True):
        assert np.array_equal(axes.images[0].get_array().transpose(2, 0, 1), image)
        assert axes.get_title() == title


def test_an_answer_shows_probabilities_in_percent_and_hatches_the_truth():
    _, axes = FIGURES["answer"]().axes
    bars = rectangles(axes)
    assert [bar.get_width() for bar in bars] == pytest.approx([10, 70, 20])
    assert [bool(bar.get_hatch()) for bar in bars] == [False, False, True]
    assert axes.get_title() == "answer: dog"


def test_a_confusion_writes_every_count_but_zero_in_its_place():
    counts = np.array([[5, 0], [3, 120]])
    axes = plots.draw_confusion(counts, ("cat", "dog")).axes[0]
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "5", (0, 1): "3", (1, 1): "120"}  # (column, row)


def test_a_filter_s_zero_is_grey_and_its_greatest_weight_is_full():
    weight = np.zeros((1, 3, 1, 2))
    weight[0, 0, 0, 1] = -4.0
    figure = plots.draw_filters(weight, np.arange(6.0).reshape(1, 2, 3))
    top, below = figure.axes
    assert np.array_equal(top.images[0].get_array()[0], [[0.5, 0.5, 0.5], [0, 0.5, 0.5]])
    assert np.array_equal(below.images[0].get_array(), np.arange(6).reshape(2, 3))


def test_a_weight_s_square_has_its_size_as_area_and_its_sign_as_colour():
    matrix = np.array([[4.0, -1.0], [0.0, 2.0]])
    (axes,) = plots.draw_weights([matrix], ["W"], "column", "row").axes
    for patch, (place, weight) in zip(rectangles(axes), np.ndenumerate(matrix), strict=True):
        assert patch.get_width() * patch.get_height() == pytest.approx(abs(weight) / 4)
        middle = np.add(patch.get_xy(), patch.get_width() / 2)
        assert tuple(middle) == pytest.approx(place[::-1])  # x is the column
        assert to_hex(patch.get_facecolor()) == ("#ffffff" if weight > 0 else "#000000")


# -- where time goes -------------------------------------------------------------------------


def test_the_roof_is_the_lower_of_bandwidth_and_peak():
    (axes,) = FIGURES["roofline"]().axes
    roof, ridge, point = axes.lines
    x, y = roof.get_data()
    assert np.allclose(y, np.minimum(200, 20 * x))  # GFLOP/s
    assert ridge.get_xdata()[0] == 10
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (10, 50)


@pytest.mark.parametrize(
    ("step", "read", "kept"), [(0, (0, 6), (0, 5)), (2, (9, 16), (10, 15)), (6, (29, 32), (30, 32))]
)
def test_a_band_reads_its_rows_and_one_more_on_each_side_within_the_picture(step, read, kept):
    (axes,) = plots.draw_band(32, 5, step).axes

    def span(place, colour):
        rows = [
            (p.get_y(), p.get_y() + p.get_height())
            for p in rectangles(axes)
            if round(p.get_x() + p.get_width() / 2) == place
            and to_hex(p.get_facecolor()).upper() == colour
        ]
        return min(r[0] for r in rows), max(r[1] for r in rows)

    assert span(0, plots.PALETTE[4]) == read
    assert span(1, plots.PALETTE[1]) == kept
    assert span(2, plots.PALETTE[0]) == kept


def test_a_band_beyond_the_picture_is_its_last_row():
    (axes,) = plots.draw_band(32, 16, 31).axes
    assert axes.get_title() == "rows 31 to 31 of x'"


def test_ratios_are_bars_with_a_line_at_one():
    (axes,) = FIGURES["ratios"]().axes
    assert [bar.get_width() for bar in rectangles(axes)] == [2, 0.5]
    assert set(axes.lines[0].get_xdata()) == {1}


# -- products --------------------------------------------------------------------------------


def test_a_block_is_what_shares_rows_and_columns_wherever_it_lies():
    shuffled = np.kron(np.eye(2), np.ones((2, 3)))[[0, 2, 1, 3]]
    assert blocks_of(shuffled)[:, 0].tolist() == [0, 1, 0, 1]
    chain = np.eye(9) + np.eye(9, k=1)  # the first row and the last share nothing directly
    assert np.unique(blocks_of(chain)).size == 1


def test_a_product_shows_the_cells_of_all_factors_and_of_itself():
    figure = plots.draw_product([LEFT, RIGHT.T], LEFT @ RIGHT, ["a", "b", "c"])
    for axes, matrix in zip(figure.axes, (LEFT, RIGHT.T, LEFT @ RIGHT), strict=True):
        coloured = (np.asarray(axes.images[0].get_array()) != 1).any(axis=2)
        assert np.array_equal(coloured, matrix != 0)
