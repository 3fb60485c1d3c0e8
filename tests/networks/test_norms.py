"""Networks with group or layer norm: which groups, what an image depends on, what they refuse."""

import numpy as np
import pytest

from igc_ref import build_model
from igc_ref.cli import main
from igc_ref.errors import SpecError
from igc_ref.exchange.header import momentum
from igc_ref.networks import BatchNorm, GroupNorm
from igc_ref.networks.builder import cost
from igc_ref.testing import assert_close
from igc_ref.training.session import train
from tests.support.runs import config, error_of

NETWORKS = [("plain_igc", 8, {"L": 3, "M": 4}), ("resnet", 8, {"width": 10})]


@pytest.mark.parametrize(("arch", "depth", "numbers"), NETWORKS)
def test_every_batch_norm_is_replaced_and_groups_are_the_most_up_to_8_that_divide(
    arch, depth, numbers
):
    model = build_model(arch, depth, **numbers, norm="group", backend="numpy")
    layers = [layer for _, layer in model.network.named_layers()]
    found = {len(n.parameters["gamma"]): n.groups for n in layers if isinstance(n, GroupNorm)}
    assert found == ({12: 6, 24: 8, 48: 8} if arch == "plain_igc" else {10: 5, 20: 5, 40: 8})
    assert not any(isinstance(layer, BatchNorm) for layer in layers)
    batch = build_model(arch, depth, **numbers, backend="numpy")
    kinds = [row.kind.replace("batch norm", "layer norm") for row in batch.rows()]
    one = build_model(arch, depth, **numbers, norm="layer", backend="numpy")
    assert [row.kind for row in one.rows()] == kinds
    assert cost(one.architecture) == cost(batch.architecture) == cost(model.architecture)
    assert momentum(model) is None


def test_groups_that_do_not_divide_the_channels_are_refused():
    backend = build_model("plain", 5, width=4, backend="numpy").backend
    with pytest.raises(SpecError, match="channels=6 is not divisible by groups=4"):
        GroupNorm(backend, 6, 4)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_an_image_s_logits_and_the_sum_of_gradients_do_not_depend_on_its_batch(backend, norm):
    rng = np.random.default_rng(0)
    model = build_model(
        "plain_igc", 5, L=2, M=3, norm=norm, backend=backend, dtype="float64", seed=1
    )
    x, d = rng.normal(size=(3, 3, 7, 6)), rng.normal(size=(3, 10))
    logits = backend.to_numpy(model.forward(backend.asarray(x), train=True))
    model.backward(backend.asarray(d))
    whole = {name: backend.to_numpy(g) for name, g in model.gradients().items()}
    sums = dict.fromkeys(whole, 0.0)
    for n in range(3):
        alone = model.forward(backend.asarray(x[n : n + 1]), train=n > 0)
        assert_close(1 + backend.to_numpy(alone)[0], 1 + logits[n], 1000)
        model.backward(backend.asarray(d[n : n + 1]))
        for name, g in model.gradients().items():
            sums[name] = sums[name] + backend.to_numpy(g)
    for name, gradient in whole.items():
        assert_close(1 + sums[name], 1 + gradient, 10_000)


@pytest.mark.usefixtures("few_images")
def test_a_run_of_one_image_a_step_is_trained_tested_compressed_and_has_no_statistics(
    tmp_path, capsys
):
    changes = {"arch": "plain", "L": None, "M": None, "width": 6, "norm": "group", "batch_size": 1}
    run = str(train(config(tmp_path, epochs=1, **changes)).run)
    assert main(["eval", run, "--backend", "numpy"]) == 0
    line = error_of(capsys, "eval", run, "--backend", "numpy", "--precise-bn")
    assert "plain-5 W6 group norm has no batch norm: there are no statistics to take" in line
    sizes = ["-L", "3", "-M", "2", "--epochs", "1", "--backend", "numpy"]
    assert main(["compress", run, *sizes, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "plain_igc-5 L3M2 group norm" in out
    assert "fine-tuned" in out
    assert "anew" not in out
