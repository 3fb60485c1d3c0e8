"""Grouped convolutions on NCHW and on channels_last images, in PyTorch and in our module."""

from benchmarks.complaints.timing import Timed, Ways, draw, runs, torch_conv


def ways(L: int, M: int, N: int, H: int) -> Ways:
    """Return PyTorch's grouped convolution and our module, in both memory formats."""
    from igc_ref.exchange.torch import InterleavedGroupConv2d

    arrays, found = draw(N, L * M, H), {}
    for name, form in (("NCHW", "contiguous_format"), ("channels_last", "channels_last")):
        ours = InterleavedGroupConv2d(L * M, L * M, L, M, accelerate=True)
        found |= runs(f"PyTorch {name}", torch_conv(L * M, L), *arrays, form)
        found |= runs(f"our block {name}", ours, *arrays, form)
    return found


SCRIPT = Timed(
    "Grouped convolutions are slower on channels_last images",
    "[pytorch#34977](https://github.com/pytorch/pytorch/issues/34977)",
    {"2048 channels in 32 groups": (32, 64, 8, 7), "48 channels in 24 groups": (24, 2, 64, 32)},
    ways,
    claims=[("PyTorch channels_last", "PyTorch NCHW")],
    ours=[("our block channels_last", "our block NCHW")],
    slower=True,
)
