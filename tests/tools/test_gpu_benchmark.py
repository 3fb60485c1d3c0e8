"""benchmarks.gpu without a card: its arithmetic, its record, its rivals, a rehearsal."""

import json
import sys

import numpy as np
import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import check as gpu_check
from benchmarks.gpu import clock as gpu_clock
from benchmarks.gpu import floors as gpu_floors
from benchmarks.gpu import ours as gpu_ours
from benchmarks.gpu.clock import Contender, HostClock, best, compete
from benchmarks.gpu.record import DeviceLostError, Record, Section
from igc_ref import IGCSpec, reference
from igc_ref.backends import NumpyBackend
from igc_ref.bench import BlockCase
from igc_ref.networks import BN_EPS
from igc_ref.networks.architecture import Architecture
from tests.backends.cuda import emulator

needs_emulator = pytest.mark.skipif(bool(emulator.problem()), reason=str(emulator.problem()))
poison_is_nan = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")


# -- floors ----------------------------------------------------------------------------------------

# GPU.md: gigaflops, memory, FMA, backward-weights, fused backward; at 4.3 TB/s and 67 TFLOP/s
TABLE = {
    (24, 2, 32, 1): (1.06, 23.4, 15.8, 31.6, 38.3),
    (24, 4, 32, 2): (0.53, 17.6, 7.9, 17.6, 29.3),
    (24, 4, 16, 1): (0.76, 11.7, 11.3, 22.5, 29.3),
    (24, 8, 16, 2): (0.38, 8.8, 5.6, 11.3, 14.7),
    (24, 8, 8, 1): (0.60, 5.9, 9.0, 18.0, 24.8),
    (4, 8, 32, 1): (1.28, 15.6, 19.0, 38.1, 56.1),
}


@pytest.mark.parametrize("shape", TABLE, ids=str)
def test_the_floors_are_those_of_the_design(shape):
    (case,) = (
        c for c in gpu_floors.cases(256)
        if (c.spec.L, c.spec.M, c.size, c.spec.stride) == shape
    )  # fmt: skip
    f = gpu_floors.block_floors(case)
    found = (f.gigaflops, f.memory, f.fma, f.weights, f.fused)
    assert found == pytest.approx(TABLE[shape], abs=0.06)


def test_the_floors_of_a_step_are_those_of_the_design():
    floors = gpu_floors.step_floors(Architecture("plain_igc", 20, L=24, M=2), 256)
    assert floors["memory"] == pytest.approx(0.80, abs=0.005)
    assert floors["fma"] == pytest.approx(0.76, abs=0.005)
    assert max(floors["memory"], floors["fma"]) < floors["greater"]


def test_twice_the_rates_halve_the_floors():
    case = gpu_floors.cases(256)[0]
    slow, fast = gpu_floors.block_floors(case), gpu_floors.block_floors(case, 8.6e12, 134e12)
    assert fast.both == pytest.approx(slow.both / 2)
    assert fast.training == pytest.approx(slow.training / 2)


def test_inputs_rotate_through_more_than_the_cache_holds():
    assert gpu_clock.sets_for(24 << 20) * (24 << 20) * 4 >= 240e6
    assert gpu_clock.sets_for(100) == gpu_clock.MOST_SETS
    assert gpu_clock.sets_for(1 << 30) == 2


# -- the record ------------------------------------------------------------------------------------


def test_every_item_is_on_disk_before_the_next_one_and_a_failing_one_stops_nobody(tmp_path, capfd):
    path = tmp_path / "out" / "gpu.json"
    section = Section(Record(path), "one")

    def read():
        return json.loads(path.read_text())["sections"]["one"]["items"]

    assert section.item("first", lambda: {"value": float("nan"), "n": np.float32(2)})["n"] == 2
    assert read()["first"]["value"] == "nan"

    def fail():
        assert "running" in read()["second"]
        raise ValueError("no such luck")

    assert section.item("second", fail) is None
    assert "no such luck" in capfd.readouterr().err
    assert read()["second"] == {"failed": "ValueError: no such luck"}
    assert section.item("third", lambda: {"passed": False})["passed"] is False
    assert section.failed() == ["second", "third"]


def test_a_new_process_goes_on_after_the_item_that_killed_the_old_one(tmp_path):
    path, ran = tmp_path / "gpu.json", []

    def lost():
        raise OSError("illegal address")

    section = Section(Record(path), "one", alive=lost)
    section.item("first", lambda: {"n": 1})
    with pytest.raises(DeviceLostError, match="second has killed the device: illegal address"):
        section.item("second", lost)
    section._keep("third", {"running": True})  # and one that took the process with it

    again = Section(Record(path), "one")
    for name in ("first", "second", "third", "fourth"):
        again.item(name, lambda name=name: ran.append(name) or {"n": 2})
    assert ran == ["fourth"]
    assert again.items["third"] == {"failed": "the process died in it"}
    assert again.items["first"]["n"] == 1


def test_what_does_not_fit_into_the_time_is_skipped_and_done_at_the_next_call(tmp_path):
    record = Record(tmp_path / "gpu.json")
    assert Section(record, "one", until=0).item("first", dict, seconds=1) is None
    assert record.section("one")["first"] == {"skipped": "no time left"}
    assert Section(record, "one").item("first", lambda: {"n": 1})["n"] == 1


def test_sections_share_the_time_and_are_restarted_when_a_device_is_lost(tmp_path):
    options = gpu.parse(["--only", "steps,check", "--json", str(tmp_path / "gpu.json")])
    assert options.sections == ["check", "steps"]
    calls = []

    def process(name, until):
        calls.append(name)
        return {"check": gpu.LOST if len(calls) < 3 else 1, "steps": 0}[name]

    assert gpu.run_all(options, gpu.time.time() + 1000, process) == ["check"]
    assert calls == ["check", "check", "check", "steps"]


def test_an_unknown_section_is_refused(capsys):
    with pytest.raises(SystemExit):
        gpu.parse(["--only", "check,train,everything"])
    assert "unknown everything; known: check, blocks" in capsys.readouterr().err


# -- taking turns ----------------------------------------------------------------------------------


def test_contenders_take_turns_and_one_that_fails_is_left_out(capfd):
    ran = []

    def fail():
        raise ValueError("out of memory")

    several = [
        Contender("one", lambda: ran.append("one"), HostClock(), units=2),
        Contender("two", lambda: ran.append("two"), HostClock(), exact=False, note="quick"),
        Contender("three", fail, HostClock()),
    ]
    found = compete(several, rounds=2, seconds=1e-7)
    assert found["three"]["failed"] == "ValueError: out of memory"
    assert "out of memory" in capfd.readouterr().err
    assert found["two"]["note"] == "quick"
    assert ran.index("one") < len(ran) - 1 - ran[::-1].index("two")
    for name in ("one", "two"):
        assert 0 < found[name]["p10"] <= found[name]["us"] <= found[name]["p90"]
    times = {"a x": {"us": 2.0, "exact": True}, "a y": {"us": 1.0, "exact": False}}
    assert best(times, "a") == ("a y", 1.0)
    assert best(times, "a", exact=True) == ("a x", 2.0)
    assert best(times, "b") == (None, None)


# -- rivals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NCHW", "channels_last"])
@pytest.mark.parametrize("spec", [IGCSpec(4, 6, 2, 3, stride=2), IGCSpec.square(3, 2)], ids=str)
def test_pytorch_s_block_and_the_dense_convolution_are_the_explicit_matrices(spec, layout):
    torch = pytest.importorskip("torch")
    from benchmarks.gpu import rivals

    inputs = rivals.Blocks(BlockCase(spec, 7, batch_size=3), sets=2, device="cpu")
    way = rivals.Way("eager", layout, search=False, tf32=False)
    functions = inputs.functions(way)
    x, d = (np.float64(a) for a in (inputs.x, inputs.d))
    weights = [np.float64(np.float32(w)) for w in inputs.weights]
    expected = reference.forward(x, *weights, spec)
    y = functions["forward"](0)
    assert np.abs(y.numpy() - expected).max() < 1e-4
    again, gradients = functions["both"](1)  # the second set is the first one, rolled
    assert np.abs(again.numpy() - np.roll(expected, 1, axis=0)).max() < 1e-4
    exact = reference.backward(np.roll(d, 1, 0), np.roll(x, 1, 0), *weights, spec)
    for actual, exactly in zip(gradients, exact, strict=True):
        assert np.abs(actual.numpy().reshape(exactly.shape) - exactly).max() < 1e-3
    z, _ = functions["training"](0)
    mean, var = (f(expected, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.var))
    exactly = np.maximum((expected - mean) / np.sqrt(var + BN_EPS), 0)
    assert np.abs(z.numpy() - exactly).max() < 1e-3
    notes = {c.name: float(c.note.split()[1]) for c in inputs.dense()}
    assert {n for n, error in notes.items() if error > 1e-5} == {
        f"dense bf16 {layout}" for layout in ("NCHW", "channels_last")
    }
    assert torch.backends.cudnn.benchmark is False  # switched back


def test_pytorch_trains_on_our_pictures():
    torch = pytest.importorskip("torch")
    from benchmarks.gpu.rivals_train import augmented

    rng = np.random.default_rng(0)
    x, mirror = rng.normal(size=(5, 3, 8, 6)), rng.random(5) < 0.5
    top, left = rng.integers(0, 9, (2, 5))
    expected = NumpyBackend().pad_crop_mirror(x, top, left, mirror, 4)
    found = augmented(*(torch.from_numpy(a) for a in (x, top, left, mirror)))
    assert np.array_equal(found.numpy(), expected)


# -- a rehearsal -----------------------------------------------------------------------------------


@needs_emulator
@poison_is_nan
@pytest.mark.slow
def test_the_checks_pass_on_the_emulator(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "gpu.json"
    arguments = ["--emulate", "--worker", "check", "--json", str(path), "--no-float16"]
    assert gpu.main([*arguments, "--seed", "1"]) == 0
    items = json.loads(path.read_text())["sections"]["check"]["items"]
    assert len(items) > 20
    assert all(item["passed"] for item in items.values())
    text = capsys.readouterr().out
    assert "FAIL" not in text
    assert f"check: {len(items)} passed, 0 failed" in text


@needs_emulator
@poison_is_nan
def test_a_wrong_operator_fails_its_check():
    options = gpu.parse(["--emulate", "--seed", "1"])
    backend = gpu_ours.make_backend(emulate=True)
    (check,) = (c for c in gpu_check.checks(4, tiny=True) if c.name == "sgd")
    assert gpu_check.judge(check, {"float32": backend}, options)["passed"]
    for wrong in (1.0001, np.nan):
        right = backend.sgd_steps

        def sgd_steps(weights, *others, right=right, wrong=wrong, **numbers):
            right(weights, *others, **numbers)
            weights["c"][...] *= np.float32(wrong)

        broken = gpu_ours.make_backend(emulate=True)
        broken.sgd_steps = sgd_steps
        assert not gpu_check.judge(check, {"float32": broken}, options)["passed"]


@needs_emulator
@poison_is_nan
def test_our_block_computes_the_same_captured_and_in_training(monkeypatch):
    backend = gpu_ours.make_backend(emulate=True)
    block = gpu_ours.OurBlock(backend, BlockCase(IGCSpec.square(2, 2), 6, batch_size=3), sets=2)
    run = gpu_ours.replayed(backend, block.both, 2)
    backend.device.launches.clear()
    run()
    assert backend.device.launches == ["block_forward", "block_backward", "add_up"] * 2
    z, (dgamma, _), (dx, *_) = block.training(0)
    assert "find_sums" not in backend.device.launches  # its sums come from the next block
    for array in (backend.from_layout(z), dgamma, backend.from_layout(dx)):
        assert np.isfinite(array).all()
