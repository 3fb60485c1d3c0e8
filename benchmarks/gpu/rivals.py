"""PyTorch's side: the same blocks and training steps, in every way its users would try.

Channels are shuffled in the tensor's own memory format (`shuffle_in_format`): PyTorch's
own ``channel_shuffle`` leaves channels_last, which would make that format lose for no good reason.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.gpu.contenders import Contender, Each
from benchmarks.gpu.ours import VARIANTS, block_inputs
from igc_ref.bench import BlockCase, torch_twins
from igc_ref.bench.clock import Clock, EventClock
from igc_ref.exchange.torch import InterleavedGroupConv2d
from igc_ref.networks import BN_EPS
from igc_ref.networks.architecture import Architecture
from igc_ref.reference import composed_kernel


@dataclass(frozen=True)
class Way:
    """How PyTorch runs it: eager or compiled, memory format, cuDNN's search, TF32."""

    how: str
    layout: str
    search: bool
    tf32: bool

    def __str__(self) -> str:
        words = ["torch", self.how, self.layout]
        words += ["benchmark"] * self.search + ["TF32"] * self.tf32
        return " ".join(words)

    @property
    def format(self) -> Any:
        """PyTorch's memory format."""
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format

    @contextmanager
    def on(self) -> Iterator[None]:
        """Set PyTorch's switches, and set them back."""
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = self.search, self.tf32, self.tf32
        try:
            yield
        finally:
            cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before


EAGER = [
    Way("eager", layout, search=True, tf32=tf32)
    for layout, tf32 in product(("NCHW", "channels_last"), (False, True))
]
COMPILED = {  # it chooses memory formats by itself
    kind: Way("compile", "NCHW", True, kind == "TF32") for kind in ("exact", "TF32")
}


def clock(device: str) -> Clock:
    """Return the clock for PyTorch's work there."""
    if device == "cpu":
        return Clock()
    event = partial(torch.cuda.Event, enable_timing=True)
    return EventClock(event, lambda a, b: a.elapsed_time(b), torch.cuda.synchronize)


def clean() -> None:
    """Give memory back between cases, and forget what was compiled."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def graphed(f: Each, sets: int, device: str) -> Callable[[], object]:
    """Return what replays ``f(0) ... f(sets - 1)`` as a CUDA graph; on a CPU, what calls them."""
    if device == "cpu":
        return lambda: [f(i) for i in range(sets)]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for i in [*range(min(sets, 2))] * 2:
            f(i)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        kept = [f(i) for i in range(sets)]  # each with memory of its own
    del kept

    def replay() -> None:
        assert f  # it holds the weights, whose addresses are in the graph
        graph.replay()

    return replay


def shuffle_in_format(x: Any, groups: int) -> Any:
    """Shuffle channels in the memory format that x has."""
    N, C, H, W = x.shape
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        last = x.permute(0, 2, 3, 1).reshape(N, H, W, groups, C // groups)
        return last.transpose(3, 4).reshape(N, H, W, C).permute(0, 3, 1, 2)
    return x.view(N, groups, C // groups, H, W).transpose(1, 2).reshape(N, C, H, W)


def in_format(module: nn.Module) -> nn.Module:
    """Let every block in a module shuffle so."""
    for part in module.modules():
        if isinstance(part, InterleavedGroupConv2d):
            part.shuffle = shuffle_in_format
    return module


class Blocks:
    """One block shape: inputs, shared by all ways of one memory format."""

    def __init__(self, case: BlockCase, sets: int, device: str) -> None:
        self.case, self.sets, self.device = case, sets, device
        self.x, self.d, *self.weights = block_inputs(case)
        self._tensors: dict[Any, list[Any]] = {}

    def tensors(self, which: str, way: Way, dtype: Any = torch.float32) -> list[Any]:
        """Return the sets of inputs (``x``) or gradients (``d``) in the format of `way`."""
        key = which, way.layout, dtype
        if key not in self._tensors:
            one = torch.from_numpy(getattr(self, which)).to(self.device, dtype)
            sets = (one.roll(i, 0).contiguous(memory_format=way.format) for i in range(self.sets))
            self._tensors[key] = [t.requires_grad_(which == "x") for t in sets]
        return self._tensors[key]

    def functions(self, way: Way) -> dict[str, Each]:
        """Return the variants of the block, each a function of the number of the set."""
        s = self.case.spec
        block = in_format(torch_twins.block(s))
        with torch.no_grad():
            for parameter, array in zip(block.parameters(), self.weights, strict=True):
                parameter.copy_(torch.from_numpy(array).reshape(parameter.shape))
        norm = nn.BatchNorm2d(s.out_channels, eps=BN_EPS, momentum=0.1)
        layers = nn.Sequential(block, norm, nn.ReLU(inplace=True))
        layers = layers.to(self.device).to(memory_format=way.format)
        x, d = self.tensors("x", way), self.tensors("d", way)

        def forward(i: int) -> object:
            with way.on(), torch.no_grad():
                return layers[0](x[i])

        def backward(module: Any, parameters: list[Any]) -> Each:
            def both(i: int) -> object:
                with way.on():
                    y = module(x[i])
                    return y.detach(), torch.autograd.grad(y, [x[i], *parameters], d[i])

            return both

        both = backward(layers[0], list(layers[0].parameters()))
        training = backward(layers, list(layers.parameters()))
        return {"forward": forward, "both": both, "training": training}

    def graph(self, way: Way, variant: str) -> tuple[Callable[[], object], str]:
        """Capture a variant of the block."""
        return graphed(self.functions(way)[variant], self.sets, self.device), ""

    def dense(self, way: Way, dtype: Any) -> tuple[Callable[[], object], str]:
        """Capture the composed kernel P Wd Pᵀ Wp as one dense convolution; note its error."""
        s, few = self.case.spec, min(8, self.case.batch_size)
        composed = composed_kernel(*(w.astype(float) for w in self.weights), s)
        kernel = torch.from_numpy(composed).to(self.device)
        weight = kernel.to(dtype).contiguous(memory_format=way.format)
        inputs = [t.detach() for t in self.tensors("x", way, dtype)]

        def forward(i: int) -> Any:
            with way.on(), torch.no_grad():
                return functional.conv2d(inputs[i], weight, stride=s.stride, padding=s.padding)

        x = torch.from_numpy(self.x[:few]).to(self.device, torch.float64)
        exact = functional.conv2d(x, kernel, stride=s.stride, padding=s.padding)
        error = float((forward(0)[:few].double() - exact).norm() / exact.norm())
        return graphed(forward, self.sets, self.device), f"error {error:.1e}"


def blocks(case: BlockCase, sets: int, options: Any) -> Iterator[tuple[str, Contender]]:
    """Yield variants of the block and PyTorch's contenders for them."""
    clean()
    inputs, time = Blocks(case, sets, options.device), clock(options.device)
    for way, variant in product(EAGER[:: 2 if options.tiny else 1], VARIANTS):
        prepare = partial(inputs.graph, way, variant)
        yield variant, Contender(str(way), prepare, time, sets, exact=not way.tf32)
    kinds = {"TF32": torch.float32, "bf16": torch.bfloat16, "float32": torch.float32}
    for layout, (kind, dtype) in product(("channels_last", "NCHW"), kinds.items()):
        prepare = partial(inputs.dense, Way("dense", layout, True, kind == "TF32"), dtype)
        name, exact = f"dense {kind} {layout}", kind == "float32"
        yield "forward", Contender(name, prepare, time, sets, exact)


class Step:
    """Training steps of a network on a batch that lies on the device, SGD included."""

    def __init__(self, a: Architecture, batch_size: int, way: Way, device: str) -> None:
        torch.manual_seed(0)
        model = in_format(torch_twins.network(a))
        self.way, self.model = way, model.to(device).to(memory_format=way.format)
        self.run = self.model
        if way.how == "compile":
            from torch._inductor import config

            if hasattr(config, "autotune_num_choices_displayed"):
                config.autotune_num_choices_displayed = 0  # no tables of candidates in the log
            how = {"mode": "max-autotune"} if device != "cpu" else {"backend": "aot_eager"}
            self.run = torch.compile(self.model, **how, dynamic=False)
        self.optimiser = torch.optim.SGD(
            self.model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, nesterov=True,
            fused=device != "cpu",
        )  # fmt: skip
        x = torch.randn((batch_size, 3, 32, 32))
        self.x = x.to(device).contiguous(memory_format=way.format)
        self.labels = torch.randint(0, a.num_classes, (batch_size,)).to(device)

    def __call__(self, _: int = 0) -> None:
        """Take the step."""
        with self.way.on():
            self.optimiser.zero_grad(set_to_none=True)
            functional.cross_entropy(self.run(self.x), self.labels).backward()
            self.optimiser.step()


def step(a: Architecture, way: Way, options: Any, graph: bool = False) -> Contender:
    """Return the contender for a training step, captured by hand or not."""

    def prepare() -> tuple[Callable[[], object], str]:
        step = Step(a, options.batch, way, options.device)
        (seconds,) = Clock().times(lambda: [step() for _ in range(6)], 1)
        note = f"compiled in {seconds:.0f} s" if way.how == "compile" else ""
        return (graphed(step, 1, options.device) if graph else step), note

    name = str(way).replace("eager", "graph") if graph else str(way)
    return Contender(name, prepare, clock(options.device), exact=not way.tf32)
