"""Recipes: the published settings number by number, what wins over them, and what has none."""

import json

import numpy as np
import pytest

from igc_ref import TrainConfig, data
from igc_ref.cli import main
from igc_ref.data import NAMES, Dataset
from igc_ref.errors import SpecError
from igc_ref.training.config import RECIPES, recipe
from igc_ref.training.optim import learning_rate

AUTHORS = {"batch_size": 64, "lr": 0.1, "schedule": "step", "momentum": 0.9, "weight_decay": 1e-4}
FAST = {"batch_size": 128, "lr": 0.2, "schedule": "onecycle", "momentum": 0.9, "weight_decay": 5e-4}
EXPECTED = {
    ("paper", "cifar10"): {"epochs": 400, "augment": True, **AUTHORS},
    ("paper", "cifar100"): {"epochs": 400, "augment": True, **AUTHORS},
    ("paper", "svhn"): {"epochs": 40, "augment": False, **AUTHORS},
    ("paper", "svhn_extra"): {"epochs": 40, "augment": False, **AUTHORS},
    ("fast", "cifar10"): {"epochs": 30, "augment": True, **FAST},
    ("fast", "cifar100"): {"epochs": 30, "augment": True, **FAST},
    ("fast", "svhn"): {"epochs": 30, "augment": False, **FAST},
    ("fast", "svhn_extra"): {"epochs": 30, "augment": False, **FAST},
}


@pytest.mark.parametrize(("name", "dataset"), EXPECTED)
def test_a_recipe_is_what_design_and_authors_say(name, dataset):
    assert recipe(name, dataset) == EXPECTED[name, dataset]
    config = TrainConfig.recipe(name, data=dataset, depth=20, L=24, M=2)
    expected = TrainConfig().to_dict() | EXPECTED[name, dataset]
    assert config.to_dict() == expected | {"data": dataset, "depth": 20, "L": 24, "M": 2}


def test_every_published_set_has_every_recipe_and_shapes_has_none():
    for name, table in RECIPES.items():
        assert set(table) == set(NAMES) - {"shapes"}
        with pytest.raises(SpecError, match=f"'{name}' says nothing about data='shapes'"):
            TrainConfig.recipe(name, data="shapes")
    with pytest.raises(SpecError, match="recipe='slow' is unknown; choose one of paper, fast"):
        TrainConfig.recipe("slow", data="cifar10")


def test_the_paper_s_rate_falls_to_a_tenth_after_200_300_and_350_epochs():
    paper, steps = recipe("paper", "cifar10"), 782  # of an epoch of 50,000 pictures
    total = paper["epochs"] * steps
    for epoch, rate in (
        (199, 0.1),
        (200, 0.01),
        (299, 0.01),
        (300, 1e-3),
        (350, 1e-4),
        (399, 1e-4),
    ):
        got = learning_rate(paper["schedule"], paper["lr"], epoch * steps, total)
        assert got == pytest.approx(rate, rel=1e-12)


def test_what_is_given_wins_and_a_recipe_is_not_changed_by_its_use():
    config = TrainConfig.recipe("fast", data="cifar10", epochs=5, lr=0.05, augment=False)
    assert (config.epochs, config.lr, config.augment, config.batch_size) == (5, 0.05, False, 128)
    recipe("fast", "cifar10")["epochs"] = 1
    assert recipe("fast", "cifar10")["epochs"] == 30


# -- the command -----------------------------------------------------------------------------------

GREY = (128.0, 128.0, 128.0)
SMALL = ["--depth", "5", "-L", "2", "-M", "2", "--backend", "numpy", "--data", "cifar10"]


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    """Let every published set be 60 grey pictures."""

    def load(name, split, data_dir=None, report=print):
        images = np.full((60, 3, 32, 32), 128, np.uint8)
        labels = np.arange(60, dtype=np.int64) % 10
        return Dataset(
            f"{name}/{split}", images, labels, tuple("0123456789"), (128,) * 3, (64,) * 3
        )

    monkeypatch.setattr(data, "load", load)


def settings_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_the_command_stores_the_settings_of_the_recipe_and_what_is_given_wins(tmp_path):
    run = tmp_path / "run"
    command = ["train", *SMALL, "--recipe", "fast", "--epochs", "2", "--out", str(run)]
    assert main(command) == 0
    expected = EXPECTED["fast", "cifar10"] | {"epochs": 2, "data": "cifar10", "depth": 5}
    assert expected.items() <= settings_of(run).items()
    assert "recipe" not in settings_of(run)
    run = tmp_path / "svhn"
    assert main(["train", *SMALL[:-1], "svhn", *command[-6:-1], str(run)]) == 0
    assert settings_of(run)["augment"] is False


def failing(capsys, *arguments):
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 1
    return capsys.readouterr().err


def test_a_recipe_without_a_published_set_is_an_error_that_names_them(tmp_path, capsys):
    out = tmp_path / "run"
    err = failing(capsys, "train", "--recipe", "paper", "--out", out)
    assert "data='shapes'; it is for cifar10, cifar100, svhn, svhn_extra" in err
    assert not out.exists()


def test_a_run_is_continued_with_its_recipe_and_not_with_another(tmp_path, capsys):
    run = tmp_path / "run"
    given = [*SMALL, "--recipe", "fast", "--epochs", "2"]
    assert main(["train", *given, "--out", str(run)]) == 0
    (run / "checkpoint-previous.npz").replace(run / "checkpoint.npz")  # as after the first epoch
    for arguments in (
        ["--recipe", "paper", "--epochs", "2"],
        ["--recipe", "fast"],  # it was run for 2 epochs, not 30
        ["--recipe", "fast", "--epochs", "2", "--data", "svhn"],
    ):
        assert "is another run: " in failing(capsys, "train", "--resume", run, *arguments)
    assert "is no run" in failing(capsys, "train", "--resume", tmp_path, "--recipe", "fast")
    assert main(["train", "--resume", str(run), "--recipe", "fast", "--epochs", "2"]) == 0
    assert "epoch 2/2" in capsys.readouterr().out
    assert "has finished all its 2 epochs" in failing(capsys, "train", "--resume", run, *given)
