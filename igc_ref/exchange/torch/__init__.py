"""Our block and networks as PyTorch modules. Needs PyTorch."""

from igc_ref.exchange.torch.block import InterleavedGroupConv2d
from igc_ref.exchange.torch.networks import from_torch, to_torch

__all__ = ["InterleavedGroupConv2d", "from_torch", "to_torch"]
