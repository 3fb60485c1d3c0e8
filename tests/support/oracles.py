"""Naive oracles: loops over positions, float64 or complex128; no code shared with igc_ref."""

import numpy as np


def convolve(x, kernel, stride=1, groups=1):
    """Group convolution, padding kh // 2 and kw // 2, one output position after another."""
    N, _, H, W = x.shape
    out, per_group, kh, kw = kernel.shape
    p, q = kh // 2, kw // 2
    padded = np.zeros((N, x.shape[1], H + 2 * p, W + 2 * q), x.dtype)
    padded[:, :, p : p + H, q : q + W] = x
    rows, columns = (H + 2 * p - kh) // stride + 1, (W + 2 * q - kw) // stride + 1
    y = np.zeros((N, out, rows, columns), np.result_type(x, kernel))
    for o in range(out):
        first = o // (out // groups) * per_group
        for r in range(rows):
            for c in range(columns):
                patch = padded[:, first : first + per_group, r * stride : r * stride + kh,
                               c * stride : c * stride + kw]  # fmt: skip
                y[:, o, r, c] = (patch * kernel[o]).sum(axis=(1, 2, 3))
    return y


def convolve_gradients(d, x, kernel, stride=1, groups=1):
    """Gradients of sum(d * convolve(x, kernel)) with respect to x and kernel, by loops."""
    N, C, H, W = x.shape
    out, per_group, kh, kw = kernel.shape
    p, q = kh // 2, kw // 2
    padded = np.zeros((N, C, H + 2 * p, W + 2 * q), x.dtype)
    padded[:, :, p : p + H, q : q + W] = x
    dpadded, dkernel = np.zeros_like(padded), np.zeros_like(kernel)
    for o in range(out):
        channels = slice(o // (out // groups) * per_group, (o // (out // groups) + 1) * per_group)
        for r in range(d.shape[2]):
            for c in range(d.shape[3]):
                window = (slice(r * stride, r * stride + kh), slice(c * stride, c * stride + kw))
                for n in range(N):
                    dkernel[o] += d[n, o, r, c] * padded[n, channels, *window]
                    dpadded[n, channels, *window] += d[n, o, r, c] * kernel[o]
    return dpadded[:, :, p : p + H, q : q + W], dkernel


def shuffle(x, groups):
    """Channel shuffle: view the channels as (groups, n), transpose, flatten; channel by channel."""
    n = x.shape[1] // groups
    y = np.empty_like(x)
    for g in range(groups):
        for j in range(n):
            y[:, j * groups + g] = x[:, g * n + j]
    return y
