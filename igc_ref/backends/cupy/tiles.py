"""How a block of images is shared out among the threads of a GPU: a function of the shape alone.

The same shape gives the same tile, and so the same order of additions, the same bits, on every card
whose CUDA blocks can have that much shared memory. Tiles are chosen by a count of what a slab costs
(block.cuh): instructions, of which an SM issues those of four warps in a cycle, and reads of shared
memory, of which it serves one warp's. Each constant below is a limit of the hardware, fitted to
what the compiler (NVRTC, sm_90) reports, fitted to a sweep, or a guess. That sweep timed 232 tiles
of the blocks of plain_igc L24M2 and L4M8, 256 images, on an H200, with the kernels as they were
first written. With today's, the model takes a tile within 5 % of the fastest of ten in 14 of 20
shapes and passes; where a card found one more than 2 % faster, tiles.json has it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from igc_ref.backends.cupy.geometry import Geometry, divisors

WARP = 32
REGISTERS = 65_536  # of an SM: hardware
REGISTERS_A_THREAD = 254  # hardware: 255; one is left, a guess
SMS = 132  # of an H100 or H200: hardware; another number changes speed, not results
SHARED_BYTES = 232_448  # of a CUDA block, on sm_90: hardware
SM_SHARED_BYTES, RESERVED = 233_472, 1024  # of an SM; for each CUDA block beside its own: hardware
TABLE = Path(__file__).with_name("tiles.json")  # tiles that a card found better than the model's
Shares = tuple[int, int, int, int, int]  # PX, MS, NP, PXD, IS of a tile


@dataclass(frozen=True)
class Tile:
    """What a thread and a CUDA block take: block.cuh has an example; see block_backward.cu, too."""

    PX: int  # positions below each other
    MS: int  # and secondary partitions, of a thread
    NP: int  # images of a CUDA block
    PXD: int  # positions
    IS: int  # and inputs of a thread when it computes dx; backward only
    backward: bool  # which pass
    dx: bool  # whether the backward pass finds dx
    itemsize: int  # bytes of a stored number of an image
    stages: int = 0  # slabs in shared memory at a time: one in use, the others on their way
    kept: int = 0  # slabs whose sums of weight gradients have room at a time; backward only
    threads: int = 0  # of a CUDA block
    registers: int = 0  # of a thread, estimated
    shared_bytes: int = 0  # of a CUDA block

    @property
    def shares(self) -> Shares:
        """What tells it from the other tiles of its shape and pass."""
        return self.PX, self.MS, self.NP, self.PXD, self.IS


@lru_cache(maxsize=1024)
def choose(
    g: Geometry, backward: bool, dx: bool = True, itemsize: int = 4, shared: int = SHARED_BYTES
) -> Tile | None:
    """Return the table's tile if it fits, else the cheapest; None if no tile fits.

    What is done without a tile, convolution.py says. `shared` is the shared memory that one CUDA
    block can have, in bytes; for the others see `Tile`.
    """
    fitting, wanted = list(candidates(g, backward, dx, itemsize, shared)), None
    entry = table().get(table_key(g, backward, dx, itemsize))
    if entry and entry["N"] <= g.N:  # in a smaller batch, fewer images a CUDA block may be better
        wanted = tuple(entry["tile"])
    measured = (tile for tile in fitting if tile.shares == wanted)
    return next(measured, min(fitting, key=lambda tile: cost(g, tile), default=None))


@cache
def table() -> dict[str, dict[str, Any]]:
    """Read the table of measured tiles."""
    return json.loads(TABLE.read_text(encoding="utf-8"))["tiles"]  # type: ignore[no-any-return]


def table_key(g: Geometry, backward: bool, dx: bool, itemsize: int) -> str:
    """Name what an entry of the table is for: a shape, apart from its batch, pass and storage."""
    kernel = "x".join(map(str, dict.fromkeys((g.KH, g.KW))))  # one number for a square one
    numbers = asdict(g) | {"secondary": int(g.secondary), "K": kernel}
    shape = " ".join(f"{name}={value}" for name, value in numbers.items() if name != "N")
    work = ("backward" if dx else "backward without dx") if backward else "forward"
    return f"{work} {shape} bytes={itemsize}"


def candidates(
    g: Geometry, backward: bool, dx: bool, itemsize: int = 4, shared: int = SHARED_BYTES
) -> Iterator[Tile]:
    """Yield every tile that fits."""
    for shares in _shares(g, backward and dx):
        tile = Tile(*shares, backward, backward and dx, itemsize)
        threads = g.M // tile.MS * _places(g, tile, tile.PX)
        tile = replace(tile, threads=threads, registers=_registers(g, tile))
        # 1024 threads: hardware; 64: a guess.
        if not 64 <= tile.threads <= 1024 or tile.registers > REGISTERS_A_THREAD:
            continue
        if tile.threads * _up(tile.registers, 8) > REGISTERS:
            continue
        # Keep the gains of all slabs if that takes no room from another block of the same SM, where
        # the compiler mostly uses all registers; else of one.
        resident = max(1, REGISTERS // (threads * _up(REGISTERS_A_THREAD, 8)))
        room = min(shared, SM_SHARED_BYTES // resident - RESERVED)
        back, ahead = ((2, g.slabs, room), (2, 1, shared)), ((3, 0, shared), (2, 0, shared))
        for stages, kept, limit in back if backward else ahead:  # a guess
            staged = replace(tile, stages=stages, kept=kept)
            staged = replace(staged, shared_bytes=shared_bytes(g, staged))
            if staged.shared_bytes <= limit:
                yield staged
                break


def _shares(g: Geometry, dx: bool) -> Iterator[Shares]:
    """Yield PX, MS, NP, PXD, IS that are considered: all bounds here are guesses, but for one."""
    for PX, MS, NP in product((2, 4, 8), divisors(g.M), (1, 2, 4, 8)):
        if g.A * MS * PX > 200 or g.R * MS * PX > 128:
            continue
        if not dx:
            yield PX, MS, NP, PX, 1
            continue
        for IS, PXD in product(divisors(g.I), (1, 2, 4, 8)):
            # Fitted to the sweep: with 32 sums, some kernels take 1.4 times as long.
            if IS * PXD * g.S**2 <= 16:
                yield PX, MS, NP, PXD, IS


def _places(g: Geometry, t: Tile, positions: int) -> int:
    """Return how many threads share a part's positions of a CUDA block, in whole warps."""
    HO, WO = g.outputs
    return _up(math.ceil(HO / positions) * t.NP * WO, WARP)


def _column(g: Geometry, t: Tile) -> int:
    """Return how many pixels below each other a thread's positions see."""
    return (t.PX - 1) * g.S + g.KH


def _registers(g: Geometry, t: Tile) -> int:
    """Estimate the registers of a thread: its outputs, and what it needs at a time beside them.

    The constants are fitted so that no kernel spills, which tests/backends/cuda/test_nvrtc.py asks
    the compiler. It takes more where it may: see `compiled_registers`.
    """
    OS, outputs = t.MS * g.R, g.A * t.MS * t.PX
    own = OS * t.PX if g.secondary else 0  # y of a slab; a convolution adds to its outputs at once
    if not t.backward:
        return 18 + outputs + own + _column(g, t)
    large = 3 * max(0, g.I - 8) * (g.S - 1)  # unrolled over many inputs
    large += 2 * (g.S > 1 and t.NP > 1)
    weights = 2 * own + _column(g, t) + 20 + large  # dy, y, and the sums over a warp
    pixels = t.IS * t.PXD * g.S**2 + 4 * t.IS + OS * (t.PXD + 2) if t.dx else 0
    return 16 + outputs + max(weights, pixels)


def compiled_registers(g: Geometry, t: Tile) -> int:
    """Estimate the registers that the compiler takes: those that are needed, and some for speed.

    ``__launch_bounds__(THREADS, 1)`` lets it have all that an SM holds. In the backward pass of a
    block it takes nearly all of them, elsewhere about 30 more than needed: fitted to what it
    reports, which tests/backends/cuda/test_nvrtc.py asks again.
    """
    most = min(255, REGISTERS // t.threads // 8 * 8)
    return most if t.backward and g.secondary else min(most, t.registers + 30)


def cost(g: Geometry, t: Tile) -> float:
    """Estimate the cycles that the busiest SM needs.

    The counts follow from the loops of the kernels. 40 reads of overhead and 4 instructions a
    weight for its sum over a warp are guesses; 5 warps and 100 cycles are fitted to the sweep.
    """
    OS, taps, warps = t.MS * g.R, g.KH * g.KW, t.threads // WARP
    weights = _chunked(g.KH * OS)
    mixing = OS * g.A * t.PX if g.secondary else 0
    convolving = g.I * taps * OS * t.PX
    reads = g.I * g.KW * (_column(g, t) * min(g.S, 2) + weights / 4) + mixing / (4 * t.PX)
    work = warps * _cycles(convolving + mixing, reads + 40)
    if t.backward:
        gains = g.I * taps * OS + (OS * g.A if g.secondary else 0)
        work += warps * _cycles(convolving + mixing + 4 * gains, 40)  # both weight gradients
        work += warps * _cycles(mixing, 0)  # dy
        work += 100  # of a slab, for whatever a CUDA block holds: barriers, sums of its warps
    if t.dx:
        rounds = math.ceil(g.I // t.IS * _places(g, t, t.PXD) / t.threads)
        seen = g.O * (t.PXD + (g.KH - 1) // g.S)
        reads = g.KW * (seen + g.M // t.MS * t.IS * weights / 4)
        sums = t.IS * taps * t.PXD * g.O
        reads += t.IS * (t.PXD * g.S**2 * 4 + 8)  # 8: two sums of an input over the warp
        work += rounds * warps * _cycles(sums, reads)
    blocks = math.ceil(math.ceil(g.N / t.NP) * g.groups * g.share / SMS)
    held = min(
        REGISTERS // (t.threads * _up(compiled_registers(g, t), 8)),
        SM_SHARED_BYTES // (t.shared_bytes + RESERVED),
    )
    # Warps that wait are hidden by others, if there are others: 8 are enough, 4 are not.
    together = warps * max(1, min(held, blocks))
    return work * g.slabs * blocks * (1 + (5 / together) ** 2)


def _cycles(multiply_adds: float, reads: float) -> float:
    """Cycles of an SM for one warp: four issue slots a cycle, one read of shared memory.

    Of the lesser a quarter is not hidden behind the greater: a guess.
    """
    issued = (multiply_adds + reads) / 4
    return max(issued, reads) + 0.25 * min(issued, reads)


def shared_bytes(g: Geometry, t: Tile) -> int:
    """Return the shared memory of a CUDA block, as block.cuh and block_backward.cu lay it out."""
    (HO, WO), OS, PH, PW = g.outputs, t.MS * g.R, g.KH // 2, g.KW // 2
    vector = next(n for n in (16, 8, 4, 2) if g.W * t.itemsize % n == 0) // t.itemsize
    align = min(vector, 4)
    left, overhang = _up(PW, align), max(0, (WO - 1) * g.S + g.KW - PW - g.W)
    pitch = _up(g.W + max(left, overhang), align)
    rows = max((math.ceil(HO / t.PX) * t.PX - 1) * g.S + g.KH, PH + g.H)
    step = t.PX * g.S
    gap = _skewed(step * pitch, WO * g.S * t.NP) - step * pitch
    image = rows * pitch + (rows - 1) // step * gap + overhang + left
    tile = g.I * t.NP * _skewed(image, WO * g.S)
    weights = slot(g, t)
    raw = _up(g.I * t.NP * g.H * g.W * t.itemsize, 16)
    rules = 16 * g.slabs * g.I
    warps = t.threads // WARP
    if not t.backward:
        moments = _up(g.A * g.M, 4) + warps * g.A * t.MS * 2
        return max(4 * (2 * tile + t.stages * weights) + rules + t.stages * raw, 4 * moments)
    gains = warps * ((OS * g.A if g.secondary else 0) + g.I * g.KH * g.KW * OS)
    d_tile = 0
    if t.dx:
        above, below = (g.KH - 1 - PH) // g.S, (g.S - 1 + PH) // g.S
        before, after = (g.KW - 1 - PW) // g.S, (g.S - 1 + PW) // g.S
        d_left = max(before, after)
        d_rows = above + max(math.ceil(HO / t.PXD) * t.PXD, HO) + below
        together, d_pitch = max(1, WARP // WO // t.NP), WO + d_left
        if together > 1 and WARP % WO == 0 and WO % t.PXD == 0:
            while t.PXD * d_pitch % (2 * WO) != WO:
                d_pitch += 1
        d_tile = g.O * t.NP * _skewed(d_rows * d_pitch + d_left + after, WO * together)
        gains += g.I * _places(g, t, t.PXD) // WARP * 2
    gains = t.kept * _up(gains, 4)
    return 4 * (tile + d_tile + t.stages * weights + gains) + rules + t.stages * raw


def slot(g: Geometry, t: Tile) -> int:
    """Return how many numbers the weights of a slab take, padding included: see block.cuh."""
    primary = g.M // t.MS * g.I * g.KW * _chunked(g.KH * t.MS * g.R)
    return _up(primary, 4) + (_up(g.O * _chunked(g.A), 4) if g.secondary else 0)


def _up(a: int, b: int) -> int:
    return -(-a // b) * b


def _chunked(count: int) -> int:
    return count if count < 3 else _up(count, 4)


def _skewed(size: int, step: int) -> int:
    cycle = 4 if step % WARP == 0 else WARP if WARP % step else 2 * step
    return _up(size + (step - size) % cycle, 4)
