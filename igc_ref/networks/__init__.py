"""Layers with explicit forward and backward passes: no autograd, every derivative is written out.

A layer holds its parameters, and between forward and backward what its derivative needs. It
computes nothing itself: it calls the operators of its backend, on pictures (C, N, H, W).
"""

from igc_ref.networks.blocks import IGC, IGCV2, IGCV3, Shuffle, SummationFusion
from igc_ref.networks.layers import (
    BN_EPS,
    BatchNorm,
    Conv2d,
    GlobalAveragePool,
    Linear,
    MaxPool,
    ReLU,
    he_normal,
)

__all__ = [
    "BN_EPS",
    "IGC",
    "IGCV2",
    "IGCV3",
    "BatchNorm",
    "Conv2d",
    "GlobalAveragePool",
    "Linear",
    "MaxPool",
    "ReLU",
    "Shuffle",
    "SummationFusion",
    "he_normal",
]
