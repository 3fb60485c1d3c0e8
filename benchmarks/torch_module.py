"""`InterleavedGroupConv2d` in PyTorch on a CPU: our kernels against PyTorch's own convolutions.

    python -m benchmarks.torch_module
    python -m benchmarks.torch_module --sweep

Needs the extra ``torch``. The block alone is its forward and backward pass, with random images and
gradients; the network is a ResNet-20 of our blocks, a step of SGD on 64 images 32 x 32. Both are
eager, with ``accelerate=True`` and ``accelerate=False``, with modules and images in NCHW and in
channels_last. A layout's change in and out of our kernels counts. The four ways take turns in one
process, on the same threads; a row has medians. "faster" compares the best of two with the best of
two. ``--sweep`` times the shapes behind the rule `igc_ref.exchange.torch.block.slower`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from igc_ref.bench import available_threads
from igc_ref.bench.clock import Clock
from igc_ref.bench.harness import take_turns
from igc_ref.exchange.torch import InterleavedGroupConv2d
from igc_ref.report import markdown, say

FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
WAYS = list(product((True, False), FORMATS))
HEADER = [f"{'ours' if ours else 'PyTorch'} {name} ms" for ours, name in WAYS]
# in, out, L, M, kernel, stride, images, height
BLOCKS = [(48, 48, 24, 2, 3, 1, 64, 32)]
SWEEP = [
    *((G, G, L, M, 3, 1, 64, 32) for G, L, M in [(32, 4, 8), (32, 2, 16), (32, 8, 4), (32, 16, 2)]),
    *((G, G, G, 1, 3, 1, 64, H) for G, H in [(32, 32), (128, 16), (96, 56)]),  # depthwise
    *((48, 48, 24, 2, 3, 1, N, 32) for N in (1, 4, 8, 16, 128)),
    *((32, 32, 4, 8, 3, 1, N, 32) for N in (1, 8, 128)),
    *((48, 48, 24, 2, 3, 1, N, H) for N, H in [(64, 16), (64, 8), (1, 8), (8, 56), (1, 56)]),
    *((48, 96, 24, 4, 3, 2, N, 32) for N in (1, 64)), (32, 64, 4, 16, 3, 2, 64, 32),
    (96, 96, 24, 4, 3, 1, 64, 16), (192, 192, 24, 8, 3, 1, 64, 8), (64, 64, 4, 16, 3, 1, 64, 16),
    (128, 128, 4, 32, 3, 1, 64, 8), (128, 128, 2, 64, 3, 1, 64, 16), (128, 128, 4, 32, 3, 1, 8, 28),
    (128, 128, 64, 2, 3, 1, 64, 16), (192, 192, 96, 2, 3, 1, 64, 16),
    (256, 256, 16, 16, 3, 1, 64, 8),
    (48, 48, 24, 2, 1, 1, 64, 32), (48, 48, 24, 2, 5, 1, 64, 32), (64, 64, 1, 64, 3, 1, 64, 16),
    (192, 192, 24, 8, 3, 1, 1, 8), (256, 256, 16, 16, 3, 1, 1, 14),
]  # fmt: skip


class Residual(nn.Module):
    """relu(bn(igc(relu(bn(igc(x))))) + shortcut(x))."""

    def __init__(self, inp: int, out: int, L: int, accelerate: bool) -> None:
        super().__init__()
        stride = 1 if inp == out else 2
        block = partial(InterleavedGroupConv2d, L=L, M=out // L, accelerate=accelerate)
        first, second = block(inp, out, stride=stride), block(out, out)
        norms = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.branch = nn.Sequential(first, norms[0], nn.ReLU(inplace=True), second, norms[1])
        self.shortcut = nn.Identity()
        if stride > 1:
            conv = nn.Conv2d(inp, out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(out))

    def forward(self, x: Any) -> Any:
        """See `nn.Module`."""
        return functional.relu(self.branch(x) + self.shortcut(x), inplace=True)


def resnet(accelerate: bool, L: int = 24, M: int = 2) -> nn.Module:
    """Return a ResNet-20 of IGC blocks with M, 2M and 4M secondary partitions."""
    G = L * M
    blocks = [Residual(G * inp, G * out, L, accelerate) for inp, out in
              [(1, 1)] * 3 + [(1, 2)] + [(2, 2)] * 2 + [(2, 4)] + [(4, 4)] * 2]  # fmt: skip
    stem = nn.Conv2d(3, G, 3, padding=1, bias=False), nn.BatchNorm2d(G), nn.ReLU(inplace=True)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * G, 10)
    return nn.Sequential(*stem, *blocks, *head)


def block_step(numbers: tuple[int, ...], dtype: Any, ours: bool, layout: str) -> Callable[[], Any]:
    """Return a function that takes a block forward and back."""
    inp, out, L, M, k, stride, N, H = numbers
    block = InterleavedGroupConv2d(inp, out, L, M, kernel_size=k, stride=stride, accelerate=ours)
    block = block.to(dtype=dtype, memory_format=FORMATS[layout])
    x = torch.randn(N, inp, H, H, dtype=dtype).contiguous(memory_format=FORMATS[layout])
    dy = torch.randn_like(block(x.requires_grad_()).detach()).contiguous(
        memory_format=FORMATS[layout]
    )

    def step() -> None:
        x.grad = None
        block.zero_grad()
        block(x).backward(dy)

    return step


def network_step(batch: int, L: int, M: int, ours: bool, layout: str) -> Callable[[], Any]:
    """Return a function that takes a training step."""
    model = resnet(ours, L, M).to(memory_format=FORMATS[layout])
    x = torch.randn(batch, 3, 32, 32).contiguous(memory_format=FORMATS[layout])
    labels = torch.randint(0, 10, (batch,))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)

    def step() -> None:
        optimiser.zero_grad()
        functional.cross_entropy(model(x), labels).backward()
        optimiser.step()

    return step


def row(name: str, make: Callable[[bool, str], Callable[[], Any]], rounds: int) -> list[str]:
    """Time the four ways in turns; return a row of the table."""

    def times(step: Callable[[], Any], count: int) -> list[float]:
        step()
        return Clock().times(step, count)

    ways = {way: partial(times, make(*way)) for way in WAYS}
    found = {way: median(s) for way, s in take_turns(ways, rounds, 0.2).items()}
    best = [min(found[ours, name] for name in FORMATS) for ours in (False, True)]
    cells = [f"{found[way] * 1e3:.2f}" for way in WAYS]
    return [name, *cells, f"{best[0] / best[1]:.2f}x"]


def title(numbers: tuple[int, ...], dtype: Any) -> str:
    """Name a block."""
    inp, out, L, M, k, stride, N, H = numbers
    kind = "" if dtype is torch.float32 else ", float64"
    pace = f" /{stride}" if stride > 1 else ""
    return f"L{L}M{M} {k}x{k}{pace} {inp}-{out}, {H}x{H}, N = {N}{kind}"


def main() -> None:
    """Read the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sweep", action="store_true", help="many shapes of block")
    add("--rounds", type=int, default=7, help="turns of each way")
    add("--threads", type=int, default=available_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rows = [["forward and backward, or step", *HEADER, "faster"]]
    for numbers in BLOCKS + SWEEP if options.sweep else BLOCKS:
        for dtype in (torch.float32, torch.float64) if numbers in BLOCKS else (torch.float32,):
            make = partial(block_step, numbers, dtype)
            rows.append(row(title(numbers, dtype), make, options.rounds))
            say(" | ".join(rows[-1]))
    for L, M in () if options.sweep else ((24, 2), (4, 8)):
        make = partial(network_step, 64, L, M)
        rows.append(row(f"ResNet-20 L{L}M{M}, step, N = 64", make, options.rounds))
        say(" | ".join(rows[-1]))
    say(markdown(rows))
    say(f"PyTorch {torch.__version__}, {options.threads} threads")


if __name__ == "__main__":
    main()
