"""Paths of the ODE, of churn and of Restart: what every path must satisfy, and what each kind is."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import restart_sampling as rs
from restart_sampling.sampling.move import restart_jumps
from restart_sampling.sampling.solvers.by_name import SOLVERS, make_solver

EDM_18 = rs.karras_levels(18)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rs.ode_path([1.0]), "must fall"),
        (lambda: rs.ode_path([1.0, 1.0, 0.0]), "must fall"),
        (lambda: rs.ode_path([1.0, -0.1]), "must fall"),
        (lambda: rs.churn_path(EDM_18, s_churn=-1.0), "s_churn is -1"),
        (lambda: rs.restart_path(EDM_18, [], gamma=math.nan), "gamma is nan"),
        (lambda: rs.churn_path(EDM_18, s_churn=1.0, s_min=2.0, s_max=1.0), "is empty"),
        (lambda: rs.RestartInterval(1, 2, 0.1, 0.3), "N_restart = 1"),
        (lambda: rs.RestartInterval(3, 0, 0.1, 0.3), "K = 0"),
        (lambda: rs.RestartInterval(10.9, 2, 0.1, 0.3), "N_restart = 10.9; give a whole number"),
        (lambda: rs.RestartInterval(10, 2.9, 0.1, 0.3), "K = 2.9; give a whole number"),
        (lambda: rs.RestartInterval(3, 2, 0.3, 0.3), "t_min < t_max"),
        (lambda: rs.RestartInterval(3, 2, math.nan, 0.3), "t_min < t_max"),
        (lambda: rs.RestartInterval(3, 2, 0.1, math.inf), "finite"),
        (lambda: rs.restart_path(EDM_18, [rs.RestartInterval(3, 2, 0.1, 0.12)]), "which is not below t_max"),
        (lambda: rs.restart_path(EDM_18, [rs.RestartInterval(3, 2, 0.1, 81.0)]), "above sigma_max"),
        (lambda: rs.restart_path(EDM_18, [rs.RestartInterval(3, 2, 79.0, 80.0)]), "which is not below t_max"),
        (
            lambda: rs.restart_path(EDM_18, [rs.RestartInterval(3, 2, 0.1, 0.3), rs.RestartInterval(2, 1, 0.12, 0.4)]),
            r"\[3,2,0.1,0.3\] and \[2,1,0.12,0.4\] both snap to level 0.139516",
        ),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(rs.InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_numbers_of_numpy_are_numbers():
    interval = rs.RestartInterval(np.int64(3), np.int32(2), np.float64(0.06), np.float64(0.3))
    assert interval == rs.RestartInterval(3, 2, 0.06, 0.3)
    assert str(interval) == "[3,2,0.06,0.3]"


def test_levels_at_both_ends_of_the_churn_churn():
    path = rs.churn_path([4.0, 3.0, 2.0, 1.0, 0.0], s_churn=0.4, s_min=2.0, s_max=3.0)
    assert [rise.now for rise in path.rises] == [3.0, 2.0]


def test_t_min_never_snaps_to_level_0():
    assert rs.RestartInterval(3, 2, 0.0, 0.3).snap([1.0, 0.2, 0.1, 0.0]) == 0.1
    with pytest.raises(rs.InputError, match=r"snaps to the nearest level of the main grid, 0.5, which is not below"):
        rs.RestartInterval(3, 2, 0.0, 0.3).snap([1.0, 0.5, 0.0])


intervals = st.builds(
    lambda points, repeats, t_min, factor: rs.RestartInterval(points, repeats, t_min, min(t_min * factor, 79.0)),
    st.integers(2, 6),
    st.integers(1, 4),
    st.floats(0.003, 30.0),
    st.floats(2.0, 4.0),
)


@settings(deadline=None)
@given(
    st.integers(12, 40),
    st.lists(intervals, max_size=3),
    st.floats(0.0, 0.3),
    st.floats(0.0, 40.0),
    st.floats(0.0, 1.0),
    st.floats(1.0, 50.0),
)
def test_every_path_is_connected_and_counts_what_it_does(steps, plan, gamma, churn, s_min, s_max):
    levels = rs.karras_levels(steps)
    try:
        path = rs.restart_path(levels, plan, gamma=gamma, s_churn=churn, s_min=s_min, s_max=s_max)
    except rs.InputError:
        return
    moves = path.moves
    assert moves[0].now == levels[0]
    assert moves[-1].then == 0.0
    assert all(before.then == after.now for before, after in pairwise(moves))
    assert all(move.now != move.then for move in moves)
    main_falls = [move for move in moves if not move.restart and not move.rises]
    assert [move.left for move in main_falls] == list(reversed(range(steps)))
    assert all(move.left is None for move in moves if move.restart)
    # NFE of the paper, appendix C.2; churn costs nothing.
    extra = sum(each.repeats * 2 * (each.points - 1) for each in plan)
    assert path.nfe(rs.Heun()) == 2 * steps - 1 + extra
    assert path.nfe(rs.Euler()) == steps + extra // 2
    assert path.nfe(rs.Euler(), rs.Heun()) == steps + extra
    # One jump a repeat; every other rise is churn, from a level in [s_min, s_max].
    jumps = restart_jumps(moves)
    assert sum(jumps) == sum(each.repeats for each in plan)
    for move, jump in zip(moves, jumps, strict=True):
        if move.rises and not jump:
            assert s_min <= move.now <= s_max
            limit = gamma if move.restart else min(churn / steps, math.sqrt(2) - 1)
            assert move.then == pytest.approx(move.now * (1 + limit))
    assert path.schedule(rs.Heun())[-1] == (path.nfe(rs.Heun()), 0.0)


def test_restart_with_churn_is_two_rises():
    path = rs.restart_path(EDM_18, [rs.RestartInterval(3, 1, 0.06, 0.3)], gamma=0.05)
    index = next(index for index, move in enumerate(path.moves) if move.rises)
    first, second = path.moves[index : index + 2]
    assert (first.then, second.then) == (0.3, pytest.approx(0.315))


def test_ode_and_churn_are_restart_without_intervals():
    assert rs.ode_path(EDM_18) == rs.restart_path(EDM_18, [])
    assert rs.churn_path(EDM_18, 10.0, 0.1, 1.0) == rs.restart_path(EDM_18, [], s_churn=10.0, s_min=0.1, s_max=1.0)
    assert rs.churn_path(EDM_18, 0.0) == rs.ode_path(EDM_18)
    assert not rs.ode_path(EDM_18).rises


def test_levels_are_all_that_are_visited():
    path = rs.restart_path([3.0, 1.0, 0.0], [rs.RestartInterval(2, 2, 1.0, 2.0)])
    assert path.levels == (3.0, 1.0, 2.0, 1.0, 2.0, 1.0, 0.0)
    assert [move.left for move in path.moves] == [1, None, None, None, None, 0]
    assert [move.restart for move in path.moves] == [False, True, True, True, True, False]


def whole(level):
    return float(round(level))


def test_a_model_that_rounds_is_asked_as_often_as_the_plan_says():
    settings = {"gamma": 0.01, "grid": partial(rs.power_grid, rho=1.0)}
    levels, intervals = [3.1, 1.2, 1.1, 0.0], [rs.RestartInterval(3, 1, 1.2, 2.2)]
    path = rs.restart_path(levels, intervals, round_level=whole, **settings)
    assert path.levels == (3.0, 1.0, 2.0, 2.0, 1.0, 1.0, 0.0)
    assert [move.left for move in path.moves] == [2, None, None, None, 1, 0]
    for solver in map(make_solver, SOLVERS):
        assert path.nfe(solver) == rs.restart_path(levels, intervals, **settings).nfe(solver)


def test_two_levels_that_are_rounded_to_one_restart_once():
    path = rs.restart_path([9.0, 5.3, 5.1, 4.8, 0.0], [rs.RestartInterval(2, 2, 5.1, 7.0)], round_level=whole)
    assert path.levels == (9.0, 5.0, 5.0, 7.0, 5.0, 7.0, 5.0, 5.0, 0.0)


def test_levels_are_rounded_before_they_churn_and_after():
    """As in EDM's sampler: 1.2 is raised as 1 and not as 1.2, and 5.4 is within s_max as 5."""
    churn = rs.restart_path([9.0, 5.4, 1.2, 0.0], (), s_churn=1.0, s_max=5.2, round_level=lambda x: round(4 * x) / 4)
    assert [(rise.now, rise.then) for rise in churn.rises] == [(1.25, 1.75)]
    churn = rs.restart_path([9.0, 5.4, 1.2, 0.0], (), s_churn=0.9, s_max=5.2, round_level=whole)
    assert [(rise.now, rise.then) for rise in churn.rises] == [(5.0, 6.0)]


def test_a_restart_that_is_rounded_to_nothing_is_refused():
    levels = [9.0, 4.9, 0.4, 0.0]
    intervals = [rs.RestartInterval(3, 1, 0.4, 2.0), rs.RestartInterval(3, 2, 4.9, 5.3)]
    message = r"the restart from 4.9 up to 5.3 does nothing, as the model knows only 5 near both levels"
    with pytest.raises(rs.InputError, match=message):
        rs.restart_path(levels, intervals, round_level=lambda level: max(1.0, whole(level)))
    kept = rs.restart_path(levels, intervals, round_level=lambda level: max(0.5, round(2 * level) / 2))
    assert [(rise.now, rise.then) for rise in kept.rises] == [(5.0, 5.5)] * 2 + [(0.5, 2.0)]


def test_churn_that_is_rounded_to_nothing_is_left_out():
    levels, settings = [9.0, 5.0, 1.0, 0.0], {"gamma": 0.01, "s_churn": 0.1}
    rises = rs.restart_path(levels, [rs.RestartInterval(3, 1, 1.0, 3.0)], round_level=whole, **settings).rises
    assert len(rs.restart_path(levels, [rs.RestartInterval(3, 1, 1.0, 3.0)], **settings).rises) == 6
    assert [(rise.now, rise.then) for rise in rises] == [(1.0, 3.0)]


def test_explain_shows_grid_restarts_and_noise():
    text = rs.restart_path(EDM_18, [rs.RestartInterval(3, 2, 0.06, 0.3)], gamma=0.05, s_churn=1.8, s_min=0.2).explain()
    assert "main grid  18 steps: 80 57.59" in text
    assert "restart    2 x from 0.05995 up to 0.3 with noise of std 0.2939, then 2 steps: 0.3 0.1404 0.05995" in text
    assert "with churn in each pass: 0.3 to 0.315 (std 0.09605)" in text
    assert "churn      13 rises in the main grid: 80 to 88 (std 36.66)" in text
    flow = rs.restart_path([1.0, 0.5, 0.0], [rs.RestartInterval(2, 1, 0.5, 1.0)])
    assert "noise of std 1," in flow.explain(rs.FLOW)
