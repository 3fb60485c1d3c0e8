"""Test the tests: faults planted in the CUDA kernels must show, as a wrong number or another bit.

A fault counts as caught if float64 says otherwise, if two orders of threads give different bits, if
memory outside of an array is written, or if the emulator objects. Run without a card.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.backends.cuda import emulator
from tests.backends.cuda.cases import Block, Case, Convolution, Tiled, forced
from tests.backends.cuda.emulator import LaunchError, running
from tests.backends.cuda.test_kernels import Learning, usual
from tests.support.guarded import ORDERS, GuardedBackend, built

pytestmark = [
    pytest.mark.skipif(bool(emulator.problem()), reason=str(emulator.problem())),
    pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning"),  # NaN where it should not be
]
built_ahead = built


# Several parts, warps of a part, slabs; pictures, rows and columns left over; R = 2.
SQUARE = forced(Case(Block(10, 20, 5, 2), 3, 7, 8), PX=2, MS=1, NP=2, PXD=2, IS=1)
STRIDED = forced(Case(Block(6, 12, 3, 2, stride=2), 3, 7, 7), PX=2, MS=1, NP=2, PXD=2, IS=2)
EVEN = forced(Case(Block(10, 20, 5, 2), 3, 8, 8), PX=2, MS=1, NP=2, PXD=2, IS=1)
STRIDED_EVEN = forced(Case(Block(6, 12, 3, 2, stride=2), 3, 8, 8), PX=2, MS=1, NP=2, PXD=2, IS=2)
ONE = forced(Case(Convolution(2, 8), 3, 7, 8), PX=2, MS=2, NP=2, PXD=2, IS=1)
GROUPS = forced(Case(Convolution(12, 8, 2), 3, 7, 8), PX=2, MS=2, NP=2, PXD=2, IS=1)
SHARED = Case(Convolution(2, 40), 3, 8, 6)
LEARNING = Learning()


@dataclass(frozen=True)
class Fault:
    """A kernel with `edits`, pairs of what is written and what is written instead."""

    kernel: str
    run_: object
    edits: tuple = field(default=())

    def edit(self, code):
        if f"\n{self.kernel}(" not in code:
            return code
        for old, new in self.edits:
            if code.count(old) != 1:
                raise LookupError(f"{code.count(old)} times in {self.kernel}: {old}")
            code = code.replace(old, new)
        return code

    def backend(self, device=None):
        forced = (
            {False: self.run_.forward, True: self.run_.back} if isinstance(self.run_, Tiled) else {}
        )
        return GuardedBackend(device, forced, self.edit)

    def run(self, backend):
        return self.run_.run(backend)

    def caught(self):
        """Say how the fault showed, or return None."""
        first = None
        for order in ORDERS:
            try:
                with running(order=order, blocks=order, seed=3):
                    found = self.run(self.backend())
                if isinstance(self.run_, Learning):
                    first = first or usual(self.run_)
                else:
                    getattr(self.run_, "case", self.run_).check(found)
            except (AssertionError, LaunchError) as error:
                return f"{order}: {error}"
            first = first or found
            for name in found:
                if not np.array_equal(found[name], first[name]):
                    return f"{order}: {name} has other bits"
        return None


F, B = "block_forward", "block_backward"
FAULTS = {  # kernel, what it runs, what is written, what is written instead
    # shared memory and its pipeline
    "a copy is not waited for": (B, SQUARE, "copy_wait<STAGES - 2>();", "copy_wait<STAGES - 1>();"),
    "copies are never waited for": (F, SQUARE, "copy_wait<STAGES - 2>();", ""),
    "one copy too few is in flight": (F, SQUARE,
     "l < STAGES - 1; ++l) loader.start(l);", "l < STAGES - 2; ++l) loader.start(l);"),
    "the border of the tile is not cleared": (F, SQUARE, "clear(tiles, 2 * TILE);", ""),
    "one of two tiles is cleared": (F, SQUARE, "clear(tiles, 2 * TILE);", "clear(tiles, TILE);"),
    "the tile of dy is not cleared": (B, SQUARE,
     "clear(tile, TILE + D_TILE);", "clear(tile, TILE);"),
    "pictures go to another stage": (F, SQUARE,
     "unsigned char* to = raw + l % STAGES * RAW_BYTES;",
     "unsigned char* to = raw + (l + 1) % STAGES * RAW_BYTES;"),
    "weights go to one stage": (F, SQUARE,
     "float* slot = weights + l % STAGES * WEIGHTS;\n#pragma", "float* slot = weights;\n#pragma"),
    "the next slab is started before the barrier": (F, SQUARE,
     ("    __syncthreads();  // the tile and",
      "    loader.start(l + STAGES - 1);\n    __syncthreads();  // the tile and"),
     ("are read\n    loader.start(l + STAGES - 1);", "are read\n")),
    "one tile for two": (F, SQUARE,
     ("tile = tiles + l % 2 * TILE;", "tile = tiles;"),
     ("loader.unpack(l, tiles + l % 2 * TILE);", "loader.unpack(l, tiles);")),
    "one list of gains for two": (B, SQUARE,
     ("float* gain = gains + l % 2 * SUMS;", "float* gain = gains;"),
     ("flush(l - 1, gains + (l - 1) % 2 * SUMS,", "flush(l - 1, gains,"),
     ("flush(SLABS - 1, gains + (SLABS - 1) % 2 * SUMS,", "flush(SLABS - 1, gains,")),
    # barriers
    "forward, no barrier after clearing": (F, SQUARE,
     "clear(tiles, 2 * TILE);\n  __syncthreads();", "clear(tiles, 2 * TILE);"),
    "forward, no barrier in the loop": (F, SQUARE, "__syncthreads();  // the tile and the", "// "),
    "forward, no barrier before the pivots": (F, SQUARE,
     "[A][MS][2].\n  __syncthreads();", "[A][MS][2].\n"),
    "forward, no barrier after the pivots": (F, SQUARE,
     "= acc[a][m][0];\n  __syncthreads();", "= acc[a][m][0];\n"),
    "forward, no barrier after the sums": (F, SQUARE,
     "squares);\n    }\n  __syncthreads();", "squares);\n    }\n"),
    "backward, no barrier after clearing": (B, SQUARE,
     "      }\n    }\n  __syncthreads();\n\n#if !IGC_SECONDARY",
     "      }\n    }\n#if !IGC_SECONDARY"),
    "backward, no barrier in the loop": (B, SQUARE, "__syncthreads();  // tile and weights", "// "),
    "backward, no barrier after dy": (B, SQUARE, "__syncthreads();  // all of dy is there", ""),
    "backward, no barrier before the last gains": (B, SQUARE,
     "copy_wait<0>();\n  __syncthreads();", "copy_wait<0>();"),
    "convolution, no barrier in the loop": (B, ONE, "__syncthreads();  // tile and weights", "// "),
    # places and halos
    "the tile is read one column off": (F, SQUARE,
     "+ LEFT - P + at.column * S", "+ LEFT + at.column * S"),
    "the tile is filled one row off": (F, SQUARE, "(s.at / W + P) * PITCH", "s.at / W * PITCH"),
    "columns do not stride": (F, STRIDED, "at.column * S + kx", "at.column + kx"),
    "rows do not stride": (F, STRIDED, "at.row * S * PITCH", "at.row * PITCH"),
    "no halo above and below dy": (B, EVEN,
     ("BEFORE = (K - 1 - P) / S", "BEFORE = 0"), ("AFTER = (S - 1 + P) / S", "AFTER = 0")),
    "no halo beside dy": (B, SQUARE, "D_LEFT = larger(BEFORE, AFTER)", "D_LEFT = 0"),
    "no halo right of dy, at a stride": (B, STRIDED_EVEN,
     "D_LEFT = larger(BEFORE, AFTER)", "D_LEFT = BEFORE"),
    "the halo above dy is not read": (B, SQUARE, "(row + BEFORE) * D_PITCH", "row * D_PITCH"),
    "a tap of dx is a column off": (B, STRIDED,
     "column + (rx + P - kx) / S", "column + (rx + P - kx + S) / S"),
    "every thread has the first picture": (F, SQUARE, "picture = place / WO % NP;", "picture = 0;"),
    "a thread's rows are one apart": (F, SQUARE,
     "row = place / (WO * NP) * PX;", "row = place / (WO * NP);"),
    # what is left over
    "rows past the end are written": (F, SQUARE,
     "        if (at.active && at.row + px < HO)\n          store",
     "        if (at.active)\n          store"),
    "rows past the end count in the moments": (F, SQUARE,
     "off = at.active && at.row + px < HO ?", "off = at.active ?"),
    "rows past the end count in d": (B, SQUARE,
     "        if (at.active && at.row + px < HO) {\n          d[a][m][px] = load",
     "        if (at.active) {\n          d[a][m][px] = load"),
    "pictures past the end are computed": (F, SQUARE, "active = active && picture < pictures;", ""),
    "pictures past the end are unpacked": (B, SQUARE, "if (s.n < pictures) {", "if (true) {"),
    "pictures past the end are written": (B, SQUARE,
     "q < D_PLACES && n < pictures;", "q < D_PLACES;"),
    "pixels below the picture are written": (B, STRIDED, "row * S + r < H && ", ""),
    "pixels right of the picture are written": (B, STRIDED, " && column * S + s < W", ""),
    "threads past the end are active": (B, STRIDED, "active = q < D_PLACES && ", "active = "),
    # indices of partitions, groups, warps
    "primary weights of the first part for all": (F, SQUARE, "(o / OS * I + i)", "(i)"),
    "columns of W_d side by side": (F, SQUARE,
     "(m * A + a) * A + r * SLABS", "(m * A + a) * A + r"),
    "outputs of the first part for all": (F, SQUARE,
     "top = share * A * M + at.part * MS", "top = share * A * M"),
    "the permutation is forgotten": (F, SQUARE,
     "(a * M + m) * N * (HO * WO)", "(a + m * A) * N * (HO * WO)"),
    "pivots of the first part for all": (F, SQUARE,
     "pivot = pivots[a * M + at.part * MS + m]", "pivot = pivots[a * M + m]"),
    "moments of the first part for all": (F, SQUARE, "part = c % M / MS, value", "part = 0, value"),
    "moments of some warps": (F, SQUARE, "w < WARPS_A_PART; ++w)", "w < WARPS_A_PART - 1; ++w)"),
    "gains of some warps": (B, SQUARE, "w < WARPS_A_PART; ++w)", "w < WARPS_A_PART - 1; ++w)"),
    "sums of some warps": (B, SQUARE, "w < D_WARPS; ++w)", "w < D_WARPS - 1; ++w)"),
    "sums of all warps in one place": (B, SQUARE, "D_WARPS + q / WARP) * 2", "D_WARPS) * 2"),
    "gains of W_d to the first part": (B, SQUARE, "m = part * MS + j / R;", "m = j / R;"),
    "gains of W_p to the first part": (B, SQUARE, "o = part * OS + v % OS", "o = v % OS"),
    "d of another partition": (B, SQUARE,
     "c = share * A * M + a * M + at.part * MS + m;", "c = share * A * M + a * M + m;"),
    "pictures of the first group": (F, GROUPS,
     "loader.x = x + group * SLABS * I * channel +", "loader.x = x +"),
    "the rule of the first group": (B, GROUPS,
     "loader.rule = rule + group * SLABS * I * 4", "loader.rule = rule"),
    "weights of the first group": (B, GROUPS,
     "loader.primary = primary + share * share_size", "loader.primary = primary"),
    "weights of the first share": (F, SHARED, "primary + share * O *", "primary + group * O *"),
    "sums of the first group": (B, GROUPS,
     "(gridDim.y / IGC_SHARE) + group)", "(gridDim.y / IGC_SHARE))"),
    # pending rules and derivatives
    "the floor is not applied": (F, SQUARE,
     "value[e] = at_least(fmaf(line.x, value[e], line.y), floor);",
     "value[e] = fmaf(line.x, value[e], line.y);"),
    "the rule of the first slab": (F, SQUARE,
     "(const float4*)rule + l * I + s.i", "(const float4*)rule + s.i"),
    "the rule is not applied": (B, SQUARE, "if (IGC_RULE) value[e] =", "if (false) value[e] ="),
    "the derivative forgets the mean": (B, SQUARE,
     "slope.x, v - line.z, slope.y", "slope.x, v, slope.y"),
    "the derivative forgets the ReLU": (B, SQUARE,
     "> d_floor ? d[a][m][px] : 0.f", "> d_floor ? d[a][m][px] : d[a][m][px]"),
    "sums forget the ReLU": (B, SQUARE,
     "> floor ? g[i][r][s] : 0.f", "> floor ? g[i][r][s] : g[i][r][s]"),
    "sums read another stage": (B, SQUARE,
     "(const storage*)(raw + l % STAGES * RAW_BYTES)",
     "(const storage*)(raw + (l + 1) % STAGES * RAW_BYTES)"),
    # the other kernels
    "moments, parts have one pivot": ("make_rule", LEARNING,
     "sum += moment[1] + count * shift;", "sum += moment[1];"),
    "moments, the last part is full": ("find_moments", LEARNING,
     "const int count = left < part ? (int)left : part;\n  const float pivot",
     "const int count = part;\n  const float pivot"),
    "batch norm, no barrier": ("make_derivative", LEARNING, "__syncthreads();", ""),
    "running statistics stay": ("make_rule", LEARNING, "running_mean[c] +=", "0 *"),
    "linear, no barrier": ("linear_dweight", LEARNING,
     "  parts[warp][lane] = sum;\n  __syncthreads();\n  if (warp > 0 || c > in)",
     "  parts[warp][lane] = sum;\n  if (warp > 0 || c > in)"),
    "linear, some warps": ("linear_dweight", LEARNING,
     "n < N; n += WARPS)\n      sum = fmaf", "n < N - 8; n += WARPS)\n      sum = fmaf"),
    "shares, no barrier": ("add_up", SQUARE,
     "  parts[warp][lane] = sum;\n  __syncthreads();\n  if (warp > 0 || e >= size)",
     "  parts[warp][lane] = sum;\n  if (warp > 0 || e >= size)"),
    "shares, the first only": ("add_up", SQUARE, "b < blocks; b += WARPS)", "b < 1; b += WARPS)"),
    "loss, no barrier": ("mean_loss", LEARNING,
     "hit_parts[threadIdx.x / WARP] = total;\n  __syncthreads();",
     "hit_parts[threadIdx.x / WARP] = total;"),
    "loss, classes past the warp": ("softmax_cross_entropy", LEARNING,
     "k < classes; k += WARP) sum[0]", "k < WARP; k += WARP) sum[0]"),
    "optimiser, one parameter": ("sgd", LEARNING, "table + blockIdx.y * 4", "table"),
    "optimiser, old velocity": ("sgd", LEARNING, "rate * fmaf(momentum, v, g)", "rate * v"),
}  # fmt: skip


def fault(kernel, run, *edits):
    """Two texts are one edit."""
    return Fault(kernel, run, (edits,) if isinstance(edits[0], str) else edits)


@pytest.mark.parametrize("fault", [fault(*f) for f in FAULTS.values()], ids=list(FAULTS))
def test_a_planted_fault_shows(fault):
    assert fault.caught()


RIGHT = {name: run for name, run in globals().items() if isinstance(run, Tiled | Case | Learning)}


@pytest.mark.parametrize("run", RIGHT.values(), ids=list(RIGHT))
def test_what_faults_are_planted_in_is_right(run):
    assert Fault("none", run).caught() is None
