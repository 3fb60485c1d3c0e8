"""Winograd's F(4, 3): four neighbouring outputs of a 3-tap convolution by 6 products, not 12.

Along a row, four outputs y of a kernel w depend on six inputs x (Winograd, Arithmetic Complexity
of Computations, 1980; Lavin and Gray, arXiv:1509.09308, take it in both directions, which rounds
worse):

    y = A ((G w) * (B x))          A: 4 x 6,   G: 6 x 3,   B: 6 x 6,   * number by number

B x is the row *at six points*, and sums over channels and rows of the kernel are taken there, so
that A is applied once. The gradient of the weights is the same with the roles exchanged: three
outputs dw of a "kernel" dy of four taps, and the same B x:

    dw = C ((D dy) * (B x))        C: 3 x 6,   D: 6 x 4

The points are 0, 1/2, -1/2, 3/2, -3/2 and infinity: A, B and D have few binary digits. With 1
and 2 instead of 1/2 and 3/2, errors are a third larger (measured).

In float32 y and dx err 1.5 to 1.8 times as much as the plain sum, and dw twice as much (root mean
square). What bounds the error is not the sum of |products| but |A| ((|G| |w|) * (|B| |x|)): beside
a large number, all outputs whose six columns it is in have the rounding of its size. A NaN or an
infinity makes NaN of all outputs that depend on it and of the other outputs of its four columns;
where sums of |products| come within a tenth of the dtype's largest number, that can happen, too.
"""

import numpy as np
import numpy.typing as npt

POINTS = 6
WIDTH = 4  # outputs of a tile
_points = np.array([0, 0.5, -0.5, 1.5, -1.5])
_others = [np.delete(_points, q) for q in range(len(_points))]
_scales = np.array([*(np.prod(p - o) for p, o in zip(_points, _others, strict=True)), 1])


def _evaluation(terms: int) -> npt.NDArray[np.float64]:
    """Return the matrix from coefficients to values at the points; at infinity: the highest."""
    return np.vstack([np.vander(_points, terms, increasing=True), np.eye(terms)[-1]])


# Lagrange's polynomials, from the lowest coefficient on; at infinity: that with all five zeros.
B = np.array([[*np.poly(o)[::-1], 0] for o in _others] + [np.poly(_points)[::-1]])
A, G = _evaluation(4).T, _evaluation(3) / _scales[:, None]
C, D = np.ascontiguousarray(_evaluation(3).T / _scales), _evaluation(4)
