"""The explorer in a real browser: it computes what igc_ref computes, and shows the right path."""

from pathlib import Path

import numpy as np
import pytest

from igc_ref import IGCSpec
from igc_ref.reference import composed_kernel, interleave, matrices
from igc_ref.spec.block import equal_cost_width, maximal_width

ADDRESS = (Path(__file__).parents[3] / "docs" / "explorer.html").as_uri()
NUMBERS = """() => {
    const { block, primaryBlock, secondaryBlock } = explorer, { G, L, M, S } = block;
    const table = (f, n, ...more) => [...Array(n).keys()].map(
        i => more.length ? table((...rest) => f(i, ...rest), ...more) : f(i));
    return { ...block, paths: 0, W_p: table(primaryBlock, L, M, M, S),
        W_d: table(secondaryBlock, M, L, L), composed: table(block.composed, G, G, S) };
}"""
pytestmark = pytest.mark.slow


@pytest.fixture
def visit(browser):
    """Open the page with a choice in its address; afterwards look for errors and requests."""
    page, trouble = browser.new_page(viewport={"width": 390, "height": 844}), []
    for event, what in ("console", "text"), ("pageerror", "message"), ("request", "url"):
        page.on(event, lambda found, what=what: trouble.append(getattr(found, what)))
    yield lambda choice: (page.goto(f"{ADDRESS}#{choice}"), page)[1]
    page.close()
    assert [text for text in trouble if not text.startswith((ADDRESS, "data:,"))] == []


@pytest.mark.parametrize("L_M_k", [(3, 2, 3), (4, 8, 1), (1, 6, 5), (6, 1, 3), (24, 2, 3)])
def test_numbers_are_those_of_the_package(visit, L_M_k):
    L, M, k = L_M_k
    page, spec = visit(f"L={L}&M={M}&S={k * k}"), IGCSpec.square(*L_M_k)
    got = page.evaluate(NUMBERS)
    shapes = {"W_p": spec.primary_shape, "W_d": spec.secondary_shape}
    kernel = composed_kernel(*(np.reshape(got[w], shape) for w, shape in shapes.items()), spec)
    assert np.array_equal(np.reshape(got["composed"], kernel.shape), kernel)
    assert np.array_equal(interleave(L, M)[got["first"]], np.eye(L * M))
    assert np.all(np.array(got["counts"]) == 1)
    wide = [equal_cost_width(spec.parameters, k), maximal_width(spec.parameters, k)]
    np.testing.assert_allclose([got["C"], got["widest"]], wide)
    assert f"T = G(M·S + L)\t{spec.parameters:,}\n" in page.inner_text("#costs")
    assert ("wider than" in page.inner_text("#verdict")) == spec.is_wider_than_regular
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("shuffle", ["other", "none"])
def test_a_wrong_shuffle_counts_the_pairs_that_never_meet(visit, shuffle):
    page, P = visit(f"L=4&M=8&shuffle={shuffle}"), interleave(8, 4)
    Q = P if shuffle == "other" else np.eye(32)
    paths = Q @ np.kron(np.eye(8), np.ones((4, 4))) @ Q @ np.kron(np.eye(4), np.ones((8, 8)))
    assert np.array_equal(page.evaluate(NUMBERS)["counts"], paths)
    said = f"{np.sum(paths == 0)} of 1,024 pairs of channels never meet, and {np.sum(paths > 1)} "
    assert said in page.inner_text("#pairs")


def test_pointing_shows_the_one_path_and_keys_move_it(visit, tmp_path):
    page, spec = visit("L=3&M=4&S=1"), IGCSpec.square(3, 4, 1)
    page.locator("#in-6").hover()
    page.locator("#out-9").hover()
    W_p, P, W_d = matrices(np.ones(spec.primary_shape), np.ones(spec.secondary_shape), spec)
    [(z, w, y)] = np.argwhere(np.einsum("z,zw,wy,y->zwy", P[9], W_d, P.T, W_p[:, 6]))
    right = {"K": (9, 6), "second": (9, z), "W_d": (z, w), "first": (w, y), "W_p": (y, 6)}
    cells = "all => all.map(hit => [+hit.dataset.row, +hit.dataset.column])"
    for name, cell in right.items():
        assert page.locator(f"#{name} .hit").evaluate_all(cells) == [list(cell)]
    assert page.locator("#wiring .fat").count() == 4
    assert "K[9, 6, 0] =" in page.inner_text("#formula")
    page.screenshot(path=tmp_path / "phone.png", full_page=True)
    page.locator("#in-6").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    page.wait_for_url("**in=7&out=8")


def test_what_is_not_possible_is_clamped_and_said(visit):
    page = visit("L=99&M=zz&out=-1")
    assert page.inner_text("#notice").startswith("L=99 is not possible (1 to 24)")
    page.wait_for_url("**#L=24&M=2&S=9&in=1&out=0")
