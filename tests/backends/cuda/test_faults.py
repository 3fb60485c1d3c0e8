"""Test the tests: faults planted in the CUDA kernels must show, as a wrong number or another bit.

A fault counts as caught if float64 says otherwise, if two orders of threads give different bits, if
memory outside of an array is written, or if the emulator objects. Run without a GPU.

A fault replaces one piece of a kernel's text by another. If the piece is not there any more, the
test says so: plant the fault in the new text, or drop it if nothing corresponds to it.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from igc_ref.backends.cupy.kernels import FOLDER, source
from tests.backends.cuda import emulator
from tests.backends.cuda.cases import Block, Case, Convolution, Tiled, forced
from tests.backends.cuda.emulator import LaunchError, running
from tests.backends.cuda.test_kernels import Learning, usual
from tests.support.guarded import ORDERS, GuardedBackend, built

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(emulator.problem()), reason=str(emulator.problem())),
    pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning"),  # NaN where it should not be
]
built_ahead = built
FILES = sorted(path.name for path in FOLDER.glob("*.cu"))


# Several parts, warps of a part, slabs; images, rows and columns left over; R = 2.
SQUARE = forced(Case(Block(10, 20, 5, 2), 3, 7, 8), PX=2, MS=1, NP=2, PXD=2, IS=1)
STRIDED = forced(Case(Block(6, 12, 3, 2, stride=2), 3, 7, 7), PX=2, MS=1, NP=2, PXD=2, IS=2)
RECTANGLE = forced(Case(Block(6, 12, 3, 2, (2, 5)), 3, 7, 8), PX=2, MS=1, NP=2, PXD=2, IS=2)
GROUPS = forced(Case(Convolution(12, 8, 2), 3, 7, 8), PX=2, MS=2, NP=2, PXD=2, IS=1)
SHARED = Case(Convolution(2, 40), 3, 8, 6)
LEARNING = Learning()


@dataclass(frozen=True)
class Fault:
    """A kernel with `new` where its source says `old`, and what it runs."""

    kernel: str
    what: object
    old: str
    new: str

    def edit(self, code):
        return code.replace(self.old, self.new) if f"\n{self.kernel}(" in code else code

    def check_text(self):
        """Assert that the kernel's file has the text to be replaced, once."""
        (code,) = (c for c in map(source, FILES) if f"\n{self.kernel}(" in c)
        count = code.count(self.old)
        assert count == 1, f"the file of {self.kernel} has {self.old!r} {count} times, not once"

    def backend(self, device=None):
        tiled = isinstance(self.what, Tiled)
        tiles = {False: self.what.forward, True: self.what.back} if tiled else {}
        return GuardedBackend(device, tiles, self.edit)

    def run(self, backend):
        return self.what.run(backend)

    def caught(self):
        """Say how the fault showed, or return None."""
        first = usual(self.what) if isinstance(self.what, Learning) else None
        for order in ORDERS:
            try:
                with running(order=order, blocks=order, seed=3):
                    found = self.run(self.backend())
                if not isinstance(self.what, Learning):
                    getattr(self.what, "case", self.what).check(found)
            except (AssertionError, LaunchError) as error:
                return f"{order}: {error}"
            first = first or found
            for name in found:
                if not np.array_equal(found[name], first[name]):
                    return f"{order}: {name} has other bits"
        return None


F, B = "block_forward", "block_backward"
FAULTS = {  # kernel, what it runs, what is written, what is written instead
    # shared memory, its pipeline, its barriers
    "a copy is not waited for": (B, SQUARE, "copy_wait<STAGES - 2>();", "copy_wait<STAGES - 1>();"),
    "one copy too few is in flight": (F, SQUARE, "l < STAGES - 1; ++l)", "l < STAGES - 2; ++l)"),
    "one of two tiles is cleared": (F, SQUARE, "clear(tiles, 2 * TILE);", "clear(tiles, TILE);"),
    "the tile of dy is not cleared": (
        B, SQUARE, "clear(tile, TILE + D_TILE);", "clear(tile, TILE);"),
    "forward, no barrier in the loop": (F, SQUARE, "__syncthreads();  // the tile and the", "// "),
    "backward, no barrier in the loop": (B, SQUARE, "__syncthreads();  // tile and weights", "// "),
    "backward, no barrier after dy": (B, SQUARE, "__syncthreads();  // all of dy and", "// "),
    # places and halos
    "the tile is read a column off": (F, SQUARE, "+ LEFT - PW + at", "+ LEFT + at"),
    "columns do not stride": (F, STRIDED, "at.column * S + kx", "at.column + kx"),
    "no halo beside dy": (
        B, SQUARE, "D_TOGETHER > 1 ? without_conflicts(WO + D_LEFT) : WO + D_LEFT", "WO"),
    "the halo above dy is not read": (B, SQUARE, "(row + ABOVE) * D_PITCH", "row * D_PITCH"),
    # kernels that are not square
    "rows begin as columns do": (F, RECTANGLE, "row_at(s.at / W + PH)", "row_at(s.at / W + PW)"),
    "columns are as many as rows": (F, RECTANGLE, "I + i) * KW + kx)", "I + i) * KH + kx)"),
    "dx folds rows as columns": (
        B, RECTANGLE, "px + (ry + PH - ky) / S", "px + (ry + PW - ky) / S"),
    "gains in rows of KH": (B, RECTANGLE, "ky * KW + kx] = sum", "ky * KH + kx] = sum"),
    "W_p is packed in rows of KH": ("pack", RECTANGLE, "+ ky) * KW + kx]", "+ ky) * KH + kx]"),
    "all gains are the first slab's": (B, SQUARE, "gains + l % KEPT * SUMS + part", "gains + part"),
    # what is left over
    "rows past the end count in dz": (
        B, SQUARE, "if (HO % PX == 0 || at.row + px < HO) {", "{"),
    "rows past the end count in the moments": (
        F, SQUARE, "off = at.active && at.row + px < HO ?", "off = at.active ?"),
    "images past the end are written": (
        B, SQUARE, "q < D_PLACES && n < images;", "q < D_PLACES;"),
    "pixels right of the image are written": (B, STRIDED, " && column * S + s < W", ""),
    # indices of partitions, groups, warps
    "the permutation is forgotten": (
        F, SQUARE, "(a * M + m) * N * (HO * WO)", "(a + m * A) * N * (HO * WO)"),
    "moments of some warps": (F, SQUARE, "w < WARPS_A_PART; ++w)", "w < WARPS_A_PART - 1; ++w)"),
    "gains of W_p to the first part": (B, SQUARE, "o = part * OS + v % OS", "o = v % OS"),
    "weights of the first group": (
        B, GROUPS, "packed + share * SLABS * WEIGHTS", "packed"),
    "weights of the first share": (
        F, SHARED, "packed + share * SLABS * WEIGHTS", "packed + group * SLABS * WEIGHTS"),
    "weights of the first share are packed": ("pack", SHARED, "(share * O + o)", "o"),
    "W_d is packed without the permutation": ("pack", SQUARE, "r * slabs + l", "l * R + r"),
    # pending rules and derivatives
    "the rule of the first slab": (
        F, SQUARE, "line[u] = rules[l * I + s.i]", "line[u] = rules[s.i]"),
    "rules of the first group": (F, GROUPS, "rule + group * RULES", "rule"),
    "the derivative forgets the mean": (
        B, SQUARE, "slope.x, v - line.z, slope.y", "slope.x, v, slope.y"),
    "sums forget the ReLU": (
        B, SQUARE, "> floor ? g[i][r][s] : 0.f", "> floor ? g[i][r][s] : g[i][r][s]"),
    # the other kernels
    "batch norm, no barrier": ("make_derivative", LEARNING, "__syncthreads();", ""),
    "shares, the first only": ("add_up", SQUARE, "b < first + each", "b < first + 1"),
    "loss, classes past the warp": (
        "softmax_cross_entropy", LEARNING, "k < classes; k += WARP) sum[0]",
        "k < WARP; k += WARP) sum[0]"),
    "optimiser, one parameter": (
        "sgd", LEARNING, "blockIdx.y * 4;\n  float* weight", "0;\n  float* weight"),
}  # fmt: skip


@pytest.mark.parametrize("fault", [Fault(*f) for f in FAULTS.values()], ids=list(FAULTS))
def test_a_planted_fault_shows(fault):
    fault.check_text()
    assert fault.caught()


@pytest.mark.parametrize("what", [SQUARE, STRIDED, RECTANGLE, GROUPS, SHARED, LEARNING], ids=str)
def test_what_faults_are_planted_in_is_right(what):
    assert Fault("none", what, "", "").caught() is None


def test_a_fault_whose_text_is_gone_is_named():
    with pytest.raises(AssertionError, match="block_forward has 'no such text' 0 times"):
        Fault(F, SQUARE, "no such text", "").check_text()
