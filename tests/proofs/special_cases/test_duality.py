"""A block turned round: its transpose, inverse, determinant and backward-data, as theorems."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
from hypothesis import strategies as st

from igc_ref import IGCSpec
from igc_ref.errors import SpecError
from igc_ref.reference import backward, duality, products, special_cases
from igc_ref.reference.special_cases import Weights, composed_matrix, monarch
from tests.proofs.special_cases.trials import agree, dtypes, given, numbers, partitions, sizes
from tests.support import oracles
from tests.support.strategies import normal, seeds, specs, weights


def deal(a, b):
    """The matrix of interleave(a, b), moved channel by channel."""
    return oracles.shuffle(np.eye(a * b)[None], a)[0]


def drawn(L, M, seed, dtype=np.float64, diagonal=0):
    """Blocks of a square block, and its matrix by the formula of its entries."""
    rng = np.random.default_rng(seed)
    W_p = normal(rng, (L, M, M), dtype) + diagonal * np.eye(M)
    W_d = normal(rng, (M, L, L), dtype) + diagonal * np.eye(L)
    return W_p, W_d, np.einsum("mab,bmi->ambi", W_d, W_p).reshape(L * M, L * M)


@given(partitions, partitions, seeds, dtypes)
def test_the_transpose_of_an_igc_is_an_igc_with_exchanged_roles(L, M, seed, dtype):
    W_p, W_d, K = drawn(L, M, seed, dtype)
    igc, A = monarch(W_p, W_d), deal(L, M)
    turned = duality.transpose(igc)
    agree(composed_matrix(turned), A @ K.T @ A.T)
    assert turned.spec == IGCSpec.square(M, L, kernel_size=1)
    again = duality.transpose(turned)
    assert all(np.array_equal(a, b) for a, b in zip(again[:2], igc[:2], strict=True))


@given(partitions, partitions, seeds, dtypes)
def test_the_inverse_of_an_igc_is_an_igc_with_exchanged_roles(L, M, seed, dtype):
    W_p, W_d, K = drawn(L, M, seed, dtype, diagonal=20)
    A, turned = deal(L, M), duality.inverse(monarch(W_p, W_d))
    agree(composed_matrix(turned), A @ np.linalg.inv(K) @ A.T)
    assert turned.spec == IGCSpec.square(M, L, kernel_size=1)


@given(partitions, partitions, seeds, st.data())
def test_an_igc_has_an_inverse_only_if_all_its_blocks_have(L, M, seed, data):
    W_p, W_d, _ = drawn(L, M, seed)
    name, blocks = data.draw(st.sampled_from([("W_p", W_p), ("W_d", W_d)]))
    i = data.draw(st.integers(0, len(blocks) - 1))
    blocks[i, 0] = blocks[i, 1:].sum(axis=0)  # zero for a block of one number
    igc = monarch(W_p, W_d)
    assert np.linalg.matrix_rank(composed_matrix(igc)) < L * M
    with pytest.raises(SpecError, match=rf"^{name}\^{i} is singular"):
        duality.inverse(igc)


@given(partitions, partitions, numbers, seeds, dtypes)
def test_the_determinant_of_an_igc_is_that_of_its_blocks_and_permutations(L, M, n, seed, dtype):
    C = math.lcm(L, M) * n
    igc = Weights(*weights(np.random.default_rng(seed), s := IGCSpec(C, C, L, M, 1), dtype), s)
    W_p, W_d = (scipy.linalg.block_diag(*np.split(w.reshape(C, -1), B))
                for w, B in ((igc.primary, L), (igc.secondary, M)))  # fmt: skip
    expected = np.linalg.slogdet(deal(M, C // M) @ W_d @ deal(L, C // L) @ W_p)
    assert duality.slogdet(igc) == pytest.approx(tuple(expected), rel=1e-8, abs=1e-8)


def prime_igc(L, M):
    """The matrix of a block whose weights are different primes, so equal products are the same."""
    primes, n = [], L * M * (L + M)
    candidate = 2
    while len(primes) < n:
        primes += [candidate] * all(candidate % p for p in primes)
        candidate += 1
    W_p, W_d = np.split(np.array(primes), [L * M * M])
    return np.einsum("mab,bmi->ambi", W_d.reshape(M, L, L), W_p.reshape(L, M, M)).reshape(L * M, -1)


def is_exactly_igc(K, L, M):
    """Whether all slices of a matrix of positive integers have rank 1: by their minors."""
    pieces = [K[m::M, b * M : (b + 1) * M] for m, b in np.ndindex(M, L)]
    return all(np.array_equal(s * s[0, 0], np.outer(s[:, 0], s[0])) for s in pieces)


@pytest.mark.parametrize(("L", "M"), [*np.ndindex(5, 5)])
def test_no_other_deal_makes_the_transpose_an_igc_unless_L_or_M_is_1(L, M):
    L, M = L + 1, M + 1
    K, G = prime_igc(L, M), L * M
    for a in (a for a in range(1, G + 1) if G % a == 0):
        order = oracles.shuffle(np.arange(G)[None], a)[0]
        assert is_exactly_igc(K.T[np.ix_(order, order)], M, L) == (a == L or 1 in (L, M))


@pytest.mark.parametrize(("L", "M"), [(2, 2), (2, 3), (3, 2)])
def test_the_permutations_that_do_are_the_deal_of_whole_partitions_and_places_permuted(L, M):
    K, table = prime_igc(L, M), np.arange(L * M).reshape(L, M)
    found = {order for order in itertools.permutations(range(L * M))
             if is_exactly_igc(K.T[np.ix_(order, order)], M, L)}  # fmt: skip
    by_rows, by_columns = itertools.permutations(range(L)), itertools.permutations(range(M))
    moved = itertools.product(by_rows, by_columns)
    assert found == {tuple(table[np.ix_(b, j)].T.ravel()) for b, j in moved}


@given(specs(), numbers, sizes, sizes, seeds, dtypes)
def test_backward_data_is_an_igc_with_exchanged_roles(spec, N, H, W, seed, dtype):
    rng = np.random.default_rng(seed)
    x, (first, second) = normal(rng, (N, spec.in_channels, H, W), dtype), weights(rng, spec, dtype)
    d = normal(rng, (N, spec.out_channels, *spec.output_size(H, W)), dtype)
    even = 1 - spec.kernel_size % 2
    full = np.zeros((*d.shape[:2], H + even, W + even), dtype)
    full[:, :, :: spec.stride, :: spec.stride] = d
    dx = products.forward(full, *duality.adjoint(Weights(first, second, spec)))
    dx = dx[:, :, even : even + H, even : even + W]
    agree(dx, backward(d, x, first, second, spec).x)
    y = oracles.convolve(x, first, spec.stride, spec.L)  # and by loops
    dz, kernel = oracles.shuffle(d, spec.out_channels // spec.M), second[:, :, None, None]
    dy, _ = oracles.convolve_gradients(dz, oracles.shuffle(y, spec.L), kernel, groups=spec.M)
    dy = oracles.shuffle(dy, spec.out_channels // spec.L)
    agree(dx, oracles.convolve_gradients(dy, x, first, spec.stride, spec.L)[0])


ONES = special_cases.kronecker(np.ones((3, 3)), np.ones((2, 2)))
WIDE = special_cases.group_convolution(np.ones((4, 1, 2, 2)), 1)  # square blocks, in is not out


@pytest.mark.parametrize(("function", "igc", "error", "message"), [
    (duality.transpose, WIDE, SpecError, "igc 2x2 1-4 L1 M4: a square block, in = out = L\\*M, wi"),
    (duality.inverse, WIDE, SpecError, "igc 2x2 1-4 L1 M4: a square block"),
    (duality.inverse, ONES._replace(primary=ONES.primary * np.nan), SpecError, "W_p holds numbers"),
    (duality.slogdet, WIDE, SpecError, "igc 2x2 1-4 L1 M4 has no determinant: in = out and k = 1"),
    (duality.adjoint, ONES._replace(primary=np.ones(3)), SpecError, "primary has shape"),
    (duality.adjoint, np.eye(3), TypeError, "weights is numpy.ndarray; Weights is needed"),
])  # fmt: skip
def test_what_cannot_be_turned_round_is_refused_in_one_line(function, igc, error, message):
    with pytest.raises(error, match=message) as refusal:
        function(igc)
    assert "\n" not in str(refusal.value)
