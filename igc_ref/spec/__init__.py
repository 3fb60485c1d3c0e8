"""The shapes of the blocks, what they cost, and every closed form that follows.

`block` describes the paper's interleaved group convolution, `mixed` that of several kernel sizes,
`products` products of more factors (IGCV2, IGCV3), `mixing` which inputs an output depends on.
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
from igc_ref.spec.mixed import MixedSpec
from igc_ref.spec.mixing import mixing_time, share_met_by_other_deal
from igc_ref.spec.products import Chain, IGCV2Spec, IGCV3Spec, least_parameters

__all__ = [
    "Chain",
    "Factor",
    "IGCSpec",
    "IGCV2Spec",
    "IGCV3Spec",
    "MixedSpec",
    "Product",
    "equal_cost_width",
    "least_parameters",
    "maximal_width",
    "mixing_time",
    "optimal_L",
    "output_length",
    "share_met_by_other_deal",
]
