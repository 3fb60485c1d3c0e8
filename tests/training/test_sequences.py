"""Runs on sequences: channels and classes from the data, no augmentation, refusals, commands."""

import re

import numpy as np
import pytest

from igc_ref import build_model, data, exchange, resume, train
from igc_ref.cli import main
from igc_ref.data.waves import waves
from igc_ref.errors import CheckpointError, DataError, SpecError
from igc_ref.exchange.card import model_card
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import cost
from igc_ref.networks.metadata import Metadata
from igc_ref.training import folder as runs
from igc_ref.training.evaluation import evaluate
from tests.support.runs import config, error_of, outcome

FEW = {"train": 60, "test": 30}


@pytest.fixture
def few_waves(monkeypatch):
    monkeypatch.setattr(data, "waves", lambda split, size=None: waves(split, size or FEW[split]))


def of_text(tmp_path, size=3000):
    text = np.random.default_rng(0).choice(list(b"ab \n"), size).astype("u1")
    (tmp_path / "a.txt").write_bytes(text.tobytes())
    return {"data": "text", "data_dir": str(tmp_path / "a.txt"), "data_size": 60}


def of_images(tmp_path, images):
    labels = {"labels": np.arange(len(images)) % 2, "test_labels": np.arange(len(images)) % 2}
    arrays = {"images": images, "test_images": images, "classes": np.array(["a", "b"])}
    np.savez(tmp_path / "a.npz", **arrays, **labels)
    return {"data": "npz", "data_dir": str(tmp_path / "a.npz")}


def test_a_network_has_the_channels_of_its_input_and_refuses_others():
    model = build_model("plain_igc", 5, L=2, M=2, in_channels=9, dims="1", backend="numpy")
    x = np.random.default_rng(0).normal(size=(2, 9, 1, 20)).astype("f4")
    logits = model.forward(x, train=True)
    assert (logits.shape, model.backward(logits).shape) == ((2, 10), x.shape)
    with pytest.raises(SpecError, match=r"\(2, 3, 1, 20\); \(N, 9, H, W\), each at least 1, is"):
        model.forward(x[:, :3])
    for dims, size in (("1", (1, 128)), ("2", (32, 32))):
        a = Architecture("plain_igc", 5, 2, 2, dims=dims)
        wider = Architecture("plain_igc", 5, 2, 2, dims=dims, in_channels=5)
        taps = 3 if dims == "1" else 9
        assert wider.input_shape == (5, *size)
        assert cost(wider).parameters - cost(a).parameters == 2 * 4 * taps
    with pytest.raises(SpecError, match="in_channels=0 is not an integer of at least 1"):
        Architecture("plain", 5, width=4, in_channels=0)


@pytest.mark.usefixtures("few_waves")
@pytest.mark.parametrize("dims", ["1", "2"])
def test_a_run_on_waves_is_not_augmented_and_says_so(tmp_path, dims):
    lines, settings = [], {"data": "waves", "dims": dims}
    run = train(config(tmp_path, **settings), lines.append).run
    plain = train(config(tmp_path, "plain", augment=False, **settings)).run
    assert outcome(run) == outcome(plain)
    assert "; 60 sequences of waves, not augmented; numpy backend" in lines[0]
    model, saved = runs.load_run(run, "numpy")
    assert saved.architecture == saved.config.architecture() == model.architecture
    assert model.architecture.in_channels == 1
    assert (saved.metadata.size, len(saved.metadata.std)) == ((1, 128), 1)
    tested = evaluate(model, runs.load_test_set(saved, None, print))
    assert tested.accuracy == saved.records[-1]["test_accuracy"]
    images = data.load("waves", "test").images
    assert model.predict(images).labels.tolist() == labels_of(model, saved, images)
    card = model_card(saved, run / runs.CHECKPOINT)
    assert "(N, 1, H, W), channels: 1 in 0..255" in card
    assert "image-classification" not in card
    counted = sum(row.multiply_adds for row in model.network.rows((1, 1, 128)))
    assert f"{counted:,} multiply-adds" in card


def labels_of(model, saved, images):
    """The most probable classes of bytes that were normalised here."""
    about = saved.metadata
    x = ((images.astype("f8") - about.mean[0]) / about.std[0]).astype("f4")
    return model.forward(x).argmax(axis=1).tolist()


@pytest.mark.usefixtures("few_waves")
def test_a_run_on_waves_continues_with_the_same_bits(tmp_path):
    settings = {"data": "waves", "dims": "1", "checkpoint_every": 2}
    whole = train(config(tmp_path, **settings)).run

    def stop(line):
        if line.startswith("epoch 1"):
            raise BrokenPipeError

    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path, "cut", **settings), stop)
    assert outcome(resume(tmp_path / "cut").run) == outcome(whole)


@pytest.mark.usefixtures("few_waves", "few_images")
@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"dims": "1"}, "dims=1 is for sequences, of height 1; shapes has images of height 32: th"),
        ({"data": "waves", "mirror": "alternating"}, "mirror=alternating is for images; waves has"),
        ({"data": "waves", "test_mirror": True}, "test_mirror=True is for images; waves has seq"),
        (
            {"data": "waves", "arch": "densenet_bc_igc", "depth": 10},
            "images are too small: 1x128 where 2x2 pixels are averaged",
        ),
    ],
)
def test_what_does_not_fit_sequences_is_refused_before_anything_is_written(
    tmp_path, settings, match
):
    with pytest.raises(SpecError, match=match):
        train(config(tmp_path, **settings))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["shapes", "waves"])
def test_data_that_are_drawn_have_no_folder(name):
    with pytest.raises(DataError, match=f"data_dir=here has no effect: {name} is drawn"):
        data.load(name, "test", "here")


def test_arrays_may_be_sequences(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 1, 12), "u1")
    run = train(config(tmp_path, dims="1", epochs=1, **of_images(tmp_path, images))).run
    saved = runs.load_newest(run, print)
    assert saved.architecture.in_channels == 5
    np.testing.assert_allclose(saved.metadata.mean, images.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(saved.metadata.std, images.std(axis=(0, 2, 3)), rtol=1e-9)
    (tmp_path / "b").mkdir()
    four = of_images(tmp_path / "b", images[:, :4])["data_dir"]
    with pytest.raises(DataError, match=r"a\.npz has 4 channels, the run's 5"):
        runs.load_test_set(saved, four, print)


def test_commands_on_a_run_on_text(tmp_path, capsys):
    run = train(config(tmp_path, epochs=1, dims="1", **of_text(tmp_path)), print).run
    assert main(["eval", str(run), "--backend", "numpy"]) == 0
    out = capsys.readouterr().out
    loss = runs.load_newest(run, print).records[-1]["test_loss"]
    found = re.findall(r"(\d+\.\d+) bits per byte", out)
    assert [float(bits) for bits in found] == pytest.approx([loss / np.log(2)] * 2, abs=6e-4)
    assert main(["hash", str(run)]) == 0
    (tmp_path / "a.png").write_bytes(b"no image")
    assert "classifies sequences of text; predict reads images" in error_of(
        capsys, "predict", run, tmp_path / "a.png"
    )
    network = "params --depth 5 -L 2 -M 2 --dims 1 --in-channels 9 --num-classes 256"
    assert main(network.split()) == 0
    count = build_model(
        "plain_igc", 5, L=2, M=2, dims="1", in_channels=9, num_classes=256, backend="numpy"
    ).num_parameters
    assert f"{count:,}" in capsys.readouterr().out


def test_an_exported_network_keeps_its_channels(tmp_path):
    pytest.importorskip("safetensors")
    model = build_model("plain_igc", 5, L=2, M=2, dims="1", in_channels=2, backend="numpy")
    names = tuple(map(str, range(10)))
    for channels in (2, 3):
        means = (1.0,) * channels
        model.metadata = Metadata("ts", names, means, means, (1, 24))
        exchange.save(model, tmp_path / f"{channels}.safetensors")
    back = exchange.load(tmp_path / "2.safetensors", "numpy")
    assert (back.architecture, back.metadata.size) == (model.architecture, (1, 24))
    with pytest.raises(
        CheckpointError, match=r"3\.safetensors is damaged: .*3 means of 2 channels"
    ):
        exchange.load(tmp_path / "3.safetensors", "numpy")


@pytest.mark.slow
def test_figures_of_a_run_with_256_classes(tmp_path, capsys):
    run = train(config(tmp_path, epochs=1, dims="1", **of_text(tmp_path))).run
    assert main(["eval", str(run), "--confusion", "--backend", "numpy"]) == 0
    assert "\n116 t  " in capsys.readouterr().out
    assert (run / "confusion.png").stat().st_size > 10_000
    assert main(["plot", str(run)]) == 0
