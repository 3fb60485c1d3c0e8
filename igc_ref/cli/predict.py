"""The command ``predict``, and the confusion matrix as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.cli.options import add_command, add_settings
from igc_ref.data.images import read_image
from igc_ref.errors import integer, one_line, user_path
from igc_ref.files import writable, write_csv
from igc_ref.report import aligned, say
from igc_ref.training import folder as runs

WIDEST = 20  # classes whose confusion matrix is printed whole
MOST = 10  # confusions that are listed of a larger one


def add_commands(commands: Any) -> None:
    """Add the command of this file to the command line."""
    add = add_command(commands, predict_command)
    add.add_argument("run", metavar="RUN", help="folder of the run")
    add.add_argument("files", metavar="FILE", nargs="+", help="PNG or JPEG files")
    text = "show this many classes, the most probable first; default 1"
    add.add_argument("--top", type=int, metavar="K", help=text)
    text = "write the table to this file, and do not print it"
    add.add_argument("--csv", metavar="FILE", help=text)
    add_settings(add, ["backend"])


def predict_command(
    run: str, files: list[str], top: int = 1, csv: str | None = None, backend: str = "auto"
) -> None:
    """Predict the classes of image files with a trained network."""
    table = None if csv is None else writable(user_path("csv", csv))
    model, saved = runs.load_run(run, backend, say)
    top = integer("top", top, maximum=saved.classes)
    size, images, resized = saved.metadata.size, [], 0
    for path in (user_path("file", name) for name in files):
        image = read_image(path)
        if image.shape[1:] != size:
            image, resized = read_image(path, size), resized + 1
        images.append(image)
    if resized:
        fitted = f"resized and their middles cropped to {size[0]}x{size[1]}"
        say(f"{resized} of {len(files)} images {fitted} (height x width)")
    model.backend.prepare(model.dtype, say)
    answers = model.predict(np.stack(images)).top(top)
    header = ["file", "class", "probability"]
    header += [f"{name} {rank}" for rank in range(2, top + 1) for name in header[1:]]
    if table is None:
        shown = ([one_line(name), *_cells(best)] for name, best in zip(files, answers, strict=True))
        say(aligned([header, *shown], left=2))
    else:
        rows = ([name, *sum(best, ())] for name, best in zip(files, answers, strict=True))
        write_csv(table, [header, *rows])
        say(f"predictions of {len(files)} images in {table}")


def _cells(best: Sequence[tuple[str, float]]) -> Iterator[str]:
    for name, probability in best:
        yield from (one_line(name), f"{probability:.2%}")


def confusion_table(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    """Lay out a confusion matrix, rows truth and columns answer, with the recall of each class.

    Of many classes, the recall of each, and the most frequent confusions.
    """
    names, n = list(map(one_line, classes)), len(classes)
    recalls = [
        f"{row[c] / max(row.sum(), 1):.1%}" if row.any() else "-" for c, row in enumerate(counts)
    ]
    if n <= WIDEST:
        rows = zip(names, counts, recalls, strict=True)
        cells = [[name, *map(str, row), recall] for name, row, recall in rows]
        return aligned([["truth \\ answer", *names, "recall"], *cells])
    sums = map(str, counts.sum(axis=1))
    text = aligned([["truth", "images", "recall"], *zip(names, sums, recalls, strict=True)])
    wrong = counts * (1 - np.eye(n, dtype=np.int64))
    worst = [divmod(int(c), n) for c in np.argsort(-wrong, axis=None, kind="stable")[:MOST]]
    cells = [[names[t], names[a], str(wrong[t, a])] for t, a in worst if wrong[t, a]]
    return f"{text}\n\n{aligned([['truth', 'most frequent wrong answers', 'images'], *cells], 2)}"
