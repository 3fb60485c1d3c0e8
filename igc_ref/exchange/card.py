"""A model card in the form of Hugging Face's: what a run says of itself, and nothing else."""

from __future__ import annotations

from pathlib import Path

from igc_ref.errors import one_line
from igc_ref.networks.builder import cost
from igc_ref.training.checkpoint import Checkpoint


def model_card(saved: Checkpoint, file: Path) -> str:
    """Return the card of an exported file of a run, in Markdown with a YAML head."""
    config, about, network = saved.config, saved.metadata, saved.config.architecture(saved.classes)
    settings = {n: v for n, v in config.to_dict().items() if n not in ("data_dir", "out")}
    training = ", ".join(f"{name}={value}" for name, value in settings.items())
    reached = "; test accuracy {test_accuracy:.2%} after epoch {epoch}"
    code = f"igc_ref.exchange.load({file.name!r}).forward(x)"
    if file.suffix == ".onnx":
        code = f"onnxruntime.InferenceSession({file.name!r}).run(None, {{'images': x}})[0]"
    return f"""---
library_name: igc-ref
pipeline_tag: image-classification
datasets: [{config.data}]
---
# {network} on {config.data}
* Network: {cost(network).parameters:,} parameters; arXiv:1707.02725.
* Input: `x = (pixels - mean) / std`, {config.dtype} (N, 3, H, W), RGB in 0..255, trained at
  {about.size}, mean {about.mean}, std {about.std}.
* Classes: {one_line(", ".join(about.classes), 400)}.
* Training: {training if saved.fingerprint else "not recorded"}.
* Result: {saved.progress}{reached.format(**saved.records[-1]) if saved.records else ""}.
* Code: `logits = {code}`
"""
