"""Derivatives by extrapolated differences that see kinks, and training runs that are shaken."""

from functools import lru_cache

import numpy as np

from igc_ref.networks.model import build
from igc_ref.training.optim import SGD
from tests.backends.trust_bounds import rounding
from tests.backends.trust_subjects import PICTURES, PLAIN_IGC, Subject, fresh_backend, single

STEPS = 10.0 ** np.array([-3, -3.5, -4, -4.5, -5, -5.5])


class KinkError(AssertionError):
    """No step is short enough to keep all ReLUs and maxima as they are."""


def watch(backend):
    """Note, from now on, which ReLUs are open and which pixels win; return the list of notes."""
    notes = []

    def noting(name, note):
        operator = getattr(backend, name)

        def noted(*arguments, **options):
            y, saved = operator(*arguments, **options)
            if options.get("relu", True):
                notes.append(note(y, saved))
            return y, saved

        setattr(backend, name, noted)

    for name in ("relu", "add_relu", "batch_norm"):
        noting(name, lambda y, saved: np.asarray(backend.from_layout(y)) > 0)
    noting("max_pool", lambda y, saved: saved.winner.copy())
    return notes


def derivative_errors(subject, x, values, c, train, rng):
    """Relative errors, by name, of the written derivatives of <c, y>, along one direction each.

    A direction is random, plus twice the written gradient at unit length: the derivative along it
    cannot cancel to nothing, so that its relative error means something. Differences over h and
    h/2 are extrapolated (Richardson): what is left is of order h**4 and rounding of order eps/h.
    """
    notes = watch(subject.backend)

    def moved(name, step):
        notes.clear()
        to = {n: a + step if n == name else a for n, a in (values | {"x": x}).items()}
        y = subject.forward(to.pop("x"), to, train)
        return y, [note.tobytes() for note in notes]

    written = subject.run(x, values, c, train)
    _, here = moved(None, 0)
    errors = {}
    for name in ["x", *subject.arrays("parameters")]:
        g = written["dx" if name == "x" else f"d {name}"]
        v = rng.normal(size=g.shape)
        v *= np.sign(np.vdot(g, v)) or 1
        v += 2 * g / (np.linalg.norm(g) or 1)
        for h in STEPS:
            (up, a), (down, b), (half_up, e), (half_down, f) = (
                moved(name, t * h * v) for t in (1, -1, 0.5, -0.5)
            )
            if a == b == e == f == here:
                break
        else:
            raise KinkError(f"{name}: a ReLU or a maximum changes within {h:.1g}")
        coarse, fine = np.vdot(c, up - down) / (2 * h), np.vdot(c, half_up - half_down) / h
        numerical = (4 * fine - coarse) / 3
        errors[name] = abs(numerical - np.vdot(g, v)) / max(abs(numerical), 1e-300)
    return errors


# -- fifty steps -----------------------------------------------------------------------------------


def training_run(backend, dtype, shake=0.0, seed=0, steps=50, lr=0.1, fault=None):
    """Losses and final weights of a run on four small batches.

    ``shake``: before every step each weight is multiplied by 1 + shake*(random in -1..1), which is
    what rounding the weights to a dtype of such an epsilon/2 does.
    """
    backend = fresh_backend(backend)
    model = build(PLAIN_IGC, backend, dtype, seed=0)
    rng, noise, losses = np.random.default_rng(7), np.random.default_rng(seed), []
    images = rng.normal(size=(4, *PICTURES)).astype("float32").astype(dtype)
    labels = rng.integers(0, 10, (4, PICTURES[0]))
    optimiser = SGD(model)
    for step in range(steps):
        if shake:
            for weight in model.parameters().values():
                weight *= 1 + shake * noise.uniform(-1, 1, weight.shape)
        logits = model.forward(backend.asarray(images[step % 4]), train=True)
        loss, _, dlogits = backend.loss(logits, backend.asarray(labels[step % 4]))
        model.backward(dlogits, input_gradient=False)
        if fault:
            fault(model.gradients())
        optimiser.step(lr)
        losses.append(float(loss))
    return np.array(losses), model.state_dict()


def distance(run, truth):
    """How far a run is from the true one: greatest difference of losses, of weights (relative)."""
    (losses, weights), (true_losses, true_weights) = run, truth
    return np.array([
        abs(losses - true_losses).max(),
        max(
            np.linalg.norm(weights[name] - array) / np.linalg.norm(array)
            for name, array in true_weights.items()
        ),
    ])  # fmt: skip


def state_of(what, rng):
    """Values for a network: its own fresh weights, affine numbers and statistics that matter."""
    model = build(what, fresh_backend("numpy"), "float64", seed=3)
    values = {}
    for name, array in model.state_dict().items():
        random = {"gamma": rng.uniform(0.5, 1.5, array.shape), "beta": rng.normal(size=array.shape)}
        random |= {"running_mean": random["beta"] / 4, "running_var": random["gamma"]}
        values[name] = single(random.get(name.rsplit(".", 1)[-1], array))
    return values


# -- measures of growth --------------------------------------------------------------------------


def network_input(network):
    """Pictures, values and a cotangent for a network, exact in float32."""
    rng = np.random.default_rng(2)
    return (
        single(rng.normal(size=PICTURES)),
        state_of(network, rng),
        single(rng.normal(size=(6, 10))),
    )


def sensitivity(network, dtype, x, values, d, train):
    """How far, in norm, each result of a network moves when weights are rounded; in float64.

    Every weight is off by what a sum of 36 products may be: by 36 roundings of the dtype. The
    gradient of the last bias does not move at all; what rounds there is its own sum.
    """
    truth, noise = Subject(network, "numpy", "float64"), np.random.default_rng(0)
    exact, shake = truth.run(x, values, d, train), rounding(dtype, 36)
    allowed = {n: rounding(dtype, len(x)) * np.linalg.norm(a) for n, a in exact.items()}
    for _ in range(2):
        shaken = {n: a * (1 + shake * noise.uniform(-1, 1, a.shape)) for n, a in values.items()}
        moved = truth.run(x, shaken, d, train)
        for name, array in exact.items():
            allowed[name] = max(allowed[name], np.linalg.norm(moved[name] - array))
    return exact, allowed


def fractions(actual, expected, allowed):
    """Errors in norm as fractions of what is allowed."""
    return {n: np.linalg.norm(actual[n] - expected[n]) / max(allowed[n], 1e-300) for n in expected}


@lru_cache
def truth():
    return training_run("numpy", "float64")


@lru_cache
def growth(dtype):
    """How far fifty steps carry a relative rounding of every weight at every step: measured."""
    shake = float(np.finfo(dtype).eps) / 2
    runs = [training_run("numpy", "float64", shake, seed) for seed in (1, 2, 3)]
    return np.max([distance(run, truth()) for run in runs], axis=0)


def rearranged(subject, x, values, d, train, order, cut):
    """Results for the pictures in another order, and joined from two parts of the batch."""
    mixed = subject.run(x[order], values, d[order], train)
    mixed |= {key: mixed[key][np.argsort(order)] for key in ("y", "dx")}
    one, two = (subject.run(x[p], values, d[p], train) for p in (slice(cut), slice(cut, None)))
    joined = {key: one[key] + two[key] for key in one if key.startswith("d ")}
    return mixed, joined | {key: np.concatenate([one[key], two[key]]) for key in ("y", "dx")}


def spreading(subject, case, x, values, d, where, place):
    """For one NaN in x or in d: for every result, which numbers are NaN and which depend on it.

    What depends on it is what the same layer, with ones for weights, makes of a single one.
    """
    spoiled = {"x": x, "d": d}
    at = tuple(np.minimum(place[: spoiled[where].ndim], np.array(spoiled[where].shape) - 1))
    spoiled[where] = spoiled[where].copy()
    spoiled[where][at] = np.nan
    found = subject.run(spoiled["x"], values, spoiled["d"])
    spots = {"x": np.ones_like(x), "d": np.ones_like(d)}
    spots[where] *= 0
    spots[where][at] = 1
    ones = {name: np.ones_like(array) for name, array in values.items()}
    reached = Subject(case, "numpy", "float64").run(spots["x"], ones, spots["d"])
    for key in found.keys() - {"dx" if where == "x" else "y"}:
        yield key, np.isnan(found[key]), reached[key] > 0
