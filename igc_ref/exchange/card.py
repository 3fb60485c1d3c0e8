"""A model card (arXiv:1810.03993) in the form of Hugging Face's: what a run says of itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

from igc_ref.errors import one_line
from igc_ref.networks.builder import cost
from igc_ref.networks.model import sha256
from igc_ref.training.checkpoint import Checkpoint
from igc_ref.training.evaluation import interval

TEST_IMAGES = {"shapes": 1000, "waves": 1000, "cifar10": 10_000, "cifar100": 10_000, "svhn": 26_032}
BY_HAND = b"<!-- igc-ref export --card writes what is above, and keeps what is below -->\n"


def model_card(saved: Checkpoint, file: Path) -> str:
    """Return the card of an exported file of a run, in Markdown with a YAML head."""
    config, about, network = saved.config, saved.metadata, saved.architecture
    paths = {"data_dir", "out", "teacher"}
    settings = {n: v for n, v in config.to_dict().items() if n not in paths}
    settings["teacher"] = saved.teacher or None
    training = ", ".join(f"{name}={value}" for name, value in settings.items())
    result, n = saved.progress, TEST_IMAGES.get(config.data.removesuffix("_extra"))
    if saved.records:
        p = saved.records[-1]["test_accuracy"]
        ci = ", 95 % interval {:.2%} to {:.2%} (n = {:,})".format(*interval(p, n), n) if n else ""
        result += f"; test accuracy {p:.2%} after epoch {len(saved.records)}{ci}"
    height, C = about.size[0], network.in_channels
    parameters, multiply_adds = cost(network, about.size)
    kind = "RGB" if C == 3 and height > 1 else f"channels: {C}"
    code = f"igc_ref.exchange.load({file.name!r}).forward(x)"
    if file.suffix == ".onnx":
        code = f"onnxruntime.InferenceSession({file.name!r}).run(None, {{'images': x}})[0]"
    return f"""---
library_name: igc-ref
pipeline_tag: {"image-classification" if height > 1 else "other"}
datasets: [{config.data}]
license: mit # as igc_ref; write your own, if it is another
---
# {network} on {config.data}
* Network: {parameters:,} parameters, {multiply_adds:,} multiply-adds
  for an image; arXiv:1707.02725.
* Input: `x = (pixels - mean) / std`, {config.dtype} (N, {C}, H, W), {kind} in 0..255,
  trained at {about.size}, mean {about.mean}, std {about.std}.
* Classes: {one_line(", ".join(about.classes), 400)}.
* Training: {training if saved.fingerprint else "not recorded"}.
* Result: {result}.
* File: `{file.name}`, SHA-256 `{hashlib.sha256(file.read_bytes()).hexdigest()}`;
  of its weights (`igc-ref hash`) `{sha256(saved.model)}`.
* Code: `logits = {code}`

"""
