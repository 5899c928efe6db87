"""Paths by their levels."""

import math

import pytest

import restart_sampling as rs


@pytest.mark.parametrize("name", rs.PRESETS)
def test_a_path_is_known_by_its_levels(name):
    """Restarts, churn and churn within restarts: which move is of which, and what is left of the main grid."""
    path = rs.Plan.parse(name).path()
    assert rs.NoisePath.through(path.levels) == path


def test_a_restart_that_is_cut_short_is_still_one():
    levels = rs.Plan.parse("6 [4,1,0.3,3]").path().levels
    top = levels.index(3.0)
    restart = [move.restart for move in rs.NoisePath.through(levels[: top + 2]).moves]
    assert restart == [False] * (top - 1) + [True] * 2


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([1.0], "at least two levels"),
        ([1.0, -0.1], "0 or above"),
        ([1.0, math.nan], "finite"),
        ([0.0, 1.0, 14.6], "ends with a rise, from 1 to 14.6; .*do not invert the ODE"),
    ],
)
def test_levels_of_no_path_are_refused(levels, message):
    with pytest.raises(rs.InputError, match=message):
        rs.NoisePath.through(levels)
