"""On a real GPU: operators, graphs, bits, transfers, memory, the command.

    IGC_GPU=1 python -m pytest tests/backends/cuda/test_gpu.py -x -q

It needs CuPy, pytest and what the package needs, nothing else.
"""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.gpu import check as gpu_check
from benchmarks.gpu import ours as gpu_ours
from igc_ref.backends import get_backend
from igc_ref.cli import main
from igc_ref.networks.architecture import Architecture
from tests.backends.cuda.epochs import Epochs

pytestmark = pytest.mark.gpu
OPTIONS = SimpleNamespace(emulate=False, seed=0, tiny=False)
NETWORK = Architecture("plain_igc", 8, L=4, M=8)
STORAGES = ("float32", "float16")
LOOKS, BATCH = 64, 64  # steps between two looks at the losses
SIZE = (2 * LOOKS + 3) * BATCH - BATCH // 2  # the last batch is short


@pytest.fixture(scope="module")
def backends():
    """The backend with both ways to store images; its kernels are compiled once for the module."""
    return {storage: gpu_ours.make_backend(emulate=False, storage=storage) for storage in STORAGES}


@pytest.mark.parametrize("check", list(gpu_check.checks(64, tiny=False)), ids=lambda c: c.name)
def test_an_operator_is_float64_s_to_rounding_whatever_its_memory_held(check, backends):
    result = gpu_check.judge(check, gpu_check.under_test(check, backends), OPTIONS)
    assert result["passed"], result["errors"]


@pytest.mark.parametrize("architecture", gpu_check.NETWORKS, ids=str)
def test_training_steps_are_those_of_float64_to_rounding(architecture):
    result = gpu_check.against_float64(architecture, OPTIONS)
    assert result["passed"], result


@pytest.mark.parametrize("architecture", gpu_check.NETWORKS, ids=str)
def test_a_graph_gives_the_bits_of_its_kernels_and_a_seed_the_same_bits_again(architecture):
    result = gpu_check.same_bits(architecture, OPTIONS)
    assert result["passed"], result


def at_times(done):
    return done % LOOKS == 0


def test_a_captured_epoch_moves_its_draws_in_and_its_losses_out_and_nothing_else(monkeypatch):
    import cupy

    backend = gpu_ours.make_backend(emulate=False)
    crossings = []

    def counted(name, f):
        def counting(*arguments, **options):
            crossings.append(name)
            return f(*arguments, **options)

        return counting

    with backend.session():
        epochs = Epochs(NETWORK, backend, SIZE, BATCH)
        for seed in range(3):  # the last batch is short: a graph of its own, at the third
            epochs.run(seed, at_times)
        for name in ("upload", "overwrite", "download"):
            monkeypatch.setattr(backend.device, name, counted(name, getattr(backend.device, name)))
        for name in ("array", "asarray", "asnumpy", "ascontiguousarray", "empty", "zeros"):
            monkeypatch.setattr(cupy, name, counted(f"cupy.{name}", getattr(cupy, name)))
        compiled = len(backend.kernels._functions)
        losses = epochs.run(3, at_times)
    looks = math.ceil(len(losses) / LOOKS)
    # In: order, window, mirror; learning rates, step number. Out: losses, correct answers.
    expected = ["overwrite"] * 6 + ["download", "cupy.asnumpy"] * 2 * looks
    assert crossings == expected
    assert len(backend.kernels._functions) == compiled
    assert all(np.isfinite(loss) for loss, _ in losses)


def test_memory_does_not_grow_from_epoch_to_epoch():
    import cupy

    backend, used = gpu_ours.make_backend(emulate=False), []
    pool = cupy.get_default_memory_pool()
    with backend.session():
        epochs = Epochs(NETWORK, backend, SIZE, BATCH)
        x = backend.asarray(np.zeros((64, 3, 32, 32), "float32"))
        for seed in range(14):
            epochs.run(seed, at_times)
            epochs.model.forward(x)
            cupy.cuda.Device().synchronize()
            free, _ = cupy.cuda.runtime.memGetInfo()
            used.append((pool.used_bytes(), -free))
    settled = used[9]  # on an H100 the default pool grows until the seventh epoch, and then no more
    assert used[-1][0] <= settled[0]
    assert used[-1][1] - settled[1] <= 8 << 20  # the driver rounds, and others may be on the GPU


def test_the_memory_of_dropped_steps_is_given_back():
    import cupy

    backend, left = gpu_ours.make_backend(emulate=False), []

    def free():
        cupy.get_default_memory_pool().free_all_blocks()
        return cupy.cuda.runtime.memGetInfo()[0]

    for _ in range(3):
        with backend.session():
            epochs = Epochs(NETWORK, backend, SIZE, BATCH)
            for seed in range(3):
                epochs.run(seed, at_times)
            captured, held = epochs.steps.captured, free()
        del epochs
        with backend.session():  # the model's last gradients lay in the memory of the graph
            left.append(free())
        assert len(captured) == 2
        assert left[-1] - held >= 64 << 20  # both graphs' own memory, the data set takes less
    assert left[0] - left[-1] <= 8 << 20  # kernels are loaded in the first round


def test_auto_takes_the_gpu():
    assert get_backend("auto").name == "cupy"


def test_the_doctor_names_the_gpu_and_runs_a_kernel_on_it(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "GiB free" in out
    assert out.splitlines()[-1].endswith("takes cupy; one kernel tried: right")


@pytest.mark.parametrize("storage", STORAGES)
def test_the_command_trains_on_the_built_in_images(tmp_path, capsys, storage):

    folder = tmp_path / "run"
    arguments = ["--backend", "cupy", "--storage", storage, "--epochs", "10", "--out", str(folder)]
    assert main(["train", *arguments]) == 0
    out = capsys.readouterr().out
    assert "cupy backend" in out
    assert "not captured" not in out
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    assert last["test_accuracy"] > 0.9
    assert main(["eval", str(folder), "--backend", "cupy"]) == 0
