"""The definition: the block as explicit matrices, its special cases, the nearest IGC, and products
of more factors.

Everything here is naive on purpose, in float64 or complex128, and shares no code with the
backends that are checked against it.
"""

from igc_ref.reference.block import Gradients, backward, composed_kernel, forward
from igc_ref.reference.nearest import Projection, is_igc, project, singular_values, slices
from igc_ref.reference.patches import fold, patch_operator, unfold
from igc_ref.reference.structure import (
    Matrices,
    block_diagonal,
    blockmask,
    diagonal_blocks,
    first_permutation,
    interleave,
    matrices,
)

__all__ = [
    "Gradients",
    "Matrices",
    "Projection",
    "backward",
    "block_diagonal",
    "blockmask",
    "composed_kernel",
    "diagonal_blocks",
    "first_permutation",
    "fold",
    "forward",
    "interleave",
    "is_igc",
    "matrices",
    "patch_operator",
    "products",
    "project",
    "singular_values",
    "slices",
    "special_cases",
    "unfold",
]
