"""How well a training run keeps the conserved differences of the IGC blocks.

    python -m benchmarks.conservation

Gradient flow keeps D = ‖row of W_p‖² - ‖its column of W_d‖² of every middle channel. Under weight
decay λ, D shrinks as exp(-2λt), with t the sum of the learning rates; with momentum µ, how far a
slope of 1 would go, in the end 1/(1 - µ) times as fast. A row of the table is a run on the built-in
images with a constant rate:

- "left of D": the factor by which D shrank, by least squares over all middle channels; "law" says
  which it should be;
- "off the law": ‖D(t) - exp(-2λt) D(0)‖ / ‖D(0)‖; in the next column the same of the ‖row‖² alone,
  less their mean;
- "off the steps": the same distance from the sum over all steps, which is exact without momentum,
  D' = (1 - ηλ)² D + η² (‖drow‖² - ‖dcolumn‖²).
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from igc_ref.data.shapes import shapes
from igc_ref.networks import IGC
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.model import Model, build
from igc_ref.reference import middle_channels
from igc_ref.report import markdown, say
from igc_ref.training.loop import StepByStep, draw
from igc_ref.training.optim import SGD

BATCH = 64
# Rate, momentum, and how often --epochs: half the rate for twice the time; the last is a recipe's.
RUNS = ((0.2, 0.0, 1), (0.1, 0.0, 2), (0.02, 0.9, 1), (0.01, 0.9, 2), (0.2, 0.9, 1))


def squares(model: Model, values: Any) -> Any:
    """Return ‖row‖² and ‖column‖² of all middle channels, shape (2, channels), of all blocks."""
    found = []
    for name, layer in model.network.named_layers():
        if isinstance(layer, IGC):
            both = (values[f"{name}.{kind}"] for kind in ("primary", "secondary"))
            parts = middle_channels(*(model.backend.to_numpy(a) for a in both), layer.spec)
            found.append([np.sum(part.astype(float) ** 2, axis=1) for part in parts])
    return np.concatenate(found, axis=1)


def run(lr: float, momentum: float, epochs: int, options: argparse.Namespace) -> list[str]:
    """Train once; return a row of the table."""
    model = build(Architecture("plain_igc", 8, L=4, M=8), options.backend, seed=options.seed)
    optimiser, images = SGD(model, momentum, options.decay), shapes("train", seed=options.seed)
    steps = StepByStep(model, optimiser, images, BATCH)
    start, velocity = squares(model, model.parameters()), 0.0
    D, exact, t, losses = start[0] - start[1], start[0] - start[1], 0.0, [0.0]
    for epoch in range(epochs):
        sampling = draw(options.seed, epoch, len(images), BATCH, augment=True)
        losses = []
        for loss, _ in steps.epoch(sampling, np.full(-(-len(images) // BATCH), lr)):
            pushed = squares(model, model.gradients())
            exact = (1 - lr * options.decay) ** 2 * exact + lr**2 * (pushed[0] - pushed[1])
            velocity = momentum * velocity + 1
            t += lr * (1 + momentum * velocity)
            losses.append(loss)
    end = squares(model, model.parameters())
    after, law, size = end[0] - end[1], np.exp(-2 * options.decay * t), np.linalg.norm(D)
    moved = end[0] - law * start[0]
    off = (after - law * D, moved - moved.mean(), *([after - exact] if momentum == 0 else []))
    return [
        f"{lr:g}", f"{momentum:g}", f"{epochs}", f"{np.mean(losses):.3f}",
        f"{after @ D / (D @ D):.3f}", f"{law:.3f}",
        *(f"{np.linalg.norm(a) / size:.1e}" for a in off), *["-"] * (3 - len(off)),
    ]  # fmt: skip


def main() -> None:
    """Read the command line, train, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--epochs", type=int, default=2, help="of the shorter runs")
    add("--decay", type=float, default=5e-3, help="ten times the recipes', for a short run")
    add("--seed", type=int, default=0)
    add("--backend", default="auto")
    options = parser.parse_args()
    rows = [["rate", "momentum", "epochs", "last loss", "left of D", "law", "off the law",
             "rows alone", "off the steps"]]  # fmt: skip
    for lr, momentum, times in RUNS:
        rows.append(run(lr, momentum, times * options.epochs, options))
    say(markdown(rows))


if __name__ == "__main__":
    main()
