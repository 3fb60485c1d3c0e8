"""The definition: the block as explicit matrices. Read the files in this order.

- `structure`: block-diagonal matrices and interleaving permutations.
- `patches`: convolution as one matrix of zeros and ones, unfold and fold.
- `block`: the block x' = P W_d Pᵀ W_p x, forward and backward, in a few lines.
- `gates`: the block with a diagonal D(x) between W_p and Pᵀ, for each image its own.
- `special_cases`: regular, group and Xception convolutions, Kronecker products, the FFT.
- `nearest`: which dense kernels are IGCs or sums of them, and the nearest IGC, sum and product.
- `duality`: transpose, inverse, determinant, and backward to the images as a block turned round.
- `symmetries`: what the weights may change without the block, what gradient descent keeps.
- `products`: more than two factors, IGCV2 and IGCV3.

Everything here is naive on purpose, in float64 or complex128, and shares no code with the
backends that are checked against it.
"""

from igc_ref.reference import duality, gates, products, special_cases
from igc_ref.reference.block import Gradients, backward, composed_kernel, forward
from igc_ref.reference.nearest import (
    Nearest,
    NearestProduct,
    Projection,
    is_igc,
    least_rank,
    nearest_block,
    nearest_groups,
    nearest_product,
    project,
    singular_values,
    slices,
)
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
from igc_ref.reference.symmetries import MiddleChannels, dimension, middle_channels, rescale

__all__ = [
    "Gradients",
    "Matrices",
    "MiddleChannels",
    "Nearest",
    "NearestProduct",
    "Projection",
    "backward",
    "block_diagonal",
    "blockmask",
    "composed_kernel",
    "diagonal_blocks",
    "dimension",
    "duality",
    "first_permutation",
    "fold",
    "forward",
    "gates",
    "interleave",
    "is_igc",
    "least_rank",
    "matrices",
    "middle_channels",
    "nearest_block",
    "nearest_groups",
    "nearest_product",
    "patch_operator",
    "products",
    "project",
    "rescale",
    "singular_values",
    "slices",
    "special_cases",
    "unfold",
]
