"""Written derivatives against extrapolated differences, to 1e-7, on every layer and network."""

import numpy as np
import pytest

from tests.support.subjects import (
    BACKENDS,
    CHECKED,
    MODES,
    NETWORKS,
    PLAIN_IGC,
    Subject,
    drawn,
    fresh_backend,
    state_of,
)

STEPS = 10.0 ** np.array([-3, -3.5, -4, -4.5, -5, -5.5])


class KinkError(AssertionError):
    """No step is short enough to keep all ReLUs and maxima as they are."""


def watch(backend):
    """Note, from now on, which ReLUs are open, which pixels win, which gates stay; return notes."""
    notes = []

    def noting(name, note):
        operator = getattr(backend, name)

        def noted(*arguments, **options):
            y, saved = operator(*arguments, **options)
            if options.get("relu", True):
                notes.append(note(y, saved))
            return y, saved

        setattr(backend, name, noted)

    for name in ("add_relu", "batch_norm"):
        noting(name, lambda y, saved: np.asarray(backend.from_layout(y)) > 0)
    noting("activation", lambda y, saved: y > 0)
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


@pytest.mark.parametrize("backend", BACKENDS[:2])
@pytest.mark.parametrize(("name", "train"), MODES)
def test_a_layer_s_gradients_are_its_derivatives_to_1e_7(backend, name, train):
    rng = np.random.default_rng(1)
    case = CHECKED[name]
    x, values, c = drawn(case, case.shape, rng, train)
    subject = Subject(case, fresh_backend(backend), "float64")
    errors = derivative_errors(subject, x, values, c, train, rng)
    assert max(errors.values()) <= 1e-9, errors  # 1e-7 is asked for; 6e-11 was measured


@pytest.mark.parametrize("backend", BACKENDS[:2])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_a_network_s_gradients_are_its_derivatives_to_1e_7(backend, network, train):
    rng = np.random.default_rng(1)
    subject = Subject(network, fresh_backend(backend), "float64")
    x, values = rng.normal(size=(3, 3, 7, 5)), state_of(network, rng)
    errors = derivative_errors(subject, x, values, rng.normal(size=(3, 10)), train, rng)
    assert max(errors.values()) <= 1e-7, errors  # 4e-9 was measured


def test_the_check_finds_a_gradient_that_is_a_millionth_too_large():
    rng = np.random.default_rng(1)
    subject = Subject(PLAIN_IGC, backend := fresh_backend("numpy"), "float64")
    igc_backward = backend.igc_backward

    def planted(d, saved):
        dx, dprimary, dsecondary = igc_backward(d, saved)
        return dx, dprimary, dsecondary * (1 + 1e-6)

    backend.igc_backward = planted
    x, values = rng.normal(size=(3, 3, 7, 5)), state_of(PLAIN_IGC, rng)
    errors = derivative_errors(subject, x, values, rng.normal(size=(3, 10)), True, rng)
    wrong = {name for name, error in errors.items() if error > 1e-7}
    assert wrong == {f"stage{s}.block1.igc.secondary" for s in (1, 2, 3)}


def test_the_check_refuses_a_point_on_a_kink():
    case, rng = CHECKED["max pool"], np.random.default_rng(0)
    with pytest.raises(KinkError):
        derivative_errors(
            Subject(case, fresh_backend("numpy"), "float64"), np.zeros(case.shape), {},
            rng.normal(size=drawn(case, case.shape, rng)[2].shape), False, rng,
        )  # fmt: skip
