"""export and import as a user meets them."""

import hashlib
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from igc_ref import build_model, exchange, train
from igc_ref.cli import main
from igc_ref.exchange.card import BY_HAND
from igc_ref.networks.metadata import Metadata
from igc_ref.training import folder as runs
from tests.support.runs import config, error_of, read_log

pytest.importorskip("safetensors")
pytestmark = pytest.mark.usefixtures("few_images")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a trained run, its exported file, and what import makes of it."""
    monkeypatch.chdir(tmp_path)
    train(config(tmp_path, "r", epochs=1, bn_momentum=0.75))
    for command in ("export r m.safetensors --card r.md", "import m.safetensors --out r2"):
        assert main(command.split()) == 0
    return tmp_path


def network(run):
    return runs.load_run(run, "numpy")[0]


def test_an_imported_run_evaluates_and_exports_as_the_run_itself(here, capsys):
    capsys.readouterr()
    for run in ("r", "r2"):
        assert main(["eval", run, "--backend", "numpy"]) == 0
    trained, imported = capsys.readouterr().out.splitlines()
    assert trained.replace("epoch 1 (of 1 epochs)", "imported weights") == imported
    (here / "r2.md").write_bytes(b"replaced\n" + BY_HAND + b"\xff my own\n")
    assert main("export r2 again.safetensors --card r2.md".split()) == 0
    assert (here / "r2.md").read_bytes().endswith(b").forward(x)`\n\n" + BY_HAND + b"\xff my own\n")
    again = exchange.load("again.safetensors", "numpy")
    assert again.metadata == network("r").metadata
    assert dict(again.network.named_layers())["stem.bn"].momentum == 0.75
    for name, array in network("r").state_dict().items():
        assert np.array_equal(array, again.state_dict()[name]), name
    card, record = (here / "r.md").read_text(), read_log(here / "r")[0]
    for part in (
        "---\nlibrary_name: igc-ref\n", "datasets: [shapes]", "* Classes: disk, ring, ",
        "epochs=1, batch_size=16, lr=0.05, ", f"* Network: {again.num_parameters:,} parameters, ",
        f"epochs); test accuracy {record['test_accuracy']:.2%} after epoch 1, 95 % interval ",
        hashlib.sha256((here / "m.safetensors").read_bytes()).hexdigest(), again.sha256(),
    ):  # fmt: skip
        assert part in card
    assert str(here) not in card
    missing = b"* Training: not recorded.\n* Result: imported weights.\n"
    assert missing in (here / "r2.md").read_bytes()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --resume r2", "r2 holds imported weights, and no run to continue"),
        (
            "compress r2 -L 2 -M 2 --out c",
            "r2 holds imported weights; the run that was exported",
        ),
        ("export r m.pt", "m.pt must end in .safetensors or .onnx"),
        ("export r new.safetensors --fold-bn", "new.safetensors takes no fold_bn: only .onnx"),
        ("export r nowhere/m.safetensors", "cannot use nowhere/m.safetensors: No such file"),
        ("export r new.safetensors --card no/c.md", "cannot use no/c.md: No such file"),
        ("export nowhere new.safetensors", "nowhere is no run"),
        ("import m.safetensors --out r", "r is not an empty folder"),
        ("import r.md --out new", "r.md must end in .safetensors or .onnx"),
        ("import none.safetensors --out new", "there is no file none.safetensors"),
        ("import untrained.safetensors --out new", "exported before any training"),
        ("eval other", "shapes/test has the classes ('disk', 'ring'"),
        ("import pets.safetensors --out new", "data='pets' is unknown; choose one of shapes, "),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(here, command, message, capsys):
    model = build_model("plain", 5, width=4, num_classes=2, backend="numpy")
    exchange.save(model, "untrained.safetensors")
    model.metadata = Metadata("pets", ("cat", "dog"), (1, 2, 3), (4, 5, 6), (32, 32))
    exchange.save(model, "pets.safetensors")
    model.metadata = replace(model.metadata, data="shapes")
    exchange.save(model, "other.safetensors")
    main("import other.safetensors --out other".split())
    before = {path: path.is_file() and path.read_bytes() for path in here.rglob("*")}
    assert message in error_of(capsys, *command.split())
    assert {path: path.is_file() and path.read_bytes() for path in here.rglob("*")} == before


def test_a_library_that_is_not_installed_is_named(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "igc_ref.exchange.safetensors", None)
    needed = '.safetensors files need: pip install "igc-ref[safetensors]"'
    assert needed in error_of(capsys, "export", "r", "m.safetensors")


def test_the_options_of_an_onnx_file_are_passed_on(here, monkeypatch):
    calls = []
    fake = SimpleNamespace(save=lambda model, path, **options: calls.append((path.name, options)))
    monkeypatch.setitem(sys.modules, "igc_ref.exchange.onnx", fake)
    for options in ("", "--shuffle gather --fold-bn --batch 8", "--batch dynamic"):
        assert main(["export", "r", "m.onnx", *options.split()]) == 0
    every = {"shuffle": "gather", "fold_bn": True, "batch": 8}
    assert calls == [("m.onnx", {}), ("m.onnx", every), ("m.onnx", {"batch": None})]
