"""Runs on a user's own images: trained, evaluated on others, swept, compressed."""

from dataclasses import replace

import numpy as np
import pytest

from igc_ref import train
from igc_ref.errors import CheckpointError, DataError, SpecError
from igc_ref.networks.builder import cost
from igc_ref.studies.compress import compress
from igc_ref.studies.sweep import Sweep
from igc_ref.training import folder as runs
from igc_ref.training.session import Session
from tests.support.runs import config

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 3, 24, 20), "u1")


def saved(path, images=IMAGES, classes=("cat", "dog", "owl")):
    labels, test = np.arange(30) % 3, {"test_images": images[:9], "test_labels": np.arange(9) % 3}
    np.savez(path, images=images, labels=labels, classes=np.array(classes), **test)
    return {"data": "npz", "data_dir": str(path)}


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_images_of_another_size_train_and_others_are_normalised_as_they(tmp_path, backend):
    pytest.importorskip(backend)
    settings = saved(tmp_path / "a.npz") | {"data_size": 20, "backend": backend}
    lines = []
    run = train(config(tmp_path, **settings), lines.append).run
    model, state = runs.load_run(run, backend)
    about = state.metadata
    assert "; 20 images of npz; " in lines[0]
    assert (about.classes, about.size) == (("cat", "dog", "owl"), (24, 20))
    assert model.num_parameters == cost(state.config.architecture()).parameters  # 3 classes
    assert len(runs.load_set(state, "train", settings["data_dir"], print)) == 20
    dark = saved(tmp_path / "dark.npz", IMAGES // 9)["data_dir"]
    elsewhere = runs.load_test_set(state, dark, lines.append)
    assert (elsewhere.mean, elsewhere.std) == (about.mean, about.std)
    assert "not the images of npz/test that the run was tested on" in lines[-1]
    with pytest.raises(CheckpointError, match="trained on other images of npz"):
        Session(replace(state.config, data_dir=dark)).restore(state)
    other = saved(tmp_path / "b.npz", IMAGES, ("a", "b", "c"))["data_dir"]
    with pytest.raises(DataError, match=r"b\.npz has the classes \('a', 'b', 'c'\), not the run's"):
        runs.load_test_set(state, other, print)


def test_studies_count_the_classes_of_own_images(tmp_path):
    own = saved(tmp_path / "a.npz")
    (small, *_) = Sweep(config(tmp_path, **own), str(tmp_path / "sweep"), 1500).settings()
    assert small.cost == cost(config(tmp_path, depth=8, L=small.L, M=small.M).architecture(3))
    regular = {"arch": "plain", "L": None, "M": None, "width": 4, "epochs": 1}
    run = train(config(tmp_path, **own, **regular)).run
    result = compress(str(run), 2, 2, str(tmp_path / "c"), print, epochs=1, backend="numpy")
    assert result["run"]["data"] == "npz"
    with pytest.raises(DataError, match="data=npz needs data_dir"):
        config(tmp_path, data="npz").architecture()
    with pytest.raises(SpecError, match="0 is no name of a data set or class"):
        train(config(tmp_path, "numbers", **saved(tmp_path / "a.npz", classes=(0, 1, 2))))
    assert not (tmp_path / "numbers").exists()
