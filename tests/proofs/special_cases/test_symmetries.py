"""A row of W_p times c, its column of W_d over c: conservation, uniqueness, orthogonality.

Oracles: loops, central differences, pseudo-inverses, a Jacobian's rank, gradient descent.
"""

import numpy as np
import pytest
from hypothesis import strategies as st

from igc_ref import IGCSpec
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
from tests.proofs.special_cases.trials import agree, dtypes, given, partitions
from tests.support import oracles
from tests.support.strategies import normal, pictures, ranked_specs, seeds, specs, weights


def pairings(w, dw, spec):
    """<row, drow> and <column, dcolumn> at every middle channel."""
    both = zip(middle_channels(*w, spec), middle_channels(*dw, spec), strict=True)
    return np.array([np.sum(a * da, axis=1) for a, da in both])


@given(specs(), st.data(), seeds, dtypes)
def test_a_row_and_the_column_that_reads_it_are_paired_alike_with_their_gradients(
    spec, data, seed, dtype
):
    rng = np.random.default_rng(seed)
    w, x = weights(rng, spec, dtype), normal(rng, data.draw(pictures(spec)), dtype)
    _, *dw = backward(normal(rng, forward(x, *w, spec).shape, dtype), x, *w, spec)
    agree(*pairings(w, dw, spec))


PIXELS = (0, 2, 3)
BETWEEN = {
    "relu": lambda y: np.maximum(y, 0),
    "tanh": np.tanh,
    "bias": lambda y: y + 1,
    "batch norm": lambda y: (y - y.mean(PIXELS, keepdims=True)) / y.std(PIXELS, keepdims=True),
}


@given(st.sampled_from(list(BETWEEN)), specs(), seeds)
def test_relu_between_the_convolutions_keeps_this_but_tanh_a_bias_and_batch_norm_do_not(
    name, spec, seed
):
    rng, function, L = np.random.default_rng(seed), BETWEEN[name], spec.L
    x, w = rng.normal(size=(2, spec.in_channels, 3, 3)), weights(rng, spec)
    y = oracles.convolve(x, w[0], spec.stride, L)
    h, kernel = oracles.shuffle(function(y), L), w[1][:, :, None, None]
    d = normal(rng, y.shape)  # the last permutation would only reorder it
    dh, dsecondary = oracles.convolve_gradients(d, h, kernel, groups=spec.M)
    _, columns = pairings(w, (w[0], dsecondary[:, :, 0, 0]), spec)
    # <row, drow> is the slope of the loss in a factor of the row, which is a factor of its channel.
    slopes = (function((1 + 1e-6) * y) - function((1 - 1e-6) * y)) / 2e-6
    rows = np.sum(oracles.shuffle(dh, spec.out_channels // L) * slopes, axis=PIXELS)
    size = np.abs(columns).max()
    if name == "relu":
        np.testing.assert_allclose(rows, columns, atol=1e-7 * size)
    else:
        assert np.abs(rows - columns).max() > 1e-6 * size
    if name == "batch norm":  # whatever stands after it cannot see the size of a row
        assert np.abs(rows).max() < 1e-7 * np.abs(d).max() * np.abs(w[1]).sum()


@pytest.mark.parametrize("arch", ["plain_igc", "resnet_igc"])
def test_in_a_network_the_blocks_obey_and_before_batch_norm_a_filter_is_paired_to_eps_only(arch):
    model = build(Architecture(arch, 8, L=2, M=2), "numpy", "float64", bn_momentum=0)
    rng = np.random.default_rng(0)
    model.backward(rng.normal(size=model.forward(rng.normal(size=(3, 3, 16, 16)), True).shape))
    w, dw = model.state_dict(), model.gradients()
    igcs = {n: b.spec for n, b in model.network.named_layers() if isinstance(b, IGC)}
    assert len(igcs) == 6
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
        w, difference = start, np.subtract(*pairings(start, start, spec))
        for _ in range(steps):
            _, *dw = backward(forward(x, *w, spec) - target, x, *w, spec)
            w = [a - (da + decay * a) / steps for a, da in zip(w, dw, strict=True)]
            pushed = np.subtract(*pairings(dw, dw, spec)) / steps**2
            difference = (1 - decay / steps) ** 2 * difference + pushed  # exact for every step
        agree(np.subtract(*pairings(w, w, spec)), difference)
        moved = pairings(w, w, spec) - np.exp(-2 * decay) * pairings(start, start, spec)
        drift.append(np.linalg.norm(np.subtract(*moved)))
    assert drift[0] / drift[1] == pytest.approx(2, abs=0.2)
    assert drift[1] < 0.05 * np.linalg.norm(moved)  # the norms themselves do move


@given(specs(), seeds, dtypes)
def test_a_factor_of_a_row_of_w_p_and_its_inverse_on_one_column_of_w_d_change_no_kernel(
    spec, seed, dtype
):
    rng = np.random.default_rng(seed)
    w, factors = weights(rng, spec, dtype), normal(rng, (spec.out_channels,), dtype)
    again = rescale(*w, spec, factors)
    agree(composed_kernel(*again), composed_kernel(*w, spec))
    agree(again.primary, factors[:, None, None, None] * w[0])
    for g, (row, column) in enumerate(zip(*middle_channels(*w, spec), strict=True)):
        b, j = divmod(g, spec.out_channels // spec.L)
        m, t = divmod(j * spec.L + b, len(column))
        assert np.array_equal(row, w[0][g].ravel())
        assert np.array_equal(column, [w[1][m * len(column) + a, t] for a in range(len(column))])


full_rank = ranked_specs().filter(lambda s: s.out_channels // s.M <= s.in_channels * s.taps)


@given(full_rank, seeds, dtypes)
def test_the_kernel_fixes_the_weights_up_to_an_invertible_matrix_in_each_slice_of_full_rank(
    spec, seed, dtype
):
    w = weights(np.random.default_rng(seed), spec, dtype)
    other = nearest_block(composed_kernel(*w, spec), spec)[:2]
    shape = spec.L, spec.M, spec.out_channels // (spec.L * spec.M), -1  # slices of q rows
    R, C = (a.reshape(shape) for a in middle_channels(*w, spec))
    other_R, other_C = (a.reshape(shape) for a in middle_channels(*other, spec))
    G = np.linalg.pinv(C.mT) @ other_C.mT  # invertible, because R has rank q
    np.testing.assert_allclose(C.mT @ G, other_C.mT, 1e-6, 1e-6)
    np.testing.assert_allclose(G @ other_R, R, 1e-6, 1e-6)
    greatest = np.abs(other_C).max(-1)  # entry of every column: real and positive
    np.testing.assert_allclose(other_C.real.max(-1), greatest, 1e-12)


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


@pytest.mark.parametrize("spec", [IGCSpec.square(3, 2, 1), IGCSpec(6, 4, 2, 1, 1)], ids=str)
def test_gradient_descent_from_fifty_random_starts_always_reaches_the_error_of_the_svd(spec):
    # n start, r row and j column in secondary partition m, b primary partition, i patch
    rng, L, M, rows = np.random.default_rng(0), spec.L, spec.M, spec.out_channels // spec.M
    kernel = rng.normal(size=spec.composed_shape)
    p = rng.normal(size=(50, L, M, rows // L, kernel[0].size // L)) / 2
    s, vp, vs = rng.normal(size=(50, M, rows, rows // L, L)) / 2, 0.0, 0.0
    for _ in range(2000):
        gap = np.einsum("nmrjb,nbmji->nrmbi", s, p) - kernel.reshape(rows, M, L, -1)
        vp = 0.9 * vp - 0.05 * np.einsum("nrmbi,nmrjb->nbmji", gap, s)
        vs = 0.9 * vs - 0.05 * np.einsum("nrmbi,nbmji->nmrjb", gap, p)
        p, s = p + vp, s + vs
    errors = np.linalg.norm(gap.reshape(50, -1), axis=1) / np.linalg.norm(kernel)
    np.testing.assert_allclose(errors, nearest_block(kernel, spec).error, rtol=1e-6)


squares = st.builds(lambda L, M: IGCSpec.square(L, M, 1), partitions, partitions)
long_rows = full_rank.filter(lambda s: s.out_channels == s.L * s.M <= s.in_channels * s.taps)


@given(squares | long_rows, dtypes, seeds)
def test_orthonormal_rows_of_the_blocks_make_those_of_an_igc_which_has_them_up_to_scales(
    spec, dtype, seed
):
    rng, L, M = np.random.default_rng(seed), spec.L, spec.M
    shapes = (L, spec.in_channels // L * spec.taps, M), (M, L, L)
    W_p, W_d = (np.linalg.qr(normal(rng, shape, dtype)).Q.mT for shape in shapes)
    w = W_p.reshape(spec.primary_shape), W_d.reshape(spec.secondary_shape)
    kernel = composed_kernel(*w, spec)
    K = kernel.reshape(L * M, -1)
    agree(K @ K.conj().T, np.eye(L * M, dtype=dtype))
    if spec == IGCSpec.square(L, M, 1):  # then the layer keeps the norm of every pixel
        x = normal(rng, (2, L * M, 3, 3), dtype)
        agree(np.linalg.norm(forward(x, *w, spec), axis=1), np.linalg.norm(x, axis=1))
    primary, secondary, _ = nearest_block(kernel, spec)  # the weights up to scales
    lengths = np.linalg.norm(primary.reshape(L * M, -1), axis=1)
    primary, secondary, _ = rescale(primary, secondary, spec, 1 / lengths)
    for block in (*primary.reshape(L, M, -1), *secondary.reshape(M, L, L)):
        np.testing.assert_allclose(block @ block.conj().T, np.eye(len(block)), atol=1e-6)
