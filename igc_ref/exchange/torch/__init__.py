"""Our block and networks as PyTorch modules. Needs PyTorch."""

from igc_ref.exchange.torch.block import InterleavedGroupConv2d

__all__ = ["InterleavedGroupConv2d"]
