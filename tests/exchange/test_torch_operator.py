"""The accelerated path of the PyTorch module: the operator, its gradients, and who takes it."""

import copy
import io

import numpy as np
import pytest

from igc_ref.backends import numba_problem
from igc_ref.errors import BackendError, SpecError
from igc_ref.reference import backward, forward
from igc_ref.spec.block import IGCSpec
from tests.support.strategies import normal, weights

torch = pytest.importorskip("torch")
from igc_ref.exchange.torch import InterleavedGroupConv2d  # noqa: E402
from igc_ref.exchange.torch import operator as op  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(numba_problem()), reason=str(numba_problem())),
    # PyTorch's own, of what it calls inside.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
SPECS = [  # small or wide groups (transformed, intermediate kept), rectangular, P not the inverse
    (IGCSpec(6, 12, 3, 2, stride=2), (3, 6, 5, 7)),
    (IGCSpec(4, 6, 2, 3, kernel_size=2), (9, 4, 3, 4)),
    (IGCSpec.square(3, 1, kernel_size=1), (1, 3, 4, 3)),
    (IGCSpec(6, 12, 3, 2, (1, 5), stride=2), (3, 6, 1, 9)),
    (IGCSpec(16, 26, 2, 13), (2, 16, 4, 5)),
]


def arguments(spec, shape, dtype="float64", seed=0):
    """Images and weights, as leaves that need gradients, and the numbers of the operator."""
    rng = np.random.default_rng(seed)
    primary, secondary = weights(rng, spec)
    arrays = normal(rng, shape), primary, secondary[..., None, None]
    leaves = (torch.from_numpy(a.astype(dtype)).requires_grad_() for a in arrays)
    return *leaves, spec.L, spec.stride


def block(spec, **options):
    torch.manual_seed(0)
    return InterleavedGroupConv2d(**vars(spec), **options)


@pytest.mark.parametrize(("spec", "shape"), SPECS[::4])
def test_pytorch_s_checks_of_an_operator_pass(spec, shape):
    given = arguments(spec, shape, "float32")
    torch.library.opcheck(op.igc, given)
    kernels, numbers = [t.detach() for t in given[1:3]], given[3:]
    for form in (torch.contiguous_format, torch.channels_last):
        x = given[0].detach().contiguous(memory_format=form)
        torch.library.opcheck(op.igc, (x, *given[1:]))
        y, ticket = op.igc(x, *kernels, *numbers)
        torch.library.opcheck(op.igc_backward, (y, x, *kernels, ticket, *numbers))


@pytest.mark.parametrize("layout", ["contiguous_format", "channels_last", "every other column"])
@pytest.mark.parametrize(("spec", "shape"), SPECS)
def test_images_and_gradients_are_those_of_the_explicit_matrices(spec, shape, layout):
    x, *parameters, L, stride = arguments(spec, shape)
    if layout == "every other column":
        inside = torch.stack([x, x], dim=-1).flatten(3)[..., ::2]
    else:
        inside = x.contiguous(memory_format=getattr(torch, layout))
    x = x.detach()
    primary, secondary = (p.detach().numpy() for p in parameters)
    exact = x.numpy(), primary, secondary[..., 0, 0], spec
    expected = forward(*exact)
    y, _ = op.igc(inside, *parameters, L, stride)
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-11, atol=1e-11)
    dy = normal(np.random.default_rng(1), expected.shape)
    stretched = torch.from_numpy(dy).contiguous(memory_format=torch.channels_last)
    found = torch.autograd.grad(y, (inside, *parameters), stretched)
    for gradient, true in zip(found, backward(dy, *exact), strict=True):
        true = true.reshape(gradient.shape)
        np.testing.assert_allclose(gradient.numpy(), true, rtol=1e-11, atol=1e-11)


def test_second_derivatives_are_an_error():
    *tensors, L, stride = arguments(IGCSpec(4, 6, 2, 3, stride=2), (2, 4, 3, 5))
    first = torch.autograd.grad(op.igc(*tensors, L, stride)[0].sum(), tensors[0], create_graph=True)
    with pytest.raises(RuntimeError, match=r"backward through igc_ref.igc_backward"):
        first[0].sum().backward()


def test_what_the_way_forward_computed_is_kept_as_long_as_its_ticket():
    x, *given = (t.detach() if torch.is_tensor(t) else t for t in arguments(*SPECS[0]))
    y, ticket = op.igc(x, *given)
    weights, numbers = given[:2], given[2:]
    expected = op.igc_backward(y, x, *weights, ticket, *numbers)
    blank = torch.zeros_like(x)  # the images themselves are needed only where there is no ticket
    for images, paper, same in ((blank, ticket, True), (x, ticket.clone(), True),
                               (blank, ticket.clone(), False)):  # fmt: skip
        found = op.igc_backward(y, images, *weights, paper, *numbers)
        assert torch.equal(found[1], expected[1]) is same
    before = len(op.TICKETS)
    del ticket
    assert len(op.TICKETS) == before - 1


def test_what_the_operator_returns_is_not_overwritten_by_later_calls():
    (spec, shape), kept = SPECS[0], []
    for seed in range(6):
        given = arguments(spec, shape, seed=seed)
        y, _ = op.igc(*given)
        gradients = torch.autograd.grad(y.square().sum(), given[:3])
        kept.append([(t, t.clone()) for t in (y.detach(), *gradients)])
    assert all(torch.equal(t, copied) for pairs in kept for t, copied in pairs)
    assert not torch.equal(kept[0][0][0], kept[1][0][0])


@pytest.mark.parametrize(
    ("layout", "compiled"),
    [("contiguous_format", True), ("contiguous_format", False), ("channels_last", False)],
)
def test_the_module_s_two_paths_train_a_small_residual_network_alike(compiled, layout, monkeypatch):
    class Unit(torch.nn.Module):
        def __init__(self, accelerate):
            super().__init__()
            specs = IGCSpec(8, 8, 4, 2), IGCSpec(8, 8, 2, 4)
            first, second = (block(s, accelerate=accelerate) for s in specs)
            norm = torch.nn.BatchNorm2d(8)
            self.branch = torch.nn.Sequential(first, norm, torch.nn.ReLU(inplace=True), second)

        def forward(self, x):
            return torch.relu(self.branch(x) + x)

    def losses(accelerate):
        torch.manual_seed(0)
        stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        net = torch.nn.Sequential(stem, Unit(accelerate), Unit(accelerate), torch.nn.Flatten())
        torch.manual_seed(1)
        net = net.double().to(memory_format=getattr(torch, layout))
        run = torch.compile(net, backend="aot_eager", fullgraph=True) if compiled else net
        optimiser, found = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), []
        for size in (4, 4, 3):  # the compiler takes the last one's size for a variable
            x, labels = torch.randn(size, 3, 6, 5).double(), torch.arange(size)
            with monkeypatch.context() as older:
                if compiled:  # PyTorch 2.11 says so while it compiles
                    older.setattr(torch.compiler, "is_exporting", lambda: True)
                y = run(x)
            loss = torch.nn.functional.cross_entropy(y, labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            found.append(loss.item())
        return found

    np.testing.assert_allclose(losses(True), losses(False), rtol=1e-9)


def test_a_module_says_which_path_it_takes_and_why():
    spec, x = IGCSpec(6, 12, 3, 2), torch.zeros(16, 6, 4, 4)
    module = block(spec)
    assert module.path(x) == "igc_ref: numba"
    assert "igc 3x3 6-12 L3 M2, accelerate=None" in repr(module)
    reasons = {
        "float16; torch.float32 or torch.float64 is needed": x.half(),
        r"\(0, 6, 4, 4\); \(N, 6, H, W\) is needed": x[:0],
        r"\(2, 12, 4, 4\); \(N, 6, H, W\) is needed": torch.zeros(2, 12, 4, 4),  # an IGC of L = 6
        "differ in dtype": x.double(),
        "no kernels for meta": x.to("meta"),
    }
    insisting = block(spec, accelerate=True)
    assert insisting.path(x[:1]) == "igc_ref: numba"
    for reason, images in reasons.items():
        with pytest.raises(BackendError, match=f"accelerate=True, but .*{reason}"):
            insisting(images)
        assert module.path(images).startswith("PyTorch: ")
    with torch.autocast("cpu"):
        assert module.path(x) == "PyTorch: autocast is on"
        assert module(x).dtype == torch.bfloat16
    module.secondary.register_forward_hook(lambda module, inputs, y: 2 * y)
    assert torch.allclose(module(x + 1), 2 * insisting(x + 1), atol=1e-5)

    class Doubled(torch.nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    insisting.primary.__class__ = Doubled
    with pytest.raises(BackendError, match="a convolution has been replaced"):
        insisting(x)
    assert block(spec, accelerate=False).path(x) == "PyTorch: accelerate=False"
    assert block(IGCSpec.square(6, 1)).path(x) == "PyTorch: it is faster where M = 1"
    assert block(spec).path(x[:8]) == "PyTorch: it is faster where N < 16"
    wide = block(IGCSpec.square(16, 16))
    for side, expected in ((8, "PyTorch: it is faster for wide groups"), (9, "igc_ref: numba")):
        assert wide.path(torch.zeros(16, 256, side, side)).startswith(expected)
    with pytest.raises(SpecError, match="accelerate='yes' is not None, True or False"):
        block(spec, accelerate="yes")


def test_without_numba_pytorch_s_convolutions_run(monkeypatch):
    monkeypatch.setattr(op, "numba_problem", lambda: "numba is not installed: pip install numba")
    op._problem.cache_clear()
    try:
        module, x = block(IGCSpec(6, 12, 3, 2)), torch.zeros(2, 6, 4, 4)
        assert module.path(x) == "PyTorch: numba is not installed: pip install numba"
        assert module(x).shape == (2, 12, 4, 4)
    finally:
        op._problem.cache_clear()


def test_transforms_and_exports_take_pytorch_s_operators():
    module, x = block(IGCSpec(6, 12, 3, 2)).double(), torch.randn(16, 6, 4, 4).double()
    assert module.path(x) == "igc_ref: numba"
    tangent = torch.func.jvp(module, (x,), (x,))[1]
    assert torch.allclose(tangent, module(x))  # it is linear
    with torch.autograd.forward_ad.dual_level():
        dual = module(torch.autograd.forward_ad.make_dual(x, x))
        assert torch.equal(torch.autograd.forward_ad.unpack_dual(dual).tangent, tangent)
    assert "igc_ref" not in str(torch.export.export(module, (x,)).graph)
    assert torch.allclose(torch.fx.symbolic_trace(module)(x), module(x))
    assert torch.allclose(module(x[0]), module(x)[0])  # no batch


def test_copies_and_files_of_a_module_compute_the_same():
    module, x = block(IGCSpec(6, 12, 3, 2), accelerate=True), torch.randn(2, 6, 4, 4)
    expected = module(x)
    other = block(module.spec, accelerate=False)
    assert list(other.state_dict()) == list(module.state_dict())
    torch.save(module, file := io.BytesIO())
    file.seek(0)
    for same in (copy.deepcopy(module), torch.load(file, weights_only=False)):
        assert torch.equal(same(x), expected)
    with torch.inference_mode():
        assert torch.equal(module(x), expected)


@pytest.mark.gpu
def test_on_a_card_the_gradients_are_those_of_pytorch():
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA here")
    spec = IGCSpec.square(24, 2)
    ours, theirs = (block(spec, accelerate=a).cuda() for a in (True, False))
    x = torch.randn(4, 48, 9, 8, device="cuda")
    assert ours.path(x) == "igc_ref: cupy"
    y, expected = ours(x), theirs(x)
    assert torch.allclose(y, expected, rtol=1e-3, atol=1e-3)
    dy = torch.randn_like(y)
    found = (
        torch.autograd.grad(a, list(m.parameters()), dy) for a, m in [(y, ours), (expected, theirs)]
    )
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-2, atol=1e-2)
    usual = block(spec).cuda()
    torch.cuda.synchronize()
    with torch.no_grad(), torch.cuda.graph(graph := torch.cuda.CUDAGraph()):
        assert usual.path(x) == "PyTorch: a CUDA graph is being captured"
        captured = usual(x)
    graph.replay()
    assert torch.allclose(captured, usual(x), rtol=1e-3, atol=1e-3)
