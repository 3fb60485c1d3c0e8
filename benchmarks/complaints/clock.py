"""Multiply-adds against the clock: a block L24M2 beside dense convolutions, in PyTorch and ours."""

from benchmarks.complaints.timing import Timed, Ways, draw, numba_layer, runs, torch_conv
from igc_ref.spec.block import IGCSpec

SPEC = IGCSpec.square(L=24, M=2)
DENSE = (48, 15)  # channels: as many as the block, and with as many parameters


def ways(N: int, H: int) -> Ways:
    """Return the block and two dense convolutions of both."""
    from igc_ref.bench.torch_twins import block

    found: Ways = {}
    for C in DENSE:
        found |= runs(f"PyTorch dense {C}", torch_conv(C), *draw(N, C, H))
        found |= runs(f"our dense {C}", numba_layer("Conv2d", C, C), *draw(N, C, H))
    found |= runs("PyTorch IGC", block(SPEC), *draw(N, SPEC.in_channels, H))
    return found | runs("our IGC", numba_layer("IGC", SPEC), *draw(N, SPEC.in_channels, H))


def notes() -> list[str]:
    """Count the multiply-adds for one position; the layers have as many parameters."""
    ratios = (f"dense {C} {9 * C**2 / SPEC.parameters:.2f}" for C in DENSE)
    return [f"multiply-adds, times those of IGC: {', '.join(ratios)}"]


SCRIPT = Timed(
    "The FLOPs say ten times less, the clock says slower",
    "[mxnet#8832](https://github.com/apache/mxnet/issues/8832)",
    {"64 images 32x32": (64, 32)},
    ways,
    claims=[("PyTorch IGC", f"PyTorch dense {C}") for C in DENSE],
    ours=[("our IGC", f"our dense {C}") for C in DENSE],
    slower=True,
    notes=notes,
)
