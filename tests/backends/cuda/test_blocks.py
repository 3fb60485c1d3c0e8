"""The cupy backend's block and group convolution, run without a card, against float64."""

import re

import numpy as np
import pytest

from igc_ref.backends.cupy.geometry import of_block
from igc_ref.backends.cupy.tiles import choose
from igc_ref.backends.operators.lazy import Batch
from igc_ref.testing import assert_close
from tests.backends.cuda import emulator
from tests.backends.cuda.cases import (
    CONVOLUTION,
    EPS,
    SQUARE,
    TRANSITION,
    Block,
    Case,
    Convolution,
    batch_norm,
)
from tests.backends.cuda.emulator import DYNAMIC_LIMIT
from tests.support import oracles
from tests.support.guarded import GuardedBackend, built, internal, public

pytestmark = pytest.mark.skipif(bool(emulator.problem()), reason=str(emulator.problem()))

built_ahead = built

BLOCKS = [  # in, out, L, M, k, stride; images; whether something is pending
    Case(Block.square(24, 2), 3, 8, 8),
    Case(Block.square(24, 2), 2, 8, 8, pending=False),
    Case(Block.square(4, 8), 3, 8, 8),
    SQUARE,
    Case(Block.square(5, 3), 3, 5, 7),
    Case(Block.square(2, 2, 1), 9, 1, 1),
    Case(Block.square(3, 4, 1), 2, 16, 5),
    Case(Block.square(3, 2, 2), 4, 5, 6),
    Case(Block.square(3, 2, 5), 3, 7, 12),
    Case(Block.square(7, 1), 4, 4, 4),  # depthwise, then dense: Xception's
    Case(Block(48, 96, 24, 4, stride=2), 3, 8, 8),
    Case(Block(48, 96, 24, 2, stride=2), 2, 8, 8),  # the residual network's: P does not invert
    TRANSITION,
    Case(Block(8, 32, 4, 2), 3, 4, 4),  # R = 4 outputs of a slab to each partition
    Case(Block(6, 8, 2, 4), 3, 5, 4),
    Case(Block(6, 12, 3, 2, 3, 3), 4, 8, 8),
    Case(Block(6, 6, 3, 2, 2, 3), 3, 7, 5),
    Case(Block(4, 8, 2, 4, 5, 3), 2, 10, 4),
    Case(Block(8, 8, 4, 2, 1, 2), 3, 7, 6),
    Case(Block(8, 16, 2, 8, 5, 2), 2, 9, 8),
    Case(Block.square(3, 4, (1, 5)), 4, 1, 19),
    Case(Block(6, 12, 3, 4, (1, 3), 2), 3, 1, 20),
    Case(Block(6, 6, 3, 2, (5, 1), 2), 3, 9, 7),
    Case(Block.square(3, 4, (2, 3)), 3, 6, 8),
]
CONVOLUTIONS = [
    Case(Convolution(3, 16), 2, 8, 8, pending=False),
    CONVOLUTION,
    Case(Convolution(4, 6), 3, 5, 7),
    Case(Convolution(16, 18), 2, 6, 6),
    Case(Convolution(12, 24, 4, 1, 2), 3, 8, 8),  # a shortcut of resnet_igc
    Case(Convolution(6, 12, 2, 1, 2), 5, 7, 5, pending=False),
    Case(Convolution(5, 20, 5, 3), 3, 4, 12),
    Case(Convolution(8, 4, 2, 2), 3, 5, 6),
    Case(Convolution(6, 4, 1, 5, 2), 2, 9, 7),
    Case(Convolution(6, 9, 3, 3, 3), 3, 7, 8),
    Case(Convolution(7, 4), 19, 1, 1),
    Case(Convolution(6, 8, 2, (1, 5), 2), 3, 1, 20),
    Case(Convolution(4, 6, 1, (4, 1)), 3, 6, 9),
    Case(Convolution(2, 40), 2, 8, 6),  # CUDA blocks share the outputs
]
FAST = SQUARE, TRANSITION, CONVOLUTION


NARROW = [  # on a GPU with so much shared memory; how often it launches what
    (Case(Convolution(6, 24, 1), 3, 7, 8), 8_000, {"block_backward": 1, "add": 2}),
    (Case(Convolution(6, 24, 2), 3, 8, 8, pending=False), 9_500, {"add": 1}),
    (Case(Convolution(6, 24, 2), 3, 8, 8), 8_400, {"block_forward": 1, "add": 1}),
    (Case(Convolution(6, 24, 2, 3, 2), 3, 7, 8), 7_000, {"add": 1, "add_up": 1}),
    (Case(Block(10, 20, 5, 2), 3, 8, 8), 5_000, {"block_forward": 3, "shuffle": 4}),
    (Case(Block(8, 16, 2, 8), 3, 8, 8), 6_000, {"block_forward": 2, "shuffle": 4}),
    # 2 outputs of a slab for 3 partitions: no tile has room for that
    (Case(Block(6, 6, 3, 3), 2, 5, 4), DYNAMIC_LIMIT, {"block_forward": 2, "shuffle": 4}),
]


def marked(cases):
    """All cases as parameters; those that need builds of their own are slow."""
    return [pytest.param(c, marks=() if c in FAST else pytest.mark.slow) for c in cases]


@pytest.mark.parametrize("case", marked(BLOCKS + CONVOLUTIONS), ids=str)
def test_outputs_and_all_gradients_equal_the_definition(case):
    backend = case.backend()
    case.check(case.run(backend))
    assert backend.generic == ""


@pytest.mark.parametrize(
    ("case", "shared_bytes", "launches"),
    [pytest.param(*n, marks=pytest.mark.slow if i % 3 else ()) for i, n in enumerate(NARROW)],
    ids=str,
)
def test_what_fits_no_tile_is_computed_in_shares_or_in_steps(case, shared_bytes, launches):
    backend = GuardedBackend()
    backend.device.shared_bytes = shared_bytes
    case.check(case.run(backend))
    assert backend.generic == ""
    assert {name: backend.device.launches.count(name) for name in launches} == launches


@pytest.mark.parametrize("what", ["copies of", "images", "rows", "parts", "R =", "stages"])
def test_the_cases_reach_every_branch_of_the_kernels(what):
    reached = set()
    for case in BLOCKS:
        g = of_block(case.layer, case.N, case.H, case.W)
        forward, backward = (choose(g, backward) for backward in (False, True))
        width = next(size for size in (16, 8, 4) if 4 * g.W % size == 0)
        reached |= {f"copies of {width} bytes", f"R = {min(g.R, 2)}"}
        for tile in (forward, backward):
            rest = "all" if case.N % tile.NP == 0 else "a part"
            reached.add(f"images: {rest} of the last CUDA block's")
            rest = "all" if g.outputs[0] % tile.PX == 0 else "a part"
            reached.add(f"rows: {rest} of a thread's last")
            reached.add(f"parts: {'one' if tile.MS == g.M else 'several'}")
            reached.add(f"stages {tile.stages}")
    found = {branch for branch in reached if branch.startswith(what)}
    assert len(found) == (3 if what == "copies of" else 2), found


@pytest.mark.parametrize(
    ("layer", "pending"),
    [
        (Convolution(3, 48), False),
        (Convolution(8, 80, 2, 1), True),  # CUDA blocks share the outputs of each group
        (Convolution(6, 12, 3), True),
    ],
    ids=str,
)
@pytest.mark.slow
def test_a_first_layer_asks_for_its_weight_gradient_alone(layer, pending):
    case = Case(layer, 5, 6, 4, pending)
    backend, a = GuardedBackend(), case.draw()
    x, weight, d = internal(backend, a["x"]), backend.asarray(a["weight0"]), a["d"]
    exact = [a[name].astype("float64") for name in ("d", "x", "weight0")]
    if pending:
        x, _ = batch_norm(backend, x, backend.asarray(a["gamma_before"]),
                          backend.asarray(a["beta_before"]))  # fmt: skip
        exact[1] = public(backend, x).astype("float64")
    _, saved = backend.conv2d(x, weight, layer.groups, layer.stride)
    dx, dweight = backend.conv2d_backward(internal(backend, d), saved, input_gradient=False)
    backend.xp.check()
    assert dx is None
    assert_close(dweight, oracles.convolve_gradients(*exact, 1, layer.groups)[1], d[:, 0].size)
    assert backend.generic == ""


@pytest.mark.parametrize(
    "case", marked([BLOCKS[0], TRANSITION, CONVOLUTION, CONVOLUTIONS[-1]]), ids=str
)
def test_moments_and_sums_noted_on_the_way_are_those_taken_by_themselves(case):
    """The block notes them in parts of its own; another kernel takes them from the images."""
    backend = GuardedBackend()
    a = {name: backend.asarray(array) for name, array in case.draw().items()}
    weights = [a[f"weight{i}"] for i in range(len(case.layer.weight_shapes))]
    x, before = batch_norm(backend, backend.to_layout(a["x"]), a["gamma_before"], a["beta_before"])
    y, saved = case.layer.run(backend, x, *weights)
    assert y.moments is not None
    exact = backend.to_numpy(y.data).astype("float64")
    mean, var = exact.mean(axis=(1, 2, 3)), exact.var(axis=(1, 2, 3))
    for images in (y, Batch(y.data)):
        after, _ = batch_norm(backend, images, a["gamma_after"], a["beta_after"])
        table = backend.to_numpy(after.pending.table)
        assert_close(table[:, 2], mean, 1)
        assert_close(table[:, 3], 1 / np.sqrt(var + EPS), 1)
    dx, *_ = case.layer.run_backward(backend, backend.to_layout(a["d"]), saved)
    assert dx.sums is not None
    noted, *one = backend.batch_norm_backward(dx, before)
    taken, *two = backend.batch_norm_backward(Batch(dx.data), before)
    backend.xp.check()
    for left, right in zip(
        (public(backend, noted), *one), (public(backend, taken), *two), strict=True
    ):
        assert_close(left, right, 1000)
    assert backend.device.launches.count("find_moments") == 2  # of x, and of y by itself
    assert backend.device.launches.count("find_sums") == 1


NO_KERNEL = [
    Case(Block.square(2, 1, 1), 3, 1, 1),
    Case(Convolution(3, 1), 3, 1, 1),
]


@pytest.mark.parametrize("case", NO_KERNEL, ids=str)
def test_what_has_no_kernel_goes_to_the_generic_operators(case):
    backend = GuardedBackend()
    case.check(case.run(backend))
    assert re.search("(igc|conv2d).* of float32 has no kernel", backend.generic)
