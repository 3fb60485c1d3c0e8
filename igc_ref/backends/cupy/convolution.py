"""The IGC block and group convolution of the cupy backend.

A convolution whose outputs are too many for a CUDA block has them shared out; a block that fits no
tile is computed as two convolutions.
"""

from __future__ import annotations

import math
from functools import reduce
from itertools import chain
from typing import Any, NamedTuple

from igc_ref.backends.cupy.geometry import Geometry, of_block, of_convolution
from igc_ref.backends.cupy.kernels import block_macros, f32, i32
from igc_ref.backends.cupy.packing import Packing
from igc_ref.backends.cupy.tiles import Tile, choose
from igc_ref.backends.operators.convolution import ConvSaved
from igc_ref.backends.operators.lazy import Batch, Derivative, Moments, Rule, Sums
from igc_ref.backends.operators.library import Array, Saved
from igc_ref.spec.block import IGCSpec


class BlockSaved(NamedTuple):
    """What the backward pass of the kernels needs; a convolution has no secondary weight."""

    x: Batch
    primary: Array
    secondary: Array | None
    geometry: Geometry
    shape: tuple[int, int, int, int]


class StepsSaved(NamedTuple):
    """What the backward pass of a block needs that was computed in steps."""

    primary: Saved
    mixed: Saved


class Convolutions(Packing):
    """The two operators that take nearly all of the time."""

    def conv2d(
        self, x: Batch, weight: Array, groups: int = 1, stride: int = 1
    ) -> tuple[Batch, Saved]:
        """Convolve in groups; see `GenericBackend.conv2d`."""
        groups, stride = self.check_conv2d(x, weight, groups, stride)
        shape = self._whole(x), len(weight), groups, weight.shape[2:], stride
        g = of_convolution(*shape, split=True)
        g = self._fitting(g, backward=False, dx=False)
        results = self._forward(x, weight, None, g)
        return super().conv2d(x, weight, groups, stride) if results is None else results

    def conv2d_backward(
        self, dy: Batch, saved: Saved, input_gradient: bool = True
    ) -> tuple[Batch | None, Array]:
        """Return the gradients of `conv2d` with respect to x and weight."""
        if isinstance(saved, BlockSaved):
            x, weight, g, split = saved.x, saved.primary, saved.geometry, not input_gradient
            g = of_convolution(self._whole(x), len(weight), g.groups, g.K, g.S, split)
            g = self._fitting(g, backward=True, dx=input_gradient)
            gradients = self._backward(dy, saved, g, dx=input_gradient)
            if gradients is not None:
                return (gradients[0] if input_gradient else None), gradients[1]
            saved = ConvSaved(self.to_array(x), weight, g.groups, g.S)
        return super().conv2d_backward(dy, saved, input_gradient)

    def igc(self, x: Batch, primary: Array, secondary: Array, spec: IGCSpec) -> tuple[Batch, Saved]:
        """Compute x' = P W_d Pᵀ W_p x; see `GenericBackend.igc`."""
        self.check_igc(x, primary, secondary, spec)
        g = of_block(spec, *self._whole(x)[1:])
        results = None if g is None else self._forward(x, primary, secondary, g)
        if results is not None:
            return results
        in_steps = self._igc_in_steps if self._fast(x) else super().igc
        return in_steps(x, primary, secondary, spec)

    def _igc_in_steps(
        self, x: Batch, primary: Array, secondary: Array, spec: IGCSpec
    ) -> tuple[Batch, Saved]:
        """Compute a block that fits no tile as two convolutions with a permutation after each."""
        y, in_primary = self.conv2d(x, primary, spec.L, spec.stride)
        y, mixed = self.mix(y, secondary, spec)
        return y, StepsSaved(in_primary, mixed)

    def igc_backward(self, d: Batch, saved: Saved) -> tuple[Batch, Array, Array]:
        """Return the gradients of `igc` with respect to x, primary and secondary."""
        if isinstance(saved, BlockSaved):
            assert saved.secondary is not None
            gradients = self._backward(d, saved, saved.geometry, dx=True)
            if gradients is not None:
                return gradients
            g, x = saved.geometry, saved.x
            spec = IGCSpec(x.shape[0], saved.shape[0], g.slabs, g.M, kernel_size=g.K, stride=g.S)
            _, saved = self._igc_in_steps(x, saved.primary, saved.secondary, spec)
        if not isinstance(saved, StepsSaved):
            return super().igc_backward(d, saved)
        dy, dsecondary = self.mix_backward(d, saved.mixed)
        dx, dprimary = self.conv2d_backward(dy, saved.primary)
        assert dx is not None
        return dx, dprimary, dsecondary

    def _whole(self, x: Batch) -> tuple[int, int, int, int]:
        """Return the shape of the batch of which x is this process's part: it decides the tile."""
        C, N, H, W = x.shape
        return C, self.in_all(N), H, W

    def _tile(self, g: Geometry, backward: bool, dx: bool) -> Tile | None:
        return choose(g, backward, dx, 2 if self.half else 4, self.device.shared_bytes)

    def _fitting(self, g: Geometry, backward: bool, dx: bool) -> Geometry:
        """Return a convolution in the fewest shares that fit a tile, if it does not as it is."""
        each = chain([g], g.shared_out())
        return next((shared for shared in each if self._tile(shared, backward, dx)), g)

    def _forward(
        self, x: Batch, primary: Array, secondary: Array | None, g: Geometry
    ) -> tuple[Batch, BlockSaved] | None:
        """Run block_forward.cu, or return None if it does not fit."""
        N = x.shape[1]
        shape = len(primary), N, *g.outputs
        fits = self._fast(x) and self._fits(shape)  # an even kernel has more outputs than inputs
        tile = self._tile(g, backward=False, dx=False) if fits else None
        if tile is None:
            return None
        x, rule = self._operand(x)
        blocks, positions = math.ceil(N / tile.NP), shape[2] * shape[3]
        y = self._empty(shape)
        y.moments = Moments(self._numbers(blocks, shape[0], 3), tile.NP * positions)
        self._launch_block("block_forward", g, tile, (
            y.data, y.moments.values, x.data, rule.table, f32(rule.floor),
            self._weights(primary, secondary, g, tile), i32(N),
        ), rule=x.pending is not None)  # fmt: skip
        return y, BlockSaved(x, primary, secondary, g, shape)

    def _operand(self, x: Batch) -> tuple[Batch, Rule]:
        """Return a batch and its rule; if nothing is pending, the kernel reads no rule."""
        if isinstance(x.pending, Rule):
            return x, x.pending
        return self._plain(x), Rule(self._one, 0)

    def _backward(
        self, d: Batch, saved: BlockSaved, g: Geometry, dx: bool
    ) -> tuple[Batch, Array, Array] | None:
        """Run block_backward.cu and sum its shares, or return None if it does not fit."""
        self.check_batch("the gradient", d, saved.x.dtype, saved.shape)
        tile = self._tile(g, backward=True, dx=dx)
        if tile is None:
            return None
        derivative = d.pending
        if not isinstance(derivative, Derivative):
            d = self._plain(d)
            derivative = Derivative(self._one, 0, d.data)
        x, rule = self._operand(saved.x)
        parts = g.share if dx else 1  # of dx: each share of the outputs finds one
        sums_wanted = dx and x.pending is not None and parts == 1
        sizes = saved.primary.size, 0 if saved.secondary is None else saved.secondary.size
        C, N, H, W = x.shape
        blocks = math.ceil(N / tile.NP)
        shares = self._numbers(blocks, sum(sizes))
        sums = self._numbers(blocks, x.shape[0], 2) if sums_wanted else self._one
        result = self._empty((parts * C, N, H, W)) if dx else d
        self._launch_block("block_backward", g, tile, (
            result.data, shares, sums, d.data, derivative.x, derivative.table,
            f32(derivative.floor), x.data, rule.table, f32(rule.floor),
            self._weights(saved.primary, saved.secondary, g, tile), i32(N),
        ), rule=x.pending is not None, derive=d.pending is not None, sums=sums_wanted,
           dx=dx)  # fmt: skip
        if sums_wanted:
            result.sums = Sums(rule.table, sums, tile.NP)
        if parts > 1:
            each = (Batch(result.data[part * C : part * C + C]) for part in range(parts))
            result = reduce(self.add, each)
        total = self._total(shares, N, tile.NP)
        dprimary, dsecondary = total[: sizes[0]], total[sizes[0] :]
        if saved.secondary is not None:
            dsecondary = dsecondary.reshape(saved.secondary.shape)
        return result, dprimary.reshape(saved.primary.shape), dsecondary

    def _launch_block(
        self, kernel: str, g: Geometry, tile: Tile, arguments: tuple[Any, ...], **flags: bool
    ) -> None:
        flags = {"rule": False, "derive": False, "sums": False, "dx": False} | flags
        macros = block_macros(g, tile, half=self.half, **flags)
        grid = math.ceil(arguments[-1] / tile.NP), g.groups * g.share
        self.kernels.launch(
            f"{kernel}.cu", kernel, grid, tile.threads, arguments, macros, tile.shared_bytes
        )
