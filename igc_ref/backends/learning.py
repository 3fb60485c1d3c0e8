"""The loss, and the step of the optimiser."""

from __future__ import annotations

from igc_ref.backends.library import Array, Library


class LearningOperators(Library):
    """What stands between logits and new weights."""

    def softmax_cross_entropy(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """Return the mean of -log softmax(logits)[label], and its gradient.

        Parameters
        ----------
        logits : array, shape (N, classes)
        labels : integer array, shape (N,)

        Returns
        -------
        loss : 0-d array
        dlogits : array, shape (N, classes)
        """
        xp, N = self.xp, len(labels)
        rows = xp.arange(N)
        shifted = logits - logits.max(axis=1, keepdims=True)  # so that exp never overflows
        exp = xp.exp(shifted)
        total = exp.sum(axis=1, keepdims=True)
        loss = (xp.log(total[:, 0]) - shifted[rows, labels]).mean()
        dlogits = exp / total
        dlogits[rows, labels] -= 1
        return loss, dlogits / N

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
        g = gradient + weight_decay * weight
        velocity *= momentum
        velocity += g
        weight -= lr * (g + momentum * velocity)
