"""Kernels: a source and its macros, compiled once, launched by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from igc_ref.backends.cupy.device import Device
from igc_ref.backends.cupy.geometry import Geometry
from igc_ref.backends.cupy.tiles import Tile

FOLDER = Path(__file__).parent
STATIC_SHARED_BYTES = 48 * 1024  # more must be asked for
Macros = Mapping[str, int]
i32, i64, f32 = np.int32, np.int64, np.float32  # a kernel's int, long long and float


@lru_cache
def source(name: str) -> str:
    """Return a source with its includes put in place."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return re.sub(r'^#include "(.+)"$', lambda m: source(m[1]), text, flags=re.MULTILINE)


def options(name: str, macros: Macros) -> tuple[str, ...]:
    """Return the compiler's options for a source, on every card the same."""
    exact = ("--fmad=false",) if name == "augment.cu" else ()
    return ("-std=c++17", *exact, *(f"-DIGC_{key}={value}" for key, value in macros.items()))


def block_macros(
    g: Geometry, tile: Tile, *, half: bool, rule: bool, derive: bool, sums: bool, dx: bool
) -> dict[str, int]:
    """Return the macros that specialise block_forward.cu and block_backward.cu."""
    HO, WO = g.outputs
    return {
        "SECONDARY": int(g.secondary), "SLABS": g.slabs, "I": g.I, "O": g.O, "M": g.M, "A": g.A,
        "KH": g.KH, "KW": g.KW, "S": g.S, "H": g.H, "W": g.W, "HO": HO, "WO": WO,
        "SHARE": g.share,
        "PX": tile.PX, "MS": tile.MS, "NP": tile.NP, "PXD": tile.PXD, "IS": tile.IS,
        "STAGES": tile.stages, "KEPT": tile.kept,
        "HALF": int(half), "RULE": int(rule),
        "DERIVE": int(derive), "SUMS": int(sums), "DX": int(dx),
    }  # fmt: skip


class Kernels:
    """The compiled kernels of one device."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._functions: dict[tuple[Any, ...], Any] = {}

    def launch(
        self,
        file: str,
        name: str,
        grid: tuple[int, ...],
        threads: int,
        arguments: tuple[Any, ...],
        macros: Macros,
        shared_bytes: int = 0,
    ) -> None:
        """Queue the kernel `name` of a source; compile it at its first launch.

        Arguments are arrays of the device and NumPy scalars, macros come without their prefix
        ``IGC_``; `threads` and `shared_bytes` are those of one CUDA block.
        """
        kernel = self.compiled(file, name, macros, shared_bytes)
        kernel(grid, (threads,), arguments, shared_mem=shared_bytes)

    def compiled(self, file: str, name: str, macros: Macros, shared_bytes: int = 0) -> Any:
        """Return a kernel, compiled at its first use; see `launch`."""
        key = (file, name, *macros.items())
        if key not in self._functions:
            module = self.device.module(source(file), options(file, macros))
            function = module.get_function(name)
            if shared_bytes > STATIC_SHARED_BYTES:
                function.max_dynamic_shared_size_bytes = shared_bytes
            self._functions[key] = function
        return self._functions[key]
