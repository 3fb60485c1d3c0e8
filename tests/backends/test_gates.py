"""Gates on every backend: scaled channels, the sigmoid, the gated block; what numba leaves out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igc_ref import IGCSpec
from igc_ref.backends import numba_problem
from igc_ref.errors import SpecError
from igc_ref.reference import gates as reference
from igc_ref.testing import assert_close, check_grads, dot_test
from tests.support.guarded import internal, public
from tests.support.strategies import normal, pictures, seeds, specs, weights
from tests.support.subjects import fresh_backend

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
needs_numba = pytest.mark.skipif(bool(numba_problem()), reason=str(numba_problem()))


@each_dtype
@pytest.mark.parametrize("N", [1, 3, 18])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_scaled_channels_and_their_gradients(backend, dtype, N, groups):
    rng = np.random.default_rng(N)
    x, d = (normal(rng, (N, 6, 5, 3), dtype) for _ in range(2))
    gates = backend.asarray(normal(rng, (N, groups), dtype))

    def scaled(values):
        y, saved = backend.scale_channels(internal(backend, values), gates)
        return public(backend, y), saved

    y, saved = scaled(x)
    dx, dgates = backend.scale_channels_backward(internal(backend, d), saved)
    g, each = backend.to_numpy(gates).astype("float64"), 6 // groups
    exact = np.zeros((N, groups))
    for n in range(N):
        for c in range(6):
            assert_close(y[n, c], x[n, c] * g[n, c // each], 1)
            assert_close(public(backend, dx)[n, c], d[n, c] * g[n, c // each], 1)
            exact[n, c // each] += (d[n, c].astype("float64") * x[n, c]).sum()
    assert_close(backend.to_numpy(dgates), exact, 15 * each)
    dot_test(
        lambda u: scaled(u)[0],
        lambda v: public(backend, backend.scale_channels_backward(internal(backend, v), saved)[0]),
        x.shape,
        rng,
        dtype=dtype,
    )


@each_dtype
@given(spec=specs(), data=st.data(), seed=seeds, by_channels=st.booleans())
def test_the_gated_block_and_its_gradients_are_the_matrices(
    backend, dtype, spec, data, seed, by_channels
):
    rng, L, out = np.random.default_rng(seed), spec.L, spec.out_channels
    N = data.draw(st.sampled_from([1, 2, 17]))
    shape = (N, *data.draw(pictures(spec))[1:])
    arrays = normal(rng, shape, dtype), *weights(rng, spec, dtype)
    gates = normal(rng, (N, out if by_channels else L), dtype)
    gates[rng.uniform(size=gates.shape) < 0.5] = 0
    exact = [array.astype("float64") for array in arrays]
    diagonal = np.repeat(gates.astype("float64"), out // gates.shape[1], axis=1)
    expected = reference.forward(*exact, diagonal, spec)
    d = normal(rng, expected.shape, dtype)
    exactly = reference.backward(d.astype("float64"), *exact, diagonal, spec)
    x, inside = internal(backend, arrays[0]), internal(backend, d)
    primary, secondary, g = map(backend.asarray, (*arrays[1:], gates))
    if by_channels:
        x, conv = backend.conv2d(x, primary, L, spec.stride)
        y, scaled = backend.scale_channels(x, g)
        y, mixed = backend.mix(y, secondary, spec)
        dy, dsecondary = backend.mix_backward(inside, mixed)
        dy, dg = backend.scale_channels_backward(dy, scaled)
        dx, dprimary = backend.conv2d_backward(dy, conv)
        found = [dprimary, dsecondary, dg]
    else:
        y, saved = backend.gated_igc(x, primary, secondary, g, spec)
        dx, *found = backend.gated_igc_backward(inside, saved)
    assert_close(1 + public(backend, y), 1 + expected, spec.parameters)
    dgates = exactly[3].reshape(*gates.shape, -1).sum(axis=2)
    if not by_channels:
        dgates *= gates != 0  # that of a partition that may have been left out is 0
    found = [public(backend, dx), *map(backend.to_numpy, found)]
    for one, two in zip(found, (*exactly[:3], dgates), strict=True):
        assert_close(1 + one, 1 + two, spec.parameters * (d.size + 1))  # a sum may cancel


@each_dtype
def test_the_sigmoid_overflows_nowhere_keeps_the_first_of_equals_and_hides_no_nan(backend, dtype):
    x = np.array([[0, -1, 1e4, -1e4, 1], [3, 3, 3, 2, 3], [1, np.nan, 2, 3, 4]], dtype)
    y, _ = backend.activation(backend.asarray(x), "sigmoid")
    exact = [1 / 2, 1 / (1 + np.e), 1, 0, 1 / (1 + 1 / np.e)]
    assert_close(backend.to_numpy(y)[0], np.array(exact), 1)
    kept = backend.to_numpy(backend.activation(backend.asarray(x), "sigmoid", 2)[0])
    everything = backend.to_numpy(y)
    for row, places in ((0, [2, 4]), (1, [0, 1]), (2, [1, 3, 4])):
        expected = np.zeros(5, dtype)
        expected[places] = everything[row, places]
        assert np.array_equal(kept[row], expected, equal_nan=True)
    with pytest.raises(SpecError, match="keep=6 is too large; at most 5"):
        backend.activation(backend.asarray(x), "sigmoid", 6)


@pytest.mark.parametrize("how", [("relu",), ("sigmoid",), ("sigmoid", 2)], ids=str)
def test_features_have_their_derivatives(backend, how):
    rng = np.random.default_rng(0)
    x = rng.permuted(np.linspace(-2, 2, 14)).reshape(2, 7)
    _, saved = backend.activation(backend.asarray(x), *how)
    check_grads(
        lambda x: backend.to_numpy(backend.activation(backend.asarray(x), *how)[0]),
        lambda d: [backend.to_numpy(backend.activation_backward(backend.asarray(d), saved))],
        (x,),
        rng,
    )


def test_gates_of_another_shape_are_refused(backend):
    x = internal(backend, np.ones((2, 6, 3, 3), "float32"))
    for shape, message in (
        ((3, 6), r"\(2, groups\)"),
        ((2, 4), "channels=6 is not divisible by groups of the gates=4"),
    ):
        with pytest.raises(SpecError, match=message):
            backend.scale_channels(x, backend.asarray(np.ones(shape, "float32")))
    spec = IGCSpec(6, 6, 3, 2)
    arrays = [backend.asarray(np.ones(s, "float32")) for s in (spec.primary_shape, (6, 3), (2, 2))]
    with pytest.raises(SpecError, match=r"gates has shape \(2, 2\); \(2, 3\) is needed"):
        backend.gated_igc(x, *arrays, spec)


@needs_numba
@each_dtype
@pytest.mark.parametrize("spec", [IGCSpec.square(4, 3), IGCSpec(32, 64, 4, 2, stride=2),
                                  IGCSpec.square(3, 9)], ids=str)  # fmt: skip
@pytest.mark.parametrize("N", [1, 2, 5, 40])
def test_numba_computes_no_partition_that_no_image_of_a_block_needs(spec, dtype, N):
    """Where it computes one, its weights, which are not numbers, show."""
    backend, rng = fresh_backend("numba"), np.random.default_rng(N)
    x, (primary, secondary) = normal(rng, (N, spec.in_channels, 6, 5), dtype), weights(rng, spec)
    primary, secondary = primary.astype(dtype), secondary.astype(dtype)
    primary.reshape(spec.L, -1)[1] = np.nan
    gates = np.ones((N, spec.L), dtype)
    gates[:, 1] = rng.uniform(size=N) < 0.1
    gates[0, 1] = 0
    y, _ = backend.gated_igc(backend.to_layout(x), primary, secondary, gates, spec)
    images, finite = backend.from_layout(y), []
    for n in range(N):
        block = n // y.layout.together * y.layout.together
        finite.append(not gates[block : block + y.layout.together, 1].any())
    assert np.isfinite(images).all(axis=(1, 2, 3)).tolist() == finite
    assert N > 1 or finite == [True]


@needs_numba
@pytest.mark.parametrize("spec", [IGCSpec.square(4, 2), IGCSpec(32, 32, 4, 2, stride=2),
                                  IGCSpec(8, 4, 4, 4)], ids=str)  # fmt: skip
@pytest.mark.parametrize("N", [1, 8, 19])
def test_numba_s_pieces_of_an_image_add_up_to_the_gradients_of_its_gates(spec, N):
    backend, rng = fresh_backend("numba"), np.random.default_rng(N)
    x, (primary, secondary) = normal(rng, (N, spec.in_channels, 13, 4)), weights(rng, spec)
    gates = normal(rng, (N, spec.L))
    diagonal = gates.repeat(spec.out_channels // spec.L, axis=1)
    y, saved = backend.gated_igc(backend.to_layout(x), primary, secondary, gates, spec)
    d = normal(rng, backend.from_layout(y).shape)
    dx, *found = backend.gated_igc_backward(backend.to_layout(d), saved)
    *exact, dgates = reference.backward(d, x, primary, secondary, diagonal, spec)
    exact.append(dgates.reshape(N, spec.L, -1).sum(axis=2))
    for one, two in zip([backend.from_layout(dx), *found], exact, strict=True):
        assert_close(1 + one, 1 + two, spec.parameters * d.size)
