"""Our side: the cupy backend on a card, or the same operators on the tests' CPU emulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.gpu.clock import Clock, CupyClock, HostClock
from igc_ref.backends.cupy.batch import Batch, Sums
from igc_ref.backends.operators.library import Crops, Sampling, TrainingData
from igc_ref.bench import BlockCase
from igc_ref.errors import BackendError
from igc_ref.networks import BN_EPS
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.model import Model, build
from igc_ref.training.optim import SGD

VARIANTS = ("forward", "both", "training")
PADDING = 4


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
    """Return the clock for its work."""
    return HostClock() if emulate else CupyClock()


def alive(emulate: bool) -> None:
    """Raise if the card does not answer any more."""
    if not emulate:
        import cupy

        cupy.cuda.Device().synchronize()
        cupy.arange(8).sum().item()


@contextmanager
def poisoned(emulate: bool, megabytes: int) -> Iterator[None]:
    """Give arrays made within memory that holds NaN; use it inside ``session()``.

    CuPy's pool cuts new arrays out of the smallest free piece that is large enough: here there is
    one only, and it is poisoned.
    """
    if not emulate:
        import cupy

        cupy.cuda.Device().synchronize()
        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        poison = cupy.full(megabytes << 18, np.nan, "float32")
        del poison
    yield


class OurBlock:
    """One block, ready to run on each of several sets of inputs.

    ``forward``: the block. ``both``: with its backward pass and all gradients. ``training``: with
    batch norm and ReLU too, as it stands in a network: x has the batch norm before it pending
    (applied as x is read, so the rule of *this* block's batch norm is left to its reader), and the
    gradient comes with the sums that the block after it takes on the way.
    """

    def __init__(self, backend: Any, case: BlockCase, sets: int, seed: int = 0) -> None:
        rng, spec, N = np.random.default_rng(seed), case.spec, case.batch_size
        self.backend, self.spec, self.sets = backend, spec, sets
        shapes = spec.primary_shape, spec.secondary_shape
        weights = (rng.normal(size=s) * (2 / np.prod(s[1:])) ** 0.5 for s in shapes)
        self.primary, self.secondary = (backend.asarray(w, "float32") for w in weights)
        self.plain = list(self._pictures(rng, (N, spec.in_channels, case.size, case.size)))
        out = (N, spec.out_channels, *spec.output_size(case.size, case.size))
        self.gradients = list(self._pictures(rng, out))
        self.norms = [self._norm(c) for c in (spec.in_channels, spec.out_channels)]
        self.pending = [self._normalise(x, 0)[0] for x in self.plain]
        self.sums = backend.asarray(rng.normal(size=(256, spec.out_channels, 2)), "float32")

    def _pictures(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Iterator[Batch]:
        numbers = rng.standard_normal(shape, np.float32)
        for shift in range(self.sets):  # not the same numbers, and quicker than drawing them
            yield self.backend.to_layout(self.backend.asarray(np.roll(numbers, shift, axis=0)))

    def _norm(self, channels: int) -> dict[str, Any]:
        ones, zeros = np.ones(channels, "float32"), np.zeros(channels, "float32")
        values = {"gamma": ones, "beta": zeros, "running_mean": zeros, "running_var": ones}
        return {name: self.backend.asarray(value) for name, value in values.items()}

    def _normalise(self, x: Batch, which: int) -> tuple[Batch, Any]:
        return self.backend.batch_norm(  # type: ignore[no-any-return]
            x, **self.norms[which], momentum=0.9, eps=BN_EPS, train=True, relu=True
        )

    def forward(self, i: int) -> Any:
        """Run the block on inputs number `i`; return what it wrote."""
        return self.backend.igc(self.plain[i], self.primary, self.secondary, self.spec)[0]

    def both(self, i: int) -> Any:
        """Run it forward and backward."""
        b = self.backend
        y, saved = b.igc(self.plain[i], self.primary, self.secondary, self.spec)
        return y, b.igc_backward(self.gradients[i], saved)

    def training(self, i: int) -> Any:
        """Run block, batch norm and ReLU forward and backward."""
        b = self.backend
        y, saved = b.igc(self.pending[i], self.primary, self.secondary, self.spec)
        z, norm = self._normalise(y, 1)
        d = self.gradients[i]
        if hasattr(norm, "rule"):  # not the generic batch norm
            d = Batch(d.data, sums=Sums(norm.rule.table, self.sums))
        d, *of_norm = b.batch_norm_backward(d, norm)
        return z, of_norm, b.igc_backward(d, saved)


def replayed(backend: Any, f: Callable[[int], object], sets: int) -> Callable[[], None]:
    """Return what runs ``f(0) ... f(sets - 1)`` as one CUDA graph; use it inside ``session()``.

    Results stay alive until all are there, so that each has memory of its own, as in a network.
    Raises BackendError if `f` needs an operator of the library.
    """
    memory = backend.device.memory()
    with memory():
        kept: list[Any] = []
        for _ in range(2):  # compile, and fill the pool that the graph will use
            kept = [f(i) for i in range(sets)]
        kept.clear()
        kept_in_graph: list[Any] = []

        def all_sets() -> None:
            kept_in_graph.extend(f(i) for i in range(sets))

        replay: Callable[[], None] = backend.device.capture(all_sets)
        kept_in_graph.clear()

    def run() -> None:
        assert memory  # lives as long as the graph, which holds its addresses
        replay()

    return run


def one_by_one(f: Callable[[int], object], sets: int) -> Callable[[], None]:
    """Return what runs ``f(0) ... f(sets - 1)`` launch by launch."""

    def run() -> None:
        kept = [f(i) for i in range(sets)]
        del kept

    return run


def random_pool(count: int, seed: int = 0, classes: int = 10) -> TrainingData:
    """Return random pictures."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    statistics = (125.0, 123.0, 114.0), (63.0, 62.0, 67.0)
    return TrainingData(images, rng.integers(0, classes, count), *statistics)


def draws(count: int, seed: int) -> Sampling:
    """Return order and augmentation of an epoch."""
    rng = np.random.default_rng(seed)
    top, left = rng.integers(0, 2 * PADDING + 1, (2, count))
    return Sampling(rng.permutation(count), Crops(top, left, rng.random(count) < 0.5))


def learner(model: Model, optimiser: SGD) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """Return one training step on pictures in the backend's layout, as `igc_ref.train` takes it."""

    def learn(x: Any, labels: Any, lr: Any) -> tuple[Any, Any]:
        logits = model.forward_inside(x, train=True)
        loss, hits, dlogits = model.backend.loss(logits, labels)
        model.backward(dlogits, input_gradient=False)
        optimiser.step(lr)
        return loss, hits

    return learn


class OurStep:
    """Training steps of a network on random pictures, `steps` of them a run."""

    def __init__(self, backend: Any, a: Architecture, batch_size: int, steps: int = 64) -> None:
        self.model = build(a, backend)
        learn = learner(self.model, SGD(self.model, 0.9, 5e-4))
        self.backend, self.batch_size, self.steps, self.lines = backend, batch_size, steps, []
        pool = random_pool(batch_size * steps)
        self.rates = np.full(steps, 1e-3)
        self.draws = draws(len(pool.labels), seed=1)
        self.captured = backend.steps(learn, pool, batch_size, PADDING, self.lines.append)
        self.losses = [loss for loss, _ in self.epoch()]  # compiles, captures

    def epoch(self) -> list[tuple[float, int]]:
        """Run all steps as training does: draws in, losses out."""
        return list(self.captured.epoch(self.draws, self.rates))

    def begin(self) -> None:
        """Start the epoch again, so that the step's number stays below the epoch's."""
        self.captured._begin(self.draws, self.rates)

    def step(self) -> None:
        """Queue one step: a replay of the graph, if there is one."""
        self.captured._step(self.batch_size)

    @property
    def is_graph(self) -> bool:
        """Whether steps are replays of a CUDA graph."""
        return bool(self.captured._graphs)
