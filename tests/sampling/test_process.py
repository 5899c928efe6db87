"""Processes are made of coefficients; what is no process is refused."""

import math

import pytest
import torch

import restart_sampling as rs

OTHER = rs.Process("other", alpha_at_0=2.0, alpha_slope=-0.5, std_at_0=0.0, std_slope=3.0)


def test_highest_is_where_no_data_is_left():
    assert rs.VE.highest == math.inf
    assert rs.FLOW.highest == 1.0
    assert OTHER.highest == 4.0


@pytest.mark.parametrize("process", [rs.VE, rs.FLOW, OTHER])
def test_level_inverts_ratio_and_a_rise_keeps_the_marginals(process):
    for low, high in ((0.1, 0.2), (0.3, 0.9)):
        assert process.level(process.ratio(low)) == pytest.approx(low)
        keep, std = process.rise(low, high)
        assert keep * process.alpha(low) == pytest.approx(process.alpha(high))
        assert math.hypot(keep * process.std(low), std) == pytest.approx(process.std(high))


@pytest.mark.parametrize("process", [rs.VE, rs.FLOW, OTHER])
def test_velocity_is_the_slope_of_the_state(process):
    x0, n = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)

    def state(level):
        return process.alpha(level) * x0 + process.std(level) * n

    slope = (state(0.4) - state(0.2)) / 0.2
    torch.testing.assert_close(process.velocity(state(0.3), x0, 0.3), slope)


def test_a_schedule_that_is_not_linear_cannot_be_given():
    """A cosine schedule gave samples of std 0.557 for 0.500."""
    with pytest.raises(TypeError, match="alpha"):
        rs.Process("cosine", alpha=lambda t: math.cos(math.pi / 2 * t), std=lambda t: math.sin(math.pi / 2 * t))
    with pytest.raises(rs.InputError, match="alpha and std are linear in the level"):
        rs.Process("cosine", 1.0, lambda t: math.cos(t), 0.0, 1.0)


@pytest.mark.parametrize(
    "coefficients",
    [
        (0.0, 0.0, 0.0, 1.0),  # no data
        (-1.0, 0.0, 0.0, 1.0),
        (1.0, 0.5, 0.0, 1.0),  # data that grows
        (1.0, 0.0, 0.0, 0.0),  # no noise
        (1.0, 0.0, 1.0, -1.0),
        (1.0, -1.0, 1.0, -0.5),
        (1.0, 0.0, -1.0, 1.0),
        (1.0, -1.0, 0.5, -0.5),
        (1.0, 0.0, 0.5, 0.0),  # the ratio stays
        (1.0, -1.0, 0.1, 0.0),  # no level is without noise, where a stochastic solver lands
    ],
)
def test_nonsense_is_refused(coefficients):
    with pytest.raises(rs.InputError, match="std / alpha rise"):
        rs.Process("nonsense", *coefficients)


@pytest.mark.parametrize("value", [math.nan, math.inf, "1", True])
def test_coefficients_are_finite_numbers(value):
    with pytest.raises(rs.InputError, match="has the coefficients"):
        rs.Process("nonsense", 1.0, 0.0, 0.0, value)


def test_a_process_is_known_by_its_coefficients():
    assert rs.Process("my flow", 1.0, -1.0, 0.0, 1.0) == rs.FLOW
    with pytest.raises(AttributeError):
        rs.FLOW.std_slope = 2.0
