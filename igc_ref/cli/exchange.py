"""The commands ``export`` and ``import``, and what ``train --init`` begins with."""

from __future__ import annotations

from typing import Any

from igc_ref import exchange
from igc_ref.cli.options import NETWORK, add_command
from igc_ref.errors import CheckpointError, SpecError, user_path
from igc_ref.exchange.card import model_card
from igc_ref.files import replacing, writable
from igc_ref.networks.model import Model
from igc_ref.report import say
from igc_ref.training import checkpoint
from igc_ref.training import folder as runs
from igc_ref.training.checkpoint import Arrays, Checkpoint, Partial
from igc_ref.training.config import TrainConfig


def add_commands(commands: Any) -> None:
    """Add the commands of this file to the command line."""
    add = add_command(commands, export_command)
    add.add_argument("run", metavar="RUN", help="folder of the run")
    add.add_argument("file", metavar="FILE", help="a new .safetensors or .onnx file")
    text = ".onnx: how a block permutes channels; default reshape"
    add.add_argument("--shuffle", choices=("reshape", "gather", "composed"), help=text)
    add.add_argument("--fold-bn", action="store_true", help=".onnx: fold batch norm into weights")
    text = ".onnx: images in a batch; default dynamic, any number"
    add.add_argument("--batch", type=batch, metavar="N", help=text)
    add.add_argument("--card", metavar="FILE.md", help="write a model card as well")

    add = add_command(commands, import_command)
    add.add_argument("file", metavar="FILE", help="what export wrote, or fine-tuned in PyTorch")
    add.add_argument("--out", required=True, metavar="DIR", help="folder for it, new or empty")


def batch(text: str) -> int | None:
    """Read the images of a batch; None if their number is left open."""
    return None if text == "dynamic" else int(text)


def export_command(run: str, file: str, card: str | None = None, **options: Any) -> None:
    """Write the network of a run to a file for other programs."""
    path = user_path("file", file)
    page = None if card is None else writable(user_path("card", card))
    model, saved = runs.load_run(run, "numpy", say)
    exchange.save(model, path, **options)
    if page is not None:
        with replacing(page) as stream:
            stream.write(model_card(saved, path).encode())
    say(f"{model.architecture}, {saved.progress}, in {path}")


def import_command(file: str, out: str) -> None:
    """Make a run's folder of an exported file: to evaluate it, or to train on from it."""
    model = exchange.load(file, "numpy")
    about = model.metadata
    if about is None:
        raise CheckpointError(f"{file} was exported before any training: it names no data set")
    config = TrainConfig(**_network(model), data=about.data, out=out)
    with runs.create(config, say) as folder:
        state = Checkpoint(config, about, "", "", [], Partial(), model.state_dict(), velocity={})
        checkpoint.save(folder / runs.CHECKPOINT, state)
    say(f"{model.architecture}, trained on {about.data}, in {folder}")


def weights_of(source: str, given: dict[str, Any]) -> tuple[dict[str, Any], Arrays]:
    """Return the settings of a run that begins with a run's or a file's weights, and the weights.

    The network and dtype are theirs, all else is as given; a SpecError for another network.
    """
    place = user_path("init", source)
    if place.suffix in exchange.SUFFIXES and not place.is_dir():
        model = exchange.load(place, "numpy")
    else:
        model, _ = runs.load_run(place, "numpy", say)
    network = _network(model)
    for name, value in network.items():
        if given.get(name, value) != value:
            raise SpecError(f"{name}={given[name]}, but {source} has {name}={value}: leave it out")
    say(f"begins with the weights of {source}")
    return given | network, model.state_dict()


def _network(model: Model) -> dict[str, Any]:
    """Return the fields of `TrainConfig` that say which network this is."""
    return {n: getattr(model.architecture, n) for n in NETWORK} | {"dtype": model.dtype}
