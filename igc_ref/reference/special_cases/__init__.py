"""What the block contains: each function returns the IGC weights of something well known.

Every construction returns ``Weights(primary, secondary, spec)``, so that
``forward(x, *weights)``, ``matrices(*weights)`` and ``composed_kernel(*weights)`` take it as it
is. ``tests/proofs/special_cases`` proves each of them against an independent form.

Examples
--------
>>> import numpy as np
>>> from igc_ref.reference import forward
>>> igc = regular_convolution(np.ones((4, 3, 3, 3)))
>>> print(igc.spec)
igc 3x3 3-4 L1 M4
>>> forward(np.ones((1, 3, 8, 8)), *igc).shape
(1, 4, 8, 8)
"""

from igc_ref.reference.special_cases.convolutions import (
    Weights,
    group_convolution,
    regular_convolution,
    regular_convolution_by_branches,
    resnext,
    shufflenet,
    shufflenet_unit,
    summation_fusion,
    xception,
)
from igc_ref.reference.special_cases.relatives import (
    blast,
    causal_convolution,
    dgconv,
    gated,
    mixconv,
    mixed,
    unmixed,
)
from igc_ref.reference.special_cases.transforms import (
    complementary_product,
    composed_matrix,
    cooley_tukey,
    decimate,
    fourier,
    kronecker,
    monarch,
    walsh_hadamard,
)

__all__ = [
    "Weights",
    "blast",
    "causal_convolution",
    "complementary_product",
    "composed_matrix",
    "cooley_tukey",
    "decimate",
    "dgconv",
    "fourier",
    "gated",
    "group_convolution",
    "kronecker",
    "mixconv",
    "mixed",
    "monarch",
    "regular_convolution",
    "regular_convolution_by_branches",
    "resnext",
    "shufflenet",
    "shufflenet_unit",
    "summation_fusion",
    "unmixed",
    "walsh_hadamard",
    "xception",
]
