"""DenseNet-BC: its published size, its shape in closed form, and a loop over its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igc_ref import IGCSpec, build_model
from igc_ref.backends import NumpyBackend
from igc_ref.errors import SpecError
from igc_ref.networks import IGC, AveragePool, BatchNorm, Conv2d
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import cost, rows
from igc_ref.networks.layer import Dense
from igc_ref.studies.compress import compressed
from igc_ref.testing import assert_close
from tests.support import oracles
from tests.support.guarded import internal, public

counts = st.integers(1, 3)


# The paper (arXiv:1608.06993, table 2) counts in millions. To the last digit: the table of
# github.com/osmr/imgclsmob (DenseNet-BC-100, k=12, CIFAR-10), converted from PyTorch.
@pytest.mark.parametrize(
    ("depth", "k", "classes", "millions", "exactly"),
    [
        (100, 12, 10, 0.8, 769_162),
        (250, 24, 10, 15.3, None),
        (190, 40, 10, 25.6, None),
    ],
)
def test_densenet_bc_has_its_published_parameters(depth, k, classes, millions, exactly):
    found = cost(Architecture("densenet_bc", depth, width=k, num_classes=classes)).parameters
    assert round(found / 1e6, 1) == millions
    assert exactly in (None, found)


def closed_form(n, k, L, unit):
    """Parameters and multiply-adds: sums over layers, written out as polynomials in n and k.

    A layer on c channels has 2c + 8k numbers of batch norm, and the weights of its two
    convolutions: regular 4ck + 36k²; as blocks 4ck/L + 16k²/(4k/L) and 36k²/L + k²/(k/L).
    """
    parameters = adds = 27 * 2 * k
    adds *= 1024
    c = 2 * k
    for block in range(3):
        positions = 1024 // 4**block
        inputs = n * c + k * n * (n - 1) // 2  # summed over the layers
        if unit == "regular":
            weights = 4 * k * inputs + 36 * k * k * n
        else:
            weights = 4 * k * inputs // L + 4 * k * L * n + 36 * k * k * n // L + k * L * n
        parameters += weights + 2 * inputs + 8 * k * n
        adds += weights * positions
        c += n * k
        if block < 2:
            out = c // 2 - c // 2 % L
            parameters += 2 * c + c * out
            adds += c * out * positions
            c = out
    return parameters + 2 * c + 10 * c + 10, adds + 10 * c


@given(n=counts, L=st.integers(1, 5), M=st.integers(1, 4))
def test_parameters_and_multiply_adds_follow_the_closed_form(n, L, M):
    for unit, numbers in (("regular", {"width": L * M}), ("igc", {"L": L, "M": M})):
        arch = "densenet_bc" if unit == "regular" else "densenet_bc_igc"
        architecture = Architecture(arch, 6 * n + 4, **numbers)
        step = 1 if unit == "regular" else L
        assert tuple(cost(architecture)) == closed_form(n, L * M, step, unit)
        layers = [row for row in rows(architecture) if row.kind.startswith(("conv", "igc"))]
        assert len(layers) == 6 * n + 3  # and the linear layer


@pytest.mark.parametrize(("L", "M"), [(4, 2), (3, 3), (5, 1), (1, 3)])
def test_every_block_of_an_igc_densenet_is_divisible_and_transitions_are_regular(L, M):
    network = build_model("densenet_bc_igc", 16, L=L, M=M, backend="numpy").network
    k = L * M
    specs = [layer.spec for _, layer in network.named_layers() if isinstance(layer, IGC)]
    assert len(specs) == 12
    assert all((spec.L, spec.M) == (L, spec.out_channels // L) for spec in specs)
    assert [spec.out_channels for spec in specs] == [4 * k, k] * 6
    assert [spec.kernel_size for spec in specs] == [1, 3] * 6
    shapes = [
        layer.parameters["weight"].shape
        for name, layer in network.named_layers()
        if isinstance(layer, Conv2d) and name != "stem"
    ]
    wide = 4 * k // 2 // L * L
    last = (wide + 2 * k) // 2 // L * L
    assert shapes == [(wide, 4 * k, 1, 1), (last, wide + 2 * k, 1, 1)]


def test_the_order_is_that_of_the_paper_batch_norm_first():
    layers = dict(build_model("densenet_bc", 10, width=4, backend="numpy").network.children)
    assert list(layers) == [
        "stem", "dense1.layer1", "transition1", "dense2.layer1", "transition2", "dense3.layer1",
        "bn", "pool", "linear",
    ]  # fmt: skip
    assert isinstance(layers["stem"], Conv2d)
    assert list(layers["dense1.layer1"].children) == ["bn1", "conv1", "bn2", "conv2"]
    assert list(layers["transition1"].children) == ["bn", "conv", "pool"]
    norms = [layer for net in layers.values() for _, layer in net.named_layers()]
    assert all(norm.relu for norm in norms if isinstance(norm, BatchNorm))


def test_a_dense_layer_keeps_its_input_and_adds_what_its_layers_make_of_it(backend):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 5, 4)).astype("float32")
    norm = BatchNorm(backend, 4, relu=True)
    layer = Dense(backend, {"bn": norm, "igc": IGC(backend, IGCSpec(4, 2, 2, 1), rng=rng)})
    y = public(backend, layer.forward(internal(backend, x), train=True))
    assert y.shape[1:] == layer.output_shape(x.shape[1:]) == (6, 5, 4)
    assert np.array_equal(y[:, :4], x)
    z = x.astype("float64") - x.mean(axis=(0, 2, 3), keepdims=True, dtype="float64")
    z = np.maximum(z / np.sqrt((z**2).mean(axis=(0, 2, 3), keepdims=True) + 2e-5), 0)
    primary, secondary = (
        backend.to_numpy(layer.children["igc"].parameters[n]).astype("float64")
        for n in ("primary", "secondary")
    )
    z = oracles.shuffle(oracles.convolve(z, primary, groups=2), 2)  # M = 1: one dense 1x1 kernel
    assert_close(1 + y[:, 4:], 1 + oracles.convolve(z, secondary[:, :, None, None]), 1000)
    assert [row.name for row in layer.rows((4, 5, 4), "d")] == ["d.bn", "d.igc"]


def test_average_pooling_takes_an_int_or_a_pair_and_says_so():
    backend = NumpyBackend()
    for given_, shape, text in ((2, (3, 2, 3), "2x2"), ((1, 2), (3, 5, 3), "1x2")):
        layer = AveragePool(backend, given_)
        assert layer.output_shape((3, 5, 7)) == shape
        assert layer.describe() == f"average pool {text}"
        y = layer.forward(np.ones((3, 2, 5, 7)))
        assert y.shape == (3, 2, *shape[1:])


def test_a_densenet_is_not_compressed():
    with pytest.raises(SpecError, match=r"densenet_bc-10 W8: no IGC network has the widths"):
        compressed(Architecture("densenet_bc", 10, width=8), 4, 2)
