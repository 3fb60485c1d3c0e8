"""Everything of a training step that is not a convolution, compiled.

A batch comes as a flat array of planes: plane b*C + c holds `size` numbers, V a position.
The tables of rules and derivatives are explained in `igc_ref.backends.operators.lazy`.
"""

from __future__ import annotations

from igc_ref.backends.numba.layout import ALL, parts
from igc_ref.backends.numba.rows import (
    add_row,
    derive_row,
    fill_row,
    from_lanes,
    gate_row,
    moments_row,
    products_row,
    scale_row,
    sums_row,
    to_lanes,
    totals_row,
)
from igc_ref.backends.numba.vectors import INNER, kernel
from igc_ref.backends.numba.winograd import POINTS
from igc_ref.backends.operators.lazy import NO_FLOOR

STRIP = 1 << 15  # numbers that a thread orders or adds up at least: calling it takes as long


@kernel
def interleave(first, last, thread, data, images, C, W, a):
    """Lay out public images, one long row of numbers, as blocks; fill up with 0."""
    each, V = a.rows * W, a.lanes  # numbers of a lane in a plane
    while first < last:
        b, c = first // C, first % C
        if a.together == V:
            planes = min(C - c, last - first)  # as many as lie in one row
            to_lanes(data, first * each * V, V, images, (b * V * C + c) * each, C * each,
                     planes * each, min(V, a.images - b * V))  # fmt: skip
            first += planes
            continue
        if a.together == 1:  # rows of one image: the last lane may have fewer
            at, cut = first * each * V, ((a.height - 1) % a.rows + 1) * W
            start, used = first * a.height * W, -(-a.height // a.rows)
            data[at : at + each * V] = 0
            to_lanes(data, at, V, images, start, each, cut, used)
            if used > 1 and cut < each:
                to_lanes(data, at + cut * V, V, images, start + cut, each, each - cut, used - 1)
        else:
            for r in range(a.rows):
                for v in range(V):
                    n, h, at, start = _number(first, r, v, C, W, a)
                    there = n < a.images and h < a.height
                    for q in range(W):
                        data[at + q * V] = images[start + q] if there else 0
        first += 1


@kernel
def separate(first, last, thread, images, data, C, W, a):
    """Write blocks as public images, one long row of numbers."""
    each, V = a.rows * W, a.lanes
    while first < last:
        b, c = first // C, first % C
        if a.together == V:
            planes = min(C - c, last - first)
            from_lanes(images, (b * V * C + c) * each, C * each, data, first * each * V, V,
                       planes * each, min(V, a.images - b * V))  # fmt: skip
            first += planes
            continue
        if a.together == 1:
            at, cut = first * each * V, ((a.height - 1) % a.rows + 1) * W
            start, used = first * a.height * W, -(-a.height // a.rows)
            from_lanes(images, start, each, data, at, V, cut, used)
            if used > 1 and cut < each:
                from_lanes(images, start + cut, each, data, at + cut * V, V, each - cut, used - 1)
        else:
            for r in range(a.rows):
                for v in range(V):
                    n, h, at, start = _number(first, r, v, C, W, a)
                    for q in range(W if n < a.images and h < a.height else 0):
                        images[start + q] = data[at + q * V]
        first += 1


@kernel
def interleave_last(first, last, thread, data, images, C, W, a):
    """Lay out images (N, H, W, C), one in a lane, as blocks: rows `first` to `last` of all."""
    plane, image = a.rows * W * a.lanes, a.rows * W * C
    for row in range(first * W, last * W):
        b, at = row // W // a.rows, row % (a.rows * W)
        to_lanes(data, b * C * plane + at * a.lanes, plane, images, b * a.lanes * image + at * C,
                 image, C, min(a.lanes, a.images - b * a.lanes))  # fmt: skip


@kernel
def separate_last(first, last, thread, images, data, C, W, a):
    """Write blocks of images, one in a lane, as (N, H, W, C)."""
    plane, image = a.rows * W * a.lanes, a.rows * W * C
    for row in range(first * W, last * W):
        b, at = row // W // a.rows, row % (a.rows * W)
        from_lanes(images, b * a.lanes * image + at * C, image, data, b * C * plane + at * a.lanes,
                   plane, C, min(a.lanes, a.images - b * a.lanes))  # fmt: skip


@INNER
def _number(plane, r, v, C, W, a):
    """Return image and row in lane v of row r of a plane; where it begins in blocks, in images."""
    n, h = plane // C * a.together + v % a.together, v // a.together * a.rows + r
    return n, h, (plane * a.rows + r) * W * a.lanes + v, ((n * C + plane % C) * a.height + h) * W


@kernel
def shuffle(first, last, thread, y, x, rule, floor, groups, size, V):
    """Copy channel l*(C/groups) + j, read by its rule, to place j*groups + l."""
    C = len(rule)
    each = C // groups
    for plane in range(first, last):
        c, at = plane % C, plane * size
        to = (plane - c + c % each * groups + c // each) * size
        scale_row(y, to, V, x, at, V, size // V, rule[c, 0], rule[c, 1], floor, ALL)


@kernel
def move(first, last, thread, y, x, rule, floor, from_, to, channels, all_channels, size, V):
    """Copy channels of x from number `from_` on, read by their rule, to y from `to` on."""
    for plane in range(first, last):
        b, c = plane // channels, plane % channels
        source, target = b * len(rule) + from_ + c, b * all_channels + to + c
        scale_row(y, target * size, V, x, source * size, V, size // V,
                  rule[from_ + c, 0], rule[from_ + c, 1], floor, ALL)  # fmt: skip


@kernel
def apply_derivative(first, last, thread, dx, d, table, floor, x, size, V):
    """Compute dx = a*(d if scale*x + shift > floor else 0) + b*(x - mean) + c."""
    for plane in range(first, last):
        row, at = table[plane % len(table)], plane * size
        derive_row(dx, at, d, x, at, size // V,
                   row[0], row[1], floor, row[2], row[3], row[4], row[5], ALL)  # fmt: skip


@kernel
def add(first, last, thread, y, a, a_rule, a_floor, b, b_rule, b_floor, floor, size, V):
    """Compute y = max(a + b, floor), both read by their rules."""
    for plane in range(first, last):
        c, at = plane % len(a_rule), plane * size
        add_row(y, a, b, at, size // V, a_rule[c, 0], a_rule[c, 1], a_floor, b_rule[c, 0],
                b_rule[c, 1], b_floor, floor)  # fmt: skip


@kernel
def find_moments(first, last, thread, moments, x, size, layout):
    """For every plane: its first number, the sums of the distances to it and of their squares."""
    C, row = moments.shape[1], size // layout.rows
    for plane in range(first, last):
        b, c = plane // C, plane % C
        pivot = x[plane * size]
        moments[b, c, 0], moments[b, c, 1], moments[b, c, 2] = pivot, 0, 0
        for top, bottom, lanes in parts(0, layout.rows, b, layout):
            positions = (bottom - top) * row // layout.lanes
            total, squares = moments_row(x, plane * size + top * row, positions, pivot, lanes)
            moments[b, c, 1] += total
            moments[b, c, 2] += squares


@kernel
def find_sums(first, last, thread, sums, d, x, rule, floor, size, layout):
    """For every plane: the sums of d and of d*(x - mean) where scale*x + shift > floor."""
    C, row = sums.shape[1], size // layout.rows
    for plane in range(first, last):
        b, c = plane // C, plane % C
        sums[b, c] = 0
        for top, bottom, lanes in parts(0, layout.rows, b, layout):
            total, product = sums_row(
                d, x, plane * size + top * row, (bottom - top) * row // layout.lanes,
                rule[c, 0], rule[c, 1], floor, rule[c, 2], lanes,
            )  # fmt: skip
            sums[b, c, 0] += total
            sums[b, c, 1] += product


@kernel
def normalise_by(
    rule, moments, counts, gamma, beta, running_mean, running_var, momentum, eps, train
):
    """Fill a rule with batch norm; when training by the batch, and update the running statistics.

    Pieces are joined by Chan's formula in float64, so that numbers far from zero lose nothing.
    """
    total = 0.0
    for count in counts:
        total += count
    for c in range(len(gamma)):
        mean, var = float(running_mean[c]), float(running_var[c])
        if train:
            mean = var = 0.0
            for i in range(len(counts)):
                mean += (moments[i, c, 0] + moments[i, c, 1] / counts[i]) * (counts[i] / total)
            for i in range(len(counts)):
                own = moments[i, c, 0] + moments[i, c, 1] / counts[i] - mean
                var += moments[i, c, 2] - moments[i, c, 1] ** 2 / counts[i] + counts[i] * own**2
            var = max(var / total, 0.0) if var == var else var
            running_mean[c] += (1 - momentum) * (mean - running_mean[c])
            running_var[c] += (1 - momentum) * (var - running_var[c])
        var += 0 * var  # an overflow is no number, so that the loss shows it
        scale = gamma[c] / (var + eps) ** 0.5
        rule[c, 0] = scale
        rule[c, 1] = beta[c] - mean * rule[c, 0]  # with the scale as it was rounded
        rule[c, 2], rule[c, 3] = mean, 1 / (var + eps) ** 0.5


@kernel
def derive_by(table, dgamma, dbeta, sums, rule, gamma, total, train):
    """Fill a derivative's table: dx = gamma/std * (d - mean(d) - x_hat*mean(d*x_hat))."""
    for c in range(len(gamma)):
        d, dx_hat = 0.0, 0.0
        for i in range(len(sums)):
            d += sums[i, c, 0]
            dx_hat += sums[i, c, 1]
        inv_std = rule[c, 3]
        dx_hat *= inv_std
        dbeta[c], dgamma[c] = d, dx_hat
        scale = gamma[c] * inv_std
        for i in range(3):  # no slices: numba would compile their error messages too
            table[c, i] = rule[c, i]
        table[c, 3] = scale
        table[c, 4] = -scale * inv_std * dx_hat / total if train else 0
        table[c, 5] = -scale * d / total if train else 0
        table[c, 6] = table[c, 7] = 0


@kernel
def scale_groups(first, last, thread, y, x, rule, floor, gates, size):
    """Compute y = gate * x, x read by its rule; gates (blocks, groups, V) lie in lanes."""
    C, (_, G, V) = len(rule), gates.shape
    for plane in range(first, last):
        b, c = plane // C, plane % C
        gate_row(y, plane * size, x, plane * size, size // V, rule[c, 0], rule[c, 1], floor, gates,
                 (b * G + c * G // C) * V)  # fmt: skip


@kernel
def totals(first, last, thread, sums, x, rule, floor, size, layout):
    """Add to sums[b, c, v] all numbers of a lane, x read by its rule."""
    C, V, row = len(rule), layout.lanes, size // layout.rows
    for plane in range(first, last):
        b, c = plane // C, plane % C
        for top, bottom, lanes in parts(0, layout.rows, b, layout):
            totals_row(sums, plane * V, x, plane * size + top * row, (bottom - top) * row // V,
                       rule[c, 0], rule[c, 1], floor, lanes)  # fmt: skip


@kernel
def products(first, last, thread, sums, dy, x, rule, floor, size, layout):
    """Add to sums[b, c, v] all dy * x of a lane, x read by its rule."""
    C, V, row = len(rule), layout.lanes, size // layout.rows
    for plane in range(first, last):
        b, c = plane // C, plane % C
        for top, bottom, lanes in parts(0, layout.rows, b, layout):
            at = plane * size + top * row
            products_row(sums, plane * V, dy, at, x, at, (bottom - top) * row // V,
                         rule[c, 0], rule[c, 1], floor, lanes)  # fmt: skip


@kernel
def spread(first, last, thread, dx, values, size):
    """Set all positions of a lane to its value; values (blocks, C, V)."""
    V = values.shape[2]
    for plane in range(first, last):
        fill_row(dx, plane * size, size // V, values, plane * V)


@kernel
def average_windows(first, last, thread, y, x, kh, kw):
    """Average every window of kh x kw pixels of x."""
    _, C, rows, columns, V = y.shape
    share = x.dtype.type(1 / (kh * kw))
    for plane in range(first, last):
        b, c = plane // C, plane % C
        for oy in range(rows):
            for ox in range(columns):
                total = y[b, c, oy, ox]
                total[:] = 0
                for iy in range(oy * kh, (oy + 1) * kh):
                    for ix in range(ox * kw, (ox + 1) * kw):
                        for v in range(V):
                            total[v] += share * x[b, c, iy, ix, v]


@kernel
def spread_windows(first, last, thread, dx, dy, kh, kw):
    """Compute dx = dy / (kh * kw) all over its window, and 0 beyond the last one."""
    _, C, rows, columns, V = dy.shape
    share = dy.dtype.type(1 / (kh * kw))
    for plane in range(first, last):
        b, c = plane // C, plane % C
        dx[b, c] = 0
        for iy in range(rows * kh):
            for ix in range(columns * kw):
                for v in range(V):
                    dx[b, c, iy, ix, v] = share * dy[b, c, iy // kh, ix // kw, v]


@kernel
def max_pool(first, last, thread, y, winner, x, k, stride, padding):
    """The greatest pixel of every window, and which of the image it is; the first of equals."""
    _, C, rows, columns, V = y.shape
    H, W = x.shape[2], x.shape[3]
    for plane in range(first, last):
        b, c = plane // C, plane % C
        for oy in range(rows):
            for ox in range(columns):
                top, left = max(oy * stride - padding, 0), max(ox * stride - padding, 0)
                bottom, right = oy * stride - padding + k, ox * stride - padding + k
                best, won = y[b, c, oy, ox], winner[b, c, oy, ox]
                best[:], won[:] = NO_FLOOR, 0
                for iy in range(top, min(bottom, H)):
                    for ix in range(left, min(right, W)):
                        first_one = iy == top and ix == left
                        for v in range(V):
                            here = x[b, c, iy, ix, v]  # of several NaN the last
                            better = first_one or here > best[v] or here != here
                            best[v] = here if better else best[v]
                            won[v] = iy * W + ix if better else won[v]


@kernel
def max_pool_backward(first, last, thread, dx, dy, winner):
    """Send every gradient to the pixel that won its window."""
    _, C, rows, columns, V = dy.shape
    W = dx.shape[3]
    for plane in range(first, last):
        b, c = plane // C, plane % C
        dx[b, c] = 0
        for oy in range(rows):
            for ox in range(columns):
                for v in range(V):
                    won = winner[b, c, oy, ox, v]
                    dx[b, c, won // W, won % W, v] += dy[b, c, oy, ox, v]


@kernel
def pack(first, last, thread, packed, weights, table, points):
    """Put every weight that the table names where tiles read it.

    With `points`, a matrix (3, POINTS), a weight is a row of a kernel, and put is ``w @ points``.
    """
    for i in range(STRIP * first, min(STRIP * last, len(table))):
        w = table[i]
        if len(points) == 1:
            packed[i] = weights[w]
        else:
            left, middle, right = weights[w], weights[w + 1], weights[w + 2]
            for q in range(POINTS):
                total = left * points[0, q] + middle * points[1, q] + right * points[2, q]
                packed[i * POINTS + q] = total


@kernel
def unpack(first, last, thread, gradient, shares, table, points):
    """Take the sums of tiles, at every point, as gradients of neighbouring weights: (3, POINTS)."""
    apart = len(shares) // POINTS
    for i in range(STRIP * first, min(STRIP * last, len(table))):
        if len(points) == 1:
            gradient[i] = shares[table[i]]
        else:
            for t in range(3):
                total = 0.0
                for q in range(POINTS):
                    total += points[t, q] * shares[q * apart + table[i]]
                gradient[3 * i + t] = total


@kernel
def product(y, a, b):
    """Add a @ b to y, terms in their order: that of BLAS depends on the processor."""
    for n in range(len(a)):
        for i in range(len(b)):
            for k in range(b.shape[1]):
                y[n, k] += a[n, i] * b[i, k]


@kernel
def renew(copy, weights):
    """Make a copy what the weights are now; return whether that changed it. Both as integers."""
    changed = False
    for i in range(len(weights)):
        changed |= copy[i] != weights[i]
        copy[i] = weights[i]
    return changed


@kernel
def sgd_step(weight, gradient, velocity, lr, momentum, weight_decay):
    """g = gradient + weight_decay*weight; v = momentum*v + g; weight -= lr*(g + momentum*v)."""  # noqa: D403
    for i in range(len(weight)):
        g = gradient[i] + weight_decay * weight[i]
        velocity[i] = momentum * velocity[i] + g
        weight[i] -= lr * (g + momentum * velocity[i])


@kernel
def add_up(first, last, thread, parts, step, each):
    """Add every `step`-th of `each` shares of a gradient to the first of them, in their order."""
    for start in range(0, len(parts), each):
        for p in range(start + step, min(start + each, len(parts)), step):
            for i in range(STRIP * first, min(STRIP * last, parts.shape[1])):
                parts[start, i] += parts[p, i]
