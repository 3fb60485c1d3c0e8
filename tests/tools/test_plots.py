"""Figures: what is drawn is what was given; axes are named; the same figure has the same bytes."""

import os
import subprocess
import sys

import numpy as np
import pytest

from igc_ref import IGCSpec, plots
from igc_ref.errors import IGCError, SpecError
from igc_ref.reference import first_permutation, interleave, matrices, special_cases, unfold
from igc_ref.spec.block import equal_cost_width, maximal_width
from igc_ref.studies.sweep import Result
from igc_ref.testing import assert_close
from tests.support.strategies import weights

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot  # noqa: E402 - the figures of these tests are shown by it
from matplotlib.colors import to_hex  # noqa: E402 - only where matplotlib is installed
from matplotlib.patches import Rectangle  # noqa: E402

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (3, 3, 4, 5), dtype=np.uint8)
CLASSES = ("cat", "dog", "owl")
SERIES = {"one": ([1, 2], [3.0, 4.0]), "two": ([1, 2], [5.0, 6.0])}
LEFT, RIGHT = np.kron(np.eye(2), np.ones((1, 2))), np.kron(np.ones((2, 1)), np.eye(2))

RECORD = {"train_loss": 1.0, "test_loss": 2.0, "train_accuracy": 0.5, "test_accuracy": 0.25}
RECORDS = [RECORD | {"epoch": 1}, RECORD | {"epoch": 2}]

FIGURES = {
    "curves": lambda: plots.draw_curves(RECORDS, "title"),
    "intervals": lambda: plots.draw_intervals({"a": ([1, 2, 6], 2.0), "b": ([5], None)}, y="%"),
    "lines": lambda: plots.draw_lines(SERIES, x="epoch", y="loss (nats)", log="xy"),
    "bars": lambda: plots.draw_bars(CLASSES, {"a": [1, 2, 3], "b": [3, 2, 1]}, y="images"),
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
def _no_figures_left():
    yield
    matplotlib.pyplot.close("all")


def rectangles(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


NAMES_INSTEAD = {
    "intervals": "x",
    "bars": "x",
    "band": "x",
    "ratios": "y",
    "answer": "y",
}  # at the ticks


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


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_same_figure_gives_the_same_bytes(tmp_path, ending):
    written = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.{ending}"
        plots.save(plots.draw_block(*block()), path)
        written.append(path.read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("name", ["curves", "curves.txt", "curves.json", "folder/"])
def test_a_figure_of_an_unknown_kind_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(IGCError, match=r"must end in \.png or \.svg"):
        plots.save(plots.draw_block(*block()), str(tmp_path / name))
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(IGCError, match="pip install matplotlib"):
        FIGURES["lines"]()


def test_a_figure_is_written_without_pyplot_but_shown_where_pyplot_is_imported(tmp_path):
    figure = FIGURES["lines"]()
    assert matplotlib.pyplot.fignum_exists(figure.number)
    code = (
        "import os, sys; from igc_ref import plots; "
        "plots.save(plots.draw_lines({'a': ([1], [2])}, x='x', y='y'), 'figure.svg'); "
        "assert 'matplotlib.pyplot' not in sys.modules; assert 'MPLBACKEND' in os.environ"
    )
    env = os.environ | {"MPLBACKEND": "no backend of this name"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=env)
    assert (tmp_path / "figure.svg").exists()


# -- matrices -------------------------------------------------------------------------------


def block():
    spec = IGCSpec.square(3, 2, kernel_size=1)
    W_p, P, W_d = matrices(*weights(np.random.default_rng(0), spec), spec)
    return (P, W_d, first_permutation(spec), W_p), spec


def test_the_figure_of_a_block_colours_every_nonzero_cell_and_no_other():
    four, spec = block()
    figure = plots.draw_block(four, spec)
    assert len(figure.axes) == 4
    for axes, matrix in zip(figure.axes, four, strict=True):
        coloured = (np.asarray(axes.images[0].get_array()) != 1).any(axis=2)
        assert np.array_equal(coloured, matrix != 0)
        assert str(np.count_nonzero(matrix)) in axes.get_xlabel()


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def test_the_first_permutation_is_called_the_transpose_of_the_second_only_if_it_is():
    assert titles(plots.draw_block(*block())) == ["$P$", "$W_d$", "$P^\\top$", "$W_p$"]
    spec = IGCSpec(4, 12, 2, 3, kernel_size=1)
    W_p, P, W_d = matrices(*weights(np.random.default_rng(0), spec), spec)
    assert titles(plots.draw_block((P, W_d, first_permutation(spec), W_p), spec))[2] == "$P_1$"


def test_the_columns_of_a_matrix_are_numbered_by_channels_and_its_cells_show_their_numbers():
    axes = axes_of_one()
    ones, numbers = np.ones((1, 3 * 4)), np.arange(12)[None]
    plots.draw_matrix(axes, ones, np.array([0]), "title", taps=4, numbers=numbers)
    assert [float(text.get_text()) for text in axes.texts] == list(range(12))
    assert list(axes.get_xticks()) == [2, 6, 10]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]
    assert axes.get_xlabel() == "1 x 12 cells"


def test_sixteen_groups_have_sixteen_colours():
    axes = axes_of_one()
    plots.draw_matrix(axes, np.ones((1, 16)), np.arange(16), "title")
    assert len(np.unique(np.asarray(axes.images[0].get_array())[0], axis=0)) == 16


def axes_of_one():
    return matplotlib.pyplot.subplots()[1]


def test_a_value_is_a_square_of_its_area_and_its_sign_is_seen_without_colours():
    axes, matrix = axes_of_one(), np.array([[4.0, -1.0], [0.0, 0.25]])
    plots.draw_values(axes, matrix, "title", "rows", "columns")
    positive, negative = axes.collections[:2]
    sides = [path.get_extents().width for path in positive.get_paths()]
    assert np.allclose(sides, [0.9, 0.9 / 4])
    assert [path.get_extents().width for path in negative.get_paths()] == [pytest.approx(0.45)]
    assert (negative.get_facecolor()[:, :3] == 1).all()
    assert "2 x 2 cells\n3 not zero" in axes.get_xlabel()


def test_the_hands_of_a_complex_matrix_show_its_phases():
    axes, F = axes_of_one(), np.exp(-2j * np.pi * np.outer(range(4), range(4)) / 4)
    plots.draw_phases(axes, F, "title")
    hands = next(c for c in axes.collections if hasattr(c, "U"))
    assert np.allclose(hands.U - 1j * hands.V, 0.8 * F.ravel())  # y points down in a matrix


def test_weights_drawn_side_by_side_have_one_scale():
    small, great = np.array([[1.0, -1.0]]), np.array([[4.0]])
    figure = plots.draw_weights([small, great], ["W", "V"], "column", "row")
    filled = [axes.collections[0].get_paths()[0] for axes in figure.axes]
    assert np.allclose([path.get_extents().width for path in filled], [0.45, 0.9])


def test_a_product_shows_the_cells_of_all_factors_and_of_itself():
    figure = plots.draw_product([LEFT, RIGHT.T], LEFT @ RIGHT, ["a", "b", "c"])
    for axes, matrix in zip(figure.axes, (LEFT, RIGHT.T, LEFT @ RIGHT), strict=True):
        coloured = (np.asarray(axes.images[0].get_array()) != 1).any(axis=2)
        assert np.array_equal(coloured, matrix != 0)


def test_slices_of_a_kernel_are_told_apart_by_lightness_and_by_name():
    axes = axes_of_one()
    plots.draw_slices(axes, np.ones((6, 6, 1, 1)), 3, 2, "K")
    light = np.asarray(axes.images[0].get_array()) @ (0.299, 0.587, 0.114)
    levels = [np.unique(light[m::2, 2 * b : 2 * b + 2]) for m in range(2) for b in range(3)]
    assert np.diff(np.ravel(levels)).min() > 0.05  # one level in each slice, and no two alike
    assert [text.get_text() for text in axes.texts[:4]] == ["0, 0", "0, 1", "0, 2", "1, 0"]
    with pytest.raises(SpecError, match="in_channels=6 is not divisible by L=4"):
        plots.draw_slices(axes, np.ones((6, 6, 1, 1)), 4, 2, "K")


# -- wires ----------------------------------------------------------------------------------


def lines_between(axes, left, right):
    """Pairs (from, to) of all lines that go from one abscissa to another."""
    straight = [line for line in axes.lines if list(line.get_xdata()) == [left, right]]
    return sorted((-line.get_ydata()[0], -line.get_ydata()[1]) for line in straight)


def test_a_permutation_is_drawn_as_lines_from_where_to_where():
    axes, Pt = axes_of_one(), interleave(3, 2)
    plots.draw_permutation(axes, Pt, np.arange(6) // 2, "title")
    assert lines_between(axes, 0, 1) == [(c, Pt[:, c].argmax()) for c in range(6)]


def test_the_wires_of_a_block_cross_as_its_permutations_do():
    (axes,) = plots.draw_wiring(IGCSpec.square(3, 2)).axes
    Pt, P = interleave(3, 2), interleave(2, 3)
    assert lines_between(axes, 2, 4) == [(c, Pt[:, c].argmax()) for c in range(6)]
    assert lines_between(axes, 6, 8) == [(c, P[:, c].argmax()) for c in range(6)]
    boxes = [text.get_text() for text in axes.texts]
    assert boxes == ["$W_p^{0}$", "$W_p^{1}$", "$W_p^{2}$", "$W_d^{0}$", "$W_d^{1}$"]


@pytest.mark.parametrize(("order", "met"), [(None, 6), (range(6), 3), ((0, 2, 4, 5, 3, 1), 6)])
def test_the_fat_paths_of_an_input_end_at_every_output_that_it_reaches(order, met):
    (axes,) = plots.draw_wiring(IGCSpec.square(3, 2), (1, None), order).axes
    fat = [line.get_ydata() for line in axes.lines if line.get_linewidth() == 4]
    assert len({path[-1] for path in fat}) == met
    Pt = interleave(3, 2) if order is None else np.eye(6)[list(order)]
    for x, _, c, _, y_bar, _, z_bar, _, out in -np.array(fat):
        assert Pt[y_bar, c] == Pt[z_bar, out] == 1
        assert (x, c // 2, y_bar // 3) == (1, 0, z_bar // 3)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (IGCSpec(4, 8, 2, 2), {}, r"L\*M channels"),
        (IGCSpec.square(3, 2), {"path": (0, 6)}, r"path=\(0, 6\): the block has channels 0 to 5"),
        (IGCSpec.square(3, 2), {"order": [0, 0, 1, 2, 3, 4]}, "each of the channels 0 to 5 once"),
    ],
)
def test_a_wiring_that_cannot_be_is_refused(spec, options, message):
    with pytest.raises(SpecError, match=message):
        plots.draw_wiring(spec, **options)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_branches_are_wired_as_the_secondary_weights_of_the_construction_say(n):
    kernel = np.ones((n, n, 1, 1))
    igc = special_cases.regular_convolution_by_branches(kernel, n)
    (axes,) = plots.draw_branches(n).axes
    sums, branches = np.nonzero(igc.secondary)  # out/n = 1, so there is one block
    assert lines_between(axes, 2, 4) == sorted(zip(branches, sums, strict=True))


# -- lines, bars, points ----------------------------------------------------------------------


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


def test_learning_curves_are_losses_and_percentages():
    loss, accuracy = FIGURES["curves"]().axes
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "cross-entropy (nats)")
    assert [line.get_ydata()[0] for line in loss.lines] == [1, 2]
    assert [line.get_ydata()[0] for line in accuracy.lines] == [50, 25]


def test_an_interval_is_drawn_around_the_mean_and_beside_the_values():
    (axes,) = FIGURES["intervals"]().axes
    (bar,) = (part.get_segments()[0] for part in axes.collections)
    assert bar.tolist() == [[0, 1], [0, 5]]
    heights = [list(line.get_ydata()) for line in axes.lines if line.get_marker() in (".", "o")]
    assert heights == [[1, 2, 6], [3], [5], [5]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]


def test_dots_are_drawn_beside_the_lines():
    (axes,) = plots.draw_lines({"a": ([1], [2])}, x="x", y="y", dots=([3, 4], [5, 6])).axes
    assert axes.collections[0].get_offsets().tolist() == [[3, 5], [4, 6]]
    assert len(axes.lines) == 1


def test_the_figure_of_a_sweep_has_a_line_a_depth_through_the_means_of_its_seeds():
    def result(L, M, depth, seed, accuracy):
        return Result(L, M, L * M, depth, seed, 1, 1, 1, accuracy)

    results = [
        result(1, 9, 8, 0, 0.5), result(1, 9, 8, 1, 0.7), result(6, 2, 8, 0, 0.8),
        result(6, 2, 20, 0, 0.9),
    ]  # fmt: skip
    figure = plots.draw_sweep(results, "title")
    by_L, by_M, width_L, _ = figure.axes
    assert [list(line.get_xdata()) for line in by_L.lines] == [[1, 6], [6]]
    assert_close(by_L.lines[0].get_ydata(), np.array([60.0, 80.0]), 1)
    assert list(by_M.lines[0].get_xdata()) == [2, 9]
    assert list(width_L.lines[0].get_ydata()) == [9, 12]
    assert by_L.get_ylabel() == "test accuracy (%)"
    assert width_L.get_xlabel() == "L, primary partitions"


def test_singular_values_are_relative_to_the_greatest_of_their_slice():
    axes, sigma = axes_of_one(), np.array([[[4.0, 2.0, 1.0], [10.0, 1.0, 0.0]]])
    plots.draw_singular_values(axes, {"kernel": sigma, "zero": 0 * sigma}, "title")
    medians = [line.get_ydata() for line in axes.lines]
    assert np.allclose(medians, [[1, 0.3, 0.125], [0, 0, 0]])
    corners = axes.collections[0].get_paths()[0].vertices
    for number, low, high in ((1, 1, 1), (2, 0.1, 0.5), (3, 0, 0.25)):
        heights = corners[corners[:, 0] == number, 1]
        assert np.allclose([heights.min(), heights.max()], [low, high])
    assert axes.get_ylabel() == "singular value / greatest of its slice"


def test_the_roof_is_the_lower_of_bandwidth_and_peak_and_a_point_above_it_is_drawn_and_said():
    points = {"numba": (10.0, 5e10), "fast": (300.0, 9e11), "slow": (0.1, 1e6)}
    (axes,) = plots.draw_roofline(2e10, 2e11, points, "title").axes
    roof, ridge, *drawn = axes.lines
    x, y = roof.get_data()
    assert np.allclose(y, np.minimum(200, 20 * x))  # GFLOP/s
    assert np.isclose((x[0], x[-1]), (0.1, 300)).all()  # as far as the points
    assert ridge.get_xdata()[0] == 10
    assert [line.get_label() for line in drawn] == ["numba", "fast (above the roof)", "slow"]
    for line, (intensity, rate) in zip(drawn, points.values(), strict=True):
        assert (line.get_xdata()[0], line.get_ydata()[0]) == (intensity, rate / 1e9)
        assert axes.viewLim.contains(intensity, rate / 1e9)


def test_ratios_are_bars_with_a_line_at_one():
    (axes,) = FIGURES["ratios"]().axes
    assert [bar.get_width() for bar in rectangles(axes)] == [2, 0.5]
    assert set(axes.lines[0].get_xdata()) == {1}


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


# -- images ---------------------------------------------------------------------------------


def test_images_are_shown_as_they_are():
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


@pytest.mark.parametrize(("classes", "numbers"), [(30, 900), (100, 0)])
def test_a_confusion_of_many_classes_is_larger_and_names_all_without_counts(classes, numbers):
    figure = plots.draw_confusion(np.ones((classes, classes), int), list(map(str, range(classes))))
    assert len(figure.axes[0].texts) == numbers
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        assert len(axis.get_ticklabels()) == classes
    assert figure.get_size_inches()[1] >= 0.12 * classes  # room for a line of 7 points in each row


def test_a_filter_s_zero_is_grey_and_its_greatest_weight_is_full():
    weight = np.zeros((1, 3, 1, 2))
    weight[0, 0, 0, 1] = -4.0
    figure = plots.draw_filters(weight, np.arange(6.0).reshape(1, 2, 3))
    top, below = figure.axes
    assert np.array_equal(top.images[0].get_array()[0], [[0.5, 0.5, 0.5], [0, 0.5, 0.5]])
    assert np.array_equal(below.images[0].get_array(), np.arange(6).reshape(2, 3))


def test_a_patch_is_drawn_with_the_numbers_that_it_holds():
    x = np.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    z = unfold(x[None], 3)[:, 1 * 4 + 3]
    figure = plots.draw_patch(x, z, 1, 3)
    assert [text.get_text() for text in figure.axes[-1].texts] == [f"{value:g}" for value in z]
    windows = [axes.patches[0].get_xy() for axes in figure.axes[:2]]
    assert windows == [(2, 0), (2, 0)]
    outside = [text.get_position() for text in figure.axes[0].texts if text.get_text() == "0"]
    assert {(4.5, 0.5), (4.5, 1.5), (4.5, 2.5)} <= set(outside)


@pytest.mark.parametrize(
    ("step", "read", "kept"), [(0, (0, 6), (0, 5)), (2, (9, 16), (10, 15)), (6, (29, 32), (30, 32))]
)
def test_a_band_reads_its_rows_and_one_more_on_each_side_within_the_image(step, read, kept):
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


def test_a_band_beyond_the_image_is_its_last_row():
    (axes,) = plots.draw_band(32, 16, 31).axes
    assert axes.get_title() == "rows 31 to 31 of x'"
