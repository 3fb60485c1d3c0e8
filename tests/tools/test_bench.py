"""The benchmark: its arithmetic, its processes, its rival, and the command."""

import json
import os
from dataclasses import asdict, replace

import numpy as np
import pytest

from igc_ref import IGCSpec
from igc_ref.backends import get_backend
from igc_ref.bench import BlockCase, Roofline, StepCase, cases, contenders, time_case
from igc_ref.bench.clock import EventClock
from igc_ref.bench.harness import Comparison, Measured, take_turns
from igc_ref.cli import main
from igc_ref.errors import BackendError
from igc_ref.networks import IGC
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.model import build
from igc_ref.testing import assert_close

BLOCK = BlockCase(IGCSpec(4, 6, 2, 3, stride=2), size=9, batch_size=2)
STEP = StepCase(Architecture("resnet_igc", 8, L=2, M=2), batch_size=2)


# -- arithmetic ------------------------------------------------------------------------------------


def test_the_work_of_a_block_and_the_slower_of_work_and_traffic():
    (work,) = BLOCK.works()
    positions = 5 * 5
    assert work.multiply_adds == 2 * positions * (6 * 2 * 9 + 6 * 2)
    assert (work.inputs, work.outputs) == (2 * 4 * 81, 2 * 6 * positions)
    assert cases.multiply_adds(BLOCK) == 3 * work.multiply_adds
    assert cases.floor_seconds(BLOCK, Roofline(1e30, 1.0)) == 6 * work.multiply_adds
    traffic = 4 * 3 * (work.inputs + work.outputs)  # bytes: forward once, backward twice
    assert cases.floor_seconds(BLOCK, Roofline(1.0, 1e30)) == traffic


def test_the_work_of_a_step_is_that_of_its_layers_and_shortcut_and_branch_share_an_input():
    model = build(STEP.architecture, "numpy")
    forward = 2 * sum(row.multiply_adds for row in model.rows())
    assert cases.multiply_adds(STEP) == 3 * forward
    shortcut, first = StepCase(Architecture("resnet", 8, width=4), 1).works()[3:5]
    assert shortcut.inputs == first.inputs == 4 * 32 * 32
    assert shortcut.outputs == first.outputs == 8 * 16 * 16


def test_the_rival_is_the_fastest_way_of_pytorch():
    measured = {
        "numba": Measured(10_000_000, 1.0),
        "torch eager NCHW": Measured(40_000_000, 4.0),
        "torch compile NCHW": Measured(50_000_000, 2.0),
    }
    comparison = Comparison(STEP, measured)
    assert comparison.best_of_torch() == "torch compile NCHW"
    text = "\n".join(comparison.lines(Roofline(1e9, 1e9)))
    row = next(line for line in text.splitlines() if line.split()[0] == "numba")
    assert row.split()[:3] == ["numba", "1000.00", "2.00"]
    assert row.split()[-1] == "10"
    assert text.endswith("fast as torch compile NCHW; PyTorch's smallest peak 40 MB")


def test_a_forward_pass_is_a_third_of_the_work_and_each_kind_has_a_ratio_of_its_own():
    forward = replace(STEP, train=False)
    assert forward.name == "forward of resnet_igc-8 L2M2"
    assert cases.from_dict(asdict(forward)) == forward
    assert 3 * cases.multiply_adds(forward) == cases.multiply_adds(STEP)
    assert cases.floor_seconds(forward, Roofline(1e30, 1.0)) == 2 * cases.multiply_adds(forward)
    measured = {
        "numba": Measured(1_000_000, both=1.0, forward=0.5),
        "torch eager NCHW": Measured(1_000_000, both=4.0, forward=0.25),
        "torch compile NCHW": Measured(1_000_000, both=2.0, forward=1.0),
        "onnxruntime": Measured(1_000_000, forward=0.125),
    }
    comparison = Comparison(BLOCK, measured, {"jax": "jax gave no answer within 9 s"})
    _, head, *rows, note, failed = comparison.lines(Roofline(1e9, 1e9))
    text = "\n".join([head, *rows])
    assert "both ms  ratio  forward ms  ratio" in text
    assert [line.split()[:5] for line in text.splitlines() if "numba" in line] == [
        ["numba", "1000.00", "2.00", "500.00", "0.50"]
    ]
    assert text.splitlines()[-1].split() == ["onnxruntime", "125.00", "2.00", "1"]
    assert "fast as torch compile NCHW / torch eager NCHW" in note
    assert failed == "  jax gave no answer within 9 s"
    assert comparison.to_dict(Roofline(1e9, 1e9))["failed"] == comparison.failed


def test_contenders_take_turns_in_both_orders_and_one_that_fails_is_left_out():
    calls, failed = [], {}

    def timed(name, seconds):
        def times(count):
            calls.append((name, count))
            if name == "c":
                raise ValueError("out of memory")
            return count * [seconds]

        return times

    times = {"a": timed("a", 0.25), "b": timed("b", 5.0), "c": timed("c", 1.0)}
    found = take_turns(times, rounds=2, seconds=1.0, most=3, failed=failed.__setitem__)
    assert found == {"a": 6 * [0.25], "b": 2 * [5.0], "c": []}
    assert calls == [("c", 2), ("b", 2), ("a", 2), ("a", 3), ("b", 1), ("b", 1), ("a", 3)]
    assert str(failed["c"]) == "out of memory"
    with pytest.raises(ValueError, match="out of memory"):
        take_turns(times, rounds=1, seconds=1.0)
    found = take_turns({"a": times["a"], "b": times["b"]}, rounds=2, seconds=1.0, slow=4.0)
    assert found == {"a": 8 * [0.25], "b": 2 * [5.0]}


def test_events_are_recorded_around_every_run_and_read_at_the_end():
    order = []

    class Event:
        def record(self):
            self.at = len(order)
            order.append("event")

        def synchronize(self):
            assert order == ["event", "run", "event", "run", "event"]
            self.reached = True

    def elapsed(before, after):
        assert after.reached
        return 1e3 * (after.at - before.at)

    clock = EventClock(Event, elapsed, lambda: None)
    assert clock.times(lambda: order.append("run"), 2) == [2.0, 2.0]


# -- processes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", [BLOCK, STEP, replace(STEP, train=False)], ids=["block", "step", "forward"]
)
def test_contenders_take_turns_with_this_package_not_what_lies_in_the_current_folder(
    case, tmp_path, monkeypatch
):
    (tmp_path / "igc_ref").mkdir()
    (tmp_path / "igc_ref" / "__init__.py").write_text("raise SystemExit('the wrong package')")
    monkeypatch.chdir(tmp_path)
    names = [name for name in contenders() if name in ("numpy", "numba")]
    comparison = time_case(case, names, threads=1, rounds=2, seconds=0.05)
    assert list(comparison.measured) == names
    for measured in comparison.measured.values():
        assert (measured.both is not None) == case.train
        assert (measured.forward is not None) == (case is BLOCK or not case.train)


def test_a_contender_that_fails_becomes_a_line_and_the_others_go_on(capfd):
    comparison = time_case(BLOCK, ["tpu", "numpy"], threads=1, rounds=1, seconds=0.01)
    assert list(comparison.measured) == ["numpy"]
    assert comparison.failed == {"tpu": "tpu failed with exit status 1; see its message above"}
    assert "backend='tpu' is unknown" in capfd.readouterr().err


def test_of_a_contender_that_fails_in_one_pass_the_other_stays(monkeypatch):
    def take_turns(times, rounds, seconds, *, slow, failed):
        failed(("numpy", "both"), BackendError("killed"))
        failed(("numpy", "weights"), BackendError("not there any more"))
        return {("numpy", "forward"): [3.0, 1.0, 2.0], ("numpy", "both"): []}

    monkeypatch.setattr("igc_ref.bench.harness.take_turns", take_turns)
    comparison = time_case(BLOCK, ["numpy"], threads=1)
    assert comparison.failed == {"numpy": "killed"}
    assert (comparison.measured["numpy"].forward, comparison.measured["numpy"].both) == (2.0, None)


def test_a_contender_that_exceeds_its_time_limit_is_ended():
    with pytest.raises(BackendError, match=r"^numpy gave no answer within 0\.05 s$"):
        time_case(BLOCK, ["numpy"], threads=1, limit=0.05)


def test_who_is_not_installed_does_not_compete(monkeypatch):
    monkeypatch.setattr("igc_ref.bench.harness.find_spec", lambda name: None)
    monkeypatch.setattr("igc_ref.bench.harness.numba_problem", lambda: "left out")
    assert contenders() == ["numpy"]


def test_who_has_no_such_pass_does_not_compete(monkeypatch):
    monkeypatch.setattr("igc_ref.bench.harness.find_spec", lambda name: True)
    rivals = [
        {*contenders(case)} & {"onnxruntime", "openvino", "jax"}
        for case in (BLOCK, replace(STEP, train=False), STEP)
    ]
    assert rivals == [{"onnxruntime", "openvino", "jax"}, {"onnxruntime", "openvino"}, set()]


# -- the rival computes the same -------------------------------------------------------------------


@pytest.mark.slow  # CI has these libraries then
@pytest.mark.parametrize("contender", ["onnxruntime", "openvino"])
def test_the_exported_graph_computes_our_block_and_our_network(contender):
    for package in ("onnx", contender):
        pytest.importorskip(package)
    from igc_ref.bench import rivals

    rng = np.random.default_rng(0)
    spec = IGCSpec(6, 12, 3, 4, kernel_size=5, stride=2)
    model = build(Architecture("resnet_igc", 8, L=2, M=3), "numpy")
    model.forward(rng.normal(size=(4, 3, 32, 32)).astype("float32"), train=True)  # statistics
    for layer, shape in (
        (IGC(model.backend, spec, rng=rng), (3, 6, 9, 7)),
        (model.network, (3, 3, 31, 33)),
    ):
        x = rng.normal(size=shape).astype("float32")
        y = layer.forward(model.backend.to_layout(x))
        expected = y if y.ndim == 2 else model.backend.from_layout(y)
        assert_close(rivals.forward(contender, layer, x, 1)(), expected, 10_000)
    for case, shape in (BLOCK, (2, 6, 5, 5)), (replace(STEP, train=False), (2, 10)):
        x = np.zeros((2, 4, 9, 9) if case is BLOCK else (2, 3, 32, 32), "float32")
        assert rivals.functions(contender, case, x, None, 1)["forward"]().shape == shape


def test_jax_computes_our_block_and_its_gradients():
    pytest.importorskip("jax")
    from igc_ref.bench import rivals

    rng, s = np.random.default_rng(0), IGCSpec(6, 12, 3, 4, kernel_size=5, stride=2)
    x, weights = rng.normal(size=(3, 6, 9, 7)).astype("float32"), BlockCase(s, 9).weights()
    dy = rng.normal(size=(3, 12, 5, 4)).astype("float32")
    backend = get_backend("numpy")
    y, saved = backend.igc(backend.to_layout(x), *weights, s)
    dx, *gradients = backend.igc_backward(backend.to_layout(dy), saved)
    ours = [backend.from_layout(y), backend.from_layout(dx), *gradients]
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    functions = rivals.jax_block(s, x, dy, threads, *weights)
    found = [functions["forward"](), *functions["both"](), *functions["weights"]()]
    for theirs, own in zip(found, [ours[0], *ours, *gradients], strict=True):
        assert_close(np.asarray(theirs), own, 1000)


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("igc_ref.bench.measure", lambda threads: Roofline(1e10, 1e11))


@pytest.mark.usefixtures("quick")
def test_the_command_times_a_block_or_a_training_step_and_writes_json(tmp_path, capsys):
    path = tmp_path / "bench.json"
    command = "bench -L 2 -M 2 --size 5 --batch-size 3 --rounds 1 --contenders numpy --threads 1"
    assert main([*command.split(), "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert "L2M2 4-4 3x3, 5x5, batch 3" in out
    assert "copy 10.0 GB/s, GEMM 100 GFLOP/s" in out
    record = json.loads(path.read_text())
    assert record["machine"]["threads"] == 1
    (comparison,) = record["comparisons"]
    assert comparison["case"]["spec"]["L"] == 2
    assert comparison["measured"]["numpy"]["both"] > 0
    command = "bench --arch plain --depth 5 --width 2 --batch-size 2 --rounds 1 --contenders numpy"
    assert main(command.split()) == 0
    assert "step of plain-5 W2, batch 2" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-L", "0"], "L=0 is not an integer of at least 1"),
        (["-L", "3", "-M", "2", "--in-channels", "4"], "in_channels=4 is not divisible by L=3"),
        (["--size", "0"], "size=0 is not"),
        (["--threads", "0"], "threads=0 is not"),
        (["--threads", "100000"], "threads=100000 is too large; at most "),
        (["--rounds", "0"], "rounds=0 is not"),
        (["--depth", "8"], "depth=8 belongs to a network: give --arch"),
        (["--arch", "plain", "--size", "8"], "size=8 belongs to a block: leave out --arch"),
        (["--arch", "plain_igc", "--depth", "9"], "depth=9 is not allowed"),
        (["--json", "nowhere/bench.json"], "cannot use nowhere/bench.json: No such file"),
        (["--contenders", "tpu"], "contender='tpu' is unknown; choose one of numpy"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_command_refuses_what_cannot_be(options, message, capsys):
    assert main(["bench", *options]) == 1
    out, err = capsys.readouterr()
    assert not out  # nothing was measured
    assert message in err
    assert err.count("\n") == 1
