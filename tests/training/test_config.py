"""Settings: each has an option and a help text, is checked, and has the recipes' values."""

import json
import re
from dataclasses import fields

import numpy as np
import pytest

from igc_ref import TrainConfig, data
from igc_ref.cli import main
from igc_ref.data import Dataset
from igc_ref.errors import CheckpointError, SpecError
from igc_ref.training import folder as runs
from igc_ref.training.config import RECIPES, recipe, settings
from tests.support.runs import config, error_of

AUTHORS = {
    "batch_size": 64, "lr": 0.1, "schedule": "step", "momentum": 0.9, "weight_decay": 1e-4,
    "bn_momentum": None,
}  # fmt: skip
FAST = {
    "batch_size": 128, "lr": 0.2, "schedule": "onecycle", "momentum": 0.9, "weight_decay": 5e-4,
    "bn_momentum": 0.9,
}  # fmt: skip
EPOCHS = {"cifar10": (400, 30), "cifar100": (400, 30), "svhn": (40, 30), "svhn_extra": (40, 30)}
SPEEDRUN = FAST | {"epochs": 10, "augment": True, "test_mirror": True}
EXPECTED = {
    (name, dataset): {"epochs": number, "augment": dataset.startswith("cifar"), **values}
    for dataset, numbers in EPOCHS.items()
    for name, number, values in zip(("paper", "fast"), numbers, (AUTHORS, FAST), strict=True)
}
EXPECTED |= {("speedrun", dataset): SPEEDRUN for dataset in ("cifar10", "cifar100")}


# -- every setting stands once ---------------------------------------------------------------


def test_every_setting_has_an_option_with_its_help_and_default_and_is_documented(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    for field in fields(TrainConfig):
        setting = settings()[field.name]
        flag = f"-{field.name}" if len(field.name) == 1 else f"--{field.name.replace('_', '-')}"
        default = setting.none if field.default is None else field.default
        default = ("on" if default else "off") if setting.kind is bool else default
        default = ",".join(map(str, default)) if setting.kind is tuple else default
        assert f" {flag} " in shown.replace(",", " ")
        assert f"{setting.help}; default {default}" in shown
        assert f"{field.name} : " in TrainConfig.__doc__
        assert setting.help in TrainConfig.__doc__
    assert "(default: None)" not in shown


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--bn-momentum 0.5", {"bn_momentum": 0.5}),
        ("--bn-momentum paper", {"bn_momentum": None}),
        ("--kernel-sizes 3,5,7 -L 6 -M 2", {"kernel_sizes": [3, 5, 7], "L": 6, "M": 2}),
        ("--gate partitions --keep 2", {"gate": "partitions", "keep": 2}),
        ("--no-augment -L 3 -M 2", {"augment": False, "L": 3, "M": 2}),
        ("--until 0.5 --test-mirror", {"until": 0.5, "test_mirror": True}),
        ("--schedule step --weight-decay 0 --lr 1", {"weight_decay": 0.0, "lr": 1.0}),
    ],
)
def test_what_is_given_on_the_command_line_is_what_is_trained(tmp_path, options, expected):
    small = "train --depth 5 --epochs 1 --backend numpy --out"
    assert main([*small.split(), str(tmp_path / "run"), *options.split()]) == 0
    assert (
        runs.read_config(tmp_path / "run").to_dict() | expected
        == runs.read_config(tmp_path / "run").to_dict()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs=0 is not an integer of at least 1"),
        ({"batch_size": 2.5}, r"batch_size=2\.5 is not an integer"),
        ({"seed": -1}, "seed=-1 is not an integer of at least 0"),
        ({"epochs": 10**400}, r"epochs=10+ \.\.\. 0+ is too large; at most 2147483647"),
        ({"arch": 10**5000}, "arch=<int of thousands of digits> is unknown"),
        ({"schedule": "x" * 10**5}, r"schedule='x+ \.\.\. x+' is unknown; choose one of step"),
        ({"depth": np.zeros((9, 9))}, "depth=array.* is not an integer"),
        ({"lr": 0.0}, r"lr=0\.0 is not allowed; it must be greater than 0 and below 1e30"),
        ({"lr": float("nan")}, "lr=nan is not allowed"),
        ({"lr": 1e39}, "lr=1e\\+39 is not allowed"),
        ({"lr": None}, "lr=None is not allowed"),
        ({"lr": True}, "lr=True is not allowed"),
        ({"momentum": 1.0}, r"momentum=1\.0 is not allowed; it must be in \[0, 1\)"),
        ({"bn_momentum": 1}, r"bn_momentum=1 is not allowed; it must be in \[0, 1\), or 'paper'"),
        ({"weight_decay": -1e-4}, r"weight_decay=-0\.0001 is not allowed"),
        ({"label_smoothing": 1}, r"label_smoothing=1 is not allowed; it must be in \[0, 1\)"),
        ({"until": 80.0}, r"until=80\.0 is not allowed; it must be greater than 0 and at most 1"),
        ({"mirror": "never"}, "mirror='never' is unknown; choose one of random, alternating"),
        ({"augment": 1}, "augment=1 is neither True nor False"),
        ({"out": ""}, "out='' is not a path"),
        ({"out": 5}, "out=5 is not a path"),
        ({"out": "a\nb"}, r"out='a\\nb' is not a path"),
        ({"out": "~no such user/run"}, "out='~no such user/run': there is no such home folder"),
        ({"data": "mnist"}, "data='mnist' is unknown; choose one of shapes, waves, ci"),
        ({"backend": "torch"}, "backend='torch' is unknown; choose one of auto"),
        ({"dtype": "int8"}, "dtype='int8' is unknown"),
        ({"depth": 6}, "depth=6 is not allowed"),
        ({"M": None}, "M is missing"),
        (
            {"kernel_sizes": "3,x"},
            "kernel_sizes='3,x' is not allowed; it must be an odd number of at most 999, or",
        ),
        ({"kernel_sizes": (3, 0)}, r"kernel_sizes=\(3, 0\) is not allowed; it must be an odd"),
        ({"kernel_sizes": 4}, "kernel_sizes=4 is not allowed; it must be an odd number"),
        ({"norm": "group", "bn_momentum": 0.5}, "bn_momentum=0.5 needs norm='batch'"),
        ({"gate": "no"}, "gate='no' is unknown; choose one of none, channels, partitions"),
        ({"keep": 2}, "keep=2 needs gate='partitions', not 'none'"),
        ({"arch": "plain", "L": None, "M": None, "gate": "channels"}, "plain has no IGC blocks"),
    ],
)
def test_a_setting_that_is_not_allowed_is_named_with_what_is(tmp_path, changes, message):
    with pytest.raises(SpecError, match=message) as caught:
        config(tmp_path, **changes)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_the_defaults_are_the_paper_s_small_network_or_a_regular_one_of_width_16():
    assert (TrainConfig().L, TrainConfig().M, TrainConfig().width) == (4, 8, None)
    assert TrainConfig(arch="resnet").width == 16


def test_paths_and_numpy_numbers_make_the_same_config_as_plain_ones(tmp_path):
    made = config(
        tmp_path, out=tmp_path / "run", lr=np.float64(0.05), epochs=np.int64(2), L=np.int8(2),
        arch=np.str_("plain_igc"), augment=np.True_, data_dir=np.str_("d"),
    )  # fmt: skip
    assert made == config(tmp_path, data_dir="d")
    assert {type(v) for v in made.to_dict().values()} == {int, float, str, bool, list, type(None)}
    assert json.loads(json.dumps(made.to_dict())) == made.to_dict()
    assert type(config(tmp_path, lr=1).lr) is float
    for same in ((3, 5), [3, np.int64(5)], "3,5", np.array([3, 5])):
        assert config(tmp_path, kernel_sizes=same).kernel_sizes == (3, 5)


def test_a_tilde_is_the_home_folder_and_data_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config(tmp_path, out="~/run") == config(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert config(tmp_path, data_dir="data").data_dir == str(tmp_path / "data")
    with pytest.raises(CheckpointError, match=f"{tmp_path}/run is no run"):
        runs.read_config("~/run")


# -- recipes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dataset"), EXPECTED)
def test_a_recipe_is_what_the_paper_and_its_authors_say(name, dataset):
    assert recipe(name, dataset) == EXPECTED[name, dataset]
    made = TrainConfig.recipe(name, data=dataset, depth=20, L=24, M=2)
    expected = TrainConfig().to_dict() | EXPECTED[name, dataset]
    assert made.to_dict() == expected | {"data": dataset, "depth": 20, "L": 24, "M": 2}


def test_a_recipe_says_nothing_about_shapes_and_a_speedrun_nothing_about_digits():
    for name, table in RECIPES.items():
        assert set(data.NAMES) - set(table) - {"svhn", "svhn_extra"} == {
            "shapes",
            "waves",
            *data.OWN,
        }
        with pytest.raises(SpecError, match=f"'{name}' says nothing about data='shapes'"):
            TrainConfig.recipe(name, data="shapes")
    with pytest.raises(
        SpecError, match="recipe='slow' is unknown; choose one of paper, fast, speed"
    ):
        TrainConfig.recipe("slow", data="cifar10")


def test_what_is_given_wins_and_a_recipe_is_not_changed_by_its_use():
    made = TrainConfig.recipe("fast", data="cifar10", epochs=5, lr=0.05, augment=False)
    assert (made.epochs, made.lr, made.augment, made.batch_size) == (5, 0.05, False, 128)
    recipe("fast", "cifar10")["epochs"] = 1
    assert recipe("fast", "cifar10")["epochs"] == 30


@pytest.fixture
def grey(monkeypatch):
    """Let every published set be 60 grey images."""

    def load(name, split, data_dir=None, report=print, size=None):
        images = np.full((60, 3, 32, 32), 128, np.uint8)
        labels = np.arange(60, dtype=np.int64) % 10
        statistics = (128.0,) * 3, (64.0,) * 3
        return Dataset(f"{name}/{split}", images, labels, tuple("0123456789"), *statistics)

    monkeypatch.setattr(data, "load", load)


@pytest.mark.usefixtures("grey")
def test_a_run_stores_its_recipe_s_settings_and_is_continued_with_no_others(tmp_path, capsys):
    small = "--depth 5 -L 2 -M 2 --backend numpy --data cifar10".split()
    run, given = tmp_path / "run", [*small, "--recipe", "fast", "--epochs", "2"]
    assert main(["train", *given, "--out", str(run)]) == 0
    stored = json.loads((run / "config.json").read_text())
    assert stored.items() >= (EXPECTED["fast", "cifar10"] | {"epochs": 2, "depth": 5}).items()
    assert "recipe" not in stored
    (run / "checkpoint-previous.npz").replace(run / "checkpoint.npz")  # as after the first epoch
    for arguments in (
        ["--recipe", "paper", "--epochs", "2"],
        ["--recipe", "fast"],  # it was run for 2 epochs, not 30
        ["--recipe", "fast", "--epochs", "2", "--data", "svhn"],
    ):
        assert "holds another run: " in error_of(capsys, "train", "--resume", run, *arguments)
    assert "is no run" in error_of(capsys, "train", "--resume", tmp_path, "--recipe", "fast")
    assert main(["train", "--resume", str(run), "--recipe", "fast", "--epochs", "2"]) == 0
    assert "epoch 2/2" in capsys.readouterr().out
