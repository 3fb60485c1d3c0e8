"""A grouped convolution of PyTorch, and our block, beside the dense convolution."""

from benchmarks.complaints.timing import Timed, Ways, draw, numba_layer, runs, torch_conv
from igc_ref.spec.block import IGCSpec


def ways(L: int, M: int, N: int, H: int) -> Ways:
    """Return four layers of L*M channels."""
    from igc_ref.bench.torch_twins import block

    C, spec = L * M, IGCSpec.square(L, M)
    arrays = draw(N, C, H)
    return {
        **runs("PyTorch dense", torch_conv(C), *arrays),
        **runs("PyTorch grouped", torch_conv(C, L), *arrays),
        **runs("PyTorch IGC block", block(spec), *arrays),
        **runs("our IGC block", numba_layer("IGC", spec), *arrays),
    }


SCRIPT = Timed(
    "Training a grouped convolution is no faster than training a dense one",
    "[pytorch#70954](https://github.com/pytorch/pytorch/issues/70954)",
    {"48 channels in 24 groups": (24, 2, 64, 32), "128 channels in 8 groups": (8, 16, 16, 56)},
    ways,
    claims=[("PyTorch grouped", "PyTorch dense")],
    ours=[("our IGC block", "PyTorch dense")],
)
