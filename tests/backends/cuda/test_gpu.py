"""On a real card: operators, graphs, bits, transfers, memory, the command. ``pytest -m gpu``."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.gpu import check as gpu_check
from benchmarks.gpu import ours as gpu_ours
from igc_ref.backends import cupy_problem, get_backend
from igc_ref.cli import main
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.model import build
from igc_ref.report import silent
from igc_ref.training.loop import draw, steps_of
from igc_ref.training.optim import SGD
from igc_ref.training.session import PAUSE_EVERY

PROBLEM = cupy_problem()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))]
OPTIONS = SimpleNamespace(emulate=False, seed=0, tiny=False)
NETWORK = Architecture("plain_igc", 8, L=4, M=8)
STORAGES = ("float32", "float16")


@pytest.fixture(scope="module")
def backends():
    """The backend with both ways to keep pictures; its kernels are compiled once for the module."""
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


class Epochs:
    """A network in training on random pictures, an epoch at a time."""

    def __init__(self, backend, batch=64, steps=2 * PAUSE_EVERY + 3):
        self.backend, self.size = backend, batch * steps - batch // 2
        self.model = build(NETWORK, backend)
        images, optimiser = gpu_ours.random_images(self.size), SGD(self.model)
        self.batch, self.rates = batch, np.full(steps, 1e-3)
        self.steps = steps_of(self.model, optimiser, images, batch, silent)

    def run(self, seed):
        sampling = draw(seed, 1, self.size, self.batch, augment=True)
        pauses = lambda done: done % PAUSE_EVERY == 0  # noqa: E731
        return list(self.steps.epoch(sampling, self.rates, 0, pauses))


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
        epochs = Epochs(backend)
        for seed in range(3):  # the last batch is short: a graph of its own, at the third
            epochs.run(seed)
        for name in ("upload", "overwrite", "download"):
            monkeypatch.setattr(backend.device, name, counted(name, getattr(backend.device, name)))
        for name in ("array", "asarray", "asnumpy", "ascontiguousarray", "empty", "zeros"):
            monkeypatch.setattr(cupy, name, counted(f"cupy.{name}", getattr(cupy, name)))
        compiled = len(backend.kernels._functions)
        losses = epochs.run(3)
    looks = math.ceil(len(losses) / PAUSE_EVERY)
    # In: order, window, mirror; learning rates, step number. Out: losses, right answers.
    expected = ["overwrite"] * 6 + ["download", "cupy.asnumpy"] * 2 * looks
    assert crossings == expected
    assert len(backend.kernels._functions) == compiled
    assert all(np.isfinite(loss) for loss, _ in losses)


def test_memory_does_not_grow_from_epoch_to_epoch():
    import cupy

    backend, used = gpu_ours.make_backend(emulate=False), []
    pool = cupy.get_default_memory_pool()
    with backend.session():
        epochs = Epochs(backend)
        x = backend.asarray(np.zeros((64, 3, 32, 32), "float32"))
        for seed in range(8):
            epochs.run(seed)
            epochs.model.forward(x)
            cupy.cuda.Device().synchronize()
            free, _ = cupy.cuda.runtime.memGetInfo()
            used.append((pool.used_bytes(), -free))
    assert used[-1][0] <= used[3][0]
    assert used[-1][1] - used[3][1] <= 8 << 20  # the driver rounds, and others may be on the card


def test_auto_takes_the_card():
    assert get_backend("auto").name == "cupy"


@pytest.mark.parametrize("storage", STORAGES)
def test_the_command_trains_on_the_built_in_pictures(tmp_path, capsys, storage):
    folder = tmp_path / "run"
    arguments = ["--backend", "cupy", "--storage", storage, "--epochs", "10", "--out", str(folder)]
    assert main(["train", *arguments]) == 0
    out = capsys.readouterr().out
    assert "cupy backend" in out
    assert "not captured" not in out
    last = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    assert last["test_accuracy"] > 0.9
    assert main(["eval", str(folder), "--backend", "cupy"]) == 0
