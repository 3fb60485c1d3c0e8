"""How far rounding may carry a layer: bounds from the lengths of its sums, number by number.

A sum of K products of which each is rounded errs by at most K*u*(sum of |products|), in any order,
with or without fused multiply-adds (Higham, Accuracy and Stability, chapter 3; u is half the
machine epsilon); and by 6*sqrt(K)*u but for a chance of about 2*K*exp(-18) (Higham and Mary, SIAM
J. Sci. Comput. 41, 2019, theorem 2.4). The smaller of both counts. The sum of |products| is what
the same layer gives for the absolute values of everything.

Winograd's transform multiplies sums of neighbours and takes them apart again, so that all of a
window of six columns counts: of y = A ((G w) * (B x)) the bound is that of the products at the six
points, and of the sums before and after them, times |A| ((|G| |w|) * (|B| |x|)).
"""

import numpy as np

from igc_ref.networks import (
    IGC,
    AveragePool,
    BatchNorm,
    Conv2d,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Shuffle,
)
from tests.support.subjects import Subject


def rounding(dtype, *lengths):
    """The greatest relative error of sums of sums of so many products."""
    return float(np.finfo(dtype).eps) / 2 * sum(min(K, 6 * np.sqrt(K)) for K in lengths)


def lengths(layer, shape):
    """The lengths of the sums behind every result of a multilinear layer."""
    N, inp, *size = shape
    if isinstance(layer, Linear):
        out = len(layer.parameters["bias"])
        return {"y": (inp + 1,), "dx": (out,), "d weight": (N,), "d bias": (N,)}
    if isinstance(layer, Shuffle):
        return {"y": (1,), "dx": (1,)}
    _, *rest = layer.output_shape((inp, *size))
    if isinstance(layer, GlobalAveragePool):
        return {"y": (size[0] * size[1] + 1,), "dx": (1,)}
    if isinstance(layer, AveragePool):
        return {"y": (layer.kernel_size[0] * layer.kernel_size[1] + 1,), "dx": (1,)}
    if isinstance(layer, Conv2d):
        out, per_group, kh, kw = layer.parameters["weight"].shape
        seen, sees = per_group * kh * kw, out // layer.groups * kh * kw
        return {"y": (seen,), "dx": (sees,), "d weight": (N * rest[0] * rest[1],)}
    assert isinstance(layer, IGC)
    s = layer.spec
    seen, sees = (n // s.L * s.kernel[0] * s.kernel[1] for n in (s.in_channels, s.out_channels))
    mix, positions = s.out_channels // s.M, N * rest[0] * rest[1]
    *primary, _ = layer.parameters
    return {
        "y": (seen, mix),
        "dx": (mix, sees),
        **{f"d {name}": (mix, positions) for name in primary},
        "d secondary": (seen, positions),
    }


def bounds(case, dtype, x, values, d, train=False):
    """The greatest error of every number of ``Subject.run``."""
    truth = Subject(case, "numpy", "float64")
    layer = truth.layer
    if isinstance(layer, BatchNorm):
        return batch_norm_bounds(truth, dtype, x, values, d, train)
    if isinstance(layer, MaxPool):  # a pixel is in at most four windows
        return {"y": 0.0, "dx": rounding(dtype, 4) * truth.run(x, values, abs(d))["dx"]}
    absolute = truth.run(abs(x), {name: abs(array) for name, array in values.items()}, abs(d))
    return {
        name: rounding(dtype, *K) * absolute[name] for name, K in lengths(layer, x.shape).items()
    }


# The matrices of F(4, 3) at the points 0, 1/2, -1/2, 3/2, -3/2 and infinity, absolute values: from
# six columns, four outputs or gradients, and three taps. What goes to the points by them comes back
# by the same, turned.
COLUMNS = np.array([[9, 0, 40, 0, 16, 0], [0, 18, 36, 8, 16, 0], [0, 18, 36, 8, 16, 0],
                    [0, 6, 4, 24, 16, 0], [0, 6, 4, 24, 16, 0], [0, 9, 0, 40, 0, 16]])  # fmt: skip
COLUMNS = COLUMNS / 16
FOUR = np.array([[8, 0, 0, 0], [8, 4, 2, 1], [8, 4, 2, 1], [8, 12, 18, 27], [8, 12, 18, 27],
                 [0, 0, 0, 8]]) / 8  # fmt: skip
TAPS = np.array([[16, 0, 0], [9, 4.5, 2.25], [9, 4.5, 2.25], [1, 1.5, 2.25], [1, 1.5, 2.25],
                 [0, 0, 9]]) / 9  # fmt: skip


def winograd_bounds(dtype, x, weight, d):
    """The greatest errors of a 3x3 convolution without groups whose rows are transformed."""
    (N, inp, H, W), out, x, weight, d = x.shape, len(weight), abs(x), abs(weight), abs(d)
    tiles = -(-W // 4)

    def at_points(v, matrix, p):  # (N, C, H + 2p, tiles, points), padded by p
        v = np.pad(v, ((0, 0), (0, 0), (p, p), (p, 4 * tiles + p - W)))
        windows = [v[..., 4 * t :][..., : matrix.shape[1]] for t in range(tiles)]
        return np.stack(windows, axis=3) @ matrix.T

    def convolved(v, w):
        v, w = at_points(v, COLUMNS, 1), w @ TAPS.T
        y = sum(np.einsum("oiq,nihtq->nohtq", w[:, :, r], v[:, :, r : r + H]) for r in range(3))
        return (y @ FOUR).reshape(N, len(w), H, -1)[..., :W]

    z, e = at_points(x, COLUMNS, 1), at_points(d, FOUR, 0)
    rows = [np.einsum("nohtq,nihtq->oiq", e, z[:, :, r : r + H]) for r in range(3)]
    return {  # weights are rounded once at the points, rows four times, results six or once
        "y": rounding(dtype, 3 * inp, 11) * convolved(x, weight),
        "dx": rounding(dtype, 3 * out, 11) * convolved(d, weight[:, :, ::-1, ::-1].swapaxes(0, 1)),
        "d weight": rounding(dtype, N * H * tiles, 9) * (np.stack(rows, axis=2) @ TAPS),
    }


def batch_norm_bounds(truth, dtype, x, values, d, train):
    """First-order error analysis of y = gamma*(x - mean)/s + beta and its derivative.

    Sums may be taken about any one of the channel's numbers: a backend that takes a poor one loses
    digits, but no more than this. Where the mean is large, y may round one number of its size, the
    shift beta - mean*gamma/s, and the gradients the mean itself: PyTorch's y rounds both.
    """

    def per_channel(v):
        return np.asarray(v).reshape(1, -1, 1, 1)

    u, n = float(np.finfo(dtype).eps) / 2, x.size // x.shape[1]
    quantum = float(np.finfo(dtype).smallest_subnormal)
    gamma, beta, mean, var = (
        per_channel(values[k]) for k in ("gamma", "beta", "running_mean", "running_var")
    )
    if train:
        mean, var = (per_channel(f(x, axis=(0, 2, 3))) for f in (np.mean, np.var))
    far = per_channel(np.ptp(x, axis=(0, 2, 3)))
    s = np.sqrt(var + 2e-5)
    x_hat, scale = (x - mean) / s, abs(gamma) / s
    e_mean = (rounding(dtype, n) + 4 * u) * far + n * quantum if train else 0.0
    e_s = (rounding(dtype, n) + 8 * u) * far**2 / s**2 + 2 * u if train else 3 * u  # relative
    e_hat = (e_mean + train * u * abs(mean)) / s + abs(x_hat) * (e_s + 4 * u)
    pre, shift = gamma * x_hat + beta, beta - mean * gamma / s
    e_y = scale * e_mean + abs(pre - beta) * (e_s + 4 * u) + u * (4 * abs(beta) + abs(shift))
    e_y += quantum
    if truth.layer.relu:
        assert (abs(pre) > e_y).all(), "rounding may open or close a ReLU: no bound"
        d = d * (pre > 0)

    def total(v):
        return v.sum(axis=(0, 2, 3))

    products = rounding(dtype, n) + 4 * u
    e_beta, e_gamma = (
        products * total(abs(d)),
        products * total(abs(d * x_hat)) + total(abs(d) * e_hat),
    )
    dx = truth.run(x, values, d, train)["dx"]
    e_dx = abs(dx) * (e_s + 4 * u)
    if train:
        mean_d, mean_dx = (per_channel(abs(total(v)) / n) for v in (d, d * x_hat))
        parts = abs(d) + mean_d + abs(x_hat) * mean_dx
        errors = per_channel(e_beta) / n + e_hat * mean_dx + abs(x_hat) * per_channel(e_gamma) / n
        e_dx = e_dx + scale * (errors + 6 * u * parts)
    return {"y": e_y, "dx": e_dx, "d gamma": e_gamma, "d beta": e_beta}


def assert_within(actual, expected, allowed, times=1.0):
    """Assert that every number of every result is within its bound; return the worst fraction."""
    worst = 0.0
    assert actual.keys() == expected.keys()
    for name, exact in expected.items():
        assert actual[name].shape == exact.shape, name
        limit = np.broadcast_to(times * np.asarray(allowed[name]), exact.shape)
        error = abs(actual[name].astype("float64") - exact)
        bad = ~(error <= limit)
        assert not bad.any(), (
            f"{name}: {bad.sum()} of {bad.size} off; the worst by {error.max():.3g}, "
            f"allowed there {limit.ravel()[error.argmax()]:.3g}"
        )
        worst = max(worst, float((error[limit > 0] / limit[limit > 0]).max(initial=0)))
    return worst


def assert_rounding(backend, case, x, values, d, train):
    """Assert that a layer in float32 errs within its bounds; return the worst fraction of them."""
    exact = Subject(case, "numpy", "float64").run(x, values, d, train)
    actual = Subject(case, backend, "float32").run(x, values, d, train)
    assert all(array.dtype == np.float32 for array in actual.values())
    return assert_within(actual, exact, bounds(case, "float32", x, values, d, train))
