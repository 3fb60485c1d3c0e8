"""What the block contains: each function returns the IGC weights of something well known.

Every construction returns ``Weights(primary, secondary, spec)``, so that
``forward(x, *weights)``, ``matrices(*weights)`` and ``composed_kernel(*weights)`` take it as it
is. ``tests/proofs/test_special_cases.py`` proves each of them against an independent form.
"""

from igc_ref.reference.special_cases.convolutions import (
    group_convolution,
    regular_convolution,
    regular_convolution_by_branches,
    resnext,
    shufflenet,
    shufflenet_unit,
    summation_fusion,
    xception,
)
from igc_ref.reference.special_cases.transforms import (
    composed_matrix,
    cooley_tukey,
    decimate,
    fourier,
    igcv2,
    kronecker,
    monarch,
    walsh_hadamard,
)
from igc_ref.reference.special_cases.weights import Weights

__all__ = [
    "Weights",
    "composed_matrix",
    "cooley_tukey",
    "decimate",
    "fourier",
    "group_convolution",
    "igcv2",
    "kronecker",
    "monarch",
    "regular_convolution",
    "regular_convolution_by_branches",
    "resnext",
    "shufflenet",
    "shufflenet_unit",
    "summation_fusion",
    "walsh_hadamard",
    "xception",
]
