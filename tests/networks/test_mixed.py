"""Blocks of several kernel sizes: the layer against explicit matrices, networks, their files."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igc_ref import reference
from igc_ref.errors import SpecError
from igc_ref.networks import MixedIGC, build_model
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import rows
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


def test_the_blocks_of_a_network_share_out_the_kernel_sizes():
    network = Architecture("plain_igc", 8, L=6, M=2, kernel_sizes=(3, 5, 7))
    assert [row.kind for row in rows(network) if row.kind.startswith("igc")] == [
        f"igc 3x3+5x5+7x7 {numbers}"
        for numbers in ("12-12 L6 M2", "12-12 L6 M2", "/2 12-24 L6 M4", "24-24 L6 M4",
                        "/2 24-48 L6 M8", "48-48 L6 M8")
    ]  # fmt: skip
    kinds = [row.kind for row in rows(replace(network, dims="1")) if "+" in row.kind]
    assert [kind.split()[1] for kind in kinds] == ["1x3+1x5+1x7"] * 6
    assert MixedSpec(4, 4, 2, 2, ((1, 3), 5)).names == ("primary1x3", "primary5")
    assert network.with_unit("regular", width=8).kernel_sizes == (3,)
    assert network.with_unit("igc", L=4, M=2).kernel_sizes == (3, 5, 7)


def test_what_cannot_be_is_refused_in_one_line():
    with pytest.raises(SpecError, match=r"L=2 is fewer partitions than kernel_sizes=\(3, 5, 7\)"):
        Architecture("plain_igc", 8, L=2, M=4, kernel_sizes=(3, 5, 7))
    with pytest.raises(SpecError, match=r"kernel_sizes=\(3, 3\) must be"):
        Architecture("plain_igc", 8, L=2, M=4, kernel_sizes=(3, 3))
    with pytest.raises(SpecError, match=r"gate='channels' takes one of kernel_sizes=\(3, 5\)"):
        Architecture("plain_igc", 8, L=2, M=4, kernel_sizes=(3, 5), gate="channels")


@pytest.mark.slow
def test_a_mixed_network_comes_back_from_a_safetensors_file_bit_for_bit(tmp_path):
    exchange = pytest.importorskip("igc_ref.exchange.safetensors")
    model = build_model("resnet_igc", 8, L=3, M=2, kernel_sizes=(3, 5), backend="numpy", seed=5)
    exchange.save(model, path := tmp_path / "model.safetensors")
    again = exchange.load(path, "numpy")
    assert (again.architecture, again.sha256()) == (model.architecture, model.sha256())
