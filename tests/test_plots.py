"""Pictures: what is drawn is what the matrices hold, and the same figure gives the same bytes."""

import numpy as np
import pytest

from igc_ref import IGCSpec, plots
from igc_ref.errors import IGCError
from igc_ref.reference import first_permutation, matrices
from tests.strategies import weights

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
    matplotlib.pyplot.close(figure)


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
    matplotlib.pyplot.close(figure)


@pytest.mark.parametrize("name", ["curves", "curves.txt", "curves.json", "folder/"])
def test_a_picture_of_an_unknown_kind_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(IGCError, match=r"must end in \.png or \.svg"):
        plots.save(plots.draw_block(*block()), str(tmp_path / name))
    assert not list(tmp_path.iterdir())
    matplotlib.pyplot.close("all")


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(IGCError, match=r"pip install 'igc-ref\[plots\]'"):
        plots.pyplot()
