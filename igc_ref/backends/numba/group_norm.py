"""Group normalisation, compiled: a piece of work is one group of channels of one block of images.

Sums are float64 and lie lane by lane: those of the lanes that one image has are then added.
"""

from __future__ import annotations

from igc_ref.backends.numba.layout import inside
from igc_ref.backends.numba.vectors import kernel


@kernel
def normalise_groups(first, last, thread, y, x, stats, gamma, beta, floor, eps, size, a):
    """Fill stats (blocks, G, 2, V), mean and 1/std; y = max(gamma*x_hat + beta, floor)."""
    G, V, I = stats.shape[1], a.lanes, a.together
    each, row = len(gamma) // G, size // a.rows
    count = each * a.height * (row // V)
    for piece in range(first, last):
        b, g = piece // G, piece % G
        mean, scale = stats[b, g, 0], stats[b, g, 1]
        planes = range(piece * each, (piece + 1) * each)
        for v in range(V):
            mean[v] = 0
        for step in range(3):  # the mean, what rounding took from it, the variance
            for v in range(V):
                scale[v] = 0
            for plane in planes:
                for r in range(a.rows):
                    lanes, start = inside(r, b, a), plane * size + r * row
                    for at in range(start, start + row, V):
                        for v in range(V):
                            off = x[at + v] - mean[v]
                            term = off * off if step == 2 else off
                            scale[v] += term if lanes >> v & 1 else 0.0
            for i in range(I):
                total = 0.0
                for v in range(i, V, I):
                    total += scale[v]
                for v in range(i, V, I):
                    if step < 2:
                        mean[v] += total / count
                    else:  # an overflow is no number, so that the loss shows it
                        scale[v] = 1 / (total / count + eps + 0 * total) ** 0.5
        for plane in planes:
            c = plane % len(gamma)
            for at in range(plane * size, (plane + 1) * size, V):
                for v in range(V):
                    number = (x[at + v] - mean[v]) * scale[v] * gamma[c] + beta[c]
                    y[at + v] = floor if number < floor else number


@kernel
def derive_groups(first, last, thread, dx, dy, x, stats, sums, means, gamma, beta, floor, size, a):
    """Dx = 1/std * (d - mean(d) - x_hat*mean(d*x_hat)), d = gamma*(dy, where y is above the floor).

    Fills sums (blocks, C, 2, V) of dy and dy*x_hat there, and means (blocks, G, 2, V) of a group.
    """
    G, C, V, I = stats.shape[1], len(gamma), a.lanes, a.together
    each, row = C // G, size // a.rows
    count = each * a.height * (row // V)
    for piece in range(first, last):
        b, g = piece // G, piece % G
        mean, scale = stats[b, g, 0], stats[b, g, 1]
        for c in range(g * each, (g + 1) * each):
            total, product = sums[b, c, 0], sums[b, c, 1]
            for v in range(V):
                total[v] = product[v] = 0
            for r in range(a.rows):
                lanes, start = inside(r, b, a), ((b * C + c) * a.rows + r) * row
                for at in range(start, start + row, V):
                    for v in range(V):
                        x_hat = (x[at + v] - mean[v]) * scale[v]
                        cut = x_hat * gamma[c] + beta[c] <= floor or not lanes >> v & 1
                        total[v] += 0.0 if cut else dy[at + v]
                        product[v] += 0.0 if cut else dy[at + v] * x_hat
        for i in range(I):
            for k in range(2):
                whole = 0.0
                for c in range(g * each, (g + 1) * each):
                    for v in range(i, V, I):
                        whole += gamma[c] * sums[b, c, k, v]
                for v in range(i, V, I):
                    means[b, g, k, v] = whole / count
        for plane in range(piece * each, (piece + 1) * each):
            c = plane % C
            for at in range(plane * size, (plane + 1) * size, V):
                for v in range(V):
                    x_hat = (x[at + v] - mean[v]) * scale[v]
                    d = 0.0 if x_hat * gamma[c] + beta[c] <= floor else dy[at + v] * gamma[c]
                    dx[at + v] = scale[v] * (d - means[b, g, 0, v] - x_hat * means[b, g, 1, v])
