"""Whole networks in PyTorch: the same numbers there, and the same bits when they come back."""

import copy
import pickle

import numpy as np
import pytest

from igc_ref.errors import BackendError, CheckpointError
from igc_ref.exchange.state import to_theirs
from igc_ref.networks.architecture import ARCHITECTURES, Architecture, numbers_of
from igc_ref.networks.metadata import Metadata
from igc_ref.networks.model import build
from igc_ref.testing import assert_close
from igc_ref.training.loop import training_step
from igc_ref.training.optim import SGD
from tests.support.strategies import depth_of

torch = pytest.importorskip("torch")
from igc_ref.exchange.torch import from_torch, to_torch  # noqa: E402

pytestmark = pytest.mark.slow


FORMS = {
    "1-D": {"kernel_sizes": (5,), "dims": "1"},
    "mixed": {"kernel_sizes": (5, 3)},
    "channels": {"gate": "channels"},
    "partitions": {"gate": "partitions", "keep": 1},
    "group": {"norm": "group"},
    "layer": {"norm": "layer"},
}


def network(arch="resnet_igc", dtype="float32", seed=1):
    """A network whose batch norms differ from channel to channel, as after training."""
    arch, _, form = arch.partition(" ")
    numbers = {name: {"L": 2, "M": 4, "width": 4}[name] for name in numbers_of(arch)}
    form = FORMS.get(form, {})
    model = build(Architecture(arch, depth_of(arch), **numbers, **form), "numpy", dtype)
    rng, state = np.random.default_rng(seed), model.state_dict()
    for name, array in state.items():
        if name.endswith(("gamma", "beta", "running_mean", "running_var")):
            array[...] = rng.uniform(0.5, 1.5, array.shape) - name.endswith(("beta", "mean"))
    model.load_state_dict(state)
    model.metadata = Metadata("pets", ["cat", "dog"], [128] * 3, [64] * 3, [32, 32])
    return model


def assert_same(model, other):
    """The same network to the last bit."""
    assert (model.architecture, model.metadata) == (other.architecture, other.metadata)
    for name, array in model.state_dict().items():
        assert array.tobytes() == other.state_dict()[name].tobytes(), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("arch", [*ARCHITECTURES, *(f"resnet_igc {form}" for form in FORMS)])
def test_every_network_has_the_same_names_and_logits_and_comes_back(arch, dtype):
    model = network(arch, dtype)
    module, theirs = to_torch(model), to_theirs(model.state_dict())
    assert [n for n in module.state_dict() if "num_batches" not in n] == [*theirs]
    assert module.training
    x = np.random.default_rng(0).normal(size=(3, 3, 37, 35)).astype(dtype)
    logits = module.eval()(torch.from_numpy(x)).numpy(force=True)
    assert_close(logits, model.forward(x), 10_000)
    assert_same(from_torch(module, backend="numpy"), model)


@pytest.mark.parametrize("arch", [*ARCHITECTURES, *(f"resnet_igc {form}" for form in FORMS)])
def test_every_network_trains_alike(arch):
    model = network(arch, "float64")
    module, optimiser, before = to_torch(model), SGD(model, 0.9, 0.01), model.state_dict()
    sgd = torch.optim.SGD(module.parameters(), 0.02, 0.9, weight_decay=0.01, nesterov=True)
    counts, loss, rng = {}, torch.nn.CrossEntropyLoss(), np.random.default_rng(0)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.register_forward_hook(lambda p, _, y: counts.update({p: y.numel() // y.shape[1]}))
    past = 0.9 if model.architecture.is_residual else 0.99
    for step in range(2):  # the second one has a velocity
        x, labels = rng.normal(size=(4, 3, 16, 16)), rng.integers(0, 10, 4)
        training_step(model, optimiser, model.backend.to_layout(x), labels, 0.02)
        sgd.zero_grad()
        loss(module(torch.from_numpy(x)), torch.from_numpy(labels)).backward()
        sgd.step()
        gradients, theirs = to_theirs(model.gradients()), module.state_dict()
        greatest = max(np.abs(gradient).max() for gradient in gradients.values())
        for name, parameter in module.named_parameters():
            assert np.abs(parameter.grad.numpy() - gradients[name]).max() < 1e-9 * greatest, name
        for place, part in module.named_modules():
            if part in counts and step == 0:
                for name, factor in zip(("mean", "var"), (0, 1 / (counts[part] - 1)), strict=True):
                    after = model.state_dict()[name := f"{place}.running_{name}"]
                    expected = after + (after - past * before[name]) * factor
                    assert_close(theirs[name].numpy(), expected, 10_000)
    assert len(counts) == sum(name.endswith("running_mean") for name in before)
    for name, array in to_theirs(model.parameters()).items():
        assert_close(theirs[name].numpy(), array, 10**8)  # batch norm of 4 numbers magnifies


def test_a_module_comes_back_from_what_users_put_it_into():
    model, parallel = network("resnet_fusion"), torch.nn.DataParallel
    plain, other = to_torch(model), to_torch(network("resnet_fusion", seed=2))
    copies = copy.deepcopy(plain), pickle.loads(pickle.dumps(plain))  # noqa: S301
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    compiled = [torch.compile(module, backend="eager") for module in (plain, parallel(plain))]
    for module in (*copies, last, parallel(plain), *compiled):
        assert_same(from_torch(module, backend="numpy"), model)
        assert_same(from_torch(other, module.state_dict(), "numpy"), model)


REFUSED = {  # what is changed in a state, and the message
    "weights are builtins.int, ": lambda s: {"model": s, "epoch": 3},
    "weights are missing; all torch.float32 or all": lambda s: s.clear() or s,
    "weights are torch.float16; all ": lambda s: {name: t.half() for name, t in s.items()},
    "are torch.bfloat16, torch.f": lambda s: s | {"linear.bias": s["linear.bias"].bfloat16()},
    "linear.bias has a number that": lambda s: s | {"linear.bias": s["linear.bias"] * np.nan},
    "linear.weight is float32 of sh": lambda s: s | {"linear.weight": s["linear.weight"][:5]},
    "_var has .* negative": lambda s: s | {"stem.bn.running_var": -s["stem.bn.running_var"]},
    "has, but the network has not, 'more'": lambda s: s | {"more": s["linear.bias"]},
    "lacks 'linear.bias'": lambda s: s.pop("linear.bias") is None or s,
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_state_that_is_not_of_the_network_is_refused_in_one_line(message):
    module = to_torch(network())
    with pytest.raises(CheckpointError, match=message):
        from_torch(module, REFUSED[message](module.state_dict()), "numpy")


def test_what_to_torch_did_not_make_is_refused():
    with pytest.raises(CheckpointError, match=r"^torch\..*Linear is no network that to_torch made"):
        from_torch(torch.nn.DataParallel(torch.nn.Linear(2, 2)))
    with pytest.raises(TypeError, match=r"model is torch\..*Linear; Model is needed"):
        to_torch(torch.nn.Linear(2, 2))


def test_a_gated_block_is_pytorch_s_own_convolutions_and_of_equals_the_first_stay():
    with pytest.raises(BackendError, match="accelerate=True, but a gated block has no kernel"):
        to_torch(network("plain_igc channels"), accelerate=True)
    block = to_torch(network("plain_igc partitions")).stage1.block1.igc
    for parameter in block.gate.parameters():
        torch.nn.init.zeros_(parameter)
    block(torch.ones(1, 8, 3, 3)).sum().backward()
    of_each = block.primary.weight.grad.reshape(2, -1).abs().sum(dim=1)
    assert (of_each > 0).tolist() == [True, False]
