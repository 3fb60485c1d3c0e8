"""Winograd's F(4, 3): four neighbouring outputs of a 3-tap convolution by 6 products, not 12.

Along a row, four outputs y of a kernel w depend on six inputs x (Winograd, Arithmetic Complexity
of Computations, 1980; Lavin and Gray, arXiv:1509.09308, take it in both directions, which rounds
worse):

    y = A ((G w) * (B x))          A: 4 x 6,   G: 6 x 3,   B: 6 x 6,   * number by number

B x is the row *at six points*, and sums over channels and rows of the kernel are taken there, so
that A is applied once. The gradient of the weights is the same with the roles exchanged: three
outputs dw of a "kernel" dy of four taps, and the same B x:

    dw = C ((D dy) * (B x))        C: 3 x 6,   D: 6 x 4

The points are 0, 1, -1, 2, -2 and infinity. B has whole numbers; in float32 the result errs about
1.3 times as much as the plain sum.
"""

import numpy as np
import numpy.typing as npt

POINTS = 6
WIDTH = 4  # outputs of a tile
_powers = np.vander([0.0, 1, -1, 2, -2], 4, increasing=True)


def _evaluation(terms: int) -> npt.NDArray[np.float64]:
    """Return the matrix from coefficients to values at the points; at infinity: the highest."""
    return np.vstack([_powers[:, :terms], np.eye(terms)[-1]])


_scales = np.array([4.0, -6, -6, 24, 24, 1])
B = np.array([
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
])  # fmt: skip
A, G = _evaluation(4).T, _evaluation(3) / _scales[:, None]
C, D = np.ascontiguousarray(_evaluation(3).T / _scales), _evaluation(4)
