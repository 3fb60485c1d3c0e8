"""Pictures: what is drawn is what the matrices hold, and the same figure gives the same bytes."""

import numpy as np
import pytest

from igc_ref import IGCSpec, plots
from igc_ref.errors import IGCError, SpecError
from igc_ref.reference import first_permutation, interleave, matrices, special_cases, unfold
from tests.support.strategies import weights

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


def block():
    spec = IGCSpec.square(3, 2, kernel_size=1)
    W_p, P, W_d = matrices(*weights(np.random.default_rng(0), spec), spec)
    return (P, W_d, first_permutation(spec), W_p), spec


def test_the_picture_of_a_block_colours_every_nonzero_cell_and_no_other():
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
    assert titles(plots.draw_block(*block())) == ["$x' = P$", "$W_d$", "$P^\\top$", "$W_p\\,z$"]
    spec = IGCSpec(4, 12, 2, 3, kernel_size=1)
    W_p, P, W_d = matrices(*weights(np.random.default_rng(0), spec), spec)
    assert titles(plots.draw_block((P, W_d, first_permutation(spec), W_p), spec))[2] == "$P_1$"


def test_the_columns_of_a_matrix_are_numbered_by_channels():
    axes = axes_of_one()
    plots.draw_matrix(axes, np.ones((1, 3 * 4)), np.array([0]), "title", taps=4)
    assert list(axes.get_xticks()) == [2, 6, 10]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]
    assert axes.get_xlabel() == "1 x 12\n12 cells"


def test_sixteen_groups_have_sixteen_colours():
    axes = axes_of_one()
    plots.draw_matrix(axes, np.ones((1, 16)), np.arange(16), "title")
    assert len(np.unique(np.asarray(axes.images[0].get_array())[0], axis=0)) == 16


def axes_of_one():
    return matplotlib.pyplot.subplots()[1]


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    matplotlib.pyplot.close("all")


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


def test_a_block_that_is_not_square_has_no_wiring():
    with pytest.raises(SpecError, match="L\\*M channels"):
        plots.draw_wiring(IGCSpec(4, 8, 2, 2))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_branches_are_wired_as_the_secondary_weights_of_the_construction_say(n):
    kernel = np.ones((n, n, 1, 1))
    igc = special_cases.regular_convolution_by_branches(kernel, n)
    (axes,) = plots.draw_branches(n).axes
    sums, branches = np.nonzero(igc.secondary)  # out/n = 1, so there is one block
    assert lines_between(axes, 2, 4) == sorted(zip(branches, sums, strict=True))


def test_a_value_is_a_square_of_its_area_and_its_sign_is_seen_without_colours():
    axes, matrix = axes_of_one(), np.array([[4.0, -1.0], [0.0, 0.25]])
    plots.draw_values(axes, matrix, "title", "rows", "columns")
    positive, negative = axes.collections[:2]
    sides = [path.get_extents().width for path in positive.get_paths()]
    assert np.allclose(sides, [0.9, 0.9 / 4])
    assert [path.get_extents().width for path in negative.get_paths()] == [pytest.approx(0.45)]
    assert (negative.get_facecolor()[:, :3] == 1).all()
    assert "2 x 2\n3 cells" in axes.get_xlabel()


def test_the_hands_of_a_complex_matrix_show_its_phases():
    axes, F = axes_of_one(), np.exp(-2j * np.pi * np.outer(range(4), range(4)) / 4)
    plots.draw_phases(axes, F, "title")
    hands = next(c for c in axes.collections if hasattr(c, "U"))
    assert np.allclose(hands.U - 1j * hands.V, 0.8 * F.ravel())  # y points down in a matrix


def test_a_patch_is_drawn_with_the_numbers_that_it_holds():
    x = np.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    z = unfold(x[None], 3)[:, 1 * 4 + 3]
    figure = plots.draw_patch(x, z, 1, 3)
    assert [text.get_text() for text in figure.axes[-1].texts] == [f"{value:g}" for value in z]
    windows = [axes.patches[0].get_xy() for axes in figure.axes[:2]]
    assert windows == [(2, 0), (2, 0)]
    outside = [text.get_position() for text in figure.axes[0].texts if text.get_text() == "0"]
    assert {(4.5, 0.5), (4.5, 1.5), (4.5, 2.5)} <= set(outside)


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


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_same_figure_gives_the_same_bytes(tmp_path, ending):
    written = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.{ending}"
        plots.save(plots.draw_block(*block()), path)
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_curves_have_labelled_axes_with_units():
    record = {"train_loss": 1.0, "test_loss": 2.0, "train_accuracy": 0.5, "test_accuracy": 0.25}
    figure = plots.draw_curves([record | {"epoch": 1}, record | {"epoch": 2}], "title")
    loss, accuracy = figure.axes
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "cross-entropy (nats)")
    assert accuracy.get_ylabel() == "accuracy (%)"
    assert [line.get_ydata()[0] for line in accuracy.lines] == [50, 25]


@pytest.mark.parametrize("name", ["curves", "curves.txt", "curves.json", "folder/"])
def test_a_picture_of_an_unknown_kind_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(IGCError, match=r"must end in \.png or \.svg"):
        plots.save(plots.draw_block(*block()), str(tmp_path / name))
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(IGCError, match=r"pip install 'igc-ref\[plots\]'"):
        plots.pyplot()
