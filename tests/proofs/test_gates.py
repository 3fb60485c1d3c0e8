"""The gated block by its definition: against loops, against the block itself, and its gradients."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from igc_ref import reference
from igc_ref.errors import SpecError
from igc_ref.reference import gates
from igc_ref.spec import IGCSpec
from igc_ref.testing import assert_close, check_grads
from tests.support import oracles
from tests.support.strategies import normal, pictures, seeds, specs, weights


def drawn(spec, shape, rng):
    return normal(rng, shape), *weights(rng, spec), rng.normal(size=(shape[0], spec.out_channels))


@given(spec=specs(), data=st.data(), seed=seeds)
def test_the_gated_block_is_two_loops_with_a_product_between(spec, data, seed):
    x, primary, secondary, gate = drawn(
        spec, data.draw(pictures(spec)), np.random.default_rng(seed)
    )
    y = oracles.convolve(x, primary, spec.stride, spec.L)
    for n in range(len(x)):
        for c in range(spec.out_channels):
            y[n, c] *= gate[n, c]
    y = oracles.convolve(oracles.shuffle(y, spec.L), secondary[:, :, None, None], 1, spec.M)
    y = oracles.shuffle(y, spec.M)
    assert_close(gates.forward(x, primary, secondary, gate, spec), y, spec.parameters)


@given(spec=specs(), data=st.data(), seed=seeds)
def test_a_gate_that_all_images_share_is_a_row_of_the_primary_weights(spec, data, seed):
    """D W_p is block-diagonal as W_p is; ones change nothing, zeros let nothing through."""
    x, *both, gate = drawn(spec, data.draw(pictures(spec)), np.random.default_rng(seed))
    gate[:] = gate[0]
    scaled = gate[0][:, None, None, None] * both[0], both[1]
    for gated, weighed in ((gate, scaled), (gate**0, both), (gate * 0, (both[0] * 0, both[1]))):
        found = gates.forward(x, *both, gated, spec)
        assert_close(found, reference.forward(x, *weighed, spec), spec.parameters)


@given(spec=specs(), data=st.data(), seed=seeds)
def test_backward_is_the_derivative_with_respect_to_everything(spec, data, seed):
    rng = np.random.default_rng(seed)
    arrays = drawn(spec, data.draw(pictures(spec)), rng)
    check_grads(
        lambda *a: gates.forward(*a, spec),
        lambda d: gates.backward(d, *arrays, spec),
        arrays,
        rng,
    )


@pytest.mark.parametrize("name", ["channels", "partitions"])
@given(seed=seeds)
def test_a_gate_s_backward_pass_is_its_derivative(name, seed):
    rng = np.random.default_rng(seed)
    shapes = [(3, 6), (2, 6), (2,)] + [(6, 2), (6,)] * (name == "channels")
    arrays = [rng.normal(size=shape) for shape in shapes]
    more = () if name == "channels" else (1,)
    gate = getattr(gates, name)
    a = arrays[0] @ arrays[1].T + arrays[2]
    assume(abs(a if name == "channels" else a[:, 0] - a[:, 1]).min() > 1e-3)  # from kink and tie
    check_grads(lambda *a: gate(*a, *more)[0], gate(*arrays, *more)[1], arrays, rng)


@given(st.integers(1, 6), st.integers(1, 6), seeds)
def test_of_the_partitions_gates_the_greatest_stay_and_of_equals_the_first(L, keep, seed):
    keep, rng = min(keep, L), np.random.default_rng(seed)
    W, means = np.eye(L), rng.integers(-2, 3, (5, L)).astype(float)  # with ties
    found, every = (gates.partitions(means, W, np.zeros(L), k)[0] for k in (keep, L))
    assert_close(every, 1 / (1 + np.exp(-means)), 1)
    for row, kept, logits in zip(every, found, means, strict=True):
        first = sorted(range(L), key=lambda l: (-logits[l], l))[:keep]
        expected = [row[l] if l in first else 0 for l in range(L)]
        assert kept.tolist() == expected


def test_a_gate_of_another_shape_is_refused():
    spec = IGCSpec.square(2, 2)
    x, *both, gate = drawn(spec, (2, 4, 3, 3), np.random.default_rng(0))
    with pytest.raises(SpecError, match=r"gate has shape \(2, 3\); \(2, 4\) is needed"):
        gates.forward(x, *both, gate[:, :3], spec)
