"""Sums of IGCs, products of n factors, and the nearest to a dense kernel, as theorems.

Right sides: eigenvalues of slices cut by loops, alternating least squares, and `lazylinop`.
"""

import math
import warnings

import numpy as np
import pytest

from benchmarks.nearest_products import fit
from igc_ref import IGCSpec, reference
from igc_ref.reference import nearest_block, nearest_product, products
from igc_ref.spec import Chain, IGCV2Spec
from tests.proofs.special_cases.trials import agree, dtypes, given, numbers
from tests.support.strategies import igcv2_specs, normal, product_weights, ranked_specs, seeds


def dense(primary, secondary, spec, r=1):
    return products.composed_kernel((primary, secondary[:, :, None, None]), Chain.sum_of(spec, r))


def cut(kernel, L, M):
    n = kernel.shape[1] // L
    return [kernel[m::M, b * n : (b + 1) * n] for m, b in np.ndindex(M, L)]


@given(ranked_specs(), numbers, seeds, dtypes)
def test_every_kernel_with_slices_of_rank_r_q_is_a_sum_of_r_igcs(spec, r, seed, dtype):
    rng, kernel = np.random.default_rng(seed), np.zeros(spec.composed_shape, dtype)
    q, ranks = spec.out_channels // (spec.L * spec.M), []
    for piece in cut(kernel, spec.L, spec.M):
        rows, patch = len(piece), piece[0].size
        ranks.append(min(rows, patch, rng.integers(r * q + 1)))
        left, right = normal(rng, (rows, ranks[-1]), dtype), normal(rng, (ranks[-1], patch), dtype)
        piece[:] = (left @ right).reshape(piece.shape)
    least = math.ceil(max(ranks) / q)
    assert reference.least_rank(kernel, spec.L, spec.M) == least
    assert reference.is_igc(kernel, spec.L, spec.M) == (least <= 1)
    primary, secondary, error = nearest_block(kernel, spec, r)
    agree(dense(primary, secondary, spec, r), kernel)
    assert error < 1e-7
    assert primary.dtype == secondary.dtype == dtype


@given(ranked_specs(), numbers, seeds, dtypes)
def test_the_nearest_sum_keeps_r_q_singular_values_as_peeling_does_and_min_l_ms_igcs_are_enough(
    spec, r, seed, dtype
):
    kernel = normal(np.random.default_rng(seed), spec.composed_shape, dtype)
    *best, error = nearest_block(kernel, spec, r)
    rest, size, discarded = kernel, np.linalg.norm(kernel), 0
    kept = r * spec.out_channels // (spec.L * spec.M)  # r*q
    for _ in range(r):  # peel off one nearest IGC after another
        rest = rest - dense(*nearest_block(rest, spec)[:2], spec)
    for piece in cut(kernel, spec.L, spec.M):
        rows = piece.reshape(len(piece), -1)
        gram = np.linalg.eigvalsh(rows @ rows.conj().T)  # squares, smallest first
        discarded += gram[:-kept].sum()
    reported = reference.singular_values(kernel, spec.L, spec.M)[..., kept:]
    for found in (kernel - dense(*best, spec, r), rest, error * size, reported):
        assert np.sum(np.abs(found) ** 2) == pytest.approx(discarded, rel=1e-9, abs=1e-12 * size**2)
    MS = spec.M * spec.taps * spec.in_channels / spec.out_channels  # square: M*S
    most = reference.least_rank(kernel, spec.L, spec.M)
    assert most == math.ceil(min(spec.L, MS))
    assert reference.least_rank(dense(*best, spec, r), spec.L, spec.M) == min(r, most)
    assert Chain.sum_of(spec, most).parameters > kernel.size  # more than the kernel itself
    cheaper = r * (1 / spec.L + 1 / MS) < 1 - 1e-12
    assert (Chain.sum_of(spec, r).parameters < kernel.size) == cheaper


@given(ranked_specs(), numbers, seeds, dtypes)
def test_a_sum_is_one_block_that_is_r_times_as_wide_and_costs_r_times_as_much(spec, r, seed, dtype):
    rng, chain = np.random.default_rng(seed), Chain.sum_of(spec, r)
    x = normal(rng, (2, spec.in_channels, 5, 4), dtype)
    p, s, _ = nearest_block(normal(rng, spec.composed_shape, dtype), spec, r)
    y, q = 0, spec.out_channels // (spec.L * spec.M)
    for t in range(r):  # block t has q rows of p for each slice
        primary = p.reshape(-1, r, q, *p.shape[1:])[:, t].reshape(spec.primary_shape)
        secondary = s[:, t * q * spec.L : (t + 1) * q * spec.L]
        y = y + reference.forward(x, primary, secondary, spec)
    agree(products.forward(x, (p, s[:, :, None, None]), chain), y)
    assert chain.parameters == r * spec.parameters
    assert chain.multiply_adds(9, 8) == r * spec.multiply_adds(9, 8)


@given(igcv2_specs().filter(lambda s: s.in_channels * math.prod(s.kernel) < 200), seeds, dtypes)
def test_a_product_is_found_and_no_other_is_nearer_by_more_than_sqrt_n_1(spec, seed, dtype):
    rng = np.random.default_rng(seed)
    product = products.composed_kernel(product_weights(rng, spec, dtype), spec)
    for noise in (0, 0.01, 0.3, 10):
        kernel = product + noise * normal(rng, product.shape, dtype)
        weights, error, bound = nearest_product(kernel, spec)
        distance = np.linalg.norm(kernel - products.composed_kernel(weights, spec))
        size, rival = np.linalg.norm(kernel), np.linalg.norm(kernel - product)
        assert distance == pytest.approx(error * size, abs=1e-12 * size)  # so errors are orthogonal
        assert bound * size <= rival + 1e-12 * size
        assert error <= math.sqrt(len(spec.K) - 1) * bound + 1e-12
    for weight in weights[:-1]:
        agree(np.linalg.norm(weight.reshape(len(weight), -1), axis=1), np.ones(len(weight)))


@pytest.mark.parametrize("K", [(2, 2, 2), (3, 2, 2), (2, 3, 4), (1, 3, 2)], ids=str)
def test_three_factors_fitted_together_are_nearer_by_sqrt_2_at_most(K):
    rng, spec = np.random.default_rng(0), IGCV2Spec(2 * K[1] * K[2], math.prod(K), K, kernel_size=2)
    kernel = rng.normal(size=spec.composed_shape)
    found = nearest_product(kernel, spec)
    starts = found.weights, *(product_weights(rng, spec) for _ in range(3))
    best = [fit(kernel, start, spec, rounds=30) for start in starts]
    assert found.bound <= min(best) <= best[0] < found.error <= math.sqrt(2) * min(best)


# Slow, because continuous integration installs lazylinop, of the dev extra, before the slow tests.
@pytest.mark.slow
@pytest.mark.parametrize("K", [(3, 4), (2, 2, 2), (2, 3, 2), (2, 2, 3, 2)], ids=str)
def test_lazylinop_finds_the_same_distances(K):
    with warnings.catch_warnings(record=True):
        for library in ("pandas", "psutil", "lazylinop.butterfly"):  # it imports the other two
            lazylinop = pytest.importorskip(library, reason=f"lazylinop's ksd needs {library}")
    L, M = math.prod(K[1:]), K[0]
    kernel = normal(np.random.default_rng(0), (L * M, 2 * L, 2, 2), np.complex128)

    def rival(matrix, patterns):
        found = lazylinop.ksd(np.ascontiguousarray(matrix), lazylinop.Chain(patterns)).toarray()
        return pytest.approx(np.linalg.norm(matrix - found) / np.linalg.norm(matrix), rel=1e-9)

    for r in (1, 2):
        error = nearest_block(kernel, IGCSpec(2 * L, L * M, L, M, 2), r).error
        assert error == rival(kernel.reshape(L * M, -1), [(1, L, r * L, M), (L, r * M, 8, 1)])
    # It begins with the last factor: give it the transpose, with all digits in reverse order.
    mirror = kernel.reshape(*K[::-1], *K[:0:-1], 8).transpose(*reversed(range(2 * len(K))))
    patterns = [(1, 8, M, L)]
    for radix in K[1:]:
        a, _, b, d = patterns[-1]
        patterns.append((a * b, radix, radix, d // radix))
    error = nearest_product(kernel, IGCV2Spec(2 * L, L * M, K, 2)).error
    assert error == rival(mirror.reshape(-1, L * M), patterns)
