"""The numba backend: whole networks, the same bits on any number of threads, memory."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import igc_ref
from igc_ref import IGCSpec, TrainConfig, backends, data
from igc_ref.architecture import Architecture
from igc_ref.backends import NumpyBackend, get_backend, numba_problem
from igc_ref.errors import BackendError
from igc_ref.models import build
from igc_ref.optim import SGD
from igc_ref.testing import assert_close
from igc_ref.train import train
from tests.strategies import normal

needs_numba = pytest.mark.skipif(bool(numba_problem()), reason=str(numba_problem()))

NETWORKS = [
    Architecture("plain", 5, width=3),
    Architecture("plain_igc", 8, L=3, M=2),
    Architecture("plain_igc", 5, L=24, M=2),
    Architecture("resnet", 8, width=4),
    Architecture("resnet_igc", 8, L=2, M=3),
]


def numba_backend(threads=None, tile_bytes=None):
    from igc_ref.backends.numba_backend import NumbaBackend

    backend = NumbaBackend(threads)
    if tile_bytes:
        backend.tile_bytes = tile_bytes
    return backend


def steps(backend, architecture, count, N, dtype="float64", train=True):
    """Train a few steps; return everything there is: logits, dx, gradients, state."""
    model = build(architecture, backend, dtype, seed=1)
    optimiser, rng = SGD(model), np.random.default_rng(0)
    for _ in range(count):
        x, labels = normal(rng, (N, 3, 12, 12), dtype), rng.integers(0, 10, N)
        logits = model.forward(x, train=train)
        _, dlogits = backend.softmax_cross_entropy(logits, labels)
        dx = model.backward(dlogits)
        gradients = {f"d {name}": g.copy() for name, g in model.gradients().items()}
        optimiser.step(0.1)
    return {"logits": logits, "dx": dx, **gradients, **model.state_dict()}


def assert_same_bits(one, two):
    assert one.keys() == two.keys()
    for name, array in one.items():
        assert array.tobytes() == two[name].tobytes(), name


# -- the same numbers as NumPy ---------------------------------------------------------------------


@needs_numba
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("N", [1, 17])
@pytest.mark.parametrize("architecture", NETWORKS, ids=str)
def test_a_training_step_equals_numpy_s(architecture, N, train):
    expected = steps(NumpyBackend(), architecture, 1, N, train=train)
    actual = steps(numba_backend(), architecture, 1, N, train=train)
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert_close(1 + actual[name], 1 + array, 10_000)


@needs_numba
def test_three_steps_in_float32_stay_with_numpy_s():
    expected = steps(NumpyBackend(), NETWORKS[4], 3, 20, "float32")
    for name, array in steps(numba_backend(), NETWORKS[4], 3, 20, "float32").items():
        assert array.dtype == np.float32
        assert np.abs(array - expected[name]).max() <= 2e-3 * (1 + np.abs(expected[name]).max())


# -- the same bits ---------------------------------------------------------------------------------


@needs_numba
@pytest.mark.parametrize("architecture", NETWORKS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_do_not_depend_on_the_number_of_threads(architecture, dtype):
    one, two, five = (steps(numba_backend(n), architecture, 3, 37, dtype) for n in (1, 2, 5))
    assert_same_bits(one, two)
    assert_same_bits(one, five)


@needs_numba
def test_what_lies_in_unused_memory_does_not_matter():
    def poisoned(value):
        backend = numba_backend()
        take = backend.pool._take

        def take_filled(size):
            memory = take(size)
            memory.view(np.uint8)[...] = value
            return memory

        backend.pool._take = take_filled
        return steps(backend, NETWORKS[1], 2, 19, "float32")

    clean, nan = poisoned(0), poisoned(0xFF)  # bytes of 255 are NaN
    assert all(np.isfinite(array).all() for array in nan.values())
    assert_same_bits(clean, nan)


@needs_numba
def test_a_run_of_one_seed_repeats_bit_for_bit(tmp_path, monkeypatch):
    draw = data.shapes
    monkeypatch.setattr(data, "shapes", lambda split: draw(split, size=40))
    options = {"depth": 5, "L": 2, "M": 2, "backend": "numba", "epochs": 2, "batch_size": 16}
    states = []
    for name in ("one", "two"):
        train(TrainConfig(out=str(tmp_path / name), **options))
        with np.load(tmp_path / name / "checkpoint.npz") as file:
            states.append({key: file[key] for key in file.files if key.startswith("model")})
    assert_same_bits(*states)


# -- pieces of pictures ----------------------------------------------------------------------------


@needs_numba
@pytest.mark.parametrize("tile_bytes", [1, 20_000, 1 << 30])
@pytest.mark.parametrize(
    "spec",
    [IGCSpec.square(3, 2), IGCSpec(4, 6, 2, 3, stride=2), IGCSpec(2, 4, 2, 4, 5, 3)],
    ids=str,
)
def test_bands_of_rows_of_any_height_give_the_same_block(spec, tile_bytes):
    rng, numpy = np.random.default_rng(0), get_backend("numpy")
    x = normal(rng, (18, spec.in_channels, 23, 9))
    primary, secondary = normal(rng, spec.primary_shape), normal(rng, spec.secondary_shape)
    d = normal(rng, (18, spec.out_channels, *spec.output_size(23, 9)))
    results = []
    for backend in (numpy, numba_backend(tile_bytes=tile_bytes)):
        y, saved = backend.igc(backend.load(x), primary, secondary, spec)
        dx, *gradients = backend.igc_backward(backend.load(d), saved)
        results.append([backend.store(y), backend.store(dx), *gradients])
    for expected, actual in zip(*results, strict=True):
        assert_close(actual, expected, d.size)


@needs_numba
def test_compiling_is_announced_while_it_happens_and_only_if_it_takes_long(monkeypatch):
    from igc_ref.backends.compiled import warm_up

    backend, lines = numba_backend(), []
    monkeypatch.setattr(warm_up, "PATIENCE", 0.05)
    monkeypatch.setattr(warm_up, "_step", lambda *_: time.sleep(0.5) or lines.append("done"))
    backend.prepare("float32", lines.append)
    assert lines == [
        "numba compiles its kernels for float32: less than a minute, once; then they are kept",
        "done",
    ]
    lines.clear()
    monkeypatch.setattr(warm_up, "_step", lambda *_: None)
    backend.prepare("float32", lines.append)
    time.sleep(0.2)
    assert lines == []


@needs_numba
def test_after_preparing_a_training_step_compiles_nothing(monkeypatch):
    from igc_ref.backends.compiled import convolve, pointwise

    backend = numba_backend()
    backend.prepare("float32", print)
    kernels = [k for m in (convolve, pointwise) for k in vars(m).values() if hasattr(k, "_cache")]
    before = {k: len(k.signatures) for k in kernels}
    steps(backend, NETWORKS[4], 1, 3, "float32")
    assert {k: len(k.signatures) for k in kernels} == before


# -- what is kept on the disk ----------------------------------------------------------------------

RUN_A_KERNEL = """
import numpy as np
from igc_ref.backends.numba_backend import NumbaBackend

backend = NumbaBackend(1)
y, _ = backend.relu(backend.load(np.full((1, 1, 1, 1), -3.0)))
print(backend.store(y).item())
"""


@needs_numba
def test_a_kernel_is_compiled_anew_when_a_file_that_it_is_made_of_changes(tmp_path):
    shutil.copytree(
        Path(igc_ref.__file__).parent, tmp_path / "igc_ref",
        ignore=shutil.ignore_patterns("__pycache__"),
    )  # fmt: skip

    def run():
        command = [sys.executable, "-c", RUN_A_KERNEL]
        return float(subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout)

    assert run() == run() == 0
    rows = tmp_path / "igc_ref" / "backends" / "compiled" / "rows.py"
    source = rows.read_text(encoding="utf-8")
    assert "e.at_least(v, floor)" in source
    rows.write_text(source.replace("e.at_least(v, floor)", "v"), encoding="utf-8")
    assert run() == -3


# -- memory ----------------------------------------------------------------------------------------


@needs_numba
def test_memory_is_used_again_and_aligned_and_never_shared():
    from igc_ref.backends.compiled.pictures import Pool

    pool = Pool()
    one, two = pool.array((3, 5), "float32"), pool.array((3, 5), "float32")
    places = {array.ctypes.data for array in (one, two)}
    assert len(places) == 2
    assert all(place % 64 == 0 for place in places)
    part = one[1:]
    del one
    assert pool.idle == 0  # a view still refers to it
    del part
    assert pool.idle > 0
    again = pool.array((15,), "float32")
    assert again.ctypes.data in places
    assert again.ctypes.data != two.ctypes.data


@needs_numba
def test_later_steps_take_no_fresh_memory():
    backend = numba_backend()
    steps(backend, NETWORKS[4], 3, 20, "float32")
    peak, idle = backend.pool.peak, backend.pool.idle
    assert backend.pool.live == 0  # nothing is kept once the network is gone
    assert idle <= 1.5 * peak
    steps(backend, NETWORKS[4], 3, 20, "float32")
    assert (backend.pool.peak, backend.pool.idle) == (peak, idle)


# -- asked for and missing -------------------------------------------------------------------------


def test_without_numba_it_is_an_error_by_name_and_numpy_by_auto(monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"'numba' cannot run: .*pip install 'igc-ref\[numba\]'"):
        get_backend("numba")
    assert get_backend("auto").name == "numpy"


def test_a_broken_numba_is_an_error_by_name_and_numpy_by_auto(monkeypatch):
    for name in [*sys.modules]:
        if name.startswith(("igc_ref.backends.numba_backend", "igc_ref.backends.compiled")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(backends, "numba_backend", raising=False)
    monkeypatch.setitem(sys.modules, "numba", ModuleType("numba"))
    monkeypatch.setattr(backends, "find_spec", lambda name: object())
    monkeypatch.setitem(backends._PROBLEMS, "cupy", lambda: "no card")
    with pytest.raises(BackendError, match="numba is installed but fails: ImportError"):
        get_backend("numba")
    assert get_backend("auto").name == "numpy"


@needs_numba
def test_auto_prefers_numba_to_numpy(monkeypatch):
    monkeypatch.setitem(backends._PROBLEMS, "cupy", lambda: "no card")
    assert get_backend("auto").name == get_backend("numba").name == "numba"
