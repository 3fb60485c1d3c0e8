"""The shapes of the blocks, what they cost, and every closed form that follows.

`block` describes the paper's interleaved group convolution, `products` the products of more factors
(IGCV2, IGCV3).
"""

from igc_ref.spec.block import (
    Factor,
    IGCSpec,
    Product,
    equal_cost_width,
    maximal_width,
    optimal_L,
    output_length,
)
from igc_ref.spec.products import Chain, IGCV2Spec, IGCV3Spec, least_parameters

__all__ = [
    "Chain",
    "Factor",
    "IGCSpec",
    "IGCV2Spec",
    "IGCV3Spec",
    "Product",
    "equal_cost_width",
    "least_parameters",
    "maximal_width",
    "optimal_L",
    "output_length",
]
