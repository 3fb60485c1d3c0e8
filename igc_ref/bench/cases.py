"""What is timed, one block or a whole training step, and what work and traffic it needs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import rows
from igc_ref.spec.block import IGCSpec

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """Work of one layer: multiply-adds of the forward pass, numbers of its input and its output."""

    multiply_adds: int
    inputs: int
    outputs: int


@dataclass(frozen=True)
class BlockCase:
    """Forward and backward pass of one IGC block, all gradients, in float32.

    Parameters
    ----------
    spec : IGCSpec
    size : int
        Height and width of the pictures, in pixels.
    batch_size : int
    """

    spec: IGCSpec
    size: int
    batch_size: int = 64

    @property
    def name(self) -> str:
        """Name the block in a table."""
        s = self.spec
        stride = f" /{s.stride}" if s.stride > 1 else ""
        return (
            f"L{s.L}M{s.M} {s.in_channels}-{s.out_channels} "
            f"{s.kernel_size}x{s.kernel_size}{stride}, {self.size}x{self.size}"
        )

    def costs(self) -> Iterator[Cost]:
        """Yield the cost of every layer for the batch."""
        pixels, N = self.size**2, self.batch_size
        positions = math.prod(self.spec.output_size(self.size, self.size))
        yield Cost(
            N * self.spec.multiply_adds(self.size, self.size),
            N * self.spec.in_channels * pixels,
            N * self.spec.out_channels * positions,
        )


@dataclass(frozen=True)
class StepCase:
    """A training step on pictures of the network's own size, float32.

    Forward, loss, backward, optimiser.
    """

    architecture: Architecture
    batch_size: int = 64

    @property
    def name(self) -> str:
        """Name the network in a table."""
        return f"step of {self.architecture}"

    def costs(self) -> Iterator[Cost]:
        """Yield the cost of every convolution and block for the batch."""
        N, inputs = self.batch_size, math.prod(self.architecture.input_shape)
        for row in rows(self.architecture):
            outputs = math.prod(row.output)
            if row.multiply_adds:
                yield Cost(N * row.multiply_adds, N * inputs, N * outputs)
            inputs = outputs


Case = BlockCase | StepCase


def multiply_adds(case: Case) -> int:
    """Return the multiply-adds of a forward and a backward pass: three times the forward's."""
    return 3 * sum(cost.multiply_adds for cost in case.costs())


def floor_seconds(case: Case, flops: float, bandwidth: float) -> float:
    """Return the time that the roofline leaves: per layer, the slower of its work and its traffic.

    Traffic: forward reads x and writes x'; backward reads x, x' and its gradient, and writes dx.
    What happens between layers is taken to be free (fused).
    """
    seconds = 0.0
    for cost in case.costs():
        forward = cost.inputs + cost.outputs
        backward = 2 * cost.inputs + 2 * cost.outputs
        for work, numbers in ((2, forward), (4, backward)):
            by_work = work * cost.multiply_adds / flops
            seconds += max(by_work, numbers * FLOAT_BYTES / bandwidth)
    return seconds


def to_dict(case: Case) -> dict[str, Any]:
    """Return a case as plain numbers, for JSON."""
    return asdict(case)


def from_dict(values: dict[str, Any]) -> Case:
    """Return the case of `to_dict`."""
    if "spec" in values:
        return BlockCase(IGCSpec(**values["spec"]), values["size"], values["batch_size"])
    return StepCase(Architecture(**values["architecture"]), values["batch_size"])
