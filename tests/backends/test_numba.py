"""The numba backend: whole networks, the same bits on any number of threads, memory."""

import faulthandler
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import igc_ref
from igc_ref import IGCSpec, reference
from igc_ref.backends import NumpyBackend, get_backend, numba_problem
from igc_ref.errors import BackendError, SpecError
from igc_ref.files import locked
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.model import build
from igc_ref.testing import assert_close
from igc_ref.training.optim import SGD
from tests.backends.cuda.cases import Block, Case
from tests.support.guarded import GuardedNumpy, protected
from tests.support.strategies import normal, seeds, sizes, specs, weights, wide_specs

pytestmark = pytest.mark.skipif(bool(numba_problem()), reason=str(numba_problem()))

NETWORKS = [
    Architecture("plain", 5, width=3),
    Architecture("plain_igc", 8, L=3, M=2),
    Architecture("plain_igc", 5, L=24, M=2),
    Architecture("resnet", 8, width=4),
    Architecture("resnet_igc", 8, L=2, M=3),
    Architecture("plain_igc", 5, L=1, M=9),
    Architecture("plain_igc", 5, L=2, M=4, gate="channels"),
    Architecture("plain_igc", 5, L=4, M=2, gate="partitions", keep=2),
]


def numba_backend(threads=None, tile_bytes=None):
    from igc_ref.backends.numba.backend import NumbaBackend

    backend = NumbaBackend(threads)
    if tile_bytes:
        backend.tile_bytes = tile_bytes
    return backend


def steps(backend, architecture, count, N, dtype="float64"):
    """Train a few steps; return everything there is: logits, dx, gradients, state."""
    model = build(architecture, backend, dtype, seed=1)
    optimiser, rng = SGD(model), np.random.default_rng(0)
    for _ in range(count):
        x, labels = normal(rng, (N, 3, 12, 12), dtype), rng.integers(0, 10, N)
        logits = model.forward(x, train=True)
        *_, dlogits = backend.loss(logits, labels)
        dx = model.backward(dlogits)
        gradients = {f"d {name}": g.copy() for name, g in model.gradients().items()}
        optimiser.step(0.1)
    return {"logits": logits, "dx": dx, **gradients, **model.state_dict()}


def assert_same_bits(one, two):
    assert one.keys() == two.keys()
    for name, array in one.items():
        assert array.tobytes() == two[name].tobytes(), name


# -- the same numbers as NumPy, the same bits -----------------------------------------------------


@pytest.mark.parametrize("architecture", NETWORKS, ids=str)
def test_a_training_step_on_three_blocks_of_images_equals_numpy_s(architecture):
    expected = steps(NumpyBackend(), architecture, 1, 17)
    actual = steps(numba_backend(), architecture, 1, 17)
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert_close(1 + actual[name], 1 + array, 10_000)


@pytest.mark.parametrize("architecture", NETWORKS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_do_not_depend_on_the_number_of_threads(architecture, dtype):
    one, two, five = (steps(numba_backend(n), architecture, 3, 37, dtype) for n in (1, 2, 5))
    assert_same_bits(one, two)
    assert_same_bits(one, five)


@pytest.mark.parametrize("architecture", [NETWORKS[1], *NETWORKS[5:]], ids=str)
def test_what_lies_in_unused_memory_does_not_matter(architecture):
    def poisoned(value):
        backend = numba_backend()
        array = backend.pool.array

        def filled(shape, dtype):
            fresh = array(shape, dtype)
            fresh.view(np.uint8)[...] = value
            return fresh

        backend.pool.array = filled
        return steps(backend, architecture, 2, 19, "float32")

    clean, nan = poisoned(0), poisoned(0xFF)  # bytes of 255 are NaN
    assert all(np.isfinite(array).all() for array in nan.values())
    assert_same_bits(clean, nan)


VIEWS = {
    "as it is": lambda x: x,
    "swapped": lambda x: x.swapaxes(0, 1),
    "mirrored": lambda x: x[:, :, ::-1, ::-2],
    "read-only": lambda x: np.broadcast_to(x, x.shape),
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
}


@given(
    shape=st.tuples(
        st.integers(1, 40), st.sampled_from([1, 3, 17, 20]), st.integers(1, 35), sizes
    ),
    view=st.sampled_from([*VIEWS]), dtype=st.sampled_from(["float32", "float64"]),
    start=st.integers(0, 15), threads=st.integers(1, 3), seed=seeds,
)  # fmt: skip
@example(shape=(37, 17, 3, 2), view="channels last", dtype="float32", start=0, threads=2, seed=0)
def test_images_lie_side_by_side_in_blocks_filled_up_with_zeros(
    shape, view, dtype, start, threads, seed
):
    from igc_ref.backends.numba import pointwise

    backend, memory = numba_backend(threads), GuardedNumpy()
    backend.pool.array = memory.empty
    x = memory.empty(start + np.prod(shape), dtype)[start:].reshape(shape)
    x[...] = normal(np.random.default_rng(seed), shape, dtype)
    x = VIEWS[view](x)
    inside = backend.to_layout(x)
    blocks, C, R, W, V = inside.data.shape
    together = inside.layout.together
    expected = np.zeros((blocks * together, C, V // together * R, W), dtype)
    expected[: len(x), :, : x.shape[2]] = x
    expected = expected.reshape(blocks, together, C, V // together, R, W)
    expected = np.moveaxis(expected, (3, 1), (-2, -1)).reshape(inside.data.shape)
    assert np.array_equal(inside.data, expected)
    assert np.array_equal(backend.from_layout(inside), x)
    y = backend.from_layout(inside, channels_last=True)
    assert np.array_equal(y, x)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    memory.check()
    for kernel in (pointwise.interleave, pointwise.interleave_last):
        assert len(kernel.signatures) <= 2  # one for each dtype, none for a view


# -- pieces of images, and what is handed over between operators ----------------------------------

NORM = {"momentum": 0.75, "eps": 1e-3}


def batch_norm(backend, x, relu=False, train=True, seed=0):
    """Batch norm with drawn parameters."""
    rng, C = np.random.default_rng(seed), x.shape[0]
    gamma, beta, mean = rng.normal(size=(3, C))
    var = rng.uniform(0.5, 2, C)
    return backend.batch_norm(x, gamma, beta, mean, var, **NORM, train=train, relu=relu)


@pytest.mark.parametrize("tile_bytes", [1, 20_000, 1 << 30])
@pytest.mark.parametrize(
    "block",
    [
        Block.square(3, 2),
        Block(4, 6, 2, 3, stride=2),
        Block(2, 4, 2, 4, 5, 3),
        Block(3, 3, 3, 1, 4),
        Block.square(2, 9),
        Block(20, 26, 2, 13),
    ],
    ids=str,
)
def test_bands_of_rows_of_any_height_give_the_same_block_and_sums(block, tile_bytes):
    case = Case(block, 15, 13, 33)  # each lane has an image, one of them none
    found = case.run(numba_backend(tile_bytes=tile_bytes), "float64")
    for name, array in case.run(get_backend("numpy"), "float64").items():
        size = 1 + abs(array).max()  # batch norm takes much of a gradient away
        assert_close(size + found[name], size + array, 20 * found["y"].size)


def test_threads_share_out_wide_weights():
    case = Case(Block(80, 88, 2, 44), 1, 3, 3)
    found = case.run(numba_backend(threads=3), "float64")
    for name, array in case.run(get_backend("numpy"), "float64").items():
        assert_close(found[name], array, 10 * found["y"].size)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are protected by mprotect")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("tile_bytes", [1, 1 << 20])
def test_no_kernel_reads_or_writes_outside_of_its_arrays(tile_bytes):
    blocks = IGCSpec.square(2, 2), IGCSpec(4, 2, 2, 1, 5, 2), IGCSpec(3, 6, 3, 2, 1, 3)
    blocks += IGCSpec.square(1, 9), IGCSpec(10, 13, 1, 13), IGCSpec(8, 8, 1, 2, 2)
    child = os.fork()
    if child == 0:  # ends by SIGSEGV, and quietly, at the first number outside
        faulthandler.disable()
        try:
            for block, N, (H, W) in product(blocks, (1, 5, 17), ((1, 1), (2, 9), (7, 3), (5, 4))):
                backend = numba_backend(1, tile_bytes)
                backend.pool.array = protected
                found = Case(Block(*astuple(block)), N, H, W).run(backend, "float64")
                assert all(np.isfinite(array).all() for array in found.values())
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_few_images_share_their_rows_among_the_lanes_and_many_have_a_lane_each():
    from igc_ref.backends.numba.vectors import lanes

    V, backend = lanes("float64"), numba_backend()

    def layout(N, H):
        return backend.to_layout(np.zeros((N, 1, H, 2))).layout

    assert all(layout(N, H)[3:] == (V, H) for N in (V, 2 * V, 5 * V) for H in (1, 2, V, 3 * V, 31))
    assert [layout(N, 4 * V)[3:] for N in (1, 2, V + 1)] == [(1, 4), (2, 8), (1, 4)]
    assert layout(1, 4 * V + 1)[3:] == (1, 5)  # most of the last lanes is filling
    assert layout(2, V)[3:] == (2, 2)
    assert layout(1, V // 2)[3:] == (2, 1)  # as two images would be


@given(
    block=specs() | wide_specs, N=st.integers(1, 20), H=st.integers(1, 40), W=st.integers(1, 7),
    tile_bytes=st.sampled_from([1, 3000, 1 << 30]), pool=st.booleans(), seed=seeds,
)  # fmt: skip
def test_a_small_network_s_numbers_do_not_depend_on_how_its_images_lie(
    block, N, H, W, tile_bytes, pool, seed
):
    assume(min(block.output_size(H, W)) >= 1)
    rng = np.random.default_rng(seed)
    x, arrays = normal(rng, (N, block.in_channels, H, W)), weights(rng, block)

    def run(backend):
        found = {}
        y, before = batch_norm(backend, backend.to_layout(x), relu=True)
        y, saved = backend.igc(y, *arrays, block)
        found["y"] = backend.from_layout(y)
        y, after = batch_norm(backend, y, relu=True)
        z, pooled = backend.max_pool(y, 3, 2, 1) if pool else (y, None)
        z, residual = backend.add_relu(*backend.shuffle(z, 1)[:1], z)
        averages, shape = backend.global_average_pool(z)
        d = backend.global_average_pool_backward(averages, shape)
        d = backend.relu_backward(d, residual)
        d = backend.max_pool_backward(d, pooled) if pool else d
        d, found["dgamma"], found["dbeta"] = backend.batch_norm_backward(d, after)
        dx, found["dprimary"], found["dsecondary"] = backend.igc_backward(d, saved)
        dx, found["dgamma2"], found["dbeta2"] = backend.batch_norm_backward(dx, before)
        return found | {"averages": averages, "dx": backend.from_layout(dx)}

    expected, actual = run(NumpyBackend()), run(numba_backend(tile_bytes=tile_bytes))
    for name, array in expected.items():
        size = 1 + abs(array).max()  # batch norm takes much of a gradient away
        assert_close(size + actual[name], size + array, 10_000 * N * H * W)


@pytest.mark.parametrize(
    ("images", "size", "pieces"),
    [
        (64, 32, 16),
        (64, 16, 16),
        (64, 8, 8),
        (64, 1, 4),
        (1024, 32, 64),
        (2000, 32, 125),
        (1, 8, 1),
    ],
)
def test_a_batch_is_cut_into_pieces_by_its_shape_alone(images, size, pieces):
    from igc_ref.backends.numba.plan import Shape, plan

    def cut(backward, tile_bytes):
        p = plan(
            Shape(48, 48, 24, 2, 3, 3, 1, images, images, size, size, 16, 4, tile_bytes), backward
        )
        assert p.counts.sum() == images * size * size  # every position is in one piece
        return len(p.counts)

    assert {cut(b, bytes_) for b in (False, True) for bytes_ in (1, 1 << 18)} == {pieces}


def test_moments_noted_by_a_convolution_are_dealt_with_its_channels():
    B, rng = numba_backend(), np.random.default_rng(0)
    y, _ = B.conv2d(B.to_layout(normal(rng, (19, 2, 9, 8))), normal(rng, (6, 2, 3, 3)))
    dealt, _ = B.shuffle(y, 3)
    assert dealt.moments is not None
    actual, _ = batch_norm(B, dealt)
    expected, _ = batch_norm(B, B.to_layout(B.from_layout(dealt)))
    assert_close(actual.pending.table, expected.pending.table, 19 * 9 * 8)
    assert B.shuffle(actual, 3)[0].moments is None  # what is written now has other ones


def test_an_error_in_another_thread_is_not_lost():
    from igc_ref.backends.numba.threads import Team

    def kernel(first, last, thread):
        if thread == 1:
            raise ValueError("in thread 1")

    with pytest.raises(ValueError, match="in thread 1"):
        Team(2).run(kernel, 2)


# -- unusual input -------------------------------------------------------------------------------


def test_threads_are_a_number_of_at_least_one_and_not_a_million():
    for count in (0, -1, 2.5, "2", 10**6):
        with pytest.raises(SpecError, match="threads="):
            numba_backend(count)


@pytest.mark.parametrize("stride", [7, 40, 2**31 - 1])
def test_a_stride_beyond_the_image_leaves_one_position(stride):
    rng, results = np.random.default_rng(0), []
    x, weight = normal(rng, (2, 4, 5, 6)), normal(rng, (4, 2, 3, 3))
    for backend, step in ((get_backend("numpy"), min(stride, 50)), (numba_backend(), stride)):
        y, saved = backend.conv2d(backend.to_layout(x), weight, 2, step)
        dx, dweight = backend.conv2d_backward(backend.to_layout(backend.from_layout(y)), saved)
        results.append([backend.from_layout(y), backend.from_layout(dx), dweight])
    for expected, actual in zip(*results, strict=True):
        assert_close(actual, expected, 100)


FORK = """
import os, threading, numpy as np
from igc_ref import cli
from igc_ref.backends.numba.backend import NumbaBackend

backend = NumbaBackend(2)
x = np.ones((40, 2, 3, 3))
np.kept = backend.to_layout(x), cli  # outlives the names of the modules that it was made by
child = os.fork()
if child == 0:
    backend.shuffle(backend.to_layout(x), 2)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

def late():
    threading.main_thread().join()
    print(np.array_equal(backend.from_layout(backend.to_layout(3 * x)), 3 * x))

threading.Thread(target=late).start()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own_and_python_ends_quietly():
    command = [sys.executable, "-W", "error", "-W", "ignore:.*fork", "-c", FORK]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (b"7\nTrue\n", b"")


# -- compiling -----------------------------------------------------------------------------------


def test_compiling_is_announced_while_it_happens_and_only_if_it_takes_long(monkeypatch):
    from igc_ref.backends.numba import warm_up

    backend, lines = numba_backend(), []
    monkeypatch.setattr(warm_up, "PATIENCE", 0.05)
    monkeypatch.setattr(warm_up, "_step", lambda *_: time.sleep(0.5) or lines.append("done"))
    backend.prepare("float32", lines.append)
    assert lines == [
        "numba compiles its kernels for float32: less than a minute, cached afterwards",
        "done",
    ]
    lines.clear()
    monkeypatch.setattr(warm_up, "_step", lambda *_: None)
    backend.prepare("float32", lines.append)
    time.sleep(0.2)
    assert lines == []


def test_after_preparing_a_training_step_compiles_nothing(monkeypatch):
    from igc_ref.backends.numba import convolve, pointwise

    backend = numba_backend()
    backend.prepare("float32", print)
    kernels = [k for m in (convolve, pointwise) for k in vars(m).values() if hasattr(k, "_cache")]
    before = {k: len(k.signatures) for k in kernels}
    for architecture in NETWORKS[3:]:  # regular, with Winograd's transform, and of IGC blocks
        steps(backend, architecture, 1, 3, "float32")
    assert {k: len(k.signatures) for k in kernels} == before


WARM_UP = """
import time
import numpy as np
from igc_ref.backends.numba import warm_up
from igc_ref.backends.numba.backend import NumbaBackend

backend = NumbaBackend(1)
x = np.arange(144, dtype="float32").reshape(16, 1, 3, 3)  # so many have a lane each

def step(*_):
    print(time.monotonic())
    time.sleep(0.3)
    backend.to_layout(x)  # one kernel of all
    print(time.monotonic())

warm_up._step = step
print("ready", flush=True)
input()
backend.prepare("float32", lambda line: None)
print(np.array_equal(np.moveaxis(backend.to_layout(x).data, -1, 1).reshape(x.shape), x))
"""


def test_of_two_processes_that_start_at_once_one_compiles(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", WARM_UP], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    lines = [process.communicate(timeout=60)[0].splitlines() for process in both]
    assert [right for *_, right in lines] == ["True", "True"]
    first, second = sorted([float(start), float(end)] for start, end, _ in lines)
    assert first[1] <= second[0]
    assert len([*tmp_path.rglob("interleave.*.nbc")]) == 1


def test_a_process_waits_for_one_that_compiles_but_not_for_ever(monkeypatch, tmp_path):
    from igc_ref.backends.numba import warm_up

    lines = []
    stats = SimpleNamespace(cache_path=str(tmp_path))
    monkeypatch.setattr(warm_up, "interleave", SimpleNamespace(stats=stats))
    monkeypatch.setattr(warm_up, "_step", lambda *_: lines.append("done"))
    monkeypatch.setattr(warm_up, "PATIENCE", 0.1)
    monkeypatch.setattr(warm_up, "LONGEST", 0.2)
    with locked(tmp_path / "warm-up.lock", 0, print):
        numba_backend().prepare("float32", lines.append)
    assert [line.split()[0] for line in lines] == ["waiting", "waiting", "done"]
    assert str(tmp_path) in lines[0]
    (tmp_path / "warm-up.lock").unlink()
    (tmp_path / "warm-up.lock").mkdir()  # no lock can be had
    numba_backend().prepare("float32", lines.append)
    assert lines[3:] == ["done"]


# -- what is kept on the disk ----------------------------------------------------------------------

RUN_A_KERNEL = """
import sys
import numpy as np
from igc_ref.backends.numba.backend import NumbaBackend

backend = NumbaBackend(1)
x = backend.to_layout(np.full((1, 1, 1, 1), -1.5, sys.argv[1]))
y, _ = backend.add_relu(x, x)
print(backend.from_layout(y).item())
"""


def test_kernels_on_the_disk_are_not_mixed_up_and_compiled_anew_when_a_file_of_theirs_changes(
    tmp_path,
):
    shutil.copytree(
        Path(igc_ref.__file__).parent, tmp_path / "igc_ref",
        ignore=shutil.ignore_patterns("__pycache__"),
    )  # fmt: skip
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run(dtype):
        command = [sys.executable, "-c", RUN_A_KERNEL, dtype]
        done = subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, env=environment
        )
        return float(done.stdout)

    assert run("float64") == 0
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.nbc")}
    for index in tmp_path.rglob("*.nbi"):
        index.unlink()  # as if another process had just put its own in the place
    assert run("float32") == 0
    assert kept == {path: path.read_bytes() for path in kept} != {}
    rows = tmp_path / "igc_ref" / "backends" / "numba" / "rows.py"
    source = rows.read_text(encoding="utf-8")
    assert "e.at_least(v, floor)" in source
    rows.write_text(source.replace("e.at_least(v, floor)", "v"), encoding="utf-8")
    assert run("float32") == -3


def double(folder):
    """Make and run a kernel of a file in this folder, as a new process does."""
    from igc_ref.backends.numba import vectors

    names = {"__name__": __name__}
    exec(compile("def double(x):\n    x *= 2", folder / "double.py", "exec"), names)
    kernel = vectors.kernel(names["double"])
    kernel(x := np.ones(3))
    assert x.tolist() == [2, 2, 2]
    return kernel.stats


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The folder of a kernel and of its cache."""
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "double.py").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "size"), [("nbi", 0), ("nbi", 9), ("nbc", 0), ("nbc", 999), ("nbi", -1)]
)
def test_what_a_damaged_cache_held_is_compiled_again_and_that_is_said(cache, kind, size):
    double(cache)
    (damaged,) = cache.rglob(f"*.{kind}")
    if size < 0:  # can be neither read nor written
        damaged.unlink()
        damaged.mkdir()
    else:
        os.truncate(damaged, size)
    warned = f"{cache}.* is damaged .* again .*NUMBA_CACHE_DIR"
    with pytest.warns(RuntimeWarning, match=warned) as warnings:
        double(cache)
    assert len(warnings) == 1
    assert double(cache).cache_hits or size < 0


def test_without_a_folder_that_can_be_written_every_start_compiles(cache, monkeypatch):
    from igc_ref.backends.numba import warm_up

    for name in ("cache", "__pycache__"):  # files where the folders would be
        (cache / name).touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "cache"))
    monkeypatch.setattr(warm_up, "interleave", SimpleNamespace(stats=double(cache)))
    monkeypatch.setattr(warm_up, "PATIENCE", 0)
    monkeypatch.setattr(warm_up, "_step", lambda *_: time.sleep(0.2))
    numba_backend().prepare("float32", (lines := []).append)
    assert re.search("every time: neither .* nor .* set NUMBA_CACHE_DIR", *lines)


def test_kernels_that_are_not_in_the_cache_are_counted(cache, monkeypatch):
    from igc_ref.backends.numba import warm_up

    stats, kernel = double(cache), warm_up.KERNELS[-1]
    monkeypatch.setattr(warm_up, "KERNELS", [kernel])
    monkeypatch.setattr(warm_up, "interleave", kernel)
    assert warm_up.kept() == (1, stats.cache_path)
    for data in cache.rglob("*.nbc"):
        data.unlink()
    with pytest.raises(BackendError, match="1 of 1 kernels are not in"):
        warm_up.kept()


@pytest.mark.parametrize("M", [2, 8])  # groups of 8 inputs: with Winograd's transform
def test_weights_are_packed_anew_when_they_change_and_forgotten_when_they_are_gone(M):
    B, rng, spec = numba_backend(), np.random.default_rng(0), IGCSpec.square(4, M)
    x, (primary, secondary) = normal(rng, (3, spec.in_channels, 6, 5)), weights(rng, spec)
    for array in (primary, primary, secondary):
        y = B.igc(B.to_layout(x), primary, secondary, spec)[0]
        expected = reference.forward(x, primary, secondary, spec)
        assert_close(B.from_layout(y), expected, 1000)
        array[-1] *= -1
    assert B.packs.kept
    del primary, secondary, array
    assert not B.packs.kept


# -- memory ----------------------------------------------------------------------------------------


def test_memory_is_used_again_and_aligned_and_never_shared():
    from igc_ref.backends.numba.batch import Pool
    from igc_ref.backends.numba.vectors import VECTOR_BYTES

    pool = Pool()
    one, two = pool.array((3, 5), "float32"), pool.array((3, 5), "float32")
    places = {array.ctypes.data for array in (one, two)}
    assert len(places) == 2
    assert all(place % VECTOR_BYTES == 0 for place in places)
    part = one[1:]
    del one
    assert pool.idle == 0  # a view still refers to it
    del part
    assert pool.idle > 0
    again = pool.array((15,), "float32")
    assert again.ctypes.data in places
    assert again.ctypes.data != two.ctypes.data


@pytest.mark.parametrize("architecture", [NETWORKS[1], NETWORKS[4]])
def test_later_steps_take_no_fresh_memory(architecture):
    backend = numba_backend()
    steps(backend, architecture, 3, 20, "float32")
    pool, fresh = backend.pool, backend.pool.fresh
    assert pool.live == 0  # nothing is kept once the network is gone
    assert 0 < pool.idle <= 1.25 * pool.peak
    steps(backend, architecture, 3, 20, "float32")
    assert pool.fresh == fresh > 0


def test_memory_that_smaller_batches_do_not_need_is_given_back():
    from igc_ref.backends.numba.batch import UNUSED, Pool

    pool = Pool()
    held = [pool.array((1000,), "float32") for _ in range(10)]
    del held
    for _ in range(2 * UNUSED):
        pool.array((10,), "float32")
        kept = pool.array((300,), "float32")  # in memory of 1000
    del kept
    assert max(pool.idle, pool.peak) < 10_000 < 10 * 4000


def test_threads_share_the_memory():
    from igc_ref.backends.numba.batch import Pool

    pool, interval = Pool(), sys.getswitchinterval()

    def work(seed):
        held = []
        for size in np.random.default_rng(seed).integers(1, 9, 3000):
            held = [*held[-5:], pool.array((size,), "float32")]
            held[-1][:] = seed
            assert all((array == seed).all() for array in held)

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert pool.live == 0 < pool.idle <= 1.25 * pool.peak


def test_no_two_inner_functions_have_one_name():
    """Kernels of two processes' caches may have such functions under the same number as well."""
    found = {}
    for module in [m for name, m in sys.modules.items() if name.startswith("igc_ref.backends.num")]:
        for inner in vars(module).values():
            if hasattr(inner, "py_func"):
                name = f"{inner.py_func.__module__}.{inner.py_func.__qualname__}"
                assert found.setdefault(name, inner) is inner, name
    assert len(found) > 40
