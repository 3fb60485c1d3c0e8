"""The least times that memory and arithmetic leave: the arithmetic of the floors table.

A block of N pictures reads its input once and writes its output once; a fused backward pass reads
x and the gradient and writes dx. A *training* block has batch norm and ReLU as well, fused: the
forward pass moves what the block alone moves, the backward pass reads the block's own output too
(batch norm derives at it), so 3 inputs + 3 outputs in all, "6 T". Operations are 2 x multiply-adds:

    forward           primary + secondary
    backward-data     the same
    backward-weights  twice the same: y and the gradient of y again, and both weight gradients
    fused backward    twice the same, and the primary weights once more for dx
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from benchmarks.cpu import block_cases
from igc_ref.bench import BlockCase
from igc_ref.networks.architecture import INPUT_SHAPE, Architecture
from igc_ref.networks.model import build

BANDWIDTH, FLOPS = 4.3e12, 67e12  # of an H200: bytes/s of a copy, read and written; float32 FMA
FLOAT = 4


@dataclass(frozen=True)
class Floors:
    """Microseconds. ``memory`` and ``fma`` are the forward pass's; the others are the greater."""

    gigaflops: float
    memory: float
    fma: float
    weights: float
    fused: float
    training: float

    @property
    def forward(self) -> float:
        """The greater of memory and FMA."""
        return max(self.memory, self.fma)

    @property
    def both(self) -> float:
        """Forward pass and fused backward pass."""
        return self.forward + self.fused


@dataclass(frozen=True)
class Work:
    """One layer on a batch: numbers of input and output, multiply-adds of both weights."""

    inputs: int
    outputs: int
    primary: int
    secondary: int
    has_dx: bool = True

    def memory(self, forward: bool = True, backward: bool = True) -> int:
        """Return the bytes of a training layer with batch norm and ReLU."""
        numbers = (self.inputs + self.outputs) * forward
        numbers += (self.inputs * (1 + self.has_dx) + 2 * self.outputs) * backward
        return numbers * FLOAT

    def operations(self, forward: bool = True, backward: bool = True) -> int:
        """Return the operations; a convolution (no secondary weight) recomputes nothing."""
        both = self.primary + self.secondary
        back = 2 * both + self.primary if self.secondary else (1 + self.has_dx) * both
        return 2 * (both * forward + back * backward)


def block_work(case: BlockCase) -> Work:
    """Return the work of a block."""
    s, N = case.spec, case.batch_size
    positions = N * math.prod(s.output_size(case.size, case.size))
    primary, secondary = (math.prod(shape) for shape in (s.primary_shape, s.secondary_shape))
    inputs, outputs = N * s.in_channels * case.size**2, positions * s.out_channels
    return Work(inputs, outputs, positions * primary, positions * secondary)


def block_floors(case: BlockCase, bandwidth: float = BANDWIDTH, flops: float = FLOPS) -> Floors:
    """Return the floors of a block."""
    w = block_work(case)
    moved, fma = FLOAT * (w.inputs + w.outputs) / bandwidth, w.operations(True, False) / flops
    fused_moved = FLOAT * (2 * w.inputs + w.outputs) / bandwidth
    training = max(w.memory(backward=False) / bandwidth, fma)
    training += max(w.memory(forward=False) / bandwidth, w.operations(False, True) / flops)
    return Floors(
        gigaflops=w.operations(True, False) / 1e9,
        memory=moved * 1e6,
        fma=fma * 1e6,
        weights=max(moved, 2 * fma) * 1e6,
        fused=max(fused_moved, w.operations(False, True) / flops) * 1e6,
        training=training * 1e6,
    )


def step_work(a: Architecture, batch_size: int) -> list[Work]:
    """Return the work of every convolution and block of a training step."""
    model, found = build(a, "numpy"), []
    parameters = model.parameters()
    for row in model.rows():
        weights = [parameters.get(f"{row.name}.{key}") for key in ("weight", "primary")]
        weight = next((w for w in weights if w is not None and w.ndim == 4), None)
        if weight is None:
            continue
        stem = weight.shape[1] == INPUT_SHAPE[0] and row.name.startswith("stem")
        groups = 1 if stem or not a.is_igc else (a.L or 1)
        secondary = parameters.get(f"{row.name}.secondary")
        size = row.output[1] * (2 if "/2" in row.kind else 1)
        positions = batch_size * math.prod(row.output[1:])
        found.append(
            Work(
                inputs=batch_size * weight.shape[1] * groups * size**2,
                outputs=positions * len(weight),
                primary=positions * weight.size,
                secondary=0 if secondary is None else positions * secondary.size,
                has_dx=not stem,
            )
        )
    return found


def step_floors(
    a: Architecture, batch_size: int, bandwidth: float = BANDWIDTH, flops: float = FLOPS
) -> dict[str, float]:
    """Return milliseconds of a step: by memory, by FMA, and the sum of the greater a pass."""
    work, passes = step_work(a, batch_size), ((True, False), (False, True))
    greater = (
        max(w.memory(*p) / bandwidth, w.operations(*p) / flops) for w in work for p in passes
    )
    return {
        "memory": sum(w.memory() for w in work) / bandwidth * 1e3,
        "fma": sum(w.operations() for w in work) / flops * 1e3,
        "greater": sum(greater) * 1e3,
    }


def cases(batch_size: int = 256, tiny: bool = False) -> list[BlockCase]:
    """Return every block shape of plain_igc L24M2 and L4M8, or two small ones."""
    found = [c for c in block_cases() if isinstance(c, BlockCase)]
    if tiny:
        from igc_ref.spec.block import IGCSpec

        found = [BlockCase(IGCSpec.square(2, 2), 6), BlockCase(IGCSpec(4, 8, 2, 4, stride=2), 6)]
    return [replace(case, batch_size=batch_size) for case in found]
