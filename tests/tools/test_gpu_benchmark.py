"""benchmarks.gpu without a card: its floors, its record, its rivals, a rehearsal."""

import json
import re
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import blocks, check, floors, ours, profile, sweep
from benchmarks.gpu.contenders import Contender, best, compete
from benchmarks.gpu.sections import DeviceLostError, Record, Section
from igc_ref import IGCSpec, reference
from igc_ref.backends.cupy import tiles
from igc_ref.backends.cupy.geometry import Geometry, of_block
from igc_ref.bench import BlockCase, Roofline
from igc_ref.bench.clock import Clock
from igc_ref.networks import BN_EPS
from igc_ref.networks.architecture import Architecture
from tests.backends.cuda import emulator, nvrtc

needs_emulator = pytest.mark.skipif(bool(emulator.problem()), reason=str(emulator.problem()))
CPU = SimpleNamespace(device="cpu", tiny=True)
H200 = Roofline(bandwidth=4.3e12, flops=67e12)

# L, M, size, stride: microseconds by memory, by FMA, of the fused backward pass, on an H200
FLOORS = {
    (24, 2, 32, 1): (23.4, 15.8, 38.3),
    (24, 4, 32, 2): (17.6, 7.9, 29.3),
    (24, 4, 16, 1): (11.7, 11.3, 29.3),
    (24, 8, 16, 2): (8.8, 5.6, 14.7),
    (24, 8, 8, 1): (5.9, 9.0, 24.8),
    (4, 8, 32, 1): (15.6, 19.0, 56.1),
}


def test_the_floors_of_the_paper_s_blocks():
    for case in blocks.cases(256):
        s, found = case.spec, floors.block_floors(case, H200)
        if expected := FLOORS.get((s.L, s.M, case.size, s.stride)):
            fused = found["both"] - found["forward"]
            assert (found["memory"], found["fma"], fused) == pytest.approx(expected, abs=0.06)
            assert found["forward"] == max(found["memory"], found["fma"])
    assert floors.block_floors(case, None) == {}


def test_the_floors_of_a_step():
    found = floors.step_floors(Architecture("plain_igc", 20, L=24, M=2), 256, H200)
    assert found["memory"] == pytest.approx(800, abs=5)
    assert found["fma"] == pytest.approx(760, abs=5)
    assert max(found["memory"], found["fma"]) < found["greater"]


@pytest.mark.skipif(bool(nvrtc.problem()), reason=str(nvrtc.problem()))
def test_the_kernels_that_measure_the_card_compile(monkeypatch):
    monkeypatch.setattr(nvrtc, "source", {"floors": floors.SOURCE, "profile": profile.SPIN}.get)
    for file, names in {"floors": {"fma_rate", "copy"}, "profile": {"spin"}}.items():
        kernels, _ = nvrtc.build(file, ("-std=c++17",), "sm_90")
        assert set(kernels) == names


# -- the record ------------------------------------------------------------------------------------


def test_every_item_is_on_disk_before_the_next_one_and_a_failing_one_does_not_stop_it(
    tmp_path, capfd
):
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


def test_a_new_process_goes_on_after_the_item_that_killed_the_device(tmp_path):
    path, ran = tmp_path / "gpu.json", []

    def lost():
        raise OSError("illegal address")

    section = Section(Record(path), "one", lost)
    section.item("first", lambda: {"n": 1})
    with pytest.raises(DeviceLostError, match="second has killed the device: illegal address"):
        section.item("second", lost)
    again = Section(Record(path), "one")
    for name in ("first", "second", "third"):
        again.item(name, lambda name=name: ran.append(name) or {"n": 2})
    assert ran == ["third"]
    assert again.items["first"]["n"] == 1


def test_an_unknown_item_is_refused(capsys):
    with pytest.raises(SystemExit):
        gpu.parse(["--only", "tiles,step 9"])
    assert "unknown step 9; kinds of items: probe, operators" in capsys.readouterr().err


def test_a_record_is_printed_with_floors_at_the_rates_that_were_measured(tmp_path, capsys):
    case, path = blocks.cases(256)[0], tmp_path / "gpu.json"
    record, times = Record(path), {"p10": 46.0, "p90": 48.0, "samples": 5, "exact": True}
    rivals = {"ours float32": times | {"us": 47.0}, "torch eager NCHW": times | {"us": 94.0}}
    record.items("floors")["ceilings"] = H200._asdict()
    record.items("blocks")[case.name] = {"sets": 3, "forward": rivals}
    record.items("steps")["plain-20 W16"] = {"failed": "ValueError: no such luck"}
    record.save()
    assert gpu.main(["--show", str(path)]) == 0
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if line.startswith(f"{case.name} forward"))
    numbers = row.removeprefix(f"{case.name} forward").split()
    assert numbers[:5] == ["23.41", "47", "2.008", "-", "2"]  # floor, ours, ratio, float16, torch
    assert row.endswith("torch eager NCHW")
    assert "steps, plain-20 W16: ValueError: no such luck" in text


@pytest.mark.parametrize("gpu_name", ["h100", "h200"])
def test_the_records_in_the_repository_can_be_printed(gpu_name, capsys):
    path = Path(gpu.__file__).parents[1] / "results" / f"gpu-{gpu_name}.json"
    assert gpu.main(["--show", str(path)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^plain_igc-20 L24M2  +ours float32  +[234]\.\d+ ", text, re.MULTILINE)  # ms
    assert re.search(r"^L24M2 48-48 3x3, 32x32 forward  +\S+ +5", text, re.MULTILINE)
    assert "no summary" not in text


# -- contenders ------------------------------------------------------------------------------------


def test_a_contender_that_fails_is_named_and_left_out(capfd):
    def fail():
        raise ValueError("out of memory")

    several = [
        Contender("a x", lambda: (dict, ""), Clock(), units=2),
        Contender("a y", lambda: (dict, "quick"), Clock(), exact=False),
        Contender("b", lambda: (fail, ""), Clock()),
        Contender("c", fail, Clock()),
    ]
    found = compete(several, rounds=2, seconds=1e-7)
    assert found["b"]["failed"] == found["c"]["failed"] == "ValueError: out of memory"
    assert "out of memory" in capfd.readouterr().err
    assert found["a y"]["note"] == "quick"
    for name in ("a x", "a y"):
        assert 0 < found[name]["p10"] <= found[name]["us"] <= found[name]["p90"]
    times = {"a x": {"us": 2.0, "exact": True}, "a y": {"us": 1.0, "exact": False}}
    assert best(times, "a") == ("a y", 1.0)
    assert best(times, "a", exact=True) == ("a x", 2.0)
    assert best(times, "b") == (None, None)
    with pytest.raises(RuntimeError, match="c has lost the device: ValueError: out of memory"):
        compete(several, rounds=2, seconds=1e-7, alive=fail)


@pytest.mark.parametrize("layout", ["NCHW", "channels_last"])
@pytest.mark.parametrize("spec", [IGCSpec(4, 6, 2, 3, stride=2), IGCSpec.square(3, 2)], ids=str)
def test_pytorch_s_block_and_the_dense_convolution_are_the_explicit_matrices(spec, layout):
    torch = pytest.importorskip("torch")
    from benchmarks.gpu import rivals

    inputs = rivals.Blocks(BlockCase(spec, 7, batch_size=3), sets=2, device="cpu")
    functions = inputs.functions(rivals.Way("eager", layout, search=False, tf32=False))
    x, d, *weights = (np.float64(a) for a in (inputs.x, inputs.d, *inputs.weights))
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
    contenders = [c for _, c in rivals.blocks(inputs.case, 2, CPU) if c.name.startswith("dense")]
    errors = {c.name: float(c.prepare()[1].removeprefix("error ")) for c in contenders}
    rounded = {f"dense bf16 {layout}" for layout in ("NCHW", "channels_last")}
    assert {name for name, error in errors.items() if error > 1e-5} == rounded
    assert len(errors) == 6
    assert torch.backends.cudnn.benchmark is False  # switched back


# -- a rehearsal -----------------------------------------------------------------------------------


def sgd_wrong_by(factor, backend):
    """The backend with an optimiser that multiplies one of the weights by this factor."""
    right = backend.sgd_steps

    def sgd_steps(weights, *others, **numbers):
        right(weights, *others, **numbers)
        weights["c"][...] *= np.float32(factor())

    backend.sgd_steps = sgd_steps
    return {"float32": backend}


@needs_emulator
def test_a_wrong_operator_fails_its_check(monkeypatch):
    options = gpu.parse(["--emulate", "--seed", "1"])
    (sgd,) = (c for c in check.checks(4, tiny=True) if c.name == "sgd")
    for factor, passes in ((1.0, True), (1.0001, False), (np.nan, False)):
        wrong = sgd_wrong_by(lambda f=factor: f, ours.make_backend(emulate=True))
        assert check.judge(sgd, wrong, options)["passed"] is passes
    # A kernel that reads memory that was never written passes until that memory holds NaN.
    memory = [1.0]

    @contextmanager
    def poisoned(emulate, megabytes):
        memory[0] = np.nan
        yield

    monkeypatch.setattr(ours, "poisoned", poisoned)
    monkeypatch.setattr(options, "emulate", False)
    wrong = sgd_wrong_by(lambda: memory[0], ours.make_backend(emulate=True))
    result = check.judge(sgd, wrong, options)
    assert result["passed"] is False
    assert "float32, other bits at the second run" in result["errors"]


@needs_emulator
def test_our_block_computes_the_same_captured_and_in_training():
    backend = ours.make_backend(emulate=True)
    block = ours.OurBlock(backend, BlockCase(IGCSpec.square(2, 2), 6, batch_size=3), sets=2)
    run, note = ours.replayed(backend, block.both, 2)
    backend.device.launches.clear()
    run()
    assert not note
    one = ["pack", "block_forward", "pack", "block_backward", "add_up"]
    assert backend.device.launches == one * 2
    z, (dgamma, _), (dx, *_) = block.training(0)
    assert "find_sums" not in backend.device.launches  # its sums come from the next block
    for array in (backend.from_layout(z), dgamma, backend.from_layout(dx)):
        assert np.isfinite(array).all()


# -- the sweep of tiles ----------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A copy of the committed table, without entries, in its place."""
    path = tmp_path / "tiles.json"
    path.write_text(json.dumps({"about": "how", "tiles": {}}))
    monkeypatch.setattr(tiles, "TABLE", path)
    read_again()
    yield path
    read_again()


def read_again():
    tiles.table.cache_clear()
    tiles.choose.cache_clear()


@needs_emulator
def test_tiles_are_timed_and_compared_and_the_table_made_of_them_is_obeyed(tmp_path, table, capsys):
    path = tmp_path / "gpu.json"
    assert gpu.main(["--emulate", "--item", "tiles", "--json", str(path)]) == 0
    record = Record(path)
    items = record.items("tiles")
    assert [name.split()[-1] for name in items] == ["backward"] * 2 + ["forward"] * 2
    for item in items.values():
        assert item["passed"] is True
        first, second = item["tiles"]
        assert first["tile"] != second["tile"]
        assert first["differs"] == 0 < second["differs"] < 1e-6
        assert 0 < second["least"] <= second["us"]
    for item, faster in zip(items.values(), (1.01, 1.5, 1.01, 1.01), strict=True):
        item["tiles"][0]["us"] = faster * item["tiles"][1]["us"]
    with pytest.raises(SystemExit, match="no card was found"):
        sweep.renew(record, table)
    record.values["machine"] = {"card": "H100, 580", "date": "2026-11-26"}
    record.save()
    sweep.main([str(path)], table)
    assert "H100" in capsys.readouterr().out
    read_again()
    (entry,) = tiles.table().values()  # of the strided block, backward
    wanted = list(items.values())[1]["tiles"]
    case = blocks.cases(4, tiny=True)[1]

    def chosen(N, **more):
        g = of_block(case.spec, N, case.size, case.size)
        found = list(tiles.candidates(g, True, True, **more))
        model = min(found, key=lambda tile: tiles.cost(g, tile))
        return [list(t.shares) for t in (tiles.choose(g, backward=True, **more), model)]

    own, model = chosen(N=4)
    assert own == entry["tile"] == wanted[1]["tile"] == chosen(N=5)[0]
    assert model == wanted[0]["tile"]
    little = min(row["shared"] for row in wanted)
    for other in ({"N": 3}, {"N": 4, "itemsize": 2}, {"N": 4, "shared": little}):
        own, model = chosen(**other)  # not measured, or without room for it
        assert own == model
    items[list(items)[1]]["tiles"][0]["us"] = 1.0  # measured again: the model is right
    record.save()
    sweep.main([str(path)], table)
    assert json.loads(table.read_text())["tiles"] == {}


@needs_emulator
def test_a_tile_with_other_results_fails_its_item_and_one_that_cannot_run_is_named(monkeypatch):
    options = gpu.parse(["--emulate"])
    backend, case = ours.make_backend(emulate=True), blocks.cases(4, tiny=True)[0]
    backend.kernels = profile.TimedKernels(backend.device)
    block = partial(ours.OurBlock, backend, sets=2)
    training = ours.OurBlock.training
    for factor, passes in ((1.0, True), (1.0001, False), (np.nan, False), (None, False)):
        calls = []

        def changed(self, i, factor=factor, calls=calls):
            z, norm, gradients = training(self, i)
            calls.append(i)
            if len(calls) == 4:  # two to compile, the first tile, this one
                gradients[1][...] *= factor
            return z, norm, gradients

        monkeypatch.setattr(ours.OurBlock, "training", changed)
        found = sweep.sweep(backend, block, case, True, options)
        assert found["passed"] is passes
    assert "TypeError: " in found["tiles"][1]["failed"]
    assert found["tiles"][0]["us"] > 0


def test_the_tiles_of_the_committed_table_are_chosen_on_an_h100():
    for key, entry in tiles.table().items():
        work, _, numbers = key.partition(" secondary=")
        found = dict(pair.split("=") for pair in f"secondary={numbers}".split())
        itemsize = int(found.pop("bytes"))
        g = Geometry(**{name: int(value) for name, value in found.items()}, N=entry["N"])
        tile = tiles.choose(g, work != "forward", work == "backward", itemsize)
        assert list(tile.shares) == entry["tile"], key
