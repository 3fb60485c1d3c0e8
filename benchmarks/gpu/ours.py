"""Our side: the cupy backend on a card, or the same operators on the tests' CPU emulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.gpu.contenders import Each
from igc_ref.backends.operators.lazy import Batch, Sums
from igc_ref.bench import BlockCase
from igc_ref.bench.clock import Clock, EventClock
from igc_ref.data import Dataset
from igc_ref.errors import BackendError
from igc_ref.networks import BN_EPS
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.layers import he_normal
from igc_ref.networks.model import build
from igc_ref.training.loop import draw, steps_of
from igc_ref.training.optim import SGD

VARIANTS = ("forward", "both", "training")


def make_backend(emulate: bool, storage: str = "float32", capture: bool = True) -> Any:
    """Return the backend under test."""
    if emulate:
        from tests.backends.cuda.emulator.backend import EmulatedBackend

        return EmulatedBackend(storage, capture=capture)
    from igc_ref.backends import cupy_problem

    if problem := cupy_problem():
        raise BackendError(f"the cupy backend cannot run: {problem}")
    from igc_ref.backends.cupy.backend import CupyBackend

    return CupyBackend(storage, capture=capture)


def clock(emulate: bool) -> Clock:
    """Return the clock for its work; on a card, use it inside the backend's ``session()``."""
    if emulate:
        return Clock()
    import cupy

    device = cupy.cuda.Device()
    return EventClock(cupy.cuda.Event, cupy.cuda.get_elapsed_time, device.synchronize)


def alive(emulate: bool) -> None:
    """Raise if the card does not answer any more."""
    if not emulate:
        import cupy

        cupy.cuda.Device().synchronize()
        cupy.arange(8).sum().item()


def free_bytes(emulate: bool) -> int:
    """Return the free memory of the card."""
    if emulate:
        return 0
    import cupy

    cupy.cuda.Device().synchronize()
    return int(cupy.cuda.runtime.memGetInfo()[0])


@contextmanager
def poisoned(emulate: bool, megabytes: int) -> Iterator[None]:
    """Make new arrays in memory that holds NaN; use it inside ``session()``.

    The memory is one block of a pool that is made for this context alone: what others left in the
    default pool is not handed out, and what a backend keeps for good cannot split the block if it
    was made before.
    """
    if emulate:
        yield
        return
    import cupy

    pool = cupy.cuda.MemoryPool()
    try:
        with cupy.cuda.using_allocator(pool.malloc):
            cupy.full(megabytes << 18, np.nan, "float32")  # freed at once: arrays are cut out of it
            yield
    finally:
        cupy.cuda.Device().synchronize()
        pool.free_all_blocks()


def block_inputs(case: BlockCase, seed: int = 0) -> list[Any]:
    """Draw a batch, a gradient of the output, and both weights, in float32."""
    rng, s, N = np.random.default_rng(seed), case.spec, case.batch_size
    weights = [
        he_normal(shape, rng).astype("float32") for shape in (s.primary_shape, s.secondary_shape)
    ]
    shapes = (
        (N, s.in_channels, case.size, case.size),
        (N, s.out_channels, *s.output_size(case.size, case.size)),
    )
    return [*(rng.standard_normal(shape, np.float32) for shape in shapes), *weights]


class OurBlock:
    """One block, ready to run on each of several sets of inputs.

    ``forward``: the block. ``both``: with its backward pass and all gradients. ``training``: with
    batch norm and ReLU too, as it stands in a network: x has the batch norm before it pending
    (applied as x is read, so the rule of *this* block's batch norm is left to its reader), and the
    gradient comes with the sums that the block after it takes on the way.
    """

    def __init__(self, backend: Any, case: BlockCase, sets: int) -> None:
        self.backend, self.spec, spec = backend, case.spec, case.spec
        x, d, *weights = block_inputs(case)
        self.weights = [backend.asarray(w) for w in weights]
        self.plain, self.gradients = (self._batches(array, sets) for array in (x, d))
        self.norms = [self._norm(channels) for channels in (spec.in_channels, spec.out_channels)]
        self.pending = [self._normalise(x, 0)[0] for x in self.plain]
        sums = np.random.default_rng(1).normal(size=(256, spec.out_channels, 2))
        self.sums = backend.asarray(sums, "float32")

    def _batches(self, array: Any, sets: int) -> list[Batch]:
        """Return sets that differ by the order of their images: quicker than drawing each."""
        rolled = (np.roll(array, shift, axis=0) for shift in range(sets))
        return [self.backend.to_layout(self.backend.asarray(a)) for a in rolled]

    def _norm(self, channels: int) -> dict[str, Any]:
        starts = {
            "gamma": np.ones,
            "beta": np.zeros,
            "running_mean": np.zeros,
            "running_var": np.ones,
        }
        return {n: self.backend.asarray(f(channels, "float32")) for n, f in starts.items()}

    def _normalise(self, x: Batch, which: int) -> tuple[Batch, Any]:
        return self.backend.batch_norm(  # type: ignore[no-any-return]
            x, **self.norms[which], momentum=0.9, eps=BN_EPS, train=True, relu=True
        )

    def forward(self, i: int) -> Any:
        """Run the block on inputs number `i`; return what it wrote."""
        return self.backend.igc(self.plain[i], *self.weights, self.spec)[0]

    def both(self, i: int) -> Any:
        """Run it forward and backward."""
        y, saved = self.backend.igc(self.plain[i], *self.weights, self.spec)
        return y, self.backend.igc_backward(self.gradients[i], saved)

    def training(self, i: int) -> Any:
        """Run block, batch norm and ReLU forward and backward."""
        b, d = self.backend, self.gradients[i]
        y, saved = b.igc(self.pending[i], *self.weights, self.spec)
        z, norm = self._normalise(y, 1)
        if hasattr(norm, "rule"):  # not the generic batch norm
            d = Batch(d.data)
            d.sums = Sums(norm.rule.table, self.sums, 1)
        d, *of_norm = b.batch_norm_backward(d, norm)
        return z, of_norm, b.igc_backward(d, saved)


def replayed(backend: Any, f: Each, sets: int) -> tuple[Callable[[], object], str]:
    """Return what runs ``f(0) ... f(sets - 1)`` as one CUDA graph; use it inside ``session()``.

    Results stay alive until all are there, so that each has memory of its own, as in a network. If
    `f` needs an operator of the library there is no graph: it runs launch by launch, and the note
    returned says why.
    """

    def run() -> list[object]:
        return [f(i) for i in range(sets)]

    memory = backend.device.memory()
    try:
        with memory():
            for _ in range(2):  # compile, and fill the pool that the graph will use
                run()
            replay = backend.device.capture(run)
    except BackendError as error:
        return run, f"no graph: {error}"

    def with_its_memory() -> None:
        assert memory  # lives as long as the graph, which holds its addresses
        replay()

    return with_its_memory, ""


def random_images(count: int, seed: int = 0) -> Dataset:
    """Return random images, of no ten classes in particular."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    statistics = (125.0, 123.0, 114.0), (63.0, 62.0, 67.0)
    return Dataset("random", images, rng.integers(0, 10, count), tuple("0123456789"), *statistics)


class OurStep:
    """Training steps of a network on random images, `steps` of them an epoch."""

    def __init__(self, backend: Any, a: Architecture, batch_size: int, steps: int) -> None:
        model, images, self.lines = build(a, backend), random_images(batch_size * steps), []
        self.batch_size, self.rates = batch_size, np.full(steps, 1e-3)
        self.sampling = draw(1, 1, len(images), batch_size, augment=True)
        optimiser = SGD(model, 0.9, 5e-4)
        self.steps: Any = steps_of(model, optimiser, images, batch_size, self.lines.append)
        self.losses = [loss for loss, _ in self.epoch()]  # compiles, captures

    def epoch(self) -> list[tuple[float, int]]:
        """Run all steps as training does: random numbers in, losses out."""
        return list(self.steps.epoch(self.sampling, self.rates))

    def begin(self) -> None:
        """Start the epoch again: six small copies, a few hundredths of a step."""
        self.steps.begin(self.sampling, self.rates)

    def run_one(self) -> None:
        """Queue one step: a replay of the graph, if there is one."""
        self.steps.run_one(self.batch_size)
