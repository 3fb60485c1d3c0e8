"""Section ``check``: whole training runs against float64, and the same bits every time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.gpu import ours
from benchmarks.gpu.record import Section, say
from igc_ref.backends import NumpyBackend
from igc_ref.backends.operators.library import Sampling, TrainingData
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.model import Model, build
from igc_ref.training.optim import SGD

NETWORKS = (
    Architecture("plain_igc", 8, L=4, M=8),
    Architecture("plain_igc", 8, L=24, M=2),
    Architecture("resnet_igc", 8, L=4, M=8),
)
TINY = (Architecture("plain_igc", 5, L=2, M=2),)
LR = 0.02
FACTOR, LEAST = 10, 1e-5  # tolerance: so many times NumPy's own float32 error, but not less than


class Run(NamedTuple):
    """Losses of all steps; weights, running statistics and velocities by name."""

    losses: list[float]
    state: dict[str, npt.NDArray[Any]]
    lines: list[str]


def run(
    backend: Any, a: Architecture, steps: int, batch: int, *, dtype: str = "float32", seed: int = 0
) -> Run:
    """Train on random pictures: two epochs, half of the steps each; the last batch is short."""
    pool = ours.random_pool(batch * (steps // 2) - batch // 2, seed)
    model = build(a, backend, dtype, seed)
    optimiser = SGD(model, 0.9, 5e-4)
    learn, losses, lines = ours.learner(model, optimiser), [], []
    with backend.session():
        if isinstance(backend, NumpyBackend):
            for epoch in (1, 2):
                losses += _on_host(model, learn, pool, ours.draws(len(pool.labels), epoch), batch)
        else:
            on_device = backend.steps(learn, pool, batch, ours.PADDING, lines.append)
            for epoch in (1, 2):
                draws = ours.draws(len(pool.labels), epoch)
                found = list(on_device.epoch(draws, np.full(steps // 2, LR)))
                losses += [loss for loss, _ in found]
            if backend.capture and not on_device._graphs:
                lines.append("nothing was captured")
        return Run(losses, {**model.state_dict(), **_velocities(optimiser)}, lines)


def _velocities(optimiser: SGD) -> dict[str, npt.NDArray[Any]]:
    return {f"velocity {name}": v for name, v in optimiser.state_dict().items()}


def _on_host(
    model: Model, learn: Any, pool: TrainingData, draws: Sampling, batch: int
) -> list[float]:
    """Take the steps of an epoch on NumPy arrays, as `igc_ref.train` does."""
    b, losses = model.backend, []
    for start in range(0, len(pool.labels), batch):
        chosen = slice(start, start + batch)
        rows = draws.order[chosen]
        x = b.normalise(pool.images[rows], pool.mean, pool.std, model.dtype)
        assert draws.crops is not None
        x = b.pad_crop_mirror(x, *(draw[chosen] for draw in draws.crops), ours.PADDING)
        losses.append(float(learn(b.load(x), pool.labels[rows], LR)[0]))
    return losses


def against_float64(a: Architecture, options: Any) -> dict[str, Any]:
    """Compare losses and weights with NumPy in float64; NumPy in float32 sets the tolerance.

    Training amplifies rounding from step to step, so that no fixed number would mean much.
    """
    steps, batch = (8, 4) if options.tiny else (20, 32)
    exact = run(NumpyBackend(), a, steps, batch, dtype="float64")
    yardstick = _errors(run(NumpyBackend(), a, steps, batch), exact)
    with_graph = run(ours.make_backend(options.emulate), a, steps, batch)
    found = _errors(with_graph, exact)
    allowed = {name: max(LEAST, FACTOR * value) for name, value in yardstick.items()}
    return {
        "errors": found, "numpy float32": yardstick, "allowed": allowed, "lines": with_graph.lines,
        "passed": all(value <= allowed[name] for name, value in found.items())
        and not any("not captured" in line or "nothing" in line for line in with_graph.lines),
    }  # fmt: skip


def _errors(found: Run, exact: Run) -> dict[str, float]:
    """Return relative errors of the losses, and of all weights and of all velocities together."""
    losses = np.asarray(found.losses) - exact.losses
    errors = {"losses": float(np.linalg.norm(losses) / np.linalg.norm(exact.losses))}
    for kind in ("weights", "velocities"):
        names = [n for n in exact.state if n.startswith("velocity") == (kind == "velocities")]
        a, b = (np.concatenate([r.state[n].ravel() for n in names]) for r in (found, exact))
        errors[kind] = float(np.linalg.norm(a - b) / np.linalg.norm(b))
    return errors


def same_bits(a: Architecture, options: Any) -> dict[str, Any]:
    """Run captured twice, kernel by kernel, and with another seed: equal, equal, not equal."""
    steps, batch = (8, 4) if options.tiny else (20, 128)
    runs = {
        name: run(
            ours.make_backend(options.emulate, capture=name != "uncaptured"), a, steps, batch,
            seed=int(name == "other seed"),
        )
        for name in ("captured", "uncaptured", "again", "other seed")
    }  # fmt: skip
    found = {name: equal(runs["captured"], runs[name]) for name in list(runs)[1:]}
    finite = bool(np.isfinite(runs["captured"].losses).all())
    right = found == {"uncaptured": True, "again": True, "other seed": False}
    return {"same as captured": found, "finite": finite, "passed": right and finite}


def equal(one: Run, two: Run) -> bool:
    """Say whether two runs have the same bits."""
    same = all(np.array_equal(array, two.state[name]) for name, array in one.state.items())
    return same and one.losses == two.losses


def training_checks(section: Section, options: Any) -> None:
    """Run both checks for every network."""
    for a in TINY if options.tiny else NETWORKS:
        for name, f in (("float64", against_float64), ("bits", same_bits)):
            title = f"training {a} {name}"
            result = section.item(title, lambda f=f, a=a: f(a, options), 30)
            say(f"{'PASS' if result and result['passed'] else 'FAIL'} {title}: {result}")
