"""The command line as a user meets it: what it prints, and one-line errors for bad input."""

import csv
import json
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import igc_ref
from igc_ref import data, evaluate
from igc_ref.backends import cupy_problem
from igc_ref.cli import commands, main
from igc_ref.training.folder import load_run
from tests.support.runs import error_of

SMALL = ["--depth", "5", "-L", "2", "-M", "2", "--backend", "numpy", "--epochs", "1"]


@pytest.fixture
def run(tmp_path, few_images, capsys):
    """A finished run of one epoch."""
    folder = tmp_path / "run"
    assert main(["train", *SMALL, "--out", str(folder)]) == 0
    capsys.readouterr()
    return folder


def test_params_prints_the_paper_s_count_beside_the_regular_network(capsys):
    assert main("params --arch resnet_igc --depth 98 -L 24 -M 2".split()) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].split()[:2] == ["total", "863,290"]
    assert "resnet-98 W" in out
    assert "stage3.block16.branch.unit2.igc" in out
    assert main("params --arch plain --width 4 --depth 5 --num-classes 100".split()) == 0
    assert "linear 16-100" in capsys.readouterr().out


@pytest.mark.usefixtures("few_images")
def test_train_ends_by_saying_what_it_reached_and_where_it_lies(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        assert main(["train", *SMALL]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith("test accuracy ")
        assert last.endswith(f"checkpoint and log in runs/plain_igc-5-L2M2-shapes-{number}")


def test_hash_prints_what_the_log_says_and_of_an_unfinished_run_how_far_it_is(run, capsys):
    found = json.loads((run / "log.jsonl").read_text())["sha256"]
    assert main(["hash", str(run), str(run)]) == 0
    assert capsys.readouterr().out == 2 * f"{found}  {run}\n"
    assert main(["hash", str(run), "nowhere"]) == 1  # no list that lacks one
    assert not capsys.readouterr().out
    (run / "checkpoint.npz").unlink()
    with pytest.warns(UserWarning, match="taking"):  # on stderr, not in the list
        assert main(["hash", str(run)]) == 0
    assert capsys.readouterr().out.endswith(f"  {run}, epoch 0 (of 1 epochs)\n")


def test_eval_repeats_the_accuracy_of_the_log(run, capsys):
    assert main(["eval", str(run), "--backend", "numpy"]) == 0
    record = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    out = capsys.readouterr().out
    assert f"accuracy {record['test_accuracy']:.2%}" in out
    assert "shapes/test, 30 images" in out


def test_the_confusion_matrix_is_printed_and_drawn(run, capsys):
    pytest.importorskip("matplotlib")
    assert main(["eval", str(run), "--backend", "numpy", "--confusion"]) == 0
    _, head, *rows, last = capsys.readouterr().out.splitlines()
    counts = evaluate(load_run(run, "numpy")[0], data.shapes("test")).confusion
    assert head.split() == ["truth", "\\", "answer", *map(str, range(10)), "recall"]
    expected = zip(range(10), data.shapes("test").classes, counts, strict=True)
    assert [row.split() for row in rows] == [
        [str(c), name, *map(str, n), f"{n[c] / n.sum():.1%}"] for c, name, n in expected
    ]
    assert last == f"figure in {run / 'confusion.png'}"
    assert (run / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_predict_prints_or_writes_the_best_classes_of_images_of_any_size(run, capsys):
    Image = pytest.importorskip("PIL.Image")
    images = data.shapes("test").images[:3].copy()
    images[1] = 9
    files = [str(run / f"{number}.png") for number in range(3)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(file)
    Image.fromarray(np.full((64, 90, 3), 9, "u1")).save(files[1])
    best = load_run(run, "numpy")[0].predict(images).top(2)
    expected = [[f, n, f"{p:.6f}"] for f, two in zip(files, best, strict=True) for n, p in two]
    expected = [["file", "class", "probability"], *expected]
    command = ["predict", str(run), *files, "--top", "2", "--backend", "numpy"]
    assert main(command) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split() for row in rows] == expected
    assert main([*command, "--csv", str(run / "table.csv")]) == 0
    assert [*csv.reader((run / "table.csv").read_text().splitlines())] == expected


def test_a_file_that_cannot_be_read_is_named_before_anything_is_written(run, capsys):
    Image = pytest.importorskip("PIL.Image")
    good, bad, table = (run / name for name in ("good.png", "bad.png", "table.csv"))
    Image.fromarray(np.zeros((9, 9, 3), "u1")).save(good)
    bad.write_bytes(good.read_bytes()[:-30])
    assert str(bad) in error_of(capsys, "predict", run, good, bad, "--csv", table)
    assert "k=11 is too large; at most 10" in error_of(capsys, "predict", run, good, "--top", 11)
    assert not table.exists()
    assert "good.png must end in .csv" in error_of(capsys, "predict", run, bad, "--csv", good)
    assert good.read_bytes().startswith(b"\x89PNG")


def test_a_class_name_of_two_lines_stays_in_its_row(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    Image = pytest.importorskip("PIL.Image")
    images, labels = np.zeros((4, 3, 8, 8), "u1"), np.arange(4) % 2
    arrays = {"images": images, "labels": labels, "test_images": images, "test_labels": labels}
    np.savez(tmp_path / "own.npz", **arrays, classes=np.array(["a\nb", "c"]))
    Image.fromarray(np.zeros((9, 9, 3), "u1")).save(tmp_path / "a.png")
    run, own = str(tmp_path / "run"), ["--data", "npz", "--data-dir", str(tmp_path / "own.npz")]
    assert main(["train", *SMALL, *own, "--out", run]) == 0
    for command in (
        ["eval", run, "--confusion"],
        ["predict", run, str(tmp_path / "a.png"), "--top=2"],
    ):
        capsys.readouterr()
        assert main([*command, "--backend", "numpy"]) == 0
        assert "a\\nb " in capsys.readouterr().out


def test_plot_draws_the_curves(run, capsys):
    pytest.importorskip("matplotlib")
    assert main(["plot", str(run)]) == 0
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "curves.png" in capsys.readouterr().out


def test_the_command_tells_its_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"igc-ref {igc_ref.__version__}\n"


@pytest.mark.parametrize(
    "command",
    "train hash eval predict params bench plot sweep search compress doctor".split(),
)
def test_every_command_explains_itself_and_every_option(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    options = capsys.readouterr().out.split("options:\n")[1].splitlines()
    for line, following in zip(options, [*options[1:], ""], strict=True):
        if line.startswith("  -"):  # its text stands beside it, or below
            assert "  " in line.strip() or following.startswith(" " * 20), line


# -- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-L 24", "plain_igc needs L and M; M is missing"),
        ("--depth 9", "depth=9 is not allowed"),
        ("--recipe paper", "data='shapes'; it is for cifar10, cifar100, svhn, svhn_extra"),
        ("-L 2 -M 2 --data cifar10 --data-dir nowhere", "nowhere' does not exist"),
        ("-L 2 -M 2 --data cifar10", "--data-dir"),
        pytest.param(
            "--backend cupy",
            "backend 'cupy' cannot run: ",
            marks=pytest.mark.skipif(cupy_problem() is None, reason="a CUDA device answers here"),
        ),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_leaves_no_folder(
    options, message, capsys, tmp_path
):
    out = tmp_path / "run"
    assert message in error_of(capsys, "train", *options.split(), "--out", out)
    assert not out.exists()


def test_a_folder_that_is_no_run_is_an_error(capsys, tmp_path):
    for command in ("hash", "eval", "plot"):
        assert "is no run: there is no" in error_of(capsys, command, tmp_path)
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert "is no run: there is no" in error_of(capsys, "train", "--resume", folder)
    for command in ("train --resume", "eval", "plot", "plot run --out", "params --compare --csv"):
        assert "='' is not a path" in error_of(capsys, *command.split(), "")
    assert not list(tmp_path.iterdir())  # not even a lock
    (tmp_path / "config.json").write_text('{"depth": 5}')
    assert "has finished no epoch yet" in error_of(capsys, "plot", tmp_path)
    assert "there is no checkpoint in" in error_of(capsys, "eval", tmp_path)


def test_an_option_that_cannot_be_read_is_an_error_of_two(capsys):
    for option, message in (
        ("--backend=tpu", "invalid choice: 'tpu'"),
        ("--epochs=many", "invalid int value: 'many'"),
        ("--bn-momentum=much", "'much' is not allowed; it must be in [0, 1), or 'paper' (None"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["train", option])
        assert stop.value.code == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.startswith("igc-ref: error: ")
        assert err.endswith("; see igc-ref train --help\n")
        assert err.count("\n") == 1


@pytest.mark.filterwarnings("always")
def test_a_warning_is_one_line(monkeypatch, capsys):
    def show(message, category, *place):
        sys.stderr.write(warnings.formatwarning(message, category, *place[:2]))

    monkeypatch.setattr(warnings, "showwarning", show)
    monkeypatch.setattr(commands, "say", lambda _: warnings.warn("two\nlines", stacklevel=1))
    assert main(["params", "--depth", "5"]) == 0
    assert capsys.readouterr().err == "igc-ref: warning: two\\nlines\n"


# -- streams ---------------------------------------------------------------------------------


def test_a_stream_without_an_encoding_is_written_to(monkeypatch):
    lines = []
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=lines.append, flush=lambda: None))
    assert main(["params", "--depth", "5"]) == 0
    assert "total" in "".join(lines)


@pytest.mark.parametrize("closed", [">&- 2>&-", "| true"])
def test_a_closed_stream_or_pipe_ends_quietly(closed):
    command = f"{sys.executable} -m igc_ref params --paper"
    bash = ["bash", "-c", f"set -o pipefail; (sleep 0.1; {command}) {closed}"]
    done = subprocess.run(bash, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0 if ">" in closed else 128 + 13, "")
