"""What is timed, a block or a whole network, and the work and traffic that it needs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from igc_ref.bench.roofline import Pass, Roofline
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.layer import Layer, Residual, Shape
from igc_ref.networks.model import build
from igc_ref.spec.block import IGCSpec


@dataclass(frozen=True)
class Work:
    """The work of one layer on a batch, in the forward pass."""

    inputs: int  # numbers that it reads
    outputs: int  # and writes
    primary: int  # multiply-adds,
    secondary: int = 0  # also of the secondary convolution if the layer is a block

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the forward pass."""
        return self.primary + self.secondary

    def forward(self) -> Pass:
        """Return the forward pass: it reads x and writes x'."""
        return Pass(self.inputs + self.outputs, self.multiply_adds)

    def backward(self, *, dx: bool = True, norm: bool = True, recompute: bool = False) -> Pass:
        """Return the backward pass: it reads x, x' and the gradient of x', and writes dx.

        Parameters
        ----------
        dx : bool
            Whether the gradient of the input is wanted; a network's first layer does without.
        norm : bool
            Whether x' is read: batch norm needs it, the block itself does not.
        recompute : bool
            Whether a block computes y, the output of its primary convolution, once more.
        """
        again = self.primary if recompute and self.secondary else 0
        numbers = (1 + dx) * self.inputs + (1 + norm) * self.outputs
        return Pass(numbers, (1 + dx) * self.multiply_adds + again)


@dataclass(frozen=True)
class BlockCase:
    """Forward and backward pass of one IGC block, all gradients, in float32.

    Parameters
    ----------
    spec : IGCSpec
    size : int
        Height and width of the images, in pixels.
    batch_size : int
    """

    spec: IGCSpec
    size: int
    batch_size: int = 64
    train: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Name the block in a table."""
        s = self.spec
        stride, kernel = f" /{s.stride}" if s.stride > 1 else "", "x".join(map(str, s.kernel))
        shape = f"L{s.L}M{s.M} {s.in_channels}-{s.out_channels} {kernel}{stride}"
        return f"{shape}, {self.size}x{self.size}"

    def weights(self) -> tuple[Any, Any]:
        """Draw the primary and the secondary weights."""
        rng, s = np.random.default_rng(1), self.spec
        primary, secondary = rng.normal(size=s.primary_shape), rng.normal(size=s.secondary_shape)
        return primary.astype("float32"), secondary.astype("float32")

    def works(self) -> list[Work]:
        """Return the work of the block for the batch, in a list."""
        s, N = self.spec, self.batch_size
        positions = N * math.prod(s.output_size(self.size, self.size))
        inputs, outputs = N * s.in_channels * self.size**2, positions * s.out_channels
        primary, secondary = (math.prod(shape) for shape in (s.primary_shape, s.secondary_shape))
        return [Work(inputs, outputs, positions * primary, positions * secondary)]


@dataclass(frozen=True)
class StepCase:
    """A training step on images of the network's own size, float32.

    Forward, loss, backward, optimiser. Without `train`, only the forward pass in evaluation mode,
    from public images to logits.
    """

    architecture: Architecture
    batch_size: int = 64
    train: bool = True

    @property
    def name(self) -> str:
        """Name the network in a table."""
        return f"{'step' if self.train else 'forward'} of {self.architecture}"

    def works(self) -> list[Work]:
        """Return the work of every convolution, block and linear layer for the batch."""
        a, N, found = self.architecture, self.batch_size, []
        for layer, shape in _leaves(build(a, "numpy").network, a.input_shape):
            if both := layer.multiply_adds(shape):
                out, weight = layer.output_shape(shape), layer.parameters.get("secondary")
                secondary = 0 if weight is None else weight.size * math.prod(out[1:])
                numbers = math.prod(shape), math.prod(out), both - secondary, secondary
                found.append(Work(*(N * number for number in numbers)))
        return found


def _leaves(layer: Layer, shape: Shape) -> Iterator[tuple[Layer, Shape]]:
    """Yield every layer without parts, and the shape of one image that it gets."""
    if not layer.children:
        yield layer, shape
    for child in layer.children.values():
        yield from _leaves(child, shape)
        if not isinstance(layer, Residual):  # its two branches get the same input
            shape = child.output_shape(shape)


Case = BlockCase | StepCase


def multiply_adds(case: Case) -> int:
    """Return the multiply-adds of the forward pass; with a backward pass, three times as many."""
    return (3 if case.train else 1) * sum(work.multiply_adds for work in case.works())


def floor_seconds(case: Case, roofline: Roofline) -> float:
    """Return the time that the roofline leaves: per layer and pass, the slower of work and traffic.

    What happens between layers is taken to be free (fused).
    """
    passes = ((w.forward(), w.backward()) if case.train else (w.forward(),) for w in case.works())
    return sum(roofline.seconds(*each) for each in passes)


def from_dict(values: dict[str, Any]) -> Case:
    """Return the case whose `dataclasses.asdict` this is."""
    if "spec" in values:
        return BlockCase(IGCSpec(**values["spec"]), values["size"], values["batch_size"])
    return StepCase(**{**values, "architecture": Architecture(**values["architecture"])})
