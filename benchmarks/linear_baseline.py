"""How far a linear softmax classifier gets: the floor that a network has to clear.

Softmax regression on standardised pixels by L-BFGS: the loss is convex, so that neither a learning
rate nor luck enters. Several weight decays are tried and the best *on the test split* is reported,
which flatters the linear model; a network that clears this floor clears any other.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax

from igc_ref.data import load
from igc_ref.data.dataset import Dataset
from igc_ref.data.shapes import shapes
from igc_ref.errors import IGCError

__all__ = ["DECAYS", "Fit", "linear_softmax"]

DECAYS = (0.01, 0.1, 1.0)


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
        Pictures to fit and to judge on.
    epochs : int
        Passes over `train` for each decay, at most; one L-BFGS step costs about one.
    decays : tuple of float
        Factors of ``||W||**2 / 2`` in the loss.

    Returns
    -------
    Fit
    """
    x, x_test = _standardised(train, train), _standardised(test, train)
    fits = []
    for decay in decays:
        weights = _fit(x, train.labels, len(train.classes), epochs, decay)
        fits.append(
            Fit(_accuracy(x, train.labels, weights), _accuracy(x_test, test.labels, weights), decay)
        )
    return max(fits, key=lambda fit: fit.test_accuracy)


def _standardised(data: Dataset, by: Dataset) -> npt.NDArray[np.float32]:
    """Pixels less their means in `by`, over their deviations there; a last column of ones."""
    pixels = by.images.reshape(len(by), -1)
    mean = pixels.mean(axis=0, dtype=np.float32)
    std = pixels.std(axis=0, dtype=np.float32) + np.float32(1e-3)
    x = np.ones((len(data), pixels.shape[1] + 1), dtype=np.float32)
    np.subtract(data.images.reshape(len(data), -1), mean, out=x[:, :-1])
    x[:, :-1] /= std
    return x


def _accuracy(
    x: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], weights: npt.NDArray[np.float32]
) -> float:
    return float(np.mean(np.argmax(x @ weights, axis=1) == labels))


def _fit(
    x: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    classes: int,
    epochs: int,
    decay: float,
) -> npt.NDArray[np.float32]:
    """The weights, (features + 1, classes), that minimise cross-entropy plus decay."""
    shape = (x.shape[1], classes)
    target = np.eye(classes, dtype=np.float32)[labels]  # (n, classes)

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
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
    parser.add_argument("--data", choices=("shapes", "cifar10"), default="shapes")
    parser.add_argument("--data-dir", type=Path, help="folder of the CIFAR-10 files")
    parser.add_argument("--epochs", type=int, default=50, help="passes over the training pictures")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn pictures (shapes)")
    args = parser.parse_args()
    try:
        train, test = (
            shapes(split, seed=args.seed)
            if args.data == "shapes"
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
