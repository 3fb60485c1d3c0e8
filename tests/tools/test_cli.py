"""The command line as a user meets it: what it prints, and one-line errors for bad input."""

import json
import pickle

import numpy as np
import pytest

from igc_ref import data
from igc_ref.backends import cupy_problem
from igc_ref.cli import main

SMALL = ["--depth", "5", "-L", "2", "-M", "2", "--backend", "numpy", "--batch-size", "16"]


@pytest.fixture
def few_pictures(monkeypatch):
    sizes, draw = {"train": 60, "test": 30}, data.shapes
    monkeypatch.setattr(data, "shapes", lambda split: draw(split, size=sizes[split]))


@pytest.fixture
def run(tmp_path, few_pictures, capsys):
    """A finished run of one epoch."""
    folder = tmp_path / "run"
    assert main(["train", *SMALL, "--epochs", "1", "--out", str(folder)]) == 0
    capsys.readouterr()
    return folder


def error_of(capsys, *arguments):
    """Run a command that must fail with exactly one line; return the line."""
    assert main([str(a) for a in arguments]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("igc-ref: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err + out
    return err


def test_params_prints_the_paper_s_count_beside_the_regular_network(capsys):
    arguments = "params --arch resnet_igc --depth 98 -L 24 -M 2".split()
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].split()[:2] == ["total", "863,290"]
    assert "resnet-98 W" in out
    assert "stage3.block16.branch.unit2.igc" in out


def test_params_of_a_hundred_classes_and_a_regular_network(capsys):
    assert main("params --arch plain --width 4 --depth 5 --num-classes 100".split()) == 0
    assert "linear 16-100" in capsys.readouterr().out


@pytest.mark.usefixtures("few_pictures")
def test_train_ends_by_saying_what_it_reached_and_where_it_lies(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *SMALL, "--epochs", "1"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("test accuracy ")
    assert last.endswith("checkpoint and log in runs/plain_igc-5-L2M2-shapes-1")
    assert main(["train", *SMALL, "--epochs", "1"]) == 0
    assert "shapes-2" in capsys.readouterr().out


def test_eval_repeats_the_accuracy_of_the_log(run, capsys):
    assert main(["eval", str(run), "--backend", "numpy"]) == 0
    record = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    out = capsys.readouterr().out
    assert f"accuracy {record['test_accuracy']:.2%}" in out
    assert "shapes/test, 30 pictures" in out


def test_plot_draws_the_curves(run, capsys):
    pytest.importorskip("matplotlib")
    assert main(["plot", str(run)]) == 0
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "curves.png" in capsys.readouterr().out


def test_python_minus_m_igc_ref_is_the_same_command(capsys):
    import igc_ref.__main__

    assert igc_ref.__main__.main is main
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("igc-ref 0.")


# -- bad input -------------------------------------------------------------------------------


def test_an_L_that_does_not_divide_is_an_error_with_the_numbers(capsys, tmp_path):
    out = tmp_path / "run"
    err = error_of(capsys, "train", "-L", "24", "--out", out)
    assert "plain_igc needs L and M; M is missing" in err
    err = error_of(capsys, "train", "--depth", "9", "--out", out)
    assert "depth=9 is not allowed" in err
    assert not out.exists()


def test_a_missing_data_folder_is_an_error_that_says_what_to_do(capsys, tmp_path):
    out = tmp_path / "run"
    err = error_of(
        capsys, "train", "--data", "cifar10", "--data-dir", tmp_path / "none", "--out", out
    )
    assert str(tmp_path / "none") in err
    assert not out.exists()


@pytest.mark.parametrize("size", [0, 30_729_999, 30_730_001])
def test_a_cifar_file_of_the_wrong_size_is_an_error_with_both_sizes(capsys, tmp_path, size):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        with open(folder / f"{name}.bin", "wb") as file:
            file.truncate(size if name == "data_batch_3" else 30_730_000)
    err = error_of(
        capsys, "train", "--data", "cifar10", "--data-dir", tmp_path, "--out", tmp_path / "run"
    )
    assert "data_batch_3.bin" in err
    assert f"{size:,}" in err
    assert not (tmp_path / "run").exists()


def test_a_mislabelled_cifar_file_is_an_error_with_record_and_label(capsys, tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    records = np.zeros((10_000, 3073), np.uint8)
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        records[7, 0] = 77 if name == "data_batch_2" else 0
        records.tofile(folder / f"{name}.bin")
    err = error_of(
        capsys, "train", "--data", "cifar10", "--data-dir", tmp_path, "--out", tmp_path / "run"
    )
    assert "data_batch_2.bin" in err
    assert "77" in err
    assert not (tmp_path / "run").exists()


def test_a_pickle_that_calls_os_system_is_an_error_and_is_not_called(capsys, tmp_path):
    executed = tmp_path / "executed"

    class Attack:
        def __reduce__(self):
            import os

            return os.system, (f"touch {executed}",)

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps({b"data": Attack(), b"labels": []}, protocol=2))
    err = error_of(
        capsys, "train", "--data", "cifar10", "--data-dir", tmp_path, "--out", tmp_path / "run"
    )
    assert "system" in err
    assert not executed.exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("few_pictures")
def test_a_checkpoint_of_another_architecture_is_an_error(capsys, tmp_path, run):
    other = tmp_path / "other"
    arguments = [*SMALL[:2], "-L", "4", *SMALL[4:], "--epochs", "1"]
    assert main(["train", *arguments, "--out", str(other)]) == 0
    capsys.readouterr()
    before = sorted(run.iterdir())
    (run / "checkpoint.npz").write_bytes((other / "checkpoint.npz").read_bytes())
    err = error_of(capsys, "eval", run, "--backend", "numpy")
    assert "plain_igc-5 L4M2" in err
    assert "plain_igc-5 L2M2" in err
    err = error_of(capsys, "train", "--resume", other, "--arch", "resnet")
    assert "arch=resnet (the run has plain_igc)" in err
    assert sorted(run.iterdir()) == before


@pytest.mark.skipif(cupy_problem() is None, reason="a CUDA device answers here")
def test_cupy_without_a_gpu_is_an_error_that_says_what_is_missing(capsys, tmp_path):
    err = error_of(capsys, "train", "--backend", "cupy", "--out", tmp_path / "run")
    assert "backend 'cupy' cannot run: " in err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_an_error(capsys, tmp_path):
    assert "there is no checkpoint" in error_of(capsys, "eval", tmp_path)
    assert "is no run: there is no" in error_of(capsys, "plot", tmp_path)


def test_an_unknown_option_is_an_error_of_two(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--backend", "tpu"])
    assert stop.value.code == 2
    assert "invalid choice: 'tpu'" in capsys.readouterr().err
