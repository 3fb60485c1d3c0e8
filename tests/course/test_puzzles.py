"""The puzzles accept every solution and refuse three mistakes in its text, most with a figure."""

import pytest

from tests.backends.cuda import emulator
from tests.course.course import ROOT, exercises, read

plt = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
MISTAKES = [  # puzzle, replaced, by what, the sentence if there is no figure
    (1, "= blocks[b]", "= blocks[0]", None),
    (1, "b * columns : (b + 1) * columns", "b::L", None),
    (1, "L * columns))", "columns + L * columns))", "has shape"),
    (2, "reshape(L, size)", "reshape(size, L)", None),
    (2, ".T.ravel()", ".ravel()", None),
    (2, "np.eye(L * size)[order]", "np.stack([np.eye(L * size)[p] for p in order])", "a loop"),
    (3, "first_permutation(spec) @ W_p", "P.T @ W_p", None),
    (3, "row * spec.stride", "row", None),
    (3, "return P @ ", "return ", None),
    (4, "(1 + each)", "each", None),
    (4, "spec.out_channels // spec.M", "spec.L", None),
    (4, "spec.in_channels // spec.L * spec.taps", "spec.M * spec.taps", None),
    (5, "np.ones((out, 1))", "np.eye(out)", "secondary has shape"),
    (5, "1, out\n", "out, 1\n", "L=4"),
    (5, "np.ones((out, 1))", "np.arange(1.0, out + 1)[:, None]", None),
    (6, "order // M", "order % L", None),
    (6, "b * M, m * L + L - 1", "m * L, b * M", None),
    (6, "argwhere(~meet)", "argwhere(meet)", None),
    (7, "reshape(g, C // g)", "reshape(C // g, g)", None),
    (7, "order, times = shuffle(C, g), 1", "return 2", None),
    (7, "return times", "return 10**12 * times", "fewer are enough"),
    (8, "P.T @ D", "P @ D", None),
    (8, "dZ_bar = P.T @ D", "P[:], dZ_bar = 0, 0 * D", None),
    (8, "W_d.T @ dZ_bar", "W_d @ dZ_bar", None),
    (8, "blockmask(dY @ Z.T, spec.L)", "dY @ Z.T", None),
    (9, " * sigma[..., :1]", "", None),
    (9, "Vh[..., 0, :]", "Vh[..., 0]", None),
    (9, "W_d.swapaxes(1, 2)", "W_d", None),
    (10, "    if (t >= L * size * pixels) return;\n", "", "line 6 reads outside of an array"),
    (10, "y_bar[(j * L + b) * pixels + pixel] = y[t]", "y_bar[t] = y[(j * L + b) * pixels]", None),
    (10, "blockIdx.x * blockDim.x + ", "", None),
    (10, "y[t];\n}", "y[t];\n", "line 2 opens a brace"),
    (11, "    __syncthreads();\n", "", "a race"),
    (11, "blockIdx.y * n + i)", "i)", None),
    (11, "for (int i = threadIdx.x; i < n; i += blockDim.x)", "int i = threadIdx.x;", None),
    (12, "y[t] = sum;\n    __syncthreads();", "y[t] = sum;", "a race"),
    (12, "y[p % L * (out / L) + p / L]", "y[p]", None),
    (12, "__syncthreads();\n    float", "if (t) __syncthreads();\n    float", "divergent barrier"),
]
EXERCISES = {e.number: e for e in exercises(read(ROOT / "notebooks" / "puzzles.ipynb"))}


def case(number, *rest):
    absent = pytest.mark.skipif(bool(emulator.problem()), reason=str(emulator.problem()))
    return pytest.param(number, *rest, marks=(pytest.mark.slow, absent) if number >= 10 else ())


def check(number, answer, monkeypatch):
    """Check an answer as the notebook does; return what the check says and how many figures."""
    monkeypatch.syspath_prepend(ROOT / "notebooks")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.close("all")))
    try:
        exec(f"import numpy as np, puzzle_checks as check\n{answer}\n{EXERCISES[number].check}", {})
    except AssertionError as error:
        return str(error), len(shown)
    return None, len(shown)


@pytest.mark.parametrize("number", [*map(case, EXERCISES)])
def test_a_solution_is_accepted(number, monkeypatch):
    assert check(number, EXERCISES[number].solution, monkeypatch) == (None, 0)


def test_a_list_may_take_the_place_of_an_array(monkeypatch):
    lists = EXERCISES[1].solution.replace("return W_p", "return W_p.tolist()")
    assert check(1, lists, monkeypatch) == (None, 0)


@pytest.mark.parametrize(("number", "old", "new", "sentence"), [case(*m) for m in MISTAKES])
def test_a_mistake_is_refused_and_shown(number, old, new, sentence, monkeypatch):
    solution = EXERCISES[number].solution
    assert solution.count(old) == 1
    said, figures = check(number, solution.replace(old, new), monkeypatch)
    assert (sentence or " ") in said
    assert figures == (sentence is None)
