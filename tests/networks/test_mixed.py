"""Blocks of several kernel sizes: the layer against explicit matrices, networks, their files."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from igc_ref import reference
from igc_ref.backends import get_backend
from igc_ref.errors import SpecError
from igc_ref.networks import MixedIGC, build_model
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import cost, rows
from igc_ref.reference.special_cases import mixed, unmixed
from igc_ref.spec import MixedSpec
from igc_ref.testing import assert_close, dot_test
from tests.support.guarded import internal, public
from tests.support.strategies import mixed_specs, normal, pictures, seeds
from tests.support.subjects import BACKENDS, fresh_backend

THREE = MixedSpec(24, 24, 12, 2, (3, 5, 7))


def made(backend, spec, seed=0, dtype="float64"):
    return MixedIGC(backend, spec, rng=np.random.default_rng(seed), dtype=dtype)


def weights_of(layer):
    *kernels, secondary = (layer.backend.to_numpy(w) for w in layer.parameters.values())
    return mixed(kernels, secondary, layer.spec)


@given(spec=mixed_specs(), data=st.data(), seed=seeds)
def test_a_mixed_layer_and_its_gradients_are_those_of_its_explicit_matrices(
    backend, spec, data, seed
):
    rng, layer = np.random.default_rng(seed), made(backend, spec, seed)
    weights, x = weights_of(layer), normal(rng, data.draw(pictures(spec)))
    expected, terms = reference.forward(x, *weights), spec.igc.parameters
    assert_close(public(backend, layer.forward(internal(backend, x))), expected, terms)
    d = normal(rng, expected.shape)
    exact = reference.backward(d, x, *weights)
    assert_close(public(backend, layer.backward(internal(backend, d))), exact.x, terms)
    *primary, secondary = (backend.to_numpy(g) for g in layer.gradients.values())
    for found, true in zip(primary, unmixed(exact.primary, spec), strict=True):
        assert_close(1 + found, 1 + true, terms * d.size)  # a sum may cancel
    assert_close(1 + secondary, 1 + exact.secondary, terms * d.size)
    names = [*spec.names, "secondary"]
    assert list(layer.gradients) == list(layer.parameters) == names


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradient_is_the_adjoint_of_the_tangent(backend, dtype):
    rng, layer = np.random.default_rng(0), made(backend, THREE, dtype=dtype)
    shape = (5, 24, 9, 7)

    def forward(x):
        return public(backend, layer.forward(internal(backend, x)))

    def backward(d):
        layer.forward(internal(backend, np.zeros(shape, dtype)))
        return public(backend, layer.backward(internal(backend, d)))

    dot_test(forward, backward, shape, rng, dtype=dtype)


@pytest.mark.parametrize("name", BACKENDS[1:])
def test_kernels_compute_it_from_end_to_end(name):
    backend = fresh_backend(name)
    layer, x = made(backend, THREE, dtype="float32"), np.ones((5, 24, 9, 7), "float32")
    layer.backward(layer.forward(internal(backend, x)))
    assert not backend.generic


@given(mixed_specs())
@example(THREE)
def test_a_mixed_layer_counts_real_taps_and_says_what_it_is(spec):
    layer = made(get_backend("numpy"), spec)
    (row,) = layer.rows((spec.in_channels, 9, 6))
    taps = sum(w.size for w in map(np.asarray, layer.parameters.values()))
    assert layer.num_parameters == spec.parameters == row.parameters == taps
    assert row.multiply_adds == spec.multiply_adds(9, 6)
    assert row.output == (spec.out_channels, *spec.output_size(9, 6))
    assert row.kind == str(spec)
    assert spec is not THREE or str(spec) == "igc 3x3+5x5+7x7 24-24 L12 M2"


@pytest.mark.parametrize("arch", ["plain_igc", "resnet_igc"])
def test_the_blocks_of_a_network_share_out_the_kernel_sizes(arch):
    a, one = (Architecture(arch, 8, L=6, M=2, kernel_sizes=k) for k in [(3, 5, 7), (3,)])

    def igcs(architecture):
        return [row for row in rows(architecture) if row.kind.startswith("igc")]

    assert len(igcs(a)) == 6
    assert all(row.kind.startswith("igc 3x3+5x5+7x7 ") for row in igcs(a))
    secondary = sum(r.output[0] ** 2 // int(r.kind.rpartition("M")[2]) for r in igcs(one))
    pairs = (sum(r.parameters for r in igcs(one)) - secondary) // 9  # of channels, 9 taps each
    assert cost(a).parameters - cost(one).parameters == pairs * ((25 - 9) + (49 - 9)) // 3
    assert str(a).endswith(" k3+5+7")


def test_what_cannot_be_is_refused_in_one_line():
    with pytest.raises(SpecError, match=r"L=2 is fewer partitions than kernel_sizes=\(3, 5, 7\)"):
        Architecture("plain_igc", 8, L=2, M=4, kernel_sizes=(3, 5, 7))
    with pytest.raises(SpecError, match=r"kernel_sizes=\(3, 3\) must be"):
        Architecture("plain_igc", 8, L=2, M=4, kernel_sizes=(3, 3))
    with pytest.raises(SpecError, match=r"gate='channels' takes one of kernel_sizes=\(3, 5\)"):
        Architecture("plain_igc", 8, L=2, M=4, kernel_sizes=(3, 5), gate="channels")


def test_the_regular_network_beside_a_mixed_one_has_3x3_kernels():
    a = Architecture("plain_igc", 8, L=4, M=2, kernel_sizes=(3, 5))
    assert a.with_unit("regular", width=8).kernel_sizes == (3,)
    assert a.with_unit("igc", L=2, M=4).kernel_sizes == (3, 5)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_a_mixed_network_comes_back_from_a_file_bit_for_bit(suffix, tmp_path):
    pytest.importorskip({".onnx": "onnx", ".safetensors": "safetensors"}[suffix])
    from igc_ref import exchange

    model = build_model("resnet_igc", 8, L=3, M=2, kernel_sizes=(3, 5), backend="numpy", seed=5)
    exchange.save(model, tmp_path / f"model{suffix}")
    again = exchange.load(tmp_path / f"model{suffix}", "numpy")
    assert (again.architecture, again.sha256()) == (model.architecture, model.sha256())
