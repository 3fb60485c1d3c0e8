"""Numerical trust: derivatives to 1e-7, rounding within derived bounds, fifty steps, extremes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backends import trust_checks as checks
from tests.backends.trust_bounds import assert_rounding, assert_within, bounds, lengths
from tests.backends.trust_subjects import (
    BACKENDS,
    BILINEAR,
    CHECKED,
    EVERYWHERE,
    GATES,
    LAYERS,
    MISSING,
    MODES,
    MULTILINEAR,
    NETWORKS,
    NETWORKS_EVERYWHERE,
    PICTURES,
    PLAIN_IGC,
    Subject,
    build_kernels,
    drawn,
    fresh_backend,
    on,
    shared_backend,
    single,
)
from tests.support.strategies import seeds

few = settings(max_examples=6)


@pytest.fixture(autouse=True, scope="module")
def kernels():
    """Build the kernels of the emulated backend together: one after the other takes a minute."""
    if not MISSING["emulated"]:
        build_kernels()


# -- 1. derivatives --------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS[:2])
@pytest.mark.parametrize(("name", "train"), MODES)
def test_a_layer_s_gradients_are_its_derivatives_to_1e_7(backend, name, train):
    rng = np.random.default_rng(1)
    case = CHECKED[name]
    x, values, c = drawn(case, case.shape, rng, train)
    subject = Subject(case, fresh_backend(backend), "float64")
    errors = checks.derivative_errors(subject, x, values, c, train, rng)
    assert max(errors.values()) <= 1e-9, errors  # 1e-7 is asked for; 6e-11 was measured


@pytest.mark.parametrize("backend", BACKENDS[:2])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_a_network_s_gradients_are_its_derivatives_to_1e_7(backend, network, train):
    rng = np.random.default_rng(1)
    subject = Subject(network, fresh_backend(backend), "float64")
    x, values = rng.normal(size=(3, 3, 7, 5)), checks.state_of(network, rng)
    errors = checks.derivative_errors(subject, x, values, rng.normal(size=(3, 10)), train, rng)
    assert max(errors.values()) <= 1e-7, errors  # 4e-9 was measured


def test_the_check_finds_a_gradient_that_is_a_millionth_too_large():
    rng = np.random.default_rng(1)
    subject = Subject(PLAIN_IGC, backend := fresh_backend("numpy"), "float64")
    igc_backward = backend.igc_backward

    def planted(d, saved):
        dx, dprimary, dsecondary = igc_backward(d, saved)
        return dx, dprimary, dsecondary * (1 + 1e-6)

    backend.igc_backward = planted
    x, values = rng.normal(size=(3, 3, 7, 5)), checks.state_of(PLAIN_IGC, rng)
    errors = checks.derivative_errors(subject, x, values, rng.normal(size=(3, 10)), True, rng)
    wrong = {name for name, error in errors.items() if error > 1e-7}
    assert wrong == {f"stage{s}.block1.igc.secondary" for s in (1, 2, 3)}


def test_the_check_refuses_a_point_on_a_kink():
    case, rng = CHECKED["max pool"], np.random.default_rng(0)
    with pytest.raises(checks.KinkError):
        checks.derivative_errors(
            Subject(case, fresh_backend("numpy"), "float64"), np.zeros(case.shape), {},
            rng.normal(size=drawn(case, case.shape, rng)[2].shape), False, rng,
        )  # fmt: skip


# -- 2. float32 against float64 --------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_in_float32_errs_no_more_than_its_sums_allow(backend, name):
    case = LAYERS[name]
    for train in case.modes:
        x, values, d = drawn(case, case.shape, np.random.default_rng(1), train)
        assert_rounding(backend, case, x, values, d, train)


def test_the_bounds_find_what_was_computed_in_16_bits():
    for case in MULTILINEAR.values():
        x, values, d = drawn(case, case.shape, np.random.default_rng(1))
        actual = Subject(case, "numpy", "float64").run(x, values, d)
        allowed = bounds(case, "float32", x, values, d)
        for key in actual:
            spoiled = actual | {key: actual[key].astype("float16").astype("float32")}
            with pytest.raises(AssertionError, match="off; the worst"):
                assert_within(spoiled, actual, allowed)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("backend", "network"), NETWORKS_EVERYWHERE, ids=str)
def test_a_network_in_float32_errs_no_more_than_one_whose_weights_are_rounded(
    backend, network, train
):
    # At most as far as the exact network moves when every weight is off by 36 roundings, the
    # bound for a sum of 36 products: the network's own condition, not a guess. Measured: a quarter.
    inputs = checks.network_input(network)
    exact, allowed = checks.sensitivity(network, "float32", *inputs, train)
    off = checks.fractions(Subject(network, backend, "float32").run(*inputs, train), exact, allowed)
    assert max(off.values()) <= 1, off


# -- 3. fifty steps --------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "dtype"), EVERYWHERE[1:])
def test_fifty_steps_stay_together_on_all_backends(backend, dtype):
    # A step rounds in its sums, forward and back, beside its weights: ten times their rounding.
    far = checks.distance(checks.training_run(backend, dtype), checks.truth())
    assert (far <= 10 * checks.growth(dtype)).all(), far / checks.growth(dtype)
    if dtype == "float64":
        assert (far <= 1e-9).all()


def test_the_runs_learn_so_that_their_agreement_means_something():
    losses = checks.truth()[0]
    assert losses[-4:].mean() < 0.3 * losses[:4].mean()
    assert (checks.growth("float32") < 1e-4).all()


def test_the_comparison_of_runs_finds_one_gradient_a_hundred_thousandth_too_large():
    def planted(gradients):
        gradients["stage2.block1.igc.primary"] *= 1 + 1e-5

    far = checks.distance(checks.training_run("numpy", "float64", fault=planted), checks.truth())
    assert (far > 1e-9).all()
    planted_32 = checks.distance(checks.training_run("numpy", "float32", fault=lambda g: [
        array.__imul__(np.float32(1 + 1e-3)) for array in g.values()
    ]), checks.truth())  # fmt: skip
    assert (planted_32 > 10 * checks.growth("float32")).all()


# -- 4. properties ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "dtype"), EVERYWHERE)
@pytest.mark.parametrize("name", [*MULTILINEAR, "linear"])
@few
@given(seed=seeds, cut=st.integers(1, 5))
def test_the_order_and_the_parting_of_a_batch_change_a_layer_by_rounding(
    backend, dtype, name, seed, cut
):
    case, subject, x, values, d = on(backend, dtype, name, seed)
    whole, allowed = subject.run(x, values, d), bounds(case, dtype, x, values, d)
    order = np.random.default_rng(seed).permutation(len(x))
    cut = 3 if backend == "emulated" else cut  # every size is a build of its own
    mixed, joined = checks.rearranged(subject, x, values, d, False, order, cut)
    assert_within(mixed, whole, allowed, times=2)
    assert_within(joined, whole, allowed, times=3)


@pytest.mark.parametrize(("backend", "dtype"), EVERYWHERE)
@few
@given(seed=seeds)
def test_the_order_and_the_parting_of_a_batch_change_a_network_by_rounding(backend, dtype, seed):
    rng, subject = np.random.default_rng(seed), Subject(PLAIN_IGC, backend, dtype)
    x, values, d = rng.normal(size=PICTURES), checks.state_of(PLAIN_IGC, rng), rng.random((6, 10))
    for train in (True, False):
        _, allowed = checks.sensitivity(PLAIN_IGC, dtype, x, values, d, train)
        whole, order = subject.run(x, values, d, train), rng.permutation(6)
        mixed, joined = checks.rearranged(subject, x, values, d, train, order, 3)
        for other in (mixed,) if train else (mixed, joined):  # batch norm joins what it is given
            off = checks.fractions(other, whole, allowed)
            assert max(off.values()) <= 2, off  # both are rounded


@pytest.mark.parametrize(("backend", "dtype"), EVERYWHERE)
@pytest.mark.parametrize("name", MULTILINEAR)
@few
@given(seed=seeds, a=st.floats(-4, 4, width=16), b=st.floats(-4, 4, width=16))
def test_a_convolution_is_linear_in_the_pictures_and_in_every_weight(
    backend, dtype, name, seed, a, b
):
    case, subject, x, values, d = on(backend, dtype, name, seed)
    x2, values2, _ = drawn(case, case.shape, np.random.default_rng([seed, 1]))
    for key in ["x", *values]:
        one = values | {"x": x}
        two = one | {key: (values2 | {"x": x2})[key]}
        both = one | {key: a * one[key] + b * two[key]}
        y1, y2, y = (
            subject.forward(v["x"], {n: v[n] for n in values}).astype("float64")
            for v in (one, two, both)
        )
        large = one | {key: abs(a * one[key]) + abs(b * two[key])}
        allowed = bounds(case, dtype, large["x"], {n: large[n] for n in values}, d)["y"]
        assert (abs(y - (a * y1 + b * y2)) <= 3 * allowed + 1e-300).all(), key


@pytest.mark.parametrize(("backend", "dtype"), EVERYWHERE)
@pytest.mark.parametrize("name", BILINEAR)
@few
@given(seed=seeds, powers=st.tuples(*[st.integers(-25, 25)] * 4))
def test_powers_of_two_pass_through_a_convolution_bit_for_bit(backend, dtype, name, seed, powers):
    _, subject, x, values, d = on(backend, dtype, name, seed)
    p = dict(zip(["x", "d", *values], powers, strict=False))
    scaled = subject.run(
        np.ldexp(x, p["x"]), {n: np.ldexp(v, p[n]) for n, v in values.items()}, np.ldexp(d, p["d"])
    )
    of_weights = sum(p[n] for n in values)
    total = {"y": p["x"] + of_weights, "dx": p["d"] + of_weights}
    total |= {f"d {n}": p["x"] + p["d"] + of_weights - p[n] for n in values}
    for key, array in subject.run(x, values, d).items():
        assert np.array_equal(np.ldexp(array, total[key]), scaled[key]), key


# -- 5. extremes -----------------------------------------------------------------------------------

quiet = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy says what it overflows


@quiet
@pytest.mark.parametrize(("backend", "dtype"), EVERYWHERE)
def test_batch_norm_takes_a_power_of_two_away_bit_for_bit(backend, dtype):
    rng, subject = np.random.default_rng(0), Subject(PLAIN_IGC, backend, dtype)
    x, values = single(rng.normal(size=PICTURES)), checks.state_of(PLAIN_IGC, rng)
    large = np.ldexp(x, int(0.35 * np.finfo(dtype).maxexp))  # 2**44 in float32
    logits = subject.forward(np.ldexp(x, 35), values, train=True)  # eps is nothing beside these
    assert np.array_equal(subject.forward(large, values, train=True), logits)


@quiet
@pytest.mark.parametrize(("backend", "dtype"), EVERYWHERE)
@pytest.mark.parametrize("share", [0.6, 0.9])
def test_a_variance_beyond_the_dtype_is_no_number_and_never_a_picture(backend, dtype, share):
    rng, subject = np.random.default_rng(0), Subject(PLAIN_IGC, backend, dtype)
    x, values = single(rng.normal(size=PICTURES)), checks.state_of(PLAIN_IGC, rng)
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
@pytest.mark.parametrize("what", ["constant", "one picture", "one pixel", "first pixel bright"])
@pytest.mark.parametrize("level", [0.0, 1e-38, 0.1, 1e4])
def test_batch_norm_s_bounds_hold_without_variance_and_far_from_the_mean(backend, what, level):
    case, rng = LAYERS["batch norm"], np.random.default_rng(3)
    shape = {"one picture": (1, 3, 5, 3), "one pixel": (1, 3, 1, 1)}.get(what, case.shape)
    _, values, d = drawn(case, shape, rng)
    x = np.full(shape, level) if what == "constant" else level + rng.normal(size=shape)
    x[0, :, 0, 0] += 1e4 * (what == "first pixel bright")
    assert_rounding(backend, case, single(x), values, d, train=True)


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
    loss, _, d = backend.loss(backend.asarray(logits), backend.asarray(labels))
    assert float(loss) == pytest.approx((2e4 + np.log(2) + np.log(3) + 0) / 4, rel=1e-6)
    third = np.array([[1, -1, 0], [0, -0.5, 0.5], [-2 / 3, 1 / 3, 1 / 3], [0, 0, 0]]) / 4
    assert backend.to_numpy(d) == pytest.approx(third, abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_layer_that_is_shut_passes_constants_on_and_no_gradient_back(backend):
    rng, subject = np.random.default_rng(0), Subject(PLAIN_IGC, backend, "float32")
    values = checks.state_of(PLAIN_IGC, rng) | {"stem.bn.beta": np.full(4, -100.0)}
    results = subject.run(rng.normal(size=PICTURES), values, rng.normal(size=(6, 10)), train=True)
    assert all(np.isfinite(array).all() for array in results.values())
    assert not results["dx"].any()
    assert not results["d stem.conv.weight"].any()
    assert np.ptp(results["y"], axis=0).max() <= 1e-5


@pytest.mark.parametrize(("backend", "network"), NETWORKS_EVERYWHERE, ids=str)
def test_a_nan_in_any_weight_reaches_the_loss(backend, network):
    rng, subject = np.random.default_rng(0), Subject(network, backend, "float32")
    x, values = rng.normal(size=PICTURES), checks.state_of(network, rng)
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
def test_a_spoiled_picture_spoils_no_other(backend, bad):
    rng, subject = np.random.default_rng(0), Subject(PLAIN_IGC, backend, "float32")
    x, values = rng.normal(size=PICTURES), checks.state_of(PLAIN_IGC, rng)
    clean = subject.forward(x, values)
    x[2, 1, 3, 3] = bad
    with np.errstate(invalid="ignore"):
        logits = subject.forward(x, values)
    assert not np.isfinite(logits[2]).all()
    assert np.array_equal(np.delete(logits, 2, 0), np.delete(clean, 2, 0))


@quiet
@pytest.mark.parametrize(("backend", "dtype"), EVERYWHERE)
@pytest.mark.parametrize("name", MULTILINEAR)
def test_a_nan_spreads_to_what_depends_on_it_and_no_further(backend, dtype, name):
    _, subject, x, values, d = on(backend, dtype, name, 0)
    for where in ("x", "d"):
        for place in ([1, -1, 2, 2], [5, 0, 0, 0]):
            for key, found, reached in checks.spreading(
                subject, LAYERS[name], x, values, d, where, place
            ):
                assert found[reached].all(), (where, place, key)
                if key not in ("y", "dx"):  # of one pair of channels, padding may spread it
                    reached = reached.any(axis=(2, 3)[: reached.ndim - 2], keepdims=True)
                assert not found[np.broadcast_to(~reached, found.shape)].any(), (where, place, key)


@quiet
@pytest.mark.parametrize(("backend", "name"), GATES)
def test_an_infinite_gradient_passes_no_closed_gate(backend, name):
    _, subject, x, values, d = on(backend, "float32", name, 0)
    results = subject.run(x, values, np.full_like(d, np.inf))
    assert not np.isnan(results["dx"]).any()
