"""Networks with explicit forward and backward passes: no autograd, every derivative is written out.

- `layer`: what a layer is, and how layers make a network (one after another, beside a shortcut).
- `layers`: convolution, batch norm, pooling, linear.
- `blocks`: the IGC block, its baseline with summation fusion, IGCV2 and IGCV3.
- `gates`: the gated IGC block: attention, or partitions that depend on the image.
- `architecture`: which networks exist, and the numbers that name them.
- `metadata`: what a trained network's inputs and outputs mean.
- `builder`: from these numbers to layers, and what a network costs.
- `model`: `build_model`, and a network with its parameters by name.
"""

from igc_ref.networks.blocks import IGC, IGCV2, IGCV3, MixedIGC, Shuffle, SummationFusion
from igc_ref.networks.gates import Activation, GatedIGC
from igc_ref.networks.layers import (
    BN_EPS,
    AveragePool,
    BatchNorm,
    Conv2d,
    GlobalAveragePool,
    GroupNorm,
    Linear,
    MaxPool,
    he_normal,
)
from igc_ref.networks.model import build_model

__all__ = [
    "BN_EPS",
    "IGC",
    "IGCV2",
    "IGCV3",
    "Activation",
    "AveragePool",
    "BatchNorm",
    "Conv2d",
    "GatedIGC",
    "GlobalAveragePool",
    "GroupNorm",
    "Linear",
    "MaxPool",
    "MixedIGC",
    "Shuffle",
    "SummationFusion",
    "build_model",
    "he_normal",
]
