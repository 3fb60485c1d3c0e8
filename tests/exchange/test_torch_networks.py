"""Whole networks in PyTorch: the same numbers there, and the same bits when they come back."""

import copy
import importlib
import pickle

import numpy as np
import pytest

from igc_ref.data import shapes
from igc_ref.errors import CheckpointError
from igc_ref.exchange.state import to_theirs
from igc_ref.networks.architecture import ARCHITECTURES, Architecture, numbers_of
from igc_ref.networks.metadata import Metadata
from igc_ref.networks.model import build
from igc_ref.testing import assert_close
from igc_ref.training.evaluation import evaluate
from igc_ref.training.loop import training_step
from igc_ref.training.optim import SGD
from tests.support.strategies import depth_of

torch = pytest.importorskip("torch")
exchange = importlib.import_module("igc_ref.exchange.torch")
pytestmark = pytest.mark.slow


def network(arch="resnet_igc", dtype="float32", seed=1):
    """A network whose batch norms differ from channel to channel, as after training."""
    numbers = {name: {"L": 2, "M": 4, "width": 4}[name] for name in numbers_of(arch)}
    model = build(Architecture(arch, depth_of(arch), **numbers), "numpy", dtype)
    rng, state = np.random.default_rng(seed), model.state_dict()
    for name, array in state.items():
        if name.endswith(("gamma", "beta", "running_mean", "running_var")):
            array[...] = rng.uniform(0.5, 1.5, array.shape) - name.endswith(("beta", "mean"))
    model.load_state_dict(state)
    model.metadata = Metadata("pets", ["cat", "dog"], [128] * 3, [64] * 3, [32, 32])
    return model


def assert_same(model, other):
    """The same network to the last bit."""
    for name in ("architecture", "dtype", "metadata"):
        assert getattr(model, name) == getattr(other, name)
    for name, array in model.state_dict().items():
        assert array.tobytes() == other.state_dict()[name].tobytes(), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_network_has_the_same_names_and_logits_and_comes_back(arch, dtype):
    model = network(arch, dtype)
    module, theirs = exchange.to_torch(model), to_theirs(model.state_dict())
    assert [n for n in module.state_dict() if "num_batches" not in n] == [*theirs]
    assert module.training
    x = np.random.default_rng(0).normal(size=(3, 3, 37, 35)).astype(dtype)
    logits = module.eval()(torch.from_numpy(x)).numpy(force=True)
    assert logits.dtype == dtype
    assert_close(logits, model.forward(x), 10_000)
    assert_same(exchange.from_torch(module, backend="numpy"), model)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_network_trains_alike(arch):
    model = network(arch, "float64")
    module, optimiser, before = exchange.to_torch(model), SGD(model, 0.9, 0.01), model.state_dict()
    sgd = torch.optim.SGD(module.parameters(), 0.02, 0.9, weight_decay=0.01, nesterov=True)
    counts, rng = {}, np.random.default_rng(0)
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.register_forward_hook(
                lambda part, x, y, name=name: counts.update({name: y.numel() // y.shape[1]})
            )
    past = 0.9 if model.architecture.is_residual else 0.99
    for step in range(2):  # the second one has a velocity
        x, labels = rng.normal(size=(4, 3, 32, 32)), rng.integers(0, 10, 4)
        training_step(model, optimiser, model.backend.to_layout(x), labels, 0.02)
        sgd.zero_grad()
        logits = module(torch.from_numpy(x))
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
        sgd.step()
        gradients, theirs = to_theirs(model.gradients()), module.state_dict()
        greatest = max(np.abs(gradient).max() for gradient in gradients.values())
        for name, parameter in module.named_parameters():
            assert np.abs(parameter.grad.numpy() - gradients[name]).max() < 1e-9 * greatest, name
        for place, n in counts.items() if step == 0 else ():  # what is new is n/(n-1) times ours
            name, after = f"{place}.running_var", model.state_dict()
            kept = past * before[name]
            expected = kept + (after[name] - kept) * n / (n - 1)
            assert_close(theirs[name].numpy(), expected, 10_000)
            name = f"{place}.running_mean"
            assert_close(theirs[name].numpy(), after[name], 10_000)
    assert len(counts) == sum(name.endswith("gamma") for name in before)
    for name, array in to_theirs(model.parameters()).items():
        assert_close(theirs[name].numpy(), array, 100_000)


def test_a_file_of_tensors_is_loaded_strictly_and_brought_back(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    model, path = network(), tmp_path / "model.safetensors"
    tensors = {n: torch.from_numpy(a) for n, a in to_theirs(model.state_dict()).items()}
    safetensors.save_file(tensors, path)
    module = exchange.to_torch(network(seed=2))
    assert_same(exchange.from_torch(module, safetensors.load_file(path), "numpy"), model)
    module.load_state_dict(safetensors.load_file(path), strict=True)
    assert_same(exchange.from_torch(module, backend="numpy"), model)


@pytest.mark.filterwarnings("ignore")  # of torch.compile and DataParallel
def test_a_module_comes_back_from_what_users_put_it_into():
    model, parallel = network("resnet_fusion"), torch.nn.DataParallel
    plain = exchange.to_torch(model)
    copies = copy.deepcopy(plain), pickle.loads(pickle.dumps(plain))  # noqa: S301
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    compiled = torch.compile(plain), torch.compile(parallel(plain))
    for module in (*copies, last, parallel(plain), *compiled):
        assert_same(exchange.from_torch(module, backend="numpy"), model)
        assert_same(exchange.from_torch(plain, module.state_dict(), "numpy"), model)


def test_what_was_fine_tuned_in_pytorch_classifies_the_same_here():
    images, model = shapes("train", 40), network("plain_igc")
    shuffle = importlib.import_module("igc_ref.exchange.torch.block").shuffle_in_format
    module = exchange.to_torch(model, shuffle=shuffle).to(memory_format=torch.channels_last)
    x = model.backend.normalise(images.images, images.mean, images.std, "float32")
    x, labels = torch.from_numpy(x), torch.from_numpy(images.labels)
    optimiser, loss = torch.optim.AdamW(module.parameters(), lr=0.01), torch.nn.CrossEntropyLoss()
    for _ in range(3):
        optimiser.zero_grad()
        loss(module(x), labels).backward()
        optimiser.step()
    back = exchange.from_torch(module, backend="numpy")
    expected = loss(module.eval()(x), labels).item()
    assert evaluate(back, images).loss == pytest.approx(expected, rel=1e-4)


def changed(name, change):
    """A function of a state: one tensor of it changed."""
    return lambda state: state | {name: change(state[name])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {}, "weights are missing; all torch.float32 or all torch.float64 needed"),
        (lambda s: {"model": s, "epoch": 3}, "weights are builtins.int, collections.OrderedDict; "),
        (lambda s: {n: t.half() for n, t in s.items()}, "weights are torch.float16; all torch.flo"),
        (changed("linear.bias", lambda t: t.bfloat16()), "are torch.bfloat16, torch.float32; "),
        (changed("linear.bias", lambda t: t.numpy()), "weights are float32, torch.float32; "),
        (changed("linear.bias", lambda t: t * np.nan), "linear.bias has a number that is not fin"),
        (changed("stem.bn.running_var", lambda t: -t), "stem.bn.running_var has a .* negative v"),
        (changed("linear.weight", lambda t: t[:5]), r"linear.weight is float32 of shape \(5, 32\)"),
        (lambda s: s | {"more": s["linear.bias"]}, "has, but the network has not, 'more'"),
        (lambda s: {n: t for n, t in s.items() if n != "linear.bias"}, "lacks 'linear.bias'"),
    ],
)
def test_a_state_that_is_not_of_the_network_is_refused_in_one_line(change, message):
    module = exchange.to_torch(network())
    with pytest.raises(CheckpointError, match=message):
        exchange.from_torch(module, change(module.state_dict()), "numpy")


def test_what_to_torch_did_not_make_is_refused():
    with pytest.raises(CheckpointError, match=r"^torch\..*Linear is no network that to_torch made"):
        exchange.from_torch(torch.nn.DataParallel(torch.nn.Linear(2, 2)))
    with pytest.raises(TypeError, match=r"state is builtins.list; Mapping is needed"):
        exchange.from_torch(exchange.to_torch(network()), [])
    with pytest.raises(TypeError, match=r"model is torch\..*Linear; Model is needed"):
        exchange.to_torch(torch.nn.Linear(2, 2))
