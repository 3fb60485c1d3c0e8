"""The reference: structure exactly, forward and backward against loops, gradients and adjoints."""

import numpy as np
import pytest
import scipy.signal
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from igc_ref import IGCSpec, reference
from igc_ref.errors import SpecError
from igc_ref.reference import (
    backward,
    block_diagonal,
    blockmask,
    composed_kernel,
    diagonal_blocks,
    dimension,
    duality,
    fold,
    forward,
    interleave,
    matrices,
    middle_channels,
    patch_operator,
    rescale,
    special_cases,
    unfold,
)
from igc_ref.spec import Chain, IGCV2Spec, mixing_time, share_met_by_other_deal
from igc_ref.testing import assert_close, check_grads, dot_test
from tests.support import oracles
from tests.support.strategies import (
    kernel_sizes,
    normal,
    pictures,
    seeds,
    sizes,
    specs,
    strides,
    weights,
)

dtypes = st.sampled_from([np.float64, np.complex128])
counts = st.integers(1, 5)


def ones(*shape):
    return np.ones(shape)


# -- structure: asserted exactly -------------------------------------------------------------


@given(counts, counts, counts, seeds, st.booleans())
def test_block_diagonal_is_zero_off_the_blocks_and_the_blocks_on_them(B, p, q, seed, sparse):
    blocks = np.random.default_rng(seed).normal(size=(B, p, q))
    matrix = block_diagonal(blocks, sparse)
    assert sp.issparse(matrix) == sparse
    dense = matrix.toarray() if sparse else matrix
    for row in range(B * p):
        for column in range(B * q):
            inside = row // p == column // q
            assert dense[row, column] == (blocks[row // p, row % p, column % q] if inside else 0)
    assert np.array_equal(diagonal_blocks(matrix, B), blocks)


@given(counts, counts, counts, seeds)
def test_blockmask_keeps_the_blocks_and_clears_the_rest(B, p, q, seed):
    matrix = np.random.default_rng(seed).normal(size=(B * p, B * q))
    mask = np.kron(np.eye(B), np.ones((p, q)))
    assert np.array_equal(blockmask(matrix, B), matrix * mask)


@given(counts, counts, st.booleans())
def test_interleave_is_a_permutation_with_orthogonal_matrix_and_known_places(groups, size, sparse):
    P = interleave(groups, size, sparse)
    P = P.toarray() if sparse else P
    n = groups * size
    assert np.array_equal(P.T @ P, np.eye(n))
    assert np.array_equal(interleave(size, groups), P.T)
    for l in range(groups):
        for j in range(size):
            assert (P @ np.eye(n)[l * size + j])[j * groups + l] == 1


@given(specs(square=True), seeds)
def test_every_secondary_partition_holds_one_channel_of_every_primary_partition(spec, seed):
    primary, secondary = weights(np.random.default_rng(seed), spec)
    P = matrices(primary, secondary, spec).P
    origin = P.T @ (np.arange(spec.out_channels) // spec.M)  # primary partition of each place
    for partition in np.split(origin, spec.M):
        assert sorted(partition) == list(range(spec.L))


@given(specs(), seeds)
def test_dense_and_sparse_matrices_are_the_same(spec, seed):
    primary, secondary = weights(np.random.default_rng(seed), spec)
    for dense, sparse in zip(
        matrices(primary, secondary, spec), matrices(primary, secondary, spec, True), strict=True
    ):
        assert np.array_equal(dense, sparse.toarray())


# -- patches ---------------------------------------------------------------------------------


@given(counts, sizes, sizes, kernel_sizes, strides, seeds)
def test_the_patch_operator_reads_the_pixels_that_a_loop_reads(C, H, W, k, stride, seed):
    x = np.random.default_rng(seed).normal(size=(C, H, W))
    U = patch_operator(C, H, W, k, stride)
    kh, kw = k if isinstance(k, tuple) else (k, k)
    rows, columns = ((n + 2 * (k // 2) - k) // stride + 1 for n, k in ((H, kh), (W, kw)))
    patches = (U @ x.ravel()).reshape(C, kh, kw, rows, columns)
    for index in np.ndindex(*patches.shape):
        c, ky, kx, r, q = index
        y, z = r * stride + ky - kh // 2, q * stride + kx - kw // 2
        inside = 0 <= y < H and 0 <= z < W
        assert patches[index] == (x[c, y, z] if inside else 0)


@given(counts, counts, sizes, sizes, kernel_sizes, strides, seeds)
def test_fold_is_the_adjoint_of_unfold(N, C, H, W, k, stride, seed):
    shape = (N, C, H, W)
    dot_test(
        lambda x: unfold(x, k, stride),
        lambda Z: fold(Z, shape, k, stride),
        shape,
        np.random.default_rng(seed),
    )


# -- the block -------------------------------------------------------------------------------


def naive_block(x, primary, secondary, spec):
    """Compute the block by a loop convolution, a shuffle, small matrices and a shuffle."""
    y = oracles.shuffle(oracles.convolve(x, primary, spec.stride, spec.L), spec.L)
    z = np.empty_like(y)
    q = spec.out_channels // spec.M
    for m in range(spec.M):
        for a in range(q):
            row = secondary[m * q + a]
            z[:, m * q + a] = sum(row[b] * y[:, m * q + b] for b in range(q))
    return oracles.shuffle(z, spec.M)


@given(specs(), st.data(), seeds, dtypes, st.booleans())
def test_forward_equals_loops(spec, data, seed, dtype, sparse):
    rng = np.random.default_rng(seed)
    x = normal(rng, data.draw(pictures(spec)), dtype)
    primary, secondary = weights(rng, spec, dtype)
    actual = forward(x, primary, secondary, spec, sparse)
    assert actual.dtype == dtype
    assert_close(actual, naive_block(x, primary, secondary, spec), spec.parameters)


@given(specs(), st.data(), seeds, st.booleans())
def test_backward_is_the_derivative_of_forward(spec, data, seed, sparse):
    rng = np.random.default_rng(seed)
    x = normal(rng, data.draw(pictures(spec)))
    primary, secondary = weights(rng, spec)
    check_grads(
        lambda *arguments: forward(*arguments, spec, sparse),
        lambda d: backward(d, x, primary, secondary, spec, sparse),
        (x, primary, secondary),
        rng,
    )


@given(specs(), st.data(), seeds, dtypes)
def test_backward_to_the_images_is_the_adjoint_of_forward(spec, data, seed, dtype):
    rng = np.random.default_rng(seed)
    shape = data.draw(pictures(spec))
    primary, secondary = weights(rng, spec, dtype)
    x = np.zeros(shape, dtype)
    dot_test(
        lambda u: forward(u, primary, secondary, spec),
        lambda v: backward(v, x, primary, secondary, spec).x,
        shape,
        rng,
        dtype=dtype,
        length=spec.parameters,
    )


@given(specs(), st.data(), seeds, dtypes)
def test_dense_and_sparse_gradients_agree(spec, data, seed, dtype):
    rng = np.random.default_rng(seed)
    x = normal(rng, data.draw(pictures(spec)), dtype)
    primary, secondary = weights(rng, spec, dtype)
    d = normal(rng, forward(x, primary, secondary, spec).shape, dtype)
    dense = backward(d, x, primary, secondary, spec)
    sparse = backward(d, x, primary, secondary, spec, sparse=True)
    for a, b in zip(dense, sparse, strict=True):
        assert_close(a, b, d.size + spec.parameters)


@given(specs(), st.data(), seeds)
def test_the_composed_kernel_is_one_dense_convolution_with_the_same_result(spec, data, seed):
    rng = np.random.default_rng(seed)
    x = normal(rng, data.draw(pictures(spec)))
    primary, secondary = weights(rng, spec)
    kernel = composed_kernel(primary, secondary, spec)
    dense = oracles.convolve(x, kernel, spec.stride)
    assert_close(forward(x, primary, secondary, spec), dense, spec.parameters)


@given(specs(square=True), seeds)
def test_the_composed_kernel_has_the_closed_form_of_the_design(spec, seed):
    L, M = spec.L, spec.M
    primary, secondary = weights(np.random.default_rng(seed), spec)
    K = composed_kernel(primary, secondary, spec)
    for a, m, b, i in np.ndindex(L, M, L, M):
        expected = secondary[m * L + a, b] * primary[b * M + m, i]
        assert_close(K[a * M + m, b * M + i], expected.reshape(spec.kernel), 1)


def test_a_large_sparse_block_agrees_with_its_definition_on_few_channels():
    spec = IGCSpec(96, 192, 24, 8, stride=2)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 96, 9, 7))
    primary, secondary = weights(rng, spec)
    assert_close(
        forward(x, primary, secondary, spec, sparse=True),
        naive_block(x, primary, secondary, spec),
        spec.parameters,
    )


# -- bad input -------------------------------------------------------------------------------


SQUARE, X, PRIMARY, SECONDARY = IGCSpec.square(2, 3), ones(1, 6, 4, 4), ones(6, 3, 3, 3), ones(6, 2)
NO_PRODUCT = [ones(3, 2, 2), ones(3, 3, 3)]
KERNEL, BLOCK = ones(4, 4, 3, 3), (PRIMARY, SECONDARY, SQUARE)
WIDE, THICK = special_cases.group_convolution(ones(4, 1, 1, 1), 1), special_cases.Weights(*BLOCK)
NAN = special_cases.monarch(np.nan * ones(3, 2, 2), np.nan * ones(2, 3, 3))
REFUSED = [
    (lambda: forward(X, PRIMARY[:, :2], SECONDARY, SQUARE), r"primary has shape \(6, 2, 3, 3\)"),
    (
        lambda: forward(X, PRIMARY, SECONDARY.T, SQUARE),
        r"secondary has shape \(2, 6\); \(6, 2\)",
    ),
    (lambda: forward(X[:, :5], PRIMARY, SECONDARY, SQUARE), r"\(N, 6, H, W\) is needed"),
    (lambda: backward(X[..., :3], X, PRIMARY, SECONDARY, SQUARE), r"\(1, 6, 4, 4\) is needed"),
    (lambda: patch_operator(1, 5, 5, -1), "kernel_size=-1 is not an integer"),
    (lambda: patch_operator(0, 5, 5, 3), "channels=0 is not an integer"),
    (lambda: patch_operator(1, 0, 5, 3), "length=0 is not an integer"),
    (lambda: patch_operator(1, 5, 5, 3, 0), "stride=0 is not an integer"),
    (lambda: interleave(-2, 3), "groups=-2 is not an integer"),
    (lambda: fold(ones(40, 54), (2, 6, 5, 4), 3), r"\(54, 40\) is needed"),
    (lambda: unfold(ones(6, 5, 4), 3), r"\(N, C, H, W\) is needed"),
    (lambda: diagonal_blocks(ones(7, 4), 2), "=7 is not divisible by B=2"),
    (lambda: blockmask(ones(6, 4), 0), "B=0 is not an integer"),
    (lambda: special_cases.group_convolution(ones(5, 1, 3, 3), 2), "out_channels=5"),
    (
        lambda: special_cases.regular_convolution_by_branches(ones(4, 3, 3, 3), 2),
        "in_channels=3 is not divisible by n=2",
    ),
    (
        lambda: special_cases.resnext(ones(4, 1, 3, 3), ones(2, 4), 2),
        r"expansion of shape \(2, 4\)",
    ),
    (lambda: special_cases.resnext(ones(4, 1, 3, 3), ones(5, 4), 2), "divisible by L=2"),
    (lambda: special_cases.xception(ones(4, 2, 3, 3), ones(4, 4)), r"\(in, 1, kh, kw\)"),
    (
        lambda: special_cases.shufflenet_unit(ones(4, 2), ones(3, 1, 3, 3), ones(4, 2), 2),
        r"\(4, 1, kh, kw\) is needed",
    ),
    (
        lambda: special_cases.shufflenet(ones(4, 2, 3, 3), ones(2, 4), 2),
        r"second has shape \(2, 4\); \(4, 2\) is",
    ),
    (lambda: special_cases.regular_convolution(ones(4, 4)), r"\(out, in, kh, kw\)"),
    (
        lambda: special_cases.monarch(ones(2, 3, 3), ones(3, 2, 3)),
        r"left has .*; \(3, 2, 2\)",
    ),
    (lambda: special_cases.kronecker(ones(2, 3), np.eye(2)), r"A has shape \(2, 3\); \(L, L\) is"),
    (lambda: special_cases.cooley_tukey(2, 3, np.eye(2)), r"\(3, 3\) is needed"),
    (lambda: special_cases.cooley_tukey(0, 3), "L=0 is not an integer of at least 1"),
    (lambda: special_cases.complementary_product([]), "needs at least one factor"),
    (lambda: special_cases.complementary_product(NO_PRODUCT), r"factor_1 has shape \(3, 3, 3\)"),
    (lambda: special_cases.walsh_hadamard(8.0), r"order=8\.0 is not an integer"),
    (lambda: special_cases.walsh_hadamard(1), "order=1 is not a power of two"),
    (lambda: special_cases.walsh_hadamard(12), "order=12 is not a power of two"),
    (lambda: special_cases.mixconv([]), r"kernel sizes \[\] are not all odd or all even"),
    (lambda: special_cases.mixconv([KERNEL, KERNEL[..., 1:, 1:]]), r"sizes \[3, 2\] are not all"),
    (lambda: special_cases.mixconv([KERNEL, KERNEL[..., 1:]]), r"sizes \[3, \(3, 2\)\] are not"),
    (lambda: special_cases.mixconv([KERNEL, KERNEL[1:]]), r"kernels\[1\] has .*; \(4, 4, kh, kw\)"),
    (lambda: special_cases.mixconv([KERNEL, 3]), r"kernels\[1\] is builtins\.int"),
    (lambda: special_cases.dgconv(KERNEL[:, 1:], (1, 0)), r"in_channels=3 is .* by 2\^n=4"),
    (lambda: special_cases.dgconv(KERNEL, (1, 2)), r"gates\[1\]=2 is too large; at most 1"),
    (lambda: special_cases.dgconv(KERNEL, 1), "gates is .*int; Sequence is needed"),
    (lambda: special_cases.gated(WIDE, ones(2)), r"gates has shape \(2,\); \(4,\)"),
    (lambda: special_cases.gated(WIDE._replace(primary=X), ones(4)), "primary has shape"),
    (lambda: special_cases.blast(ones(3, 2, 2), ones(2, 2, 2)), r"q\*L=3 is not divisible by L=2"),
    (lambda: special_cases.blast(ones(4, 2, 3), ones(2, 2, 3)), r"q\*M=3 is not divisible by q=2"),
    (lambda: special_cases.blast(ones(2, 1, 2), ones(2, 2, 2)), r"s has .*; \(q\*L, 2, 2\)"),
    (lambda: special_cases.causal_convolution(ones(3)), r"filters has .*; \(C, c\)"),
    (lambda: special_cases.causal_convolution(ones(2, 0)), "c=0 is not an integer of at least 1"),
    (lambda: rescale(*BLOCK, 0 * ones(6)), r"factors\[0\]=0\.0: its modulus is not from 1e-300"),
    (lambda: rescale(*BLOCK, np.inf * ones(6)), r"factors\[0\]=inf"),
    (lambda: rescale(*BLOCK, ones(5)), r"factors has shape \(5,\); \(6,\) is needed"),
    (lambda: dimension(IGCSpec(6, 6, 3, 3)), r"not divisible by L\*M=9"),
    (lambda: duality.transpose(WIDE), r"igc 1x1 1-4 L1 M4: a square block, in = out = L\*M, with"),
    (lambda: duality.adjoint(THICK._replace(primary=X)), r"primary has shape \(1, 6, 4, 4\)"),
    (lambda: duality.inverse(THICK), "igc 3x3 6-6 L2 M3: a square block"),
    (lambda: duality.inverse(NAN), "W_p holds numbers that are not finite"),
    (lambda: duality.slogdet(NAN._replace(primary=ones(6, 2, 1, 1))), "W_d holds numbers that"),
    (lambda: duality.slogdet(WIDE), "igc 1x1 1-4 L1 M4 has no determinant: in = out and k = 1"),
    (lambda: duality.slogdet(THICK), "igc 3x3 6-6 L2 M3 has no determinant"),
    (lambda: duality.adjoint(BLOCK), r"weights is builtins\.tuple; Weights is needed"),
    (lambda: reference.nearest_product(KERNEL, SQUARE), "product is .*; IGCV2Spec is needed"),
    (lambda: Chain([3]), r"factor 1 is builtins\.int; Factor is needed"),
    (lambda: share_met_by_other_deal(2, 0), "M=0 is not an integer of at least 1"),
    (lambda: share_met_by_other_deal(2, 10**9), "M=1000000000 is too large; at most 1048576 is"),
    (lambda: mixing_time(SQUARE, 0, 3), "height=0 is not an integer of at least 1"),
    (lambda: mixing_time(SQUARE, 10**9, 3), "height=1000000000 is too large; at most 1048576"),
    (lambda: mixing_time(3, 1, 1), r"blocks is builtins\.int; Iterable is needed"),
    (lambda: mixing_time([3], 1, 1), r"block is builtins\.int; IGCSpec is needed"),
    (lambda: mixing_time([IGCSpec(2, 4, 1, 1)] * 2, 9, 9), "takes 2 channels; it is given 4"),
    (lambda: mixing_time(IGCSpec.square(2, 2, 3, 3), 9, 9), r"a stride above k//2 \+ 1 may leave"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_is_refused_with_its_numbers(call, message):
    with pytest.raises((SpecError, TypeError), match=message):
        call()


@given(counts, counts, sizes, sizes, *[st.sampled_from([1, 3, 5])] * 2, strides, seeds)
def test_the_loop_oracle_is_the_correlation_of_scipy(inp, out, H, W, kh, kw, stride, seed):
    rng = np.random.default_rng(seed)
    x, kernel = rng.normal(size=(1, inp, H, W)), rng.normal(size=(out, inp, kh, kw))
    padded = np.pad(x[0], ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2)))
    full = np.stack([scipy.signal.correlate(padded, filters, "valid")[0] for filters in kernel])
    assert_close(oracles.convolve(x, kernel, stride)[0], full[:, ::stride, ::stride], 500)


def cases_of_types():
    """Every public function that takes arrays, with arguments that it accepts."""
    spec, product = IGCSpec.square(3, 2), IGCV2Spec(4, 8, (2, 2, 2))
    primary, secondary = ones(*spec.primary_shape), ones(*spec.secondary_shape)
    x, kernel, square, filters = ones(2, 6, 5, 4), ones(6, 6, 3, 3), ones(6, 6), ones(6, 1, 3, 3)
    factors = [ones(*f.weight_shape) for f in product.factors]
    yield forward, x, primary, secondary, spec
    yield backward, x, x, primary, secondary, spec
    for function in (matrices, composed_kernel, middle_channels):
        yield function, primary, secondary, spec
    for name in ("slices", "singular_values", "is_igc", "least_rank", "project"):
        yield getattr(reference, name), kernel, 3, 2
    yield reference.nearest_block, kernel, spec
    for function in (dimension, lambda spec: Chain.sum_of(spec, 2)):
        yield function, spec
    yield reference.nearest_product, ones(8, 4, 3, 3), product
    yield lambda factors: rescale(primary, secondary, spec, factors), ones(6)
    yield reference.nearest_groups, kernel, 2
    yield block_diagonal, ones(2, 3, 4)
    yield blockmask, square, 2
    yield diagonal_blocks, square, 2
    yield unfold, x, 3
    yield fold, unfold(x, 3), x.shape, 3
    yield lambda x, *factors: reference.products.forward(x, factors, product), x[:, :4], *factors
    pull = reference.products.backward
    yield lambda x: pull(ones(2, 8, 5, 4), x, factors, product), x[:, :4]
    yield lambda d: pull(d, x[:, :4], factors, product), ones(2, 8, 5, 4)
    for name in ("regular_convolution", "regular_convolution_by_branches"):
        yield getattr(special_cases, name), kernel
    for name in ("group_convolution", "summation_fusion"):
        yield getattr(special_cases, name), primary, 3
    yield special_cases.xception, filters, square
    yield special_cases.resnext, primary, square, 3
    yield special_cases.shufflenet, primary, square[:, :2], 3
    yield special_cases.shufflenet_unit, square[:, :2], filters, square[:, :2], 3
    yield special_cases.monarch, ones(3, 2, 2), ones(2, 3, 3)
    yield special_cases.kronecker, square, square
    yield lambda *kernels: special_cases.mixconv(kernels), kernel, kernel
    yield special_cases.dgconv, kernel, [1]
    yield lambda gates: special_cases.gated(WIDE, gates), ones(4)
    yield special_cases.blast, ones(4, 2, 6), ones(2, 3, 6)
    yield special_cases.causal_convolution, square
    yield special_cases.decimate, square, 3
    yield lambda *factors: special_cases.complementary_product(factors), square[None]


@pytest.mark.parametrize("case", list(cases_of_types()))
def test_what_is_no_array_of_numbers_is_refused_by_its_type(case):
    function, *arguments = case
    function(*arguments)
    for place, array in enumerate(arguments):
        if isinstance(array, IGCSpec):
            with pytest.raises(TypeError, match=r"spec is builtins\.NoneType; IGCSpec is needed"):
                function(*arguments[:place], None)
        if not isinstance(array, np.ndarray):
            continue
        for wrong, message in (
            (array.tolist(), r"builtins\.list; numpy.ndarray is needed"),
            (None, r"builtins\.NoneType; numpy"),
            (np.ma.array(array), r"numpy\.ma.*MaskedArray; numpy"),
            (array.astype("float16"), "float16; float64, complex128 or integers are needed"),
            (array.astype(object), "object; float64"),
            (array.astype(np.longdouble), f"{np.dtype(np.longdouble)}; float64"),
            (array.reshape(len(array), -1).view(np.matrix), r"numpy\.matrix; numpy"),
        ):
            with pytest.raises(TypeError, match=rf"^[\w\[\]]+ is {message}"):
                function(*arguments[:place], wrong, *arguments[place + 1 :])


def test_an_empty_batch_gives_an_empty_result_and_gradients_of_zero():
    spec = IGCSpec.square(3, 2)
    primary, secondary = weights(np.random.default_rng(0), spec)
    x = np.zeros((0, 6, 5, 4))
    assert forward(x, primary, secondary, spec).shape == (0, 6, 5, 4)
    gradients = backward(x, x, primary, secondary, spec)
    assert gradients.x.shape == x.shape
    assert not any(weight.any() for weight in gradients[1:])
