"""The gated layer against loops; what it costs; the networks that have it."""

import numpy as np
import pytest

from igc_ref.backends import get_backend
from igc_ref.errors import SpecError
from igc_ref.networks import GatedIGC
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import cost, rows
from igc_ref.networks.model import build
from igc_ref.spec import IGCSpec
from igc_ref.testing import assert_close
from tests.support import oracles
from tests.support.guarded import internal, public

SPECS = [IGCSpec.square(4, 2), IGCSpec(6, 12, 3, 2, stride=2), IGCSpec(4, 32, 2, 4, 5)]
KINDS = [("channels", None), ("partitions", None), ("partitions", 1), ("partitions", 2)]


def made(backend, spec, gate, keep=None, dtype="float64"):
    rng = np.random.default_rng(3)
    return GatedIGC(backend, spec, gate, keep=keep, rng=rng, dtype=dtype)


def by_loops(x, spec, keep, primary, secondary, *gate):
    """The layer by its definition, one gate after another."""
    y = oracles.convolve(x, primary, spec.stride, spec.L)
    for n in range(len(x)):
        s = (y if len(gate) == 4 else x)[n].mean(axis=(1, 2))
        if len(gate) == 4:
            s = [max(0, w @ s + b) for w, b in zip(*gate[:2], strict=True)]
        logits = [w @ np.array(s) + b for w, b in zip(*gate[-2:], strict=True)]
        greatest = sorted(range(len(logits)), key=lambda g: -logits[g])[:keep]
        for c in range(spec.out_channels):
            g = c // (spec.out_channels // len(logits))
            y[n, c] *= (g in greatest) / (1 + np.exp(-logits[g]))
    y = oracles.convolve(oracles.shuffle(y, spec.L), secondary[:, :, None, None], 1, spec.M)
    return oracles.shuffle(y, spec.M)


@pytest.mark.parametrize("N", [1, 18])
@pytest.mark.parametrize(("gate", "keep"), KINDS)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_gated_layer_is_its_definition_in_training_and_evaluation(backend, spec, gate, keep, N):
    layer, rng = made(backend, spec, gate, keep), np.random.default_rng(N)
    x = 3 * rng.normal(size=(N, spec.in_channels, 5, 4))
    arrays = [a for _, part in layer.named_layers() for a in part.parameters.values()]
    expected = by_loops(x, spec, keep, *map(backend.to_numpy, arrays))
    for train in (True, False):
        y = public(backend, layer.forward(internal(backend, x), train))
        assert_close(y, expected, 10 * spec.parameters)


@pytest.mark.parametrize("keep", [1, 3])
def test_only_kept_partitions_get_gradients(backend, keep):
    """Of one image: the weights of the others, and their rows of the gate, have none at all."""
    spec, rng = IGCSpec.square(4, 2), np.random.default_rng(0)
    layer = made(backend, spec, "partitions", keep)
    y = layer.forward(internal(backend, rng.normal(size=(1, 8, 5, 4))), train=True)
    layer.backward(internal(backend, rng.normal(size=y.shape).swapaxes(0, 1)))
    linear = layer.children["gate"].children["linear"]
    for gradient in (layer.gradients["primary"], *linear.gradients.values()):
        of_each = backend.to_numpy(gradient).reshape(4, -1)
        assert (of_each != 0).any(axis=1).sum() == keep


@pytest.mark.parametrize(("gate", "keep"), KINDS)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_costs_are_counted_by_hand(spec, gate, keep):
    layer, s, k = made(get_backend("numpy"), spec, gate, keep), spec, spec.kernel_size
    found = list(layer.rows((s.in_channels, 6, 8), "igc"))
    positions = (6 // s.stride) * (8 // s.stride)
    each = s.out_channels // s.L * (s.in_channels // s.L) * k * k  # weights of a partition
    mixing = s.out_channels * s.out_channels // s.M
    hidden = max(1, s.out_channels // 16)
    linear = [(s.out_channels, hidden), (hidden, s.out_channels)]
    if gate == "partitions":
        linear = [(s.in_channels, s.L)]
    of_gate = sum(inp * out for inp, out in linear)
    assert sum(row.multiply_adds for row in found) == (
        positions * (each * (keep or s.L) + mixing) + of_gate
    )
    assert sum(row.parameters for row in found) == (
        each * s.L + mixing + of_gate + sum(out for _, out in linear)
    )
    assert found[0].output == (s.out_channels, 6 // s.stride, 8 // s.stride)


def gates_of(architecture):
    return [row.kind for row in rows(architecture) if row.name.endswith("igc")]


def test_networks_have_the_gates_that_were_asked_for():
    plain = Architecture("plain_igc", 8, L=4, M=2, gate="partitions", keep=2)
    assert all(kind.endswith("gate partitions keep 2") for kind in gates_of(plain))
    doubled = Architecture("resnet_igc", 8, 4, 2, doubling="L", gate="partitions", keep=1)
    keeps = [kind.rpartition(" ")[2] for kind in gates_of(doubled)]
    assert keeps == ["1"] * 2 + ["2"] * 2 + ["4"] * 2
    ungated = cost(Architecture("plain_igc", 8, L=4, M=2))
    # A gate for each of 4 partitions: 4*(in + 1) parameters, in = 8, 8, 8, 16, 16, 32.
    more = 4 * (8 + 8 + 8 + 16 + 16 + 32 + 6)
    assert cost(plain).parameters == ungated.parameters + more
    channels = Architecture("plain_igc", 8, L=4, M=2, gate="channels")
    # Squeeze and excitation of C channels: 2*C*h + C + h, h = 1, 1, 1, 1, 2, 2.
    more = sum(2 * C * h + C + h for C, h in [(8, 1)] * 2 + [(16, 1)] * 2 + [(32, 2)] * 2)
    assert cost(channels).parameters == ungated.parameters + more
    assert channels.with_unit("regular", width=8) == Architecture("plain", 8, width=8)
    with pytest.raises(SpecError, match="gate='channels' takes one of kernel_sizes="):
        Architecture("plain_igc", 8, L=4, M=2, gate="channels", kernel_sizes=(3, 5))
    with pytest.raises(SpecError, match="keep=5 is too large"):
        made(get_backend("numpy"), IGCSpec.square(4, 2), "partitions", 5)
    with pytest.raises(SpecError, match="keep=2 needs gate='partitions', not 'channels'"):
        made(get_backend("numpy"), IGCSpec.square(4, 2), "channels", 2)


@pytest.mark.parametrize("gate", ["channels", "partitions"])
def test_a_batch_and_its_images_one_by_one_have_the_same_logits(backend, gate):
    """On numba a batch computes partitions that one image leaves out."""
    keep = 1 if gate == "partitions" else None
    architecture = Architecture("plain_igc", 5, L=4, M=2, gate=gate, keep=keep)
    model, rng = build(architecture, backend, "float64"), np.random.default_rng(0)
    x = rng.normal(size=(18, 3, 8, 8))
    logits = backend.to_numpy(model.forward(backend.asarray(x)))
    for n in (0, 17):
        one = backend.to_numpy(model.forward(backend.asarray(x[n : n + 1])))
        assert_close(one[0], logits[n], 10_000)
