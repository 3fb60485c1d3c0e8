"""The course: every notebook runs, its widgets work, its exercises can be done and be got wrong.

`course` says what an exercise is. In the fast set each short notebook runs as it stands. The slow
tests run each once more with the solution of every exercise, with each answer spoilt, and with
every widget moved to all its ends.
"""

import ast
import re
import shlex
import subprocess
import sys

import pytest

from tests.course.course import (
    ROOT,
    CellExecutionError,
    code,
    exercises,
    nbformat,
    new_code_cell,
    new_markdown_cell,
    new_notebook,
    outputs,
    read,
    run,
    text,
    widget_errors,
    with_trials,
)

PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
}
ABSOLUTE = re.compile(r"(?<![\w./:])/(?:home|root|tmp|work|Users|usr|opt|mnt|var)\b|\b[A-Z]:\\")
MOST_LINES = 15
LONG = (
    "06",
    "07",
    "08",
    "09",
    "10",
)  # run by the slow tests, and as they stand where the site is built

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


# -- as files --------------------------------------------------------------------------------------


def faults_of_the_file(path, notebook):
    """What Jupyter, git or nbstripout would change."""
    nbformat.validate(notebook)
    if notebook.metadata != METADATA or any(cell.metadata for cell in notebook.cells):
        yield "metadata: run nbstripout; see .pre-commit-config.yaml"
    if any(cell.outputs or cell.execution_count is not None for cell in code(notebook)):
        yield "outputs or execution counts: run nbstripout"
    if nbformat.writes(notebook) + "\n" != path.read_text(encoding="utf-8"):
        yield "not written as Jupyter writes it"


def faults_of_the_text(notebook):
    """What a reader of the course would stumble over."""
    first, *_ = notebook.cells
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    if first.cell_type != "markdown" or not re.match(r"# \S.*\n", first.source):
        yield "no title"
    if "?" not in first.source:
        yield "no question in the first cell"
    if not any("$$" in source for source in prose):
        yield "no equation"
    if ABSOLUTE.search("\n".join(cell.source for cell in notebook.cells)):
        yield "an absolute path"
    for cell in code(notebook):
        if (lines := cell.source.count("\n") + 1) > MOST_LINES:
            yield f"a cell of {lines} lines, more than {MOST_LINES}: {cell.source[:60]!r}"


def faults_of_the_exercises(notebook):
    found = exercises(notebook)
    if [exercise.number for exercise in found] != list(range(1, len(found) + 1)) or not found:
        yield "exercises are not numbered 1, 2, ..."
    for exercise in found:
        if not exercise.names:
            yield f"exercise {exercise.number} leaves nothing to fill in"
        compile(exercise.solution, f"solution {exercise.number}", "exec")


def faults_of_the_widgets(notebook):
    """What a widget draws must also be drawn where no widget works."""
    nodes = [node for cell in code(notebook) for node in ast.walk(ast.parse(cell.source))]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    called = [ast.unparse(call.func) for call in calls]
    for call in calls:
        if ast.unparse(call.func).endswith("interact") and ast.unparse(call.args[0]) not in called:
            yield f"call it yourself: {ast.unparse(call)}"


def test_the_notebooks_are_as_a_reader_and_git_want_them():
    found = []
    for path in PATHS:
        notebook = read(path)
        kinds = (faults_of_the_text, faults_of_the_exercises, faults_of_the_widgets)
        faults = [*faults_of_the_file(path, notebook), *(f for k in kinds for f in k(notebook))]
        found += [f"{path.name}: {fault}" for fault in faults]
    assert not found, "\n".join(found)


# -- as programs -----------------------------------------------------------------------------------


def faults_of_a_run(executed):
    yield from (f"a widget shows {error}" for error in widget_errors(executed))
    for cell in code(executed):
        for output in outputs(cell, "stream"):
            if output.name == "stderr":
                yield f"{cell.source[:60]!r} warns: {output.text}"
        shows = "plt.show()" in cell.source and not re.search(r"^(def|@)", cell.source, re.M)
        if shows and not any("image/png" in o.data for o in outputs(cell, "display_data")):
            yield f"{cell.source[:60]!r} shows no image"


def trials(notebook, kind):
    return [cell for cell in code(notebook) if cell.metadata.get("trial") == kind]


def faults_of_the_checks(executed):
    """A check must say what is undone, accept the solution, and refuse each spoilt answer."""
    plain = [text(cell) for cell in code(executed) if not cell.metadata]
    for cell in trials(executed, "solution"):
        number = cell.metadata.number
        if f"exercise {number}: not done yet\n" not in plain:
            yield f"exercise {number} does not say that it is undone"
        if text(cell) != f"exercise {number}: right\n":
            yield f"exercise {number} says {text(cell)!r} to its solution"
    for cell in trials(executed, "spoilt"):
        number, raised = cell.metadata.number, outputs(cell, "error")
        if not raised:
            yield f"exercise {number} accepts a wrong {cell.metadata.spoilt}"
        elif raised[0].ename != "AssertionError" or not raised[0].evalue:
            yield f"exercise {number} does not say what is wrong: {raised[0].ename}"


@pytest.mark.parametrize(
    "path", [path for path in PATHS if not path.stem.startswith(LONG)], ids=lambda path: path.stem
)
def test_a_notebook_runs_as_it_stands(path, tmp_path):
    found = list(faults_of_a_run(run(read(path), tmp_path)))
    assert not found, "\n".join(found)


@pytest.mark.slow
@each_notebook
def test_exercises_can_be_solved_and_got_wrong_and_widgets_moved(path, tmp_path):
    executed = run(with_trials(read(path)), tmp_path)
    found = [*faults_of_a_run(executed), *faults_of_the_checks(executed)]
    assert not found, "\n".join(found)


# -- the tests themselves --------------------------------------------------------------------------

FAILS_AT_ONCE = """
from ipywidgets import interact

def draw(x):
    raise ValueError("planted")

interact(draw, x=(0, 3));
"""
VACUOUS = [
    new_code_cell("# exercise 1: your answer\nanswer = ..."),
    new_code_cell('print("exercise 1: right" if answer else "exercise 1: not done yet")'),
    new_markdown_cell(
        "<details><summary>Solution 1</summary>\n\n```python\nanswer = 4\n```\n</details>"
    ),
]


@pytest.mark.slow
def test_an_error_in_a_widget_s_callback_and_at_the_end_of_a_slider_is_found(tmp_path):
    executed = run(new_notebook(cells=[new_code_cell(FAILS_AT_ONCE)]), tmp_path)
    assert list(faults_of_a_run(executed)) == ["a widget shows planted"]
    at_the_end = FAILS_AT_ONCE.replace("raise", "if x == 3: raise")
    with pytest.raises(CellExecutionError, match="planted"):
        run(with_trials(new_notebook(cells=[new_code_cell(at_the_end)])), tmp_path)


@pytest.mark.slow
def test_a_check_that_accepts_anything_is_found(tmp_path):
    executed = run(with_trials(new_notebook(cells=VACUOUS)), tmp_path)
    assert list(faults_of_the_checks(executed)) == [
        "exercise 1 does not say that it is undone",  # `if answer` takes the ellipsis for one
        "exercise 1 accepts a wrong answer",
    ]


@pytest.mark.parametrize("lost", [1, 2])
def test_an_exercise_that_lacks_its_check_or_its_solution_is_found(lost):
    cells = [cell for i, cell in enumerate(VACUOUS) if i != lost]
    with pytest.raises(AssertionError, match=r"exercise 1 .*after"):
        exercises(new_notebook(cells=[*cells, new_markdown_cell("the end")]))


def test_a_notebook_with_faults_is_found_at_fault():
    cells = [new_markdown_cell("no title"), new_code_cell("\n" * 15 + "open('/tmp/x')")]
    found = " ".join(faults_of_the_text(new_notebook(cells=cells)))
    for fault in ("title", "question", "equation", "absolute", "16 lines"):
        assert fault in found, fault
    interact = new_notebook(cells=[new_code_cell("interact(draw, x=(0, 3))")])
    assert list(faults_of_the_widgets(interact)) == ["call it yourself: interact(draw, x=(0, 3))"]


def test_a_kernel_imports_the_checkout_under_test(tmp_path):
    cell = new_code_cell("import igc_ref; print(igc_ref.__file__)")
    executed = run(new_notebook(cells=[cell]), tmp_path)
    assert text(executed.cells[0]) == f"{ROOT / 'igc_ref' / '__init__.py'}\n"


@pytest.mark.slow  # needs the extra `dev`
def test_nbstripout_leaves_the_notebooks_as_they_are():
    pytest.importorskip("nbstripout")
    hook = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    arguments = shlex.split(re.search(r"entry: nbstripout (.*)\n", hook)[1])
    command = [sys.executable, "-m", "nbstripout", *arguments, "--verify", *map(str, PATHS)]
    subprocess.run(command, check=True)
