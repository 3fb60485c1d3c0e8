"""A model card in the form of Hugging Face's: what a run says of itself, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from igc_ref.errors import one_line
from igc_ref.networks.builder import cost
from igc_ref.training.checkpoint import Checkpoint

SAID = ("arch", "depth", "L", "M", "width", "doubling", "data", "data_dir", "out")  # or private
TEXT = """---
library_name: igc-ref
pipeline_tag: image-classification
tags: [image-classification, interleaved-group-convolutions]
datasets: [{data}]
metrics: [accuracy]
---
# {name} on {data}

* Network: {cost.parameters:,} parameters, {cost.multiply_adds:,} multiply-adds at {intended}.
* Input: `x = (pixels - mean) / std`, {dtype} (N, 3, H, W), RGB in 0..255, trained at {about.size},
  mean {about.mean}, std {about.std}. Output: logits (N, {count}).
* Classes: {classes}.
* Training: {training}.
* Result: {result}.
* Limits: nothing is recorded of other data, image sizes or seeds, nor of weights it began with.
* Method: Zhang, Qi, Xiao, Wang, "Interleaved Group Convolutions", ICCV 2017, arXiv:1707.02725.

```python
from igc_ref import exchange
model = exchange.load("{file.name}")
logits = model.forward(x)
import onnxruntime  # for this, igc-ref export RUN {file.stem}.onnx
session = onnxruntime.InferenceSession("{file.stem}.onnx")
logits = session.run(None, {{session.get_inputs()[0].name: x}})[0]
import torch, igc_ref.exchange.torch
module = igc_ref.exchange.torch.to_torch(model).eval()
logits = module(torch.from_numpy(x))
```
"""


def model_card(saved: Checkpoint, file: Path) -> str:
    """Return a model card, in Markdown with a YAML head, for an exported file of a run.

    Examples
    --------
    >>> model_card(checkpoint.load(Path("run/checkpoint.npz")), Path("m.onnx"))  # doctest: +SKIP
    """
    config, architecture = saved.config, saved.config.architecture(saved.classes)
    settings = {n: value for n, value in config.to_dict().items() if n not in SAID}
    training, result = ", ".join(f"{n}={v}" for n, v in settings.items()), "not recorded"
    if saved.records:
        reached = "test accuracy {test_accuracy:.2%}, loss {test_loss:.4f} after epoch {epoch}"
        result = f"{reached.format(**saved.records[-1])}; the weights are of {saved.progress}"
    return TEXT.format(
        data=json.dumps(saved.metadata.data), name=architecture, about=saved.metadata, file=file,
        cost=cost(architecture), intended=architecture.input_shape[1:], dtype=config.dtype,
        count=saved.classes, classes=one_line(", ".join(saved.metadata.classes), 400),
        training="not recorded: imported weights" if saved.imported else training, result=result,
    )  # fmt: skip
