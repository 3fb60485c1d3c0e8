"""Backend operators against the explicit matrices, loops and central differences."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igc_ref import IGCSpec, reference
from igc_ref.backends import get_backend
from igc_ref.backends.operators.taps import taps
from igc_ref.testing import assert_close, check_grads
from tests.support import oracles
from tests.support.guarded import internal, public
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

counts = st.integers(1, 4)


def assert_block(backend, spec, shape, dtype, rng, **how):
    """Assert that the block and all its gradients are those of the explicit matrices."""
    arrays = normal(rng, shape, dtype), *weights(rng, spec, dtype)
    exact = [array.astype(np.float64) for array in arrays]
    expected = reference.forward(*exact, spec, **how)
    d = normal(rng, expected.shape, dtype)
    x, primary, secondary = map(backend.asarray, arrays)
    y, saved = backend.igc(backend.to_layout(x), primary, secondary, spec)
    dx, *gradients = backend.igc_backward(internal(backend, d), saved)
    assert public(backend, y).dtype == np.dtype(dtype)
    assert_close(public(backend, y), expected, spec.parameters)
    found = public(backend, dx), *map(backend.to_numpy, gradients)
    exactly = reference.backward(d.astype(np.float64), *exact, spec, **how)
    for one, two in zip(found, exactly, strict=True):  # where all cancel: to the rounding of a 1
        one, two = (np.append(array, array.dtype.type(1)) for array in (one, two))
        assert_close(one, two, spec.parameters + d.size)


# -- the block: operators equal matrices -----------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@given(spec=specs(), data=st.data(), seed=seeds)
def test_the_block_and_all_its_gradients_equal_the_explicit_matrices(
    backend, dtype, spec, data, seed
):
    shape = data.draw(pictures(spec))
    assert_block(backend, spec, shape, dtype, np.random.default_rng(seed))


@pytest.mark.parametrize(
    "spec",
    [
        IGCSpec.square(24, 2),
        IGCSpec(48, 96, 24, 4, stride=2),
        IGCSpec(48, 96, 24, 2, stride=2),  # the residual network's: P does not invert
        IGCSpec.square(4, 8, kernel_size=5),
        IGCSpec(32, 64, 4, 16, stride=2),
        IGCSpec.square(2, 9),  # wide enough for a transform, and filling no tile
        IGCSpec(26, 22, 2, 11),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(9, 9), (8, 6), (7, 10)], ids=str)
def test_the_paper_s_blocks_equal_the_explicit_matrices(backend, spec, size):
    shape = (2, spec.in_channels, *size)
    assert_block(backend, spec, shape, "float64", np.random.default_rng(1), sparse=True)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("spec", [IGCSpec.square(4, 8), IGCSpec(8, 64, 4, 16)], ids=str)
def test_the_permutations_are_views_the_block_allocates_its_outputs_and_tiles_alone(spec, dtype):
    backend = get_backend("numpy")
    backend.tile_bytes = 1 << 17
    rng = np.random.default_rng(0)
    x = backend.to_layout(normal(rng, (64, spec.in_channels, 8, 8), dtype))
    primary, secondary = weights(rng, spec, dtype)
    tracemalloc.start()
    try:
        y, saved = backend.igc(x, primary, secondary, spec)
        _, forward_peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        backend.igc_backward(y, saved)
        _, backward_peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Beside the outputs: shifted images, old and new, their product; on the way back gradients.
    small = 2 * (primary.nbytes + secondary.nbytes) + 20_000
    assert forward_peak <= y.nbytes + saved.y_bar.nbytes + 3 * backend.tile_bytes + small
    assert backward_peak - before <= x.nbytes + 4 * backend.tile_bytes + small  # x.nbytes is dx


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("N", [1, 3, 17])
def test_images_come_back_as_they_went_in_and_contiguous(backend, N, dtype):
    x = normal(np.random.default_rng(0), (N, 2, 4, 5), dtype)
    inside = internal(backend, x)
    assert inside.shape == (2, N, 4, 5)
    outside = backend.from_layout(inside)
    assert outside.flags.c_contiguous
    assert outside.dtype == x.dtype
    assert np.array_equal(backend.to_numpy(outside), x)


# -- group convolution -----------------------------------------------------------------------


@given(
    groups=counts, inp=counts, out=counts, N=counts, H=sizes, W=sizes,
    k=kernel_sizes, stride=strides, seed=seeds,
)  # fmt: skip
def test_group_convolution_and_its_gradients_equal_loops(
    backend, groups, inp, out, N, H, W, k, stride, seed
):
    rng = np.random.default_rng(seed)
    sides = k if isinstance(k, tuple) else (k, k)
    x, weight = normal(rng, (N, groups * inp, H, W)), normal(rng, (groups * out, inp, *sides))
    y, saved = backend.conv2d(
        internal(backend, x), backend.asarray(weight), groups=groups, stride=stride
    )
    expected = oracles.convolve(x, weight, stride, groups)
    assert_close(public(backend, y), expected, weight.size)
    d = normal(rng, expected.shape)
    dx, dweight = backend.conv2d_backward(internal(backend, d), saved)
    dx_loop, dweight_loop = oracles.convolve_gradients(d, x, weight, stride, groups)
    assert_close(public(backend, dx), dx_loop, weight.size)
    assert_close(backend.to_numpy(dweight), dweight_loop, d.size)


@pytest.mark.parametrize("shape", [(5, 3, 8, 7, 3, 1), (3, 9, 8, 8, 3, 1), (2, 4, 6, 9, 5, 2)])
def test_the_weight_gradient_alone_has_the_bits_of_both(backend, shape):
    N, inp, out, size, k, stride = shape
    rng = np.random.default_rng(0)
    x, weight = normal(rng, (N, inp, size, size)), normal(rng, (out, inp, k, k))
    y, saved = backend.conv2d(internal(backend, x), backend.asarray(weight), stride=stride)
    both = backend.conv2d_backward(y, saved)
    alone = backend.conv2d_backward(y, saved, input_gradient=False)
    assert alone[0] is None
    assert backend.to_numpy(alone[1]).tobytes() == backend.to_numpy(both[1]).tobytes()


@given(st.integers(1, 9), st.integers(1, 5), strides, st.integers(0, 2))
def test_taps_list_exactly_the_pixels_inside_the_row(length, k, stride, padding):
    padding = min(padding, k // 2)
    found = {
        (tap, output, pixel)
        for tap, outputs, pixels in taps(length, k, stride, padding)
        for output, pixel in zip(range(length * 3)[outputs], range(length)[pixels], strict=True)
    }
    positions = (length + 2 * padding - k) // stride + 1
    expected = {
        (tap, output, output * stride + tap - padding)
        for tap in range(k)
        for output in range(positions)
        if 0 <= output * stride + tap - padding < length
    }
    assert found == expected


# -- batch norm ------------------------------------------------------------------------------


@given(
    C=counts, N=counts, H=st.integers(2, 4), W=st.integers(2, 4), train=st.booleans(),
    relu=st.booleans(), seed=seeds,
)  # fmt: skip
def test_batch_norm_follows_its_definition_and_updates_running_statistics(
    backend, C, N, H, W, train, relu, seed
):
    rng = np.random.default_rng(seed)
    x = 3 * normal(rng, (N, C, H, W)) + 1
    (gamma, beta, old_mean), old_var = rng.normal(size=(3, C)), rng.uniform(0.5, 2, C)
    arrays = [backend.asarray(a) for a in (gamma, beta, old_mean, old_var)]
    y, _ = backend.batch_norm(
        internal(backend, x), *arrays, momentum=0.75, eps=1e-3, train=train, relu=relu
    )
    mean, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    used = (mean, var) if train else (old_mean, old_var)
    scale, shift, center, spread = (v[:, None, None] for v in (gamma, beta, *used))
    expected = scale * (x - center) / np.sqrt(spread + 1e-3) + shift
    found, most = public(backend, y), abs(expected).max()  # of which the ReLU may leave little
    assert_close(most + found, most + (np.maximum(expected, 0) if relu else expected), 1000)
    for new, old, batch in zip(arrays[2:], (old_mean, old_var), (mean, var), strict=True):
        assert_close(backend.to_numpy(new), 0.75 * old + 0.25 * batch if train else old, 100)


@given(
    sizes=st.tuples(counts, st.integers(1, 3), st.integers(1, 20), st.integers(1, 7), counts),
    relu=st.booleans(), level=st.sampled_from([0, 1e6]), seed=seeds,
)  # fmt: skip
def test_group_norm_and_its_gradients_follow_their_definition_far_from_zero_too(
    backend, sizes, relu, level, seed
):
    groups, each, N, H, W = sizes
    C, rng, eps = groups * each, np.random.default_rng(seed), 1e-3
    x, d = normal(rng, (N, C, H, W)), normal(rng, (N, C, H, W))
    gamma, beta = normal(rng, (C,)), normal(rng, (C,))
    y, dx, x_hats = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    for n, g in np.ndindex(N, groups):
        own = n, slice(g * each, (g + 1) * each)
        a, b, part = gamma[own[1], None, None], beta[own[1], None, None], x[own]
        std = np.sqrt(part.var() + eps)
        x_hats[own] = x_hat = (part - part.mean()) / std
        y[own] = a * x_hat + b
        if relu:
            d[own] = np.where(y[own] > 0, d[own], 0)
            y[own] = np.maximum(y[own], 0)
        e, n_all = (a * d[own]).ravel(), part.size
        centre = np.eye(n_all) - 1 / n_all - np.outer(x_hat, x_hat) / n_all
        dx[own] = (centre @ e / std).reshape(part.shape)
    arrays = map(backend.asarray, (gamma, beta))
    shifted = internal(backend, x + level)
    found, saved = backend.group_norm(shifted, *arrays, groups, eps=eps, relu=relu)
    loose = 200 if not level else 1e12
    assert_close(1 + public(backend, found), 1 + y, loose)
    if level:  # signs at zero may differ
        return
    found_dx, dgamma, dbeta = backend.group_norm_backward(internal(backend, d), saved)
    assert_close(1 + public(backend, found_dx), 1 + dx, 2000)
    assert_close(1 + backend.to_numpy(dgamma), 1 + (d * x_hats).sum(axis=(0, 2, 3)), 2000)
    assert_close(1 + backend.to_numpy(dbeta), 1 + d.sum(axis=(0, 2, 3)), 200)


def test_what_batch_norm_saves_does_not_change_when_the_running_statistics_do(backend):
    rng, options = np.random.default_rng(0), {"momentum": 0.5, "eps": 1e-3}
    x = internal(backend, normal(rng, (2, 3, 4, 4)))
    arrays = [backend.asarray(rng.uniform(0.5, 2, 3)) for _ in range(4)]
    _, saved = backend.batch_norm(x, *arrays, **options, train=False)

    def gradients():
        dx, dgamma, dbeta = backend.batch_norm_backward(x, saved)
        return public(backend, dx), backend.to_numpy(dgamma), backend.to_numpy(dbeta)

    before = gradients()
    backend.batch_norm(x, *arrays, **options, train=True)
    for one, two in zip(before, gradients(), strict=True):
        assert np.array_equal(one, two)


# -- everything else -------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # inf - inf is NaN
@given(C=counts, N=counts, H=sizes, W=sizes, special=st.booleans(), seed=seeds)
def test_the_residual_sum_and_its_relu_have_their_derivatives(backend, C, N, H, W, special, seed):
    rng = np.random.default_rng(seed)
    a, b, d = (normal(rng, (N, C, H, W)) for _ in range(3))
    if special:
        a, b = rng.choice([np.nan, np.inf, -np.inf, -1, 0, 1, 2], (2, *a.shape))
    total = a + b
    y, saved = backend.add_relu(internal(backend, a), internal(backend, b))
    clipped = np.where(total <= 0, 0, total)  # a NaN stays
    assert np.array_equal(public(backend, y), clipped, equal_nan=True)
    dx = public(backend, backend.relu_backward(internal(backend, d), saved))
    assert np.array_equal(dx, np.where(total > 0, d, 0))
    added = public(backend, backend.add(internal(backend, a), internal(backend, b)))
    assert np.array_equal(added, total, equal_nan=True)


@given(groups=counts, each=counts, N=counts, H=sizes, W=sizes, seed=seeds)
def test_a_shuffle_deals_the_channels_of_its_groups_and_its_derivative_deals_them_back(
    backend, groups, each, N, H, W, seed
):
    rng = np.random.default_rng(seed)
    x, d = (normal(rng, (N, groups * each, H, W)) for _ in range(2))
    y, saved = backend.shuffle(internal(backend, x), groups)
    assert np.array_equal(public(backend, y), oracles.shuffle(x, groups))
    dx = public(backend, backend.shuffle_backward(internal(backend, d), saved))
    assert np.array_equal(oracles.shuffle(dx, groups), d)


@given(C=counts, N=counts, H=sizes, W=sizes, seed=seeds)
def test_global_average_pooling_is_the_mean_and_spreads_the_gradient(backend, C, N, H, W, seed):
    rng = np.random.default_rng(seed)
    x, d = normal(rng, (N, C, H, W)), normal(rng, (N, C))
    # Of a convolution, because beyond the images numba then has other numbers than 0.
    convolved, _ = backend.conv2d(internal(backend, x), backend.asarray(normal(rng, (C, C, 3, 3))))
    x = public(backend, convolved)
    y, saved = backend.global_average_pool(convolved)
    assert_close(backend.to_numpy(y), np.einsum("nchw->nc", x) / (H * W), 100)
    dx = public(backend, backend.global_average_pool_backward(backend.asarray(d), saved))
    assert_close(dx, np.broadcast_to((d / (H * W))[:, :, None, None], x.shape), 1)


@given(
    C=counts, N=st.sampled_from([1, 2, 5, 17]), H=sizes, W=sizes, kh=st.integers(1, 3),
    kw=st.integers(1, 3), seed=seeds,
)  # fmt: skip
def test_average_pooling_is_the_mean_of_whole_windows_and_spreads_the_gradient(
    backend, C, N, H, W, kh, kw, seed
):
    kh, kw = min(kh, H), min(kw, W)
    rng, dtype = np.random.default_rng(seed), np.random.default_rng(seed).choice(["f4", "f8"])
    x, d = normal(rng, (N, C, H, W), dtype), normal(rng, (N, C, H // kh, W // kw), dtype)
    y, saved = backend.average_pool(internal(backend, x), kh if kh == kw else (kh, kw))
    expected, dx = np.zeros(d.shape), np.zeros(x.shape)
    for n, c, r, q in np.ndindex(*d.shape):
        window = (n, c, slice(r * kh, r * kh + kh), slice(q * kw, q * kw + kw))
        expected[n, c, r, q] = x[window].astype("float64").mean()
        dx[window] = d[n, c, r, q].astype("float64") / (kh * kw)
    assert public(backend, y).dtype == dtype
    assert_close(public(backend, y), expected, 10)
    found = public(backend, backend.average_pool_backward(internal(backend, d), saved))
    assert_close(found, dx, 10)
    assert (found[:, :, H // kh * kh :] == 0).all()
    assert (found[:, :, :, W // kw * kw :] == 0).all()


@given(
    C=counts, N=counts, H=st.integers(2, 8), W=st.integers(2, 8), k=st.integers(1, 3),
    stride=strides, special=st.booleans(), seed=seeds,
)  # fmt: skip
def test_max_pooling_takes_the_greatest_pixel_and_sends_the_gradient_there(
    backend, C, N, H, W, k, stride, special, seed
):
    rng, p = np.random.default_rng(seed), k // 2
    x = normal(rng, (N, C, H, W))
    if special:  # as in PyTorch the first of equals wins, and the last NaN over all others
        x = rng.choice([np.nan, np.inf, -np.inf, -np.inf, 0, 1], x.shape)
    y, saved = backend.max_pool(internal(backend, x), k, stride, p)
    d = normal(rng, public(backend, y).shape)
    dx = np.zeros_like(x)
    expected = np.zeros_like(d)
    for n, c, r, q in np.ndindex(*d.shape):
        rows = range(max(0, r * stride - p), min(H, r * stride - p + k))
        columns = range(max(0, q * stride - p), min(W, q * stride - p + k))
        best, *others = ((n, c, i, j) for i in rows for j in columns)
        for at in others:
            best = at if x[at] > x[best] or np.isnan(x[at]) else best
        expected[n, c, r, q] = x[best]
        dx[best] += d[n, c, r, q]
    assert np.array_equal(public(backend, y), expected, equal_nan=True)
    actual = public(backend, backend.max_pool_backward(internal(backend, d), saved))
    assert_close(actual, dx, 10)


@pytest.mark.parametrize(("size", "k", "p"), [(182, 182, 0), (2, 300, 150)])
def test_large_windows_remember_who_won(backend, size, k, p):
    x = np.zeros((1, 1, size, size))
    x[..., -1, -1] = 1
    y, saved = backend.max_pool(internal(backend, x), k, 1, p)
    ones = np.ones(public(backend, y).shape)
    dx = public(backend, backend.max_pool_backward(internal(backend, ones), saved))
    assert np.array_equal(dx, x * ones.size)


@given(N=counts, inp=counts, out=counts, seed=seeds)
def test_the_linear_layer_and_its_gradients_equal_loops(backend, N, inp, out, seed):
    rng = np.random.default_rng(seed)
    x, weight, bias, d = (normal(rng, s) for s in ((N, inp), (out, inp), (out,), (N, out)))
    y, saved = backend.linear(*map(backend.asarray, (x, weight, bias)))
    by_hand = [[sum(x[n] * weight[o]) + bias[o] for o in range(out)] for n in range(N)]
    assert_close(backend.to_numpy(y), np.array(by_hand), 10)
    exact = np.zeros_like(x), np.zeros_like(weight), np.zeros_like(bias)
    for n, o in np.ndindex(N, out):
        exact[0][n] += d[n, o] * weight[o]
        exact[1][o] += d[n, o] * x[n]
        exact[2][o] += d[n, o]
    for actual, exactly in zip(
        backend.linear_backward(backend.asarray(d), saved), exact, strict=True
    ):
        assert_close(backend.to_numpy(actual), exactly, 10)


@given(N=counts, classes=st.integers(2, 6), smoothing=st.sampled_from([0, 0.1, 0.9]), seed=seeds)
def test_the_loss_is_the_cross_entropy_with_its_derivative(backend, N, classes, smoothing, seed):
    rng = np.random.default_rng(seed)
    logits, labels = normal(rng, (N, classes)), rng.integers(0, classes, N)

    def f(z):
        loss, *_ = backend.loss(backend.asarray(z), backend.asarray(labels), smoothing)
        return np.array(float(loss))

    def vjp(c):
        *_, d = backend.loss(backend.asarray(logits), backend.asarray(labels), smoothing)
        return (c * backend.to_numpy(d),)

    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = np.full((N, classes), smoothing / classes)
    for n in range(N):
        target[n, labels[n]] += 1 - smoothing
    by_hand = -np.mean([target[n] @ np.log(probability[n]) for n in range(N)])
    assert_close(1 + f(logits), np.array(1 + by_hand), 10)  # a small loss is log(1 + something)
    check_grads(f, vjp, (logits,), rng)


@given(
    N=counts,
    classes=st.integers(2, 6),
    T=st.sampled_from([0.5, 1, 4.0]),
    alpha=st.sampled_from([0, 0.3, 0.9, 1]),
    smoothing=st.sampled_from([0, 0.1]),
    seed=seeds,
)
def test_distillation_is_a_mixture_with_its_derivative_and_without_weight_the_loss(
    backend, N, classes, T, alpha, smoothing, seed
):
    rng = np.random.default_rng(seed)
    logits, teacher = normal(rng, (N, classes)), normal(rng, (N, classes))
    labels = rng.integers(0, classes, N)

    def distilled(z, alpha=alpha):
        arrays = map(backend.asarray, (z, labels, teacher))
        return backend.distillation_loss(*arrays, T, alpha, smoothing)

    loss, right, gradient = backend.loss(*map(backend.asarray, (logits, labels)), smoothing)
    total = 0.0
    for z, t in zip(logits, teacher, strict=True):
        p, q = (np.exp(a / T) / sum(np.exp(b / T) for b in a) for a in (z, t))
        total += sum(b * np.log(b / a) for a, b in zip(p, q, strict=True))
    by_hand = (1 - alpha) * float(loss) + alpha * T**2 * total / N
    found, correct, _ = distilled(logits)
    assert_close(1 + np.array(float(found)), np.array(1 + by_hand), 50)
    assert int(correct) == int(right)
    check_grads(
        lambda z: np.array(float(distilled(z)[0])),
        lambda c: (c * backend.to_numpy(distilled(logits)[2]),),
        (logits,),
        rng,
    )
    plain, _, same = distilled(logits, alpha=0)
    assert float(plain) == float(loss)
    assert backend.to_numpy(same).tobytes() == backend.to_numpy(gradient).tobytes()


@pytest.mark.parametrize("turned", [False, True])
def test_a_nesterov_step_is_the_written_out_recurrence_also_on_a_view(backend, turned):
    w, g, v = np.random.default_rng(0).normal(size=(3, 2, 3))
    weight, gradient, velocity = map(backend.asarray, (w, g, v))
    if turned:
        w, g, v, weight, gradient, velocity = (a.T for a in (w, g, v, weight, gradient, velocity))
    backend.sgd_step(weight, gradient, velocity, lr=0.1, momentum=0.9, weight_decay=0.01)
    total = g + 0.01 * w
    new_v = 0.9 * v + total
    assert_close(backend.to_numpy(velocity), new_v, 1)
    assert_close(backend.to_numpy(weight), w - 0.1 * (total + 0.9 * new_v), 1)
    assert backend.to_numpy(gradient).tolist() == g.tolist()


@given(N=counts, C=counts, H=sizes, W=sizes, seed=seeds)
def test_augmentation_pads_crops_and_mirrors_every_image_by_its_own_numbers(
    backend, N, C, H, W, seed
):
    rng = np.random.default_rng(seed)
    x = normal(rng, (N, C, H, W))
    top, left = rng.integers(0, 5, (2, N))
    mirror = rng.random(N) < 0.5
    y = backend.pad_crop_mirror(*map(backend.asarray, (x, top, left, mirror)), padding=2)
    expected = np.zeros_like(x)
    for n, c, r, q in np.ndindex(*x.shape):
        column = W - 1 - q if mirror[n] else q
        i, j = r + top[n] - 2, column + left[n] - 2
        if 0 <= i < H and 0 <= j < W:
            expected[n, c, r, q] = x[n, c, i, j]
    assert np.array_equal(backend.to_numpy(y), expected)


def test_normalise_subtracts_the_mean_and_divides_by_the_deviation(backend):
    images = np.arange(2 * 3 * 2 * 2, dtype=np.uint8).reshape(2, 3, 2, 2)
    mean, std = (1.0, 2.0, 3.0), (2.0, 4.0, 8.0)
    x = backend.to_numpy(backend.normalise(backend.asarray(images), mean, std, "float32"))
    assert x.dtype == np.float32
    expected = (images - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert_close(x, expected, 1)
