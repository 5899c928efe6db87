"""Grids of noise levels: both ends exact, and spaced as they say."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import restart_sampling as rs


@given(st.integers(2, 60), st.floats(1e-4, 1.0), st.floats(1.5, 200.0), st.floats(0.5, 12.0))
def test_grids_fall_between_exact_ends(steps, low, high, rho):
    levels = rs.karras_levels(steps, low, high, rho)
    assert len(levels) == steps + 1
    assert (levels[0], levels[-2], levels[-1]) == (high, low, 0.0)
    assert all(now > then for now, then in pairwise(levels))


def test_grid_is_the_formula_of_edm():
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    assert rs.karras_levels(18)[:-1] == pytest.approx(expected, rel=1e-12)
    assert rs.karras_levels(1) == (80.0, 0.0)
    assert rs.power_grid(3, 1.0, 0.0, rho=1.0) == (1.0, 0.5, 0.0)


def test_other_grids_are_even_in_what_they_say():
    logs = rs.log_grid(5, 80.0, 0.002)
    assert [math.log(now / then) for now, then in pairwise(logs)] == pytest.approx([math.log(40000) / 4] * 4)
    # sigma² + 1 = exp(19.9 t² / 2 + 0.1 t): t is even, from 1 to 1e-3 for the ends of the VP models.
    high, low = (math.sqrt(math.expm1(19.9 * t**2 / 2 + 0.1 * t)) for t in (1.0, 1e-3))
    assert (high, low) == pytest.approx((152.167, 0.010486), rel=1e-4)
    times = [(math.sqrt(0.01 + 39.8 * math.log1p(sigma**2)) - 0.1) / 19.9 for sigma in rs.vp_time_grid(6, high, low)]
    assert times == pytest.approx([1 - i / 5 * 0.999 for i in range(6)])
    for grid in (rs.log_grid, rs.vp_time_grid, rs.power_grid):
        levels = grid(7, 3.0, 0.1)
        assert (levels[0], levels[-1], len(levels)) == (3.0, 0.1, 7)
        assert grid(1, 3.0, 0.1) == (3.0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rs.log_grid(3, 1.0, 0.0), "cannot end at level 0"),
        (lambda: rs.vp_time_grid(3, 1.0, 2.0), "cannot fall from 1 to 2"),
        (lambda: rs.karras_levels(0), "0 steps"),
        (lambda: rs.karras_levels(5, sigma_min=0.0), "sigma_min is 0"),
        (lambda: rs.karras_levels(5, sigma_min=2.0, sigma_max=1.0), "cannot fall from 1 to 2"),
        (lambda: rs.power_grid(0, 1.0, 0.0), "0 points"),
        (lambda: rs.power_grid(3, math.nan, 0.0), "cannot fall from nan"),
        (lambda: rs.power_grid(3, 1.0, 0.0, rho=0.0), "rho is 0"),
        (lambda: rs.power_grid(3, 80.0, 0.002, rho=1e-3), "rho is 0.001, too small for levels of 80"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(rs.InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
