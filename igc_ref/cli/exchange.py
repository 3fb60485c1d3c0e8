"""The commands ``export`` and ``import``."""

from __future__ import annotations

from typing import Any

from igc_ref import exchange
from igc_ref.cli.options import NETWORK, add_command
from igc_ref.errors import CheckpointError, user_path
from igc_ref.exchange.card import BY_HAND, model_card
from igc_ref.exchange.header import momentum
from igc_ref.files import replacing, writable
from igc_ref.report import say
from igc_ref.training import checkpoint
from igc_ref.training import folder as runs
from igc_ref.training.checkpoint import Checkpoint, Partial
from igc_ref.training.config import TrainConfig


def add_commands(commands: Any) -> None:
    """Add the commands of this file to the command line."""
    add = add_command(commands, export_command)
    add.add_argument("run", metavar="RUN", help="folder of the run")
    add.add_argument("file", metavar="FILE", help=".safetensors or .onnx; replaced if it is there")
    text = ".onnx: how a block permutes channels; default reshape"
    add.add_argument("--shuffle", choices=("reshape", "gather", "composed"), help=text)
    add.add_argument("--fold-bn", action="store_true", help=".onnx: fold batch norm into weights")
    text = ".onnx: images in a batch; default dynamic, any number"
    add.add_argument("--batch", type=batch, metavar="N", help=text)
    add.add_argument("--card", metavar="FILE.md", help="write a model card, above your own text")

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
        own = page.read_bytes().partition(BY_HAND)[2] if page.is_file() else b""
        with replacing(page) as stream:
            stream.write(model_card(saved, path).encode() + BY_HAND + own)
    say(f"{model.architecture}, {saved.progress}, in {path}")


def import_command(file: str, out: str) -> None:
    """Make a run's folder of an exported file, for other commands."""
    model = exchange.load(file, "numpy")
    about = model.metadata
    if about is None:
        raise CheckpointError(f"{file} was exported before any training: it names no data set")
    network: dict[str, Any] = {name: getattr(model.architecture, name) for name in NETWORK}
    network |= {"dtype": model.dtype, "bn_momentum": momentum(model)}
    config = TrainConfig(**network, data=about.data, out=out)
    with runs.create(config, say) as folder:
        state = Checkpoint(config, about, "", "", [], Partial(), model.state_dict(), velocity={})
        checkpoint.save(folder / runs.CHECKPOINT, state)
    say(f"{model.architecture}, trained on {about.data}, in {folder}")
