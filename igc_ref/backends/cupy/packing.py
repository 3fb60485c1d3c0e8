"""Weights in the order in which the block kernels read them (pack.cu)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from igc_ref.backends.cupy.base import THREADS, CudaBase
from igc_ref.backends.cupy.device import Device
from igc_ref.backends.cupy.geometry import Geometry
from igc_ref.backends.cupy.tiles import Tile, slot
from igc_ref.backends.operators.library import Array

Row = tuple[int, ...]  # a row of pack.cu's table without the address of the result


class Packing(CudaBase):
    """Packs the weights of a block where they are used, or those of a training step ahead."""

    def __init__(self, device: Device, storage: str = "float32") -> None:
        super().__init__(device, storage)
        self._known: dict[Row, list[Array]] | None = None  # what to pack ahead, in a training step
        self._packed: dict[Row, Array] = {}

    @contextmanager
    def packed_ahead(self, known: dict[Row, list[Array]]) -> Iterator[None]:
        """Return the context of a training step: its weights are packed in one launch.

        `known` has the weights that earlier steps needed, by row: they are packed now. Others are
        packed where they are used, and added to `known`. Within the context only the optimiser's
        step may write a weight: it drops what is packed, so that later uses pack again.
        """
        self._known, self._packed = known, self._pack(known)
        try:
            yield
        finally:
            self._known, self._packed = None, {}

    def _weights(self, primary: Array, secondary: Array | None, g: Geometry, tile: Tile) -> Array:
        """Return the weights of a block as the kernels of a tile read them."""
        given = [primary] if secondary is None else [primary, secondary]
        weights = [self.xp.ascontiguousarray(weight) for weight in given]
        addresses = [self.device.address(weight) for weight in weights]
        shape = g.slabs, g.I, g.O, g.M, g.A, g.KH, g.KW, tile.MS, slot(g, tile)
        row = (*addresses, *[0] * (2 - len(weights)), g.groups * g.share, *shape)
        if row in self._packed:
            return self._packed[row]
        if self._known is not None and all(weight.flags.c_contiguous for weight in given):
            self._known[row] = weights
        return self._pack({row: weights})[row]

    def _pack(self, rows: Mapping[Row, list[Array]]) -> dict[Row, Array]:
        """Pack weights in one launch."""
        packed = {row: self._numbers(row[2], row[3], row[-1]) for row in rows}
        if packed:
            table = self._table([(self.device.address(packed[row]), *row) for row in rows])
            grid = math.ceil(max(array.size for array in packed.values()) / THREADS), len(packed)
            self.launch("pack.cu", "pack", grid, table)
        return packed
