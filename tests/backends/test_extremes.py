"""Extremes: no variance, huge and tiny numbers, NaN and infinities, on every backend."""

import numpy as np
import pytest

from tests.support.rounding import assert_rounding, lengths
from tests.support.subjects import (
    BACKENDS,
    BATCH,
    BILINEAR,
    EVERYWHERE,
    LAYERS,
    MULTILINEAR,
    NETWORKS_EVERYWHERE,
    PLAIN_IGC,
    Subject,
    drawn,
    kernels,
    on,
    shared_backend,
    single,
    state_of,
)

built_ahead = kernels  # a fixture of this module
quiet = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy says what it overflows


@quiet
@pytest.mark.parametrize(("backend", "dtype"), EVERYWHERE)
def test_batch_norm_takes_a_power_of_two_away_bit_for_bit(backend, dtype):
    rng, subject = np.random.default_rng(0), Subject(PLAIN_IGC, backend, dtype)
    x, values = single(rng.normal(size=BATCH)), state_of(PLAIN_IGC, rng)
    large = np.ldexp(x, int(0.35 * np.finfo(dtype).maxexp))  # 2**44 in float32
    logits = subject.forward(np.ldexp(x, 35), values, train=True)  # eps is nothing beside these
    assert np.array_equal(subject.forward(large, values, train=True), logits)


@quiet
@pytest.mark.parametrize(("backend", "dtype"), EVERYWHERE)
@pytest.mark.parametrize("share", [0.6, 0.9])
def test_a_variance_beyond_the_dtype_is_no_number_and_never_an_image(backend, dtype, share):
    rng, subject = np.random.default_rng(0), Subject(PLAIN_IGC, backend, dtype)
    x, values = single(rng.normal(size=BATCH)), state_of(PLAIN_IGC, rng)
    large = np.ldexp(x, int(share * np.finfo(dtype).maxexp))  # 2**76, 2**115 in float32
    assert np.isnan(subject.forward(large, values, train=True)).all()


@quiet
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [1e-45, 1e-40, 1e-38, 1e-20, 1.0, 1e9, 1e17])
def test_batch_norm_s_bounds_hold_at_every_scale(backend, scale):
    case, rng = LAYERS["batch norm"], np.random.default_rng(3)
    _, values, d = drawn(case, case.shape, rng)
    x = single(rng.normal(size=case.shape) * scale)
    assert_rounding(backend, case, x, values, d, train=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", ["constant", "one image", "one pixel", "first pixel bright"])
@pytest.mark.parametrize("level", [0.0, 1e-38, 0.1, 1e4, 1e5, -1e5])
def test_batch_norm_s_bounds_hold_without_variance_and_far_from_the_mean(backend, what, level):
    case, rng = LAYERS["batch norm"], np.random.default_rng(3)
    shape = {"one image": (1, 3, 5, 3), "one pixel": (1, 3, 1, 1)}.get(what, case.shape)
    _, values, d = drawn(case, shape, rng)
    x = np.full(shape, level) if what == "constant" else level + rng.normal(size=shape)
    x[0, :, 0, 0] += 1e4 * (what == "first pixel bright")
    values["running_mean"] = single(x.mean(axis=(0, 2, 3)))
    for train in case.modes:
        assert_rounding(backend, case, single(x), values, d, train)


@quiet
@pytest.mark.parametrize(("backend", "dtype"), EVERYWHERE)
@pytest.mark.parametrize("name", BILINEAR)
def test_a_convolution_under_and_overflows_only_where_it_must(backend, dtype, name):
    case, subject, x, values, _ = on(backend, dtype, name, 0)
    info, y = np.finfo(dtype), subject.forward(x, values).astype("float64")
    tiny = info.minexp - 10  # 2**-136 in float32: three digits are left
    small = subject.forward(np.ldexp(x, tiny), values).astype("float64")
    K = sum(lengths(subject.layer, x.shape)["y"])
    steps = K * (1 + sum(abs(w).max() for w in values.values())) ** 2  # of K sums, mixed again
    assert abs(small - np.ldexp(y, tiny)).max() <= steps * float(info.smallest_subnormal)
    if name.startswith("conv"):
        large = subject.forward(np.ldexp(x, info.maxexp - 2), values)  # x itself is below 4
        terms = Subject(case, "numpy", "float64").forward(abs(x), {"weight": abs(values["weight"])})
        assert np.isfinite(large[terms < 3.999]).all()
        assert not np.isfinite(large[abs(y) > 4.001]).any()


@pytest.mark.parametrize(("backend", "dtype"), EVERYWHERE)
def test_logits_of_ten_thousand_have_a_loss_and_a_gradient(backend, dtype):
    backend = shared_backend(backend)
    logits = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 1e4], [-1e4] * 3, [0, 0, 1e4]], dtype)
    labels = np.array([1, 1, 0, 2])
    with np.errstate(all="raise"):  # a user may have asked for it; exp of -1e4 is 0
        loss, _, d = backend.loss(backend.asarray(logits), backend.asarray(labels))
    assert float(loss) == pytest.approx((2e4 + np.log(2) + np.log(3) + 0) / 4, rel=1e-6)
    third = np.array([[1, -1, 0], [0, -0.5, 0.5], [-2 / 3, 1 / 3, 1 / 3], [0, 0, 0]]) / 4
    assert backend.to_numpy(d) == pytest.approx(third, abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_layer_that_is_shut_passes_constants_on_and_no_gradient_back(backend):
    rng, subject = np.random.default_rng(0), Subject(PLAIN_IGC, backend, "float32")
    values = state_of(PLAIN_IGC, rng) | {"stem.bn.beta": np.full(4, -100.0)}
    results = subject.run(rng.normal(size=BATCH), values, rng.normal(size=(6, 10)), train=True)
    assert all(np.isfinite(array).all() for array in results.values())
    assert not results["dx"].any()
    assert not results["d stem.conv.weight"].any()
    assert np.ptp(results["y"], axis=0).max() <= 1e-5


@pytest.mark.parametrize(("backend", "network"), NETWORKS_EVERYWHERE, ids=str)
def test_a_nan_in_any_weight_reaches_the_loss(backend, network):
    rng, subject = np.random.default_rng(0), Subject(network, backend, "float32")
    shape = (6, 3, 12, 10) if network.family == "densenet" else BATCH  # or no image has 9 taps
    x, values = rng.normal(size=shape), state_of(network, rng)
    labels, b = rng.integers(0, 10, 6), subject.backend
    for name, array in values.items():
        spoiled = array.copy()
        spoiled.flat[rng.integers(array.size)] = np.nan
        for train in (False,) if "running" in name else (True, False):
            logits = subject.forward(x, values | {name: spoiled}, train)
            loss, _, _ = b.loss(b.asarray(logits), b.asarray(labels))
            assert np.isnan(float(loss)), (name, train)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_spoiled_image_spoils_no_other(backend, bad):
    rng, subject = np.random.default_rng(0), Subject(PLAIN_IGC, backend, "float32")
    x, values = rng.normal(size=BATCH), state_of(PLAIN_IGC, rng)
    clean = subject.forward(x, values)
    x[2, 1, 3, 3] = bad
    with np.errstate(invalid="ignore"):
        logits = subject.forward(x, values)
    assert not np.isfinite(logits[2]).all()
    assert np.array_equal(np.delete(logits, 2, 0), np.delete(clean, 2, 0))


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


@quiet
@pytest.mark.parametrize(("backend", "dtype"), EVERYWHERE)
@pytest.mark.parametrize("name", MULTILINEAR)
def test_a_nan_spreads_to_what_depends_on_it_and_no_further(backend, dtype, name):
    _, subject, x, values, d = on(backend, dtype, name, 0)
    for where in ("x", "d"):
        for place in ([1, -1, 2, 2], [5, 0, 0, 0]):
            for key, found, reached in spreading(subject, LAYERS[name], x, values, d, where, place):
                assert found[reached].all(), (where, place, key)
                if key not in ("y", "dx"):  # of one pair of channels, padding may spread it
                    reached = reached.any(axis=(2, 3)[: reached.ndim - 2], keepdims=True)
                elif backend == "numba" and name.startswith("wide"):  # it is in a whole tile's sums
                    tiles = np.logical_or.reduceat(reached, range(0, reached.shape[3], 4), axis=3)
                    reached = tiles.repeat(4, axis=3)[..., : reached.shape[3]]
                assert not found[np.broadcast_to(~reached, found.shape)].any(), (where, place, key)


@quiet
@pytest.mark.parametrize("name", ["batch norm, relu", "max pool"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_infinite_gradient_passes_no_closed_gate(backend, name):
    _, subject, x, values, d = on(backend, "float32", name, 0)
    results = subject.run(x, values, np.full_like(d, np.inf))
    assert not np.isnan(results["dx"]).any()
