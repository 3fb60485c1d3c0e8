"""A row of W_p times c, its column of W_d over c: conservation, uniqueness, orthogonality.

Oracles: loops over channels and positions, pseudo-inverses, a Jacobian's rank, gradient descent.
"""

import numpy as np
import pytest
from hypothesis import strategies as st

from igc_ref import IGCSpec
from igc_ref.errors import SpecError
from igc_ref.networks import BN_EPS, IGC
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.model import build
from igc_ref.reference import (
    backward,
    composed_kernel,
    dimension,
    forward,
    middle_channels,
    nearest_block,
    rescale,
)
from tests.proofs.special_cases.trials import agree, dtypes, given
from tests.support import oracles
from tests.support.strategies import normal, pictures, ranked_specs, seeds, specs, weights


def pairings(w, dw, spec):
    """<row, drow> and <column, dcolumn> at every middle channel."""
    both = zip(middle_channels(*w, spec), middle_channels(*dw, spec), strict=True)
    return np.array([np.sum(a * da, axis=1) for a, da in both])


@given(specs(), st.data(), seeds, dtypes, st.floats(0, 1), st.floats(0, 1))
def test_gradients_are_paired_alike_so_a_step_of_descent_keeps_the_differences_to_second_order(
    spec, data, seed, dtype, lr, decay
):
    rng = np.random.default_rng(seed)
    w, x = weights(rng, spec, dtype), normal(rng, data.draw(pictures(spec)), dtype)
    for g, (row, column) in enumerate(zip(*middle_channels(*w, spec), strict=True)):
        b, j = divmod(g, spec.out_channels // spec.L)
        m, t = divmod(j * spec.L + b, len(column))
        assert np.array_equal(row, w[0][g].ravel())
        assert np.array_equal(column, [w[1][m * len(column) + a, t] for a in range(len(column))])
    _, *dw = backward(normal(rng, forward(x, *w, spec).shape, dtype), x, *w, spec)
    agree(*pairings(w, dw, spec))
    after = [a - lr * (da + decay * a) for a, da in zip(w, dw, strict=True)]
    D, E, found = (np.subtract(*pairings(a, a, spec)) for a in (w, dw, after))
    size = max(np.abs(pairings(a, a, spec)).max() for a in (w, dw))
    np.testing.assert_allclose(found, (1 - lr * decay) ** 2 * D + lr**2 * E, 1e-10, 1e-10 * size)


def with_between(function, rng, spec, side=3):
    """Pairings of the block, in loops, with h, pull = function(y) between the convolutions."""
    x, w, n = rng.normal(size=(2, spec.in_channels, side, side)), weights(rng, spec), spec.L
    h, pull = function(oracles.convolve(x, w[0], spec.stride, n))
    h, kernel = oracles.shuffle(h, n), w[1][:, :, None, None]  # a last shuffle would reorder d
    d = normal(rng, oracles.convolve(h, kernel, groups=spec.M).shape)
    dh, dsecondary = oracles.convolve_gradients(d, h, kernel, groups=spec.M)
    dy = pull(oracles.shuffle(dh, spec.out_channels // n))
    dprimary = oracles.convolve_gradients(dy, x, w[0], spec.stride, n)[1]
    return pairings(w, (dprimary, dsecondary[:, :, 0, 0]), spec)


def batch_norm(y):
    def mean(a):
        return a.mean((0, 2, 3), keepdims=True)

    h, std = (y - mean(y)) / y.std((0, 2, 3), keepdims=True), y.std((0, 2, 3), keepdims=True)
    return h, lambda d: (d - mean(d) - h * mean(d * h)) / std


BETWEEN = {
    "relu": lambda y: (np.maximum(y, 0), lambda d: d * (y > 0)),
    "tanh": lambda y: (np.tanh(y), lambda d: d * (1 - np.tanh(y) ** 2)),
    "bias": lambda y: (y + 1, lambda d: d),
    "batch norm": batch_norm,
}


@given(st.sampled_from(list(BETWEEN)), specs(), seeds)
def test_relu_between_the_convolutions_keeps_this_but_tanh_a_bias_and_batch_norm_do_not(
    name, spec, seed
):
    rows, columns = with_between(BETWEEN[name], np.random.default_rng(seed), spec)
    if name == "relu":
        agree(rows, columns)
    else:
        assert np.abs(rows - columns).max() > 1e-6 * np.abs(columns).max()
    if name == "batch norm":  # whatever stands after it cannot see the size of a row
        assert np.abs(rows).max() < 1e-9


@pytest.mark.parametrize("name", ["plain_igc-8", "resnet_igc-8", "igcv3-54"])
def test_in_a_network_all_igc_blocks_obey_and_before_batch_norm_a_filter_is_paired_to_eps_only(
    name,
):
    arch, depth = name.split("-")
    sizes = {"width": 4} if arch == "igcv3" else {"L": 2, "M": 2}
    model = build(Architecture(arch, int(depth), **sizes), "numpy", "float64", bn_momentum=0)
    rng = np.random.default_rng(0)
    model.backward(rng.normal(size=model.forward(rng.normal(size=(3, 3, 16, 16)), True).shape))
    w, dw = model.state_dict(), model.gradients()
    igcs = {n: b.spec for n, b in model.network.named_layers() if isinstance(b, IGC)}
    assert len(igcs) == (0 if arch == "igcv3" else 6)
    for igc, spec in igcs.items():
        both = [[a[f"{igc}.{k}"] for k in ("primary", "secondary")] for a in (w, dw)]
        agree(*pairings(*both, spec))
    for i, gamma in [(i, n) for i, n in enumerate(w) if n.endswith("gamma")]:
        before, var = list(w)[i - 1], w[gamma.replace("gamma", "running_var")]  # of this batch
        rows = np.sum(w[before] * dw[before], axis=tuple(range(1, w[before].ndim)))
        if before.endswith("secondary"):  # channel a*M + m is row a of W_d^m
            rows = rows.reshape(igcs[before.removesuffix(".secondary")].M, -1).T.ravel()
        expected = w[gamma] * dw[gamma] * BN_EPS / (var + BN_EPS)
        np.testing.assert_allclose(rows, expected, 1e-6, 1e-9)


@pytest.mark.parametrize("decay", [0, 0.7])
def test_gradient_flow_keeps_the_differences_and_weight_decay_shrinks_them_exponentially(decay):
    spec, rng = IGCSpec(4, 6, 2, 3, 2, 2), np.random.default_rng(0)
    x, start, drift = rng.normal(size=(1, 4, 3, 3)), weights(rng, spec), []
    target = forward(x, *weights(rng, spec), spec)
    for steps in (100, 200):  # Euler's method for the time from 0 to 1: the drift is its error
        w = start
        for _ in range(steps):
            _, *dw = backward(forward(x, *w, spec) - target, x, *w, spec)
            w = [a - (da + decay * a) / steps for a, da in zip(w, dw, strict=True)]
        moved = pairings(w, w, spec) - np.exp(-2 * decay) * pairings(start, start, spec)
        drift.append(np.linalg.norm(np.subtract(*moved)))
    assert drift[0] / drift[1] == pytest.approx(2, abs=0.2)
    assert drift[1] < 0.05 * np.linalg.norm(moved)  # the norms themselves do move


@given(ranked_specs(), seeds, dtypes)
def test_the_kernel_fixes_the_weights_up_to_an_invertible_matrix_in_each_slice_of_full_rank(
    spec, seed, dtype
):
    rng, L, M = np.random.default_rng(seed), spec.L, spec.M
    q, w = spec.out_channels // (L * M), weights(rng, spec, dtype)
    kernel, nearest = composed_kernel(*w, spec), nearest_block(composed_kernel(*w, spec), spec)
    again = rescale(*w, spec, normal(rng, (spec.out_channels,), dtype))
    agree(composed_kernel(*again), kernel)
    both = (middle_channels(*block, spec) for block in (w, nearest[:2], again[:2]))
    (rows, columns), (other_rows, other_columns), (moved, _) = (
        [a.reshape(L, M, q, -1) for a in pair] for pair in both
    )
    for b, m in np.ndindex(L, M) if q <= rows.shape[-1] else ():  # else no slice has rank q
        G = np.linalg.pinv(columns[b, m].T) @ other_columns[b, m].T
        np.testing.assert_allclose(G @ other_rows[b, m], rows[b, m], 1e-6, 1e-6)
        assert np.linalg.matrix_rank(np.vstack([moved[b, m], rows[b, m]]), 1e-9) == q
    greatest = np.abs(other_columns).max(-1)  # entry of every column: real and positive
    np.testing.assert_allclose(other_columns.real.max(-1), greatest, 1e-12)
    if q == 1:  # the same representative
        for one, other in zip(nearest, nearest_block(composed_kernel(*again), spec), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-7)


def test_a_change_of_the_weights_shows_in_the_kernel_if_and_only_if_no_slice_is_zero():
    spec, rng = IGCSpec.square(3, 2), np.random.default_rng(0)
    w = weights(rng, spec)
    for a, b in np.ndindex(spec.secondary_shape):
        changed, emptied = w[1].copy(), w[0].copy()
        changed[a, b] += 1
        emptied[2 * b + a // 3] = 0  # row a // 3 of partition b: the slice becomes zero
        for primary, same in ((w[0], False), (emptied, True)):
            ends = [nearest_block(composed_kernel(primary, s, spec), spec) for s in (w[1], changed)]
            assert all(np.allclose(*pair, atol=1e-3) for pair in zip(*ends, strict=True)) == same


@pytest.mark.parametrize("spec", [
    IGCSpec.square(3, 2, 1), IGCSpec(4, 4, 2, 2, 2), IGCSpec(4, 8, 2, 2, 1), IGCSpec(2, 8, 2, 1, 1),
], ids=str)  # fmt: skip
def test_the_dimension_of_the_set_of_igcs_is_the_rank_of_the_jacobian(spec):
    p, s = weights(np.random.default_rng(0), spec)
    jacobian = [  # the kernel is linear in either weights
        *(composed_kernel(e.reshape(p.shape), s, spec).ravel() for e in np.eye(p.size)),
        *(composed_kernel(p, e.reshape(s.shape), spec).ravel() for e in np.eye(s.size)),
    ]
    assert np.linalg.matrix_rank(jacobian) == dimension(spec)


def descend(spec, slope, lr):
    """Gradient descent with momentum from 50 random starts at once: kernels and weights at the end.

    Axes: n start, r row and j column in secondary partition m, b primary partition, i patch.
    """
    rng, L, M, r = np.random.default_rng(0), spec.L, spec.M, spec.out_channels // spec.M
    p = rng.normal(size=(50, L, M, r // L, spec.in_channels // L * spec.taps)) / 2
    s, vp, vs = rng.normal(size=(50, M, r, r // L, L)) / 2, 0.0, 0.0
    for _ in range(2000):
        K = np.einsum("nmrjb,nbmji->nrmbi", s, p)
        dK = slope(K.reshape(50, spec.out_channels, -1)).reshape(K.shape)
        vp = 0.9 * vp - lr * np.einsum("nrmbi,nmrjb->nbmji", dK, s)
        vs = 0.9 * vs - lr * np.einsum("nrmbi,nbmji->nmrjb", dK, p)
        p, s = p + vp, s + vs
    shapes = (spec.out_channels, -1), spec.primary_shape, spec.secondary_shape
    return [a.reshape(50, *shape) for a, shape in zip((K, p, s), shapes, strict=True)]


@pytest.mark.parametrize("spec", [IGCSpec.square(3, 2, 1), IGCSpec(6, 4, 2, 1, 1)], ids=str)
def test_gradient_descent_from_fifty_random_starts_always_reaches_the_error_of_the_svd(spec):
    kernel = np.random.default_rng(1).normal(size=spec.composed_shape)
    ends, *_ = descend(spec, lambda K: K - kernel[:, :, 0, 0], 0.05)
    errors = np.linalg.norm(ends - kernel[:, :, 0, 0], axis=(1, 2)) / np.linalg.norm(kernel.ravel())
    np.testing.assert_allclose(errors, nearest_block(kernel, spec).error, rtol=1e-6)


def assert_orthonormal_rows_up_to_scales(primary, secondary, spec):
    rows = primary.reshape(spec.out_channels, -1)
    w = rescale(primary, secondary, spec, 1 / np.linalg.norm(rows, axis=1))
    blocks = *np.split(w.primary.reshape(rows.shape), spec.L), *np.split(w.secondary, spec.M)
    for block in blocks:
        np.testing.assert_allclose(block @ block.conj().T, np.eye(len(block)), atol=1e-6)


@given(*[st.integers(1, 4)] * 2, dtypes, seeds)
def test_orthogonal_blocks_make_an_orthogonal_igc_and_it_has_orthogonal_blocks_up_to_scales(
    L, M, dtype, seed
):
    rng, spec = np.random.default_rng(seed), IGCSpec.square(L, M, 1)
    W_p, W_d = (np.linalg.qr(normal(rng, (m, n, n), dtype)).Q for n, m in ((M, L), (L, M)))
    w = W_p.reshape(spec.primary_shape), W_d.reshape(spec.secondary_shape)
    kernel, x = composed_kernel(*w, spec), normal(rng, (2, L * M, 3, 3), dtype)
    agree(np.linalg.norm(forward(x, *w, spec), axis=1), np.linalg.norm(x, axis=1))
    agree(kernel[..., 0, 0] @ kernel[..., 0, 0].conj().T, np.eye(L * M, dtype=dtype))
    assert_orthonormal_rows_up_to_scales(*nearest_block(kernel, spec)[:2], spec)


@pytest.mark.parametrize("spec", [IGCSpec.square(3, 2, 1), IGCSpec(6, 6, 3, 2, 2)], ids=str)
def test_each_kernel_with_orthonormal_rows_that_descent_finds_has_them_in_its_blocks_up_to_scales(
    spec,
):
    ends = descend(spec, lambda K: (K @ K.swapaxes(1, 2) - np.eye(6)) @ K, 0.01)
    found = [w for K, *w in zip(*ends, strict=True) if np.allclose(K @ K.T, np.eye(6))]
    assert len(found) >= 40  # a few end elsewhere
    for w in found:
        assert_orthonormal_rows_up_to_scales(*w, spec)


@pytest.mark.parametrize(("call", "message"), [
    (lambda p, s, f, spec: rescale(p, s, spec, f * 0), r"factors\[0\]=0.0: its modulus is"),
    (lambda p, s, f, spec: rescale(p, s, spec, f * np.nan), r"factors\[0\]=nan"),
    (lambda p, s, f, spec: rescale(p, s, spec, f[1:]), r"shape \(5,\); \(6,\) is needed"),
    (lambda p, s, f, spec: dimension(IGCSpec(6, 6, 3, 3)), r"not divisible by L\*M=9"),
])  # fmt: skip
def test_what_fits_no_block_is_refused_with_its_numbers(call, message):
    spec = IGCSpec.square(3, 2)
    with pytest.raises(SpecError, match=message):
        call(np.ones(spec.primary_shape), np.ones(spec.secondary_shape), np.ones(6), spec)
