"""Schedules and the optimiser."""

import numpy as np
import pytest

from igc_ref import TrainConfig, build_model
from igc_ref.errors import SpecError
from igc_ref.testing import assert_close
from igc_ref.training.optim import SGD, learning_rate


def test_the_step_schedule_divides_by_ten_at_one_half_three_quarters_and_seven_eighths():
    rates = [learning_rate("step", 0.1, step, 400) for step in range(400)]
    expected = [0.1] * 200 + [0.01] * 100 + [0.001] * 50 + [0.0001] * 50
    assert rates == pytest.approx(expected)


def test_the_one_cycle_schedule_rises_for_a_quarter_and_falls_to_nothing():
    rates = [learning_rate("onecycle", 0.2, step, 400) for step in range(400)]
    assert np.argmax(rates) in (99, 100)
    assert max(rates) == pytest.approx(0.2, rel=0.01)
    assert (np.diff(rates[:100]) > 0).all()
    assert (np.diff(rates[100:]) < 0).all()
    assert 0 < rates[-1] < 0.001
    assert 0 < rates[0] < 0.002
    assert np.mean(rates) == pytest.approx(0.1, rel=1e-3)


def test_every_step_of_the_shortest_run_has_a_positive_learning_rate():
    assert learning_rate("onecycle", 0.2, 0, 1) > 0
    assert learning_rate("step", 0.2, 0, 1) == 0.2


def test_an_unknown_schedule_is_refused():
    with pytest.raises(SpecError, match="schedule='nope' is unknown; choose one of step"):
        learning_rate("nope", 0.1, 0, 10)


def test_the_optimiser_moves_every_parameter_by_the_recurrence_and_decays_all_of_them():
    model = build_model("plain", 5, width=2, backend="numpy", dtype="float64")
    optimiser = SGD(model, momentum=0.9, weight_decay=0.01)
    rng = np.random.default_rng(0)
    expected = {name: p.copy() for name, p in model.parameters().items()}
    velocity = {name: np.zeros_like(p) for name, p in expected.items()}
    for lr in (0.1, 0.05):
        model.backward(rng.normal(size=model.forward(rng.normal(size=(2, 3, 8, 8))).shape))
        for name, gradient in model.gradients().items():
            g = gradient + 0.01 * expected[name]
            velocity[name] = 0.9 * velocity[name] + g
            expected[name] = expected[name] - lr * (g + 0.9 * velocity[name])
        optimiser.step(lr)
    for name, parameter in model.parameters().items():
        assert_close(parameter, expected[name], 10)
        assert_close(optimiser.state_dict()[name], velocity[name], 10)


def test_the_optimiser_s_defaults_are_those_of_a_run():
    optimiser, config = SGD(build_model("plain", 5, width=2, backend="numpy")), TrainConfig()
    assert (optimiser.momentum, optimiser.weight_decay) == (config.momentum, config.weight_decay)
