"""A notebook as the tests see it: its exercises, and how it is run with them.

An exercise is three cells, in this order:

* a code cell whose first line is ``# exercise 1: your answer``. It gives names to be filled in, as
  ``answer = ...`` or as ``def answer(x): return ...``, with the ellipsis for what is undone;
* a code cell that checks them. It prints ``exercise 1: not done yet`` while the answer is
  ``...``, ``exercise 1: right`` for a right one, and raises an AssertionError that says what is
  wrong with another;
* a Markdown cell ``<details><summary>Solution 1</summary>``, an empty line, and the solution as a
  Python block.
"""

import ast
import os
import re
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import pytest

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
CellExecutionError = nbclient.exceptions.CellExecutionError
new_code_cell, new_markdown_cell = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
new_notebook = nbformat.v4.new_notebook

ROOT = Path(__file__).parents[2]
ANSWER = re.compile(r"# exercise (\d+): your answer\n")
SOLUTION = re.compile(r"<details><summary>Solution (\d+)</summary>\n\n```python\n(.*?)```", re.S)
CELL_SECONDS = 100  # a cell that takes longer hangs; machines may be busy


class Exercise(NamedTuple):
    number: int
    answer: str  # source of the cell that the reader fills in
    check: str
    solution: str
    position: int  # of the check among the cells

    @property
    def names(self):
        """The names that the reader fills in: those that the answer cell leaves open."""
        return [name for node in ast.parse(self.answer).body for name in open_names(node)]


def open_names(node):
    if not any(isinstance(part, ast.Constant) and part.value is ... for part in ast.walk(node)):
        return []
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    assert isinstance(node, ast.Assign), f"neither `name = ...` nor a function: {ast.dump(node)}"
    return [target.id for target in node.targets]


def exercises(notebook):
    """Read the exercises of a notebook; an AssertionError for one that is not three cells."""
    found, cells = [], notebook.cells
    for i, cell in enumerate(cells):
        match = cell.cell_type == "code" and ANSWER.match(cell.source)
        if match:
            number, check, folded = match[1], *cells[i + 1 : i + 3]
            solution = SOLUTION.search(folded.source)
            assert check.cell_type == "code", f"exercise {number} has no check after it"
            assert solution, f"exercise {number} has no folded solution after its check"
            assert solution[1] == number, f"exercise {number} is followed by solution {solution[1]}"
            found.append(Exercise(int(number), cell.source, check.source, solution[2], i + 1))
    return found


def with_trials(notebook):
    """Return the notebook with trials of every exercise after its check, and of every widget last.

    A trial is three cells: the solution, a spoilt name or nothing, the check. Afterwards the
    answer is undone again, so that the rest runs as a reader who skips exercises sees it.
    """
    cells = list(notebook.cells)
    for exercise in reversed(exercises(notebook)):
        trials = [trial(exercise, None)] + [trial(exercise, name) for name in exercise.names]
        undone = new_code_cell(exercise.answer, metadata={"trial": "undo"})
        here = exercise.position + 1
        cells[here:here] = [cell for cells in trials for cell in cells] + [undone]
    move = "from tests.course.in_kernel import move_every_widget; move_every_widget()"
    cells.append(new_code_cell(move, metadata={"trial": "widgets"}))
    return new_notebook(cells=cells, metadata=notebook.metadata)


def trial(exercise, spoilt):
    number = exercise.number
    setting = exercise.solution
    if spoilt:
        setting += f"\nfrom tests.course.in_kernel import spoil; {spoilt} = spoil({spoilt})"
    kind = {"trial": "spoilt" if spoilt else "solution", "number": number, "spoilt": spoilt}
    wrong = {"tags": ["raises-exception"]} if spoilt else {}
    return [
        new_code_cell(setting, metadata={"trial": "setting"}),
        new_code_cell(exercise.check, metadata=kind | wrong),
    ]


def run(notebook, home):
    """Execute a notebook in a kernel of its own that imports this checkout; return it with outputs.

    Raises
    ------
    CellExecutionError
        For the first cell that raises.
    """
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "IPYTHONDIR": str(home / "ipython"),  # no history in the developer's own
        "IGC_REF_CACHE": str(home / "cache"),
        "IGC_REF_DATA_URL": "",  # no downloads
        "OPENBLAS_NUM_THREADS": "1",  # the matrices are small
    }
    client = nbclient.NotebookClient(
        deepcopy(notebook),
        timeout=CELL_SECONDS,
        record_timing=False,
        resources={"metadata": {"path": str(ROOT / "notebooks")}},  # where Jupyter starts it
    )
    # What a widget shows stays among the outputs of its cell. By default nbclient copies it into
    # the widget's state and tells the kernel; the reply that comes in meanwhile is lost at times.
    client.widget_registry = {}
    return client.execute(env=environment)


def read(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(cell, kind):
    return [output for output in cell.get("outputs", []) if output.output_type == kind]


def text(cell):
    return "".join(output.text for output in outputs(cell, "stream"))


def widget_errors(notebook):
    """Errors that widgets show: ``interact`` prints its callback's and lets the cell pass."""
    cells = [
        cell for cell in code(notebook) if "raises-exception" not in cell.metadata.get("tags", [])
    ]
    return [error.evalue for cell in cells for error in outputs(cell, "error")]
