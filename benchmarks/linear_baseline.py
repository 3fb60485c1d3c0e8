"""How far a linear softmax classifier gets: the floor that a network has to clear.

Softmax regression on standardised pixels, or samples of a sequence, by L-BFGS: the loss is convex,
so that neither a learning rate nor luck enters. Several weight decays are tried and the best *on
the test split* is reported, which flatters the linear model; a network that clears this floor
clears any other.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax

from igc_ref.data import load
from igc_ref.data.dataset import Dataset
from igc_ref.data.shapes import shapes
from igc_ref.data.waves import waves
from igc_ref.errors import IGCError

__all__ = ["DECAYS", "Fit", "linear_softmax"]

Array = npt.NDArray[Any]
DECAYS = (0.01, 0.1, 1.0)
DRAWN = {"shapes": shapes, "waves": waves}


@dataclass(frozen=True)
class Fit:
    """What one weight decay reached; accuracies are fractions."""

    train_accuracy: float
    test_accuracy: float
    decay: float


def linear_softmax(
    train: Dataset, test: Dataset, epochs: int = 50, decays: tuple[float, ...] = DECAYS
) -> Fit:
    """Fit ``softmax(W x + b)`` for each decay and keep the fit that does best on `test`.

    Parameters
    ----------
    train, test : Dataset
    epochs : int
        Passes over `train` for each decay, at most; one L-BFGS step costs about one.
    decays : tuple of float
        Factors of ``||W||**2 / 2`` in the loss.
    """
    pixels = train.images.reshape(len(train), -1)
    mean = pixels.mean(axis=0, dtype=np.float32)
    std = pixels.std(axis=0, dtype=np.float32) + np.float32(1e-3)

    def standardised(data: Dataset) -> Array:
        """Pixels in units of their deviations in `train`; a last column of ones."""
        x = np.ones((len(data), len(mean) + 1), np.float32)
        np.subtract(data.images.reshape(len(data), -1), mean, out=x[:, :-1])
        x[:, :-1] /= std
        return x

    def accuracy(x: Array, labels: Array, weights: Array) -> float:
        return float(np.mean(np.argmax(x @ weights, axis=1) == labels))

    x, x_test, fits = standardised(train), standardised(test), []
    for decay in decays:
        weights = _fit(x, np.eye(len(train.classes), dtype=np.float32)[train.labels], epochs, decay)
        scores = accuracy(x, train.labels, weights), accuracy(x_test, test.labels, weights)
        fits.append(Fit(*scores, decay))
    return max(fits, key=lambda fit: fit.test_accuracy)


def _fit(x: Array, target: Array, epochs: int, decay: float) -> Array:
    """The weights, (features + 1, classes), that minimise cross-entropy plus decay."""
    shape = x.shape[1], target.shape[1]

    def loss(flat: Array) -> tuple[float, Array]:
        weights = flat.reshape(shape)
        shrunk = decay * weights
        shrunk[-1] = 0.0  # the bias is free
        log_p = log_softmax(x @ weights.astype(np.float32), axis=1)
        value = -float(np.sum(target * log_p)) / len(x) + 0.5 * float(np.sum(shrunk * weights))
        slope = x.T @ (np.exp(log_p) - target) / np.float32(len(x)) + shrunk
        return value, slope.ravel()

    start = np.zeros(shape).ravel()
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxfun": epochs})
    return np.asarray(found.x.reshape(shape), dtype=np.float32)


def main() -> None:
    """Fit and print one line."""
    parser = argparse.ArgumentParser(description="Train and judge a linear softmax classifier.")
    parser.add_argument("--data", choices=(*DRAWN, "cifar10"), default="shapes")
    parser.add_argument("--data-dir", type=Path, help="folder of the CIFAR-10 files")
    parser.add_argument("--epochs", type=int, default=50, help="passes over the training images")
    parser.add_argument("--seed", type=int, default=0, help="of shapes or waves")
    args = parser.parse_args()
    try:
        train, test = (
            DRAWN[args.data](split, seed=args.seed)
            if args.data in DRAWN
            else load(args.data, split, args.data_dir)
            for split in ("train", "test")
        )
    except IGCError as error:
        parser.error(str(error))
    fit = linear_softmax(train, test, args.epochs)
    print(
        f"linear softmax on {args.data}: train {fit.train_accuracy:.1%}, "
        f"test {fit.test_accuracy:.1%} (weight decay {fit.decay:g}, {args.epochs} epochs)"
    )


if __name__ == "__main__":
    main()
