"""PyTorch's side of section ``train``: data, augmentation and evaluation on the GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.gpu.rivals import Way
from igc_ref.bench import torch_twins
from igc_ref.data import Dataset
from igc_ref.training.loop import PADDING, Trainer
from igc_ref.training.optim import learning_rate


class Rival:
    """PyTorch's twin of a trainer: the same weights at the start, the same draws.

    Parameters
    ----------
    trainer : Trainer
        Its network, data and draws; it trains nothing itself.
    device : str
    """

    def __init__(self, trainer: Trainer, device: str) -> None:
        c = trainer.config
        self.trainer, self.config, self.device = trainer, c, torch.device(device)
        self.way = Way("eager", "channels_last", True, tf32=True)  # PyTorch's default
        model = torch_twins.network(trainer.model.architecture)
        ours = trainer.model.parameters().values()
        with torch.no_grad():
            for theirs, array in zip(model.parameters(), ours, strict=True):
                theirs.copy_(torch.from_numpy(np.asarray(array)).reshape(theirs.shape))
        self.model = model.to(self.device).to(memory_format=self.way.format)
        self.optimiser = torch.optim.SGD(
            self.model.parameters(), lr=c.lr, momentum=c.momentum, nesterov=True,
            weight_decay=c.weight_decay, fused=device != "cpu",
        )  # fmt: skip
        self.sets = {
            name: self._upload(s)
            for name, s in (("train", trainer.train_set), ("test", trainer.test_set))
        }

    def _upload(self, pictures: Dataset) -> tuple[Any, ...]:
        images = torch.from_numpy(pictures.images).to(self.device)
        labels = torch.from_numpy(pictures.labels).to(self.device)
        lines = (torch.tensor(v).view(1, 3, 1, 1) for v in (pictures.mean, pictures.std))
        return images, labels, *(line.to(self.device) for line in lines)

    def _normalised(self, name: str, rows: Any) -> tuple[Any, Any]:
        images, labels, mean, std = self.sets[name]
        x = (images[rows].float() - mean) / std
        return x.contiguous(memory_format=self.way.format), labels[rows]

    def epoch(self, epoch: int) -> dict[str, float]:
        """Go through the training set once."""
        c, trainer = self.config, self.trainer
        draws = trainer.draw(epoch)
        assert draws.windows is not None
        order, *windows = (
            torch.from_numpy(np.asarray(v)).to(self.device) for v in (draws.order, *draws.windows)
        )
        steps = trainer.steps_per_epoch
        loss_sum = torch.zeros((), device=self.device)
        hits = torch.zeros((), device=self.device, dtype=torch.int64)
        self.model.train()
        for step in range(steps):
            chosen = slice(step * c.batch_size, (step + 1) * c.batch_size)
            done = (epoch - 1) * steps + step
            lr = learning_rate(c.schedule, c.lr, done, c.epochs * steps)
            self.optimiser.param_groups[0]["lr"] = lr
            x, labels = self._normalised("train", order[chosen])
            x = augmented(x, *(w[chosen] for w in windows))
            loss, right = self._learn(x.contiguous(memory_format=self.way.format), labels)
            loss_sum += loss * len(labels)
            hits += right
        count = len(order)
        return {"train_loss": float(loss_sum) / count, "train_accuracy": int(hits) / count}

    def _learn(self, x: Any, labels: Any) -> tuple[Any, Any]:
        with self.way.on():
            self.optimiser.zero_grad(set_to_none=True)
            logits = self.model(x)
            loss = functional.cross_entropy(logits, labels)
            loss.backward()
            self.optimiser.step()
        return loss.detach(), (logits.detach().argmax(1) == labels).sum()

    def evaluate(self, batch: int = 500) -> dict[str, float]:
        """Return loss and accuracy on the test pictures."""
        self.model.eval()
        count, loss, hits = len(self.trainer.test_set), 0.0, 0
        with torch.no_grad(), self.way.on():
            for start in range(0, count, batch):
                x, labels = self._normalised("test", slice(start, start + batch))
                logits = self.model(x)
                loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
                hits += int((logits.argmax(1) == labels).sum())
        return {"test_loss": loss / count, "test_accuracy": hits / count}


def augmented(x: Any, top: Any, left: Any, mirror: Any) -> Any:
    """Pad, cut each picture's window, mirror some: as `PictureOperators.pad_crop_mirror`."""
    N, _, H, W = x.shape
    padded = functional.pad(x, (PADDING,) * 4).permute(0, 2, 3, 1)  # (N, H, W, C)
    rows = top[:, None] + torch.arange(H, device=x.device)
    across = torch.arange(W, device=x.device).expand(N, W)
    columns = left[:, None] + torch.where(mirror[:, None], W - 1 - across, across)
    numbers = torch.arange(N, device=x.device)[:, None, None]
    return padded[numbers, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
