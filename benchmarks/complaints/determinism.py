"""What deterministic sums cost in a training step, of PyTorch and of ours."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.complaints.timing import Timed, Ways
from igc_ref.bench.record import available_threads
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.model import build, sha256
from igc_ref.training.loop import training_step
from igc_ref.training.optim import SGD

NETWORK = Architecture("plain_igc", 20, L=24, M=2)
STRICT = "PyTorch deterministic"


def ours(a: Any, N: int, threads: int) -> tuple[Callable[[], object], Callable[[], str]]:
    """Return functions: one takes a training step, one hashes the weights."""
    from igc_ref.backends.numba.backend import NumbaBackend

    x, labels = batch(a, N)
    model = build(a, NumbaBackend(threads))
    optimiser, x = SGD(model), model.backend.to_layout(x)
    return lambda: training_step(model, optimiser, x, labels, 0.01), model.sha256


def of_torch(
    a: Any, N: int, threads: int, strict: bool = True, fill: bool = True
) -> tuple[Callable[[], object], Callable[[], str]]:
    """Return the same of PyTorch: deterministic or not, with new tensors filled or not."""
    import torch

    from igc_ref.bench.torch_twins import network

    torch.manual_seed(0)
    model = network(a)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    x, labels = map(torch.from_numpy, batch(a, N))

    def step() -> None:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        torch.utils.deterministic.fill_uninitialized_memory = fill
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(x), labels).backward()
        optimiser.step()
        torch.use_deterministic_algorithms(False)

    return step, lambda: sha256({k: v.numpy() for k, v in model.state_dict().items()})


def batch(a: Any, N: int) -> tuple[Any, Any]:
    """Draw images and labels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, *a.input_shape)).astype("float32")
    return x, rng.integers(0, a.num_classes, N)


def ways(a: Any, N: int) -> Ways:
    """Return a training step in every mode."""
    options, n = (
        {"PyTorch": (False,), f"{STRICT}, no fill": (True, False), STRICT: ()},
        available_threads(),
    )
    steps = {("step", name): of_torch(a, N, n, *modes)[0] for name, modes in options.items()}
    return {**steps, ("step", "ours"): ours(a, N, n)[0]}


def notes(a: Any = NETWORK, N: int = 64) -> list[str]:
    """Say whether three steps on 1 and on 2 threads give the same weights."""
    found = []
    for name, of in ((STRICT, of_torch), ("ours", ours)):
        hashes = set()
        for threads in (1, 2):
            step, digest = of(a, N, threads)
            for _ in range(3):
                step()
            hashes.add(digest())
        found.append(
            f"{name}: {'the same' if len(hashes) == 1 else 'other'} weights on 1 and 2 threads"
        )
    return found


SCRIPT = Timed(
    "Determinism costs time",
    "[pytorch#109856](https://github.com/pytorch/pytorch/issues/109856)",
    {str(NETWORK): (NETWORK, 64)},
    ways,
    claims=[(STRICT, "PyTorch"), (f"{STRICT}, no fill", "PyTorch")],
    ours=[("ours", "PyTorch"), ("ours", STRICT)],
    slower=True,
    notes=notes,
)
