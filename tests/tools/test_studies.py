"""Sweeps and compression: what is trained, resumed, refused."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from igc_ref import TrainConfig, build_model, data, plots, reference
from igc_ref.cli import main
from igc_ref.errors import CheckpointError, SpecError
from igc_ref.studies.compress import compress, compressed, project_network
from igc_ref.studies.sweep import Result, Sweep
from igc_ref.testing import assert_close
from igc_ref.training import checkpoint
from igc_ref.training import folder as runs
from igc_ref.training.session import run_to_end, train
from tests.support.runs import read_log
from tests.support.strategies import normal

FAST = {"backend": "numpy", "epochs": 1, "batch_size": 32, "lr": 0.05}


pytestmark = pytest.mark.usefixtures("few_images")


def silent(line):
    pass


# -- sweep -----------------------------------------------------------------------------------------


def sweep(folder, **changes):
    training = TrainConfig(**{**FAST, **changes.pop("training", {})})
    return Sweep(
        training, str(folder), **{"budget": 1500, "tolerance": 0.01, "depths": (5,), **changes}
    )


def test_a_sweep_trains_every_setting_at_every_depth_with_every_seed(tmp_path):
    lines = []
    plan = sweep(tmp_path, depths=(5, 8), seeds=(0, 3))
    results = plan.run(lines.append)
    settings = [(s.L, s.M) for s in plan.settings()]
    assert settings[0][0] == settings[-1][1] == 1
    assert [(r.L, r.M) for r in results] == settings * 4
    assert [(r.depth, r.seed) for r in results[:: len(settings)]] == [
        (5, 0), (5, 3), (8, 0), (8, 3),
    ]  # fmt: skip
    for r in results:
        folder = tmp_path / f"L{r.L}M{r.M}-{r.depth}-seed{r.seed}"
        model, saved = runs.load_run(folder, "numpy")
        config = saved.config
        assert (config.L, config.M, config.depth, config.seed) == (r.L, r.M, r.depth, r.seed)
        assert model.num_parameters == r.parameters
        assert saved.records[-1]["test_accuracy"] == r.test_accuracy
    rows = list(csv.reader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert rows == [[str(value) for value in row] for row in (Result._fields, *results)]
    assert "L/(M*S)" in lines[0]
    assert f"{results[0].test_accuracy:.2%}" in lines[-1]


def test_a_sweep_counts_the_networks_of_its_data_set(tmp_path, monkeypatch):
    images, names = data.shapes("test"), tuple(map(str, range(100)))
    monkeypatch.setattr(data, "load", lambda *_: replace(images, classes=names))
    results = sweep(tmp_path, budget=3000, training={"data": "cifar100"}).run(silent)
    for r in results:
        model, _ = runs.load_run(tmp_path / f"L{r.L}M{r.M}-5-seed0", "numpy")
        assert model.num_parameters == r.parameters
        assert model.architecture.num_classes == 100


def test_an_interrupted_sweep_goes_on_with_the_same_bits_and_trains_nothing_twice(tmp_path):
    def until_second_run(line):
        lines.append(line)
        if sum(line.startswith("epoch 1/2") for line in lines) == 2:
            raise KeyboardInterrupt

    def bits():
        return {path.relative_to(cut.folder): path.read_bytes() for path in files(cut.folder)}

    lines, training = [], {"epochs": 2}
    whole, cut = (sweep(tmp_path / name, training=training) for name in ("whole", "cut"))
    results = whole.run(silent)
    with pytest.raises(KeyboardInterrupt):
        cut.run(until_second_run)
    assert len((tmp_path / "cut" / "sweep.csv").read_text().splitlines()) == 2
    assert cut.run(silent) == results
    for config in whole.configs():
        folder = tmp_path / "cut" / Path(config.out).name
        one, two = (runs.load_run(run, "numpy")[0].state_dict() for run in (config.out, folder))
        assert all(np.array_equal(array, two[name]) for name, array in one.items())
    before = bits()
    assert cut.run(silent) == results
    assert bits() == before


def files(folder):
    return sorted(Path(folder).rglob("*.npz"))


def test_a_folder_with_other_runs_is_refused_and_left_alone(tmp_path):
    sweep(tmp_path).run(silent)
    before = {path: path.read_bytes() for path in files(tmp_path)}
    with pytest.raises(CheckpointError, match=r"holds another run: lr=0\.2 \(the run has 0\.05\)"):
        sweep(tmp_path, training={"lr": 0.2}).run(silent)
    assert before == {path: path.read_bytes() for path in files(tmp_path)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": ()}, r"depths=\[\] is not allowed"),
        ({"depths": (8, 8)}, r"depths=\[8, 8\] is not allowed: different numbers"),
        ({"depths": (5, 7)}, "depth=7 is not allowed"),
        ({"seeds": (-1,)}, "seed=-1 is not an integer of at least 0"),
        ({"folder": ""}, "out='' is not a path"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(SpecError, match=message):
        sweep(**{"folder": tmp_path, **changes})
    assert not list(tmp_path.iterdir())


def test_the_command_sweeps_and_says_what_it_wrote(tmp_path, capsys, monkeypatch):
    command = "sweep --budget 1500 --depths 5 --seeds 0 --epochs 1 --backend numpy --tolerance 0.01"
    assert main([*command.split(), "--out", str(tmp_path / "s")]) == 0
    table, figure = tmp_path / "s" / "sweep.csv", tmp_path / "s" / "sweep.svg"
    if figure.exists():
        assert f"table in {table}, figure in {figure}" in capsys.readouterr().out
        monkeypatch.setattr(plots, "available", lambda: False)
        assert main([*command.split(), "--out", str(tmp_path / "s")]) == 0
    assert f"table in {table}, no figure" in capsys.readouterr().out
    assert table.exists()
    assert main(["sweep", "--budget", "9", "--out", str(tmp_path / "t"), "--depths", "8,x"]) == 1
    assert "depths='8,x' is not allowed: numbers with commas" in capsys.readouterr().err


# -- compress --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "depth", "width", "L", "M"),
    [("plain", 5, 6, 3, 2), ("resnet", 8, 4, 2, 2)],
    ids=["plain", "resnet"],
)
def test_a_regular_network_that_is_an_igc_network_computes_the_same_after(arch, depth, width, L, M):
    igc = build_model(f"{arch}_igc", depth, L=L, M=M, backend="numpy", dtype="float64", seed=4)
    regular = build_model(arch, depth, width=width, backend="numpy", dtype="float64")
    state, layers = igc.state_dict(), dict(igc.network.named_layers())
    dense = {}
    for name, array in regular.state_dict().items():
        layer = layers.get(name.replace(".conv.weight", ".igc"))
        if layer is not None:
            w = (state[name.replace(".conv.weight", f".igc.{p}")] for p in ("primary", "secondary"))
            dense[name] = reference.composed_kernel(*w, layer.spec)
        elif state[name].shape != array.shape:  # a shortcut in L groups
            dense[name] = np.zeros_like(array)
            out, inp = array.shape[0] // L, array.shape[1] // L
            for g in range(L):
                rows = slice(g * out, (g + 1) * out)
                dense[name][rows, g * inp : (g + 1) * inp] = state[name][rows]
        else:
            dense[name] = state[name]
    regular.load_state_dict(dense)
    projected, errors = project_network(regular, igc.architecture)
    assert max(errors.values()) < 1e-7
    assert len(errors) == sum("igc" in n or "shortcut.conv" in n for n in layers if "." in n)
    back = build_model(f"{arch}_igc", depth, L=L, M=M, backend="numpy", dtype="float64")
    back.load_state_dict(projected)
    x = normal(np.random.default_rng(0), (2, 3, 9, 8))
    for train_mode in (False, True):
        expected = igc.forward(x, train=train_mode)
        assert_close(regular.forward(x, train=train_mode), expected, 10_000)
        assert_close(back.forward(x, train=train_mode), expected, 10_000)


def test_compressing_a_run_leaves_two_runs_and_all_numbers(tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    settings = {"seed": 3, "until": 1e-9, "test_mirror": True, "out": str(source)}
    train(TrainConfig(**FAST, arch="plain", depth=5, width=6, **settings))
    command = ["compress", str(source), "-L", "3", "-M", "2", "--epochs", "1", "--out", str(out)]
    assert main([*command, "--backend", "numpy"]) == 0
    result = json.loads((out / "compress.json").read_text())
    accuracies, shown = result["accuracies"], capsys.readouterr().out
    assert accuracies["before"] == read_log(source)[-1]["test_accuracy"]
    for name in ("finetuned", "scratch"):
        config = runs.read_config(out / name)
        assert (config.L, config.M, config.epochs, config.until) == (3, 2, 1, None)
        assert accuracies[name] == read_log(out / name)[-1]["test_accuracy"]
    assert len(result["errors"]) == 3
    for name, error in result["errors"].items():
        assert f"{name}: relative error {error:.3f}" in shown
    fresh = build_model("plain_igc", 5, L=3, M=2, backend="numpy").state_dict()
    tuned, scratch = (runs.load_run(out / n, "numpy")[0].state_dict() for n in accuracies
                      if n in ("finetuned", "scratch"))  # fmt: skip
    name = "stage1.block1.igc.primary"
    assert not np.array_equal(tuned[name], scratch[name])
    assert np.abs(scratch[name] - fresh[name]).max() < np.abs(tuned[name] - fresh[name]).max()
    before = {path: path.read_bytes() for path in files(out)}
    numbers = {"L": np.int64(3), "M": np.int64(2), "epochs": np.int64(1), "lr": np.float64(0.05)}
    compress(str(source), out=str(out), report=silent, backend="numpy", **numbers)
    assert json.loads((out / "compress.json").read_text()) == result  # again: nothing is trained
    assert before == {path: path.read_bytes() for path in files(out)}


def test_fine_tuning_that_was_ended_before_its_first_checkpoint_keeps_the_projected_weights(
    tmp_path,
):
    config = TrainConfig(**{**FAST, "depth": 5, "L": 2, "M": 2, "out": str(tmp_path / "run")})
    initial = build_model("plain_igc", 5, L=2, M=2, backend="numpy", seed=9).state_dict()
    whole = run_to_end(TrainConfig(**{**config.to_dict(), "out": str(tmp_path / "w")}), silent,
                       initial)  # fmt: skip
    with runs.create(config):
        pass  # the process ended here
    assert run_to_end(config, silent, initial).test_accuracy == whole.test_accuracy
    one, two = (runs.load_run(tmp_path / n, "numpy")[0].state_dict() for n in ("w", "run"))
    assert all(np.array_equal(array, two[name]) for name, array in one.items())


@pytest.mark.parametrize(
    ("settings", "numbers", "message"),
    [
        ({"arch": "plain", "width": 6}, {}, r"L\*M = 2\*2 = 4 is not the width of plain-5 W6"),
        ({"arch": "plain_igc", "L": 2, "M": 2}, {}, "plain_igc-5 L2M2 is no regular network"),
        ({"arch": "plain", "width": 4}, {"L": "2"}, "L='2' is not an integer"),
        ({"arch": "plain", "width": 4}, {"lr": 0}, "lr=0 is not allowed; it must be greater"),
        ({"arch": "plain", "width": 4}, {"data_dir": ""}, "data_dir='' is not a path"),
        ({"arch": "plain", "width": 4}, {"out": ""}, "out='' is not a path"),
    ],
)
def test_a_run_that_cannot_be_compressed_is_refused_and_nothing_written(
    tmp_path, settings, numbers, message
):
    train(TrainConfig(**FAST, depth=5, **settings, out=str(tmp_path / "source")))
    with pytest.raises(SpecError, match=message):
        compress(str(tmp_path / "source"), report=silent, backend="numpy",
                 **{"L": 2, "M": 2, "out": str(tmp_path / "out"), **numbers})  # fmt: skip
    path = tmp_path / "source" / "checkpoint.npz"
    checkpoint.save(path, replace(checkpoint.load(path), records=[]))
    with pytest.raises(CheckpointError, match="has trained 0 of its 1 epochs; finish it first: ig"):
        compress(str(tmp_path / "source"), 2, 2, str(tmp_path / "out"), silent)
    assert not (tmp_path / "out").exists()


def test_a_transition_of_a_residual_network_keeps_rank_two():
    regular = build_model("resnet", 8, width=4, backend="numpy").architecture
    small = build_model("resnet_igc", 8, L=2, M=2, backend="numpy")
    assert compressed(regular, 2, 2) == small.architecture
    spec = dict(small.network.named_layers())["stage2.block1.branch.unit1.igc"].spec
    assert spec.out_channels == 2 * spec.L * spec.M
