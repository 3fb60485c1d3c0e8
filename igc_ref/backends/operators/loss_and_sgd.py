"""The linear layer, the loss, and the step of the optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from igc_ref.backends.operators.checks import Checks, within
from igc_ref.backends.operators.library import Array
from igc_ref.errors import SpecError


class LearningOperators(Checks):
    """What stands between features and new weights: plain arrays in every backend."""

    def linear(self, x: Array, weight: Array, bias: Array) -> tuple[Array, tuple[Array, Array]]:
        """Return x Wᵀ + b for x (N, in), weight (out, in), bias (out,)."""
        self.check_linear(x, weight, bias)
        return self.product(x, weight.T) + bias, (x, weight)

    def linear_backward(self, dy: Array, saved: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        """Return the gradients of `linear` with respect to x, weight and bias."""
        x, weight = saved
        self.check("the gradient", dy, x.dtype, shape=(len(x), len(weight)))
        return self.product(dy, weight), self.product(dy.T, x), dy.sum(axis=0)

    def product(self, a: Array, b: Array) -> Array:
        """Return a @ b."""
        return a @ b

    def of_each(self, function: str, x: Array) -> Array:
        """Return a function, such as exp, of every number."""
        return getattr(self.xp, function)(x)

    @np.errstate(under="ignore")  # of exp: right for a logit far below the greatest
    def loss(
        self, logits: Array, labels: Array, smoothing: float = 0.0
    ) -> tuple[Array, Array, Array]:
        """Return the mean cross-entropy, the correct answers, and the gradient.

        The cross-entropy of an image is -Σ_k t_k log softmax(logits)_k with the target
        t = (1 - smoothing) * onehot(label) + smoothing / classes.

        Parameters
        ----------
        logits : array, shape (N, classes)
        labels : integer array, shape (N,)
            Each from 0 to classes - 1.
        smoothing : float in [0, 1)
            Label smoothing (arXiv:1512.00567, section 7), as in ``torch.nn.CrossEntropyLoss``.

        Returns
        -------
        loss : 0-d array
        correct : 0-d array
            Rows whose greatest logit is the label's; of equal logits the first is the answer.
        dlogits : array, shape (N, classes)
        """
        self.check_loss(logits, labels, smoothing)
        xp, (N, classes) = self.xp, logits.shape
        within("labels", labels, classes - 1)
        rows = xp.arange(N)
        shifted = logits - logits.max(axis=1, keepdims=True)  # so that exp never overflows
        exp = self.of_each("exp", shifted)
        total = exp.sum(axis=1, keepdims=True)
        losses = self.of_each("log", total[:, 0]) - shifted[rows, labels]
        if smoothing:  # 0 times a logit that is far below, at -inf, would be no number
            losses += smoothing * (shifted[rows, labels] - shifted.mean(axis=1))
        dlogits = exp / total
        dlogits[rows, labels] -= 1 - smoothing
        dlogits -= smoothing / classes
        return losses.mean(), (logits.argmax(axis=1) == labels).sum(), dlogits / N

    @np.errstate(under="ignore")
    def distillation_loss(
        self,
        logits: Array,
        labels: Array,
        teacher: Array,
        temperature: float,
        alpha: float,
        smoothing: float = 0.0,
    ) -> tuple[Array, Array, Array]:
        """Return `loss` mixed with the distance to a teacher's soft answers (arXiv:1503.02531).

        Of an image it is, with T = `temperature`, p = softmax(logits/T), q = softmax(teacher/T),
        (1 - alpha) * cross-entropy + alpha * T² * KL(q || p); its gradient adds alpha * T * (p - q)
        to 1 - alpha times that of the cross-entropy.

        Parameters
        ----------
        logits, labels, smoothing
            As in `loss`, which these results are with alpha = 0.
        teacher : array, shape (N, classes)
            Logits, of the dtype of the others.
        temperature, alpha : float
            Above 0; in [0, 1]. A SpecError for others.

        Examples
        --------
        >>> from igc_ref.backends import get_backend
        >>> z, labels = np.array([[1.0, 2.0, 0.0]]), np.array([1])
        >>> loss, *_ = get_backend("numpy").distillation_loss(z, labels, z, 4, alpha=1)
        >>> float(loss)
        0.0
        """
        if not (0 < temperature < 1e30 and 0 <= alpha <= 1):
            allowed = "temperature must be above 0, alpha in [0, 1]"
            raise SpecError(f"temperature={temperature}, alpha={alpha} is not allowed: {allowed}")
        loss, correct, dlogits = self.loss(logits, labels, smoothing)
        self.check("teacher", teacher, logits.dtype, shape=logits.shape)
        (log_p, p), (log_q, q) = (self._softmax(z / temperature) for z in (logits, teacher))
        divergence = (q * (log_q - log_p)).sum(axis=1).mean()
        loss = (1 - alpha) * loss + alpha * temperature**2 * divergence
        return loss, correct, (1 - alpha) * dlogits + alpha * temperature / len(logits) * (p - q)

    def _softmax(self, z: Array) -> tuple[Array, Array]:
        """Return log softmax and softmax of each row."""
        shifted = z - z.max(axis=1, keepdims=True)
        exp = self.of_each("exp", shifted)
        total = exp.sum(axis=1, keepdims=True)
        return shifted - self.of_each("log", total), exp / total

    def sgd_steps(
        self,
        weights: Mapping[str, Array],
        gradients: Mapping[str, Array],
        velocities: Mapping[str, Array],
        **numbers: Any,
    ) -> None:
        """Take a step for every parameter, in place; see `sgd_step`."""
        for name, weight in weights.items():
            self.sgd_step(weight, gradients[name], velocities[name], **numbers)

    def sgd_step(
        self,
        weight: Array,
        gradient: Array,
        velocity: Array,
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        """Take one step of Nesterov's accelerated gradient, in place.

        g = gradient + weight_decay*weight; v = momentum*v + g; weight -= lr*(g + momentum*v)
        """
        self.check_step(weight, gradient, velocity)
        g = gradient + weight_decay * weight
        velocity *= momentum
        velocity += g
        weight -= lr * (g + momentum * velocity)
