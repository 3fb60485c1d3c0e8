"""The course: every notebook runs, its widgets work, its exercises can be done and be got wrong.

`course` says what an exercise is. In one kernel for each notebook everything runs as it stands;
every check once more with the solution, and with each answer spoilt; last, every widget
is moved to all its ends.
"""

import ast
import re
import shlex
import subprocess
import sys

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.course.course import ROOT, exercises, outputs, run, text, widget_errors, with_trials

PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
}
ABSOLUTE = re.compile(r"(?<![\w./:])/(?:home|root|tmp|work|Users|usr|opt|mnt|var)\b|\b[A-Z]:\\")
MOST_LINES = 15


def name_of(path):
    return path.stem.replace("_", "-")  # -k special_cases picks theorems


each_notebook = pytest.mark.parametrize("path", PATHS, ids=name_of)


def read(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# -- as files --------------------------------------------------------------------------------


@each_notebook
def test_outputs_and_execution_counts_are_stripped(path):
    notebook = read(path)
    assert notebook.metadata == METADATA, "run nbstripout; see .pre-commit-config.yaml"
    for cell in code(notebook):
        assert not cell.outputs
        assert cell.execution_count is None


@each_notebook
def test_a_notebook_is_valid_and_written_as_jupyter_writes_it(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert nbformat.writes(notebook) + "\n" == path.read_text(encoding="utf-8")
    assert all(not cell.metadata for cell in notebook.cells)


@each_notebook
def test_no_notebook_names_an_absolute_path(path):
    assert not ABSOLUTE.search("\n".join(cell.source for cell in read(path).cells))


@each_notebook
def test_a_notebook_begins_with_a_title_and_a_question_and_shows_an_equation(path):
    first, *rest = read(path).cells
    assert first.cell_type == "markdown"
    assert re.match(r"# \S.*\n", first.source), "a title"
    assert "?" in first.source, "a question"
    assert any("$$" in cell.source for cell in (first, *rest) if cell.cell_type == "markdown")


@each_notebook
def test_no_code_cell_is_longer_than_fifteen_lines(path):
    for cell in code(read(path)):
        lines = cell.source.count("\n") + 1
        assert lines <= MOST_LINES, f"{lines} lines:\n{cell.source}"


@each_notebook
def test_the_exercises_are_numbered_and_each_leaves_something_to_fill_in(path):
    found = exercises(read(path))
    assert [exercise.number for exercise in found] == list(range(1, len(found) + 1)) != []
    for exercise in found:
        assert exercise.names
        compile(exercise.solution, f"solution {exercise.number}", "exec")


@each_notebook
def test_what_a_widget_draws_is_also_drawn_where_no_widget_works(path):
    calls = [
        node
        for cell in code(read(path))
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call)
    ]
    called = [ast.unparse(call.func) for call in calls]
    for call in calls:
        if ast.unparse(call.func).endswith("interact"):
            assert ast.unparse(call.args[0]) in called, f"call it yourself: {ast.unparse(call)}"


# -- as programs -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=PATHS, ids=name_of)
def executed(request, tmp_path_factory):
    """A notebook and its trials, executed; an error if any cell of it raises."""
    return run(with_trials(read(request.param)), tmp_path_factory.mktemp("home"))


def trials(notebook, kind):
    return [cell for cell in code(notebook) if cell.metadata.get("trial") == kind]


def test_a_notebook_runs_and_no_widget_shows_an_error(executed):
    assert not widget_errors(executed)


def test_a_notebook_warns_of_nothing(executed):
    for cell in code(executed):
        assert not [o.text for o in outputs(cell, "stream") if o.name == "stderr"], cell.source


def test_every_cell_that_shows_a_picture_shows_one(executed):
    for cell in code(executed):
        if "plt.show()" in cell.source and not re.search(r"^(def|@)", cell.source, re.M):
            assert any("image/png" in o.data for o in outputs(cell, "display_data")), cell.source


def test_every_check_says_what_is_undone_and_accepts_the_solution(executed):
    found = {cell.metadata.number: text(cell) for cell in trials(executed, "solution")}
    plain = [text(cell) for cell in code(executed) if not cell.metadata]
    for number, answer in found.items():
        assert f"exercise {number}: not done yet\n" in plain
        assert answer == f"exercise {number}: right\n"


def test_every_check_refuses_a_spoilt_answer_and_says_why(executed):
    for cell in trials(executed, "spoilt"):
        raised = outputs(cell, "error")
        assert raised, f"exercise {cell.metadata.number} accepts a wrong {cell.metadata.spoilt}"
        assert raised[0].ename == "AssertionError", raised[0].traceback
        assert raised[0].evalue, f"exercise {cell.metadata.number} does not say what is wrong"


# -- the tests themselves --------------------------------------------------------------------

FAILS_AT_ONCE = """
from ipywidgets import interact

def draw(x):
    raise ValueError("planted")

interact(draw, x=(0, 3));
"""
FAILS_AT_THE_END = FAILS_AT_ONCE.replace("raise", "if x == 3: raise")


def test_an_error_in_a_widget_s_callback_is_found(tmp_path):
    executed = run(new_notebook(cells=[new_code_cell(FAILS_AT_ONCE)]), tmp_path)
    assert widget_errors(executed) == ["planted"]


def test_an_error_at_the_end_of_a_slider_is_found(tmp_path):
    notebook = new_notebook(cells=[new_code_cell(FAILS_AT_THE_END)])
    with pytest.raises(CellExecutionError, match="planted"):
        run(with_trials(notebook), tmp_path)


VACUOUS = [
    new_code_cell("# exercise 1: your answer\nanswer = ..."),
    new_code_cell('print("exercise 1: right" if answer else "exercise 1: not done yet")'),
    new_markdown_cell(
        "<details><summary>Solution 1</summary>\n\n```python\nanswer = 4\n```\n</details>"
    ),
]


def test_a_check_that_accepts_anything_is_found(tmp_path):
    executed = run(with_trials(new_notebook(cells=VACUOUS)), tmp_path)
    with pytest.raises(AssertionError, match="exercise 1 accepts a wrong answer"):
        test_every_check_refuses_a_spoilt_answer_and_says_why(executed)
    with pytest.raises(AssertionError):  # `if answer` takes the ellipsis for an answer
        test_every_check_says_what_is_undone_and_accepts_the_solution(executed)


@pytest.mark.parametrize("lost", [1, 2])
def test_an_exercise_that_lacks_its_check_or_its_solution_is_found(lost):
    cells = [cell for i, cell in enumerate(VACUOUS) if i != lost]
    with pytest.raises(AssertionError, match=r"exercise 1 .*after"):
        exercises(new_notebook(cells=[*cells, new_markdown_cell("the end")]))


def test_a_kernel_imports_the_checkout_under_test(tmp_path):
    cell = new_code_cell("import igc_ref; print(igc_ref.__file__)")
    executed = run(new_notebook(cells=[cell]), tmp_path)
    assert text(executed.cells[0]) == f"{ROOT / 'igc_ref' / '__init__.py'}\n"


def test_nbstripout_leaves_the_notebooks_as_they_are():
    pytest.importorskip("nbstripout")
    hook = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    arguments = shlex.split(re.search(r"entry: nbstripout (.*)\n", hook)[1])
    command = [sys.executable, "-m", "nbstripout", *arguments, "--verify", *map(str, PATHS)]
    subprocess.run(command, check=True)
