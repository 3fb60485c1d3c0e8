"""The CUDA kernels as kernels: any order of threads, any tile, sanitizers; run without a card."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pytest

from igc_ref.backends.cupy.kernels import source
from igc_ref.backends.cupy.tiles import candidates, choose, shared_bytes
from tests.backends.cuda import emulator
from tests.backends.cuda.cases import (
    CONVOLUTION,
    SQUARE,
    TRANSITION,
    Block,
    Case,
    Convolution,
    Tiled,
    forced,
    geometry,
)
from tests.backends.cuda.emulator import LaunchError, running
from tests.backends.cuda.emulator.backend import EmulatedDevice
from tests.support.guarded import GuardedBackend, GuardedDevice, GuardedNumpy, built

pytestmark = pytest.mark.skipif(bool(emulator.problem()), reason=str(emulator.problem()))
built_ahead = built
WIDE = Case(Block.square(4, 8), 3, 8, 8)
SHARED = Case(Convolution(2, 40), 2, 8, 6)
slow = pytest.mark.slow


# -- order -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Learning:
    """What follows the blocks: residual sum, pooling, linear layer, loss, optimiser."""

    N: int = 19
    C: int = 40
    H: int = 21
    W: int = 23

    def backend(self, device=None):
        return GuardedBackend(device)

    def run(self, backend):
        rng, C = np.random.default_rng(0), self.C
        shapes = {"x": (self.N, C, self.H, self.W), "weight": (37, C), "bias": (37,)}
        arrays = {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}
        a = {name: backend.asarray(array) for name, array in arrays.items()}
        lines = [backend.asarray(np.full(C, value, "float32")) for value in (2, 1, 0, 1)]
        x, norm = backend.batch_norm(
            backend.to_layout(a["x"]), *lines, momentum=0.9, eps=1e-3, train=True, relu=True
        )
        y, total = backend.add_relu(x, backend.to_layout(a["x"]))
        features, pooled = backend.global_average_pool(y)
        logits, linear = backend.linear(features, a["weight"], a["bias"])
        loss, correct, d = backend.loss(logits, backend.asarray(rng.integers(0, 37, self.N)))
        d, *gradients = backend.linear_backward(d, linear)
        d = backend.relu_backward(backend.global_average_pool_backward(d, pooled), total)
        dx, *rest = backend.batch_norm_backward(d, norm)
        names = "weight", "bias"
        backend.sgd_steps(
            {name: a[name] for name in names}, dict(zip(names, gradients, strict=True)),
            {name: backend.asarray(0 * arrays[name]) for name in names},
            lr=0.1, momentum=0.9, weight_decay=0.01,
        )  # fmt: skip
        found = [backend.from_layout(dx), *rest, *gradients, logits, loss, correct]
        found += [*lines[2:], a["weight"], a["bias"]]
        return {str(i): backend.to_numpy(array) for i, array in enumerate(found)}


RUNS = [
    *(SQUARE, CONVOLUTION, Learning()),
    *(
        pytest.param(run, marks=slow)
        for run in (TRANSITION, WIDE, SHARED, replace(SQUARE, pending=False))
    ),
]


@lru_cache
def usual(run):
    return run.run(run.backend())


def assert_same_bits(found, expected):
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


@pytest.mark.parametrize(
    ("threads", "blocks"),
    [
        *(("reversed", "reversed"), ("shuffled", "shuffled")),
        *(pytest.param(*pair, marks=slow) for pair in
          (("reversed", "forward"), ("forward", "reversed"), ("shuffled", "reversed"))),
    ],
)  # fmt: skip
@pytest.mark.parametrize("run", RUNS, ids=str)
def test_any_order_of_threads_and_blocks_gives_the_same_bits(run, threads, blocks):
    with running(order=threads, blocks=blocks, seed=3):
        assert_same_bits(run.run(run.backend()), usual(run))


@pytest.mark.parametrize("fill", [0x00, 0x7F])
@pytest.mark.parametrize("run", RUNS, ids=str)
def test_what_memory_holds_before_changes_nothing(run, fill):
    device = GuardedDevice()
    device.xp = GuardedNumpy(fill)
    assert_same_bits(run.run(run.backend(device)), usual(run))


def test_a_second_run_gives_the_same_bits_on_the_same_backend():
    backend = SQUARE.backend()
    assert_same_bits(SQUARE.run(backend), SQUARE.run(backend))


# -- tiles -----------------------------------------------------------------------------------


def with_room(g, tile, **slabs):
    tile = replace(tile, **slabs)
    return replace(tile, shared_bytes=shared_bytes(g, tile))


def spread(tiles, count):
    """Pick `count` tiles, evenly over the list, so that few are alike."""
    tiles = list(tiles)
    return [tiles[i * (len(tiles) - 1) // (count - 1)] for i in range(count)]


def tiled(case, count):
    g = geometry(case)
    pairs = list(zip(
        spread(candidates(g, False, False), count), spread(candidates(g, True, True), count),
        strict=True,
    ))  # fmt: skip
    first, last = pairs[1], pairs[-2]
    pairs.append((with_room(g, last[0], stages=2), with_room(g, first[1], stages=3, kept=1)))
    return [Tiled(case, *pair) for pair in pairs]


TILED = [
    *tiled(Case(Block(8, 32, 4, 4), 3, 7, 6), 5),
    *tiled(Case(Block(6, 24, 3, 2, stride=2), 5, 5, 8), 4),
    *tiled(Case(Convolution(12, 6, 2), 3, 9, 5), 3),
]

# These fill shared memory to its end: more slabs than stages, no image missing in a CUDA block.
FULL = [
    Case(Convolution(12, 8), 8, 6, 8),
    Case(Block.square(4, 2), 8, 6, 8),
    *(pytest.param(case, marks=slow) for case in (
        Case(Block(12, 24, 6, 2, stride=2), 8, 7, 8), WIDE, TILED[0].case,
        Case(Block(8, 16, 4, 4, 5, 3), 8, 10, 4))),
]  # fmt: skip


@slow
@pytest.mark.parametrize("tiled", TILED, ids=str)
def test_every_tile_gives_the_result_of_the_definition(tiled):
    tiled.case.check(tiled.run(tiled.backend()))


@pytest.mark.parametrize("backward", [False, True])
def test_the_tiles_that_are_tested_differ_in_everything(backward):
    tiles = [t.back if backward else t.forward for t in TILED]
    for field in ("PX", "MS", "NP", "stages", *(("PXD", "IS", "kept") if backward else ())):
        assert len({getattr(tile, field) for tile in tiles}) > 1, field


def test_gains_added_up_slab_by_slab_or_all_at_the_end_have_the_same_bits():
    tiles = {backward: choose(geometry(SQUARE), backward) for backward in (False, True)}
    assert tiles[True].kept == geometry(SQUARE).slabs > 1
    tiles[True] = with_room(geometry(SQUARE), tiles[True], kept=1)
    assert_same_bits(SQUARE.run(GuardedBackend(forced=tiles)), usual(SQUARE))


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("case", FULL, ids=str)
def test_shared_memory_is_counted_exactly(case, backward):
    tiles = {back: choose(geometry(case), back) for back in (False, True)}
    tile = tiles[backward]
    tiles[backward] = replace(tile, shared_bytes=tile.shared_bytes - 16)
    with pytest.raises(LaunchError, match="written past"):
        case.run(GuardedBackend(forced=tiles))


# -- sanitizers ------------------------------------------------------------------------------

LEFT_OVER = forced(Case(Block(10, 20, 5, 2), 3, 7, 8), PX=2, MS=1, NP=2, PXD=2, IS=1)
PAST_THE_LAST_IMAGE = "(NP == 1 || s.n < images)) {", "true) {"


class SanitizedDevice(EmulatedDevice):
    """Has no guards: to ASan they would be memory."""

    edit = None

    def module(self, code, options):
        code = self.edit(code) if self.edit else code
        return super().module(code, (*options, "-DEMU_UCONTEXT"))  # emulator.h


def sanitized(fault=None):
    """Run kernels under ASan and UBSan, in a process started for it."""
    with running(sanitize=True):
        for run in (LEFT_OVER, TRANSITION, CONVOLUTION, Learning(3, 5, 8, 8)):
            tiles = {False: run.forward, True: run.back} if run is LEFT_OVER else None
            edit = (lambda code: code.replace(*fault)) if fault else None
            found = run.run(GuardedBackend(SanitizedDevice(), tiles, edit))
            if not isinstance(run, Learning):
                getattr(run, "case", run).check(found)


@slow
@pytest.mark.parametrize("fault", [None, PAST_THE_LAST_IMAGE], ids=["right", "planted"])
def test_kernels_stay_within_their_arrays(fault):
    done = emulator.run_sanitized(
        f"from tests.backends.cuda.test_kernels import sanitized; sanitized({fault!r})"
    )
    if done is None:
        pytest.skip("g++ comes without libasan")
    if fault:
        assert "heap-buffer-overflow" in done.stderr, done.stderr
        assert PAST_THE_LAST_IMAGE[0] in source("block.cuh")
    else:
        assert done.returncode == 0, done.stderr
