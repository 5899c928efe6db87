"""The noise paths of the ODE, of EDM's stochastic sampler and of Restart, over a main grid of falling levels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from math import inf, isfinite, sqrt

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import listed, real_number, require_kind
from restart_sampling.sampling.explain_moves import describe_levels
from restart_sampling.sampling.intervals import RestartInterval
from restart_sampling.sampling.levels import HIGHEST, Grid, as_levels, power_grid
from restart_sampling.sampling.path import Leg, NoisePath, path_of

MAX_FALLS = 100_000
"""Beyond any sampler; a slip of the finger would fill the memory with levels."""
MOST_CHURN = sqrt(2) - 1
"""The most that a rise of churn adds to a level, as a part of it (arXiv 2206.00364, algorithm 2)."""


def ode_path(levels: Sequence[float]) -> NoisePath:
    """Makes the path of the probability-flow ODE: falls only.

    Args:
        levels: falling; the last may be 0.

    Raises:
        InputError: fewer than two levels, or they do not fall.
    """
    return restart_path(levels, ())


def churn_path(levels: Sequence[float], s_churn: float, s_min: float = 0.0, s_max: float = inf) -> NoisePath:
    """Makes the path of EDM's stochastic sampler: a rise to (1 + gamma) t before each fall from a t in [s_min, s_max].

    gamma = min(s_churn / steps, sqrt(2) - 1). (S_noise belongs to the source of the noise.)

    Raises:
        InputError: the levels do not fall, or s_churn is negative.

    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 2.
    """
    return restart_path(levels, (), s_churn=s_churn, s_min=s_min, s_max=s_max)


def restart_path(
    levels: Sequence[float],
    intervals: Iterable[RestartInterval],
    *,
    gamma: float = 0.0,
    s_churn: float = 0.0,
    s_min: float = 0.0,
    s_max: float = inf,
    grid: Grid = power_grid,
    round_level: Callable[[float], float] = lambda level: level,
) -> NoisePath:
    """Makes the path of Restart: down `levels`, and at each interval's level up to its t_max and down again, K times.

    Args:
        levels: the main grid, falling; the last may be 0.
        intervals: in any order; each fires when the main grid reaches its snapped t_min.
        gamma: churn inside the restarts: a fall from a level t in [s_min, s_max] begins with a rise to (1 + gamma) t.
        s_churn: churn in the main grid, as in `churn_path`.
        s_min: lowest level that churns.
        s_max: highest level that churns.
        grid: the rule of the restart grids, grid(points, high, low), such as `power_grid`.
        round_level: rounds a level above 0 to one that the model knows (iDDPM). As in EDM's sampler, levels are rounded
            before they churn and once more after that, and a fall between levels that are rounded to one stays in the
            path: it costs its evaluations, and leaves the state as it is.

    Raises:
        InputError: an interval does not fit the grid or is rounded to one level, two intervals snap to one level, or a
            number is out of its range.

    Source: Restart sampling (arXiv 2306.14878), algorithm 2.
    """
    levels, intervals = _checked(levels, intervals)
    for name, value in (("gamma", gamma), ("s_churn", s_churn), ("s_min", s_min)):
        if not (isfinite(real_number(name, value)) and value >= 0):
            raise InputError(f"{name} is {value:g}; give a finite number, 0 or above")
    if not real_number("s_max", s_max) >= s_min:
        raise InputError(f"churn between s_min = {s_min:g} and s_max = {s_max:g} is empty; give s_min <= s_max")
    for name, function in (("grid", grid), ("round_level", round_level)):
        if not callable(function):
            raise InputError(f"{name} is of type {type(function).__name__}; give a function of levels")
    restarts = _by_level(intervals, levels)
    main_gamma = min(s_churn / (len(levels) - 1), MOST_CHURN)
    known = [round_level(level) if level > 0 else 0.0 for level in levels]

    def fall(now: float, then: float, restart: bool) -> Iterator[Leg]:
        churn = (gamma if restart else main_gamma) if s_min <= now <= s_max else 0.0
        raised = round_level(now * (1 + churn)) if churn else now
        if raised > HIGHEST:
            raise InputError(f"churn raises level {now:g} to {raised:g}, above {HIGHEST:g}; lower gamma = {gamma:g}")
        if raised > now:
            yield now, raised, restart
        yield raised, then, restart

    def restart(interval: RestartInterval, low: float) -> Iterator[Leg]:
        if round_level(interval.t_max) == low:
            raise InputError(
                f"the restart from {interval.t_min:.4g} up to {interval.t_max:.4g} does nothing, as the model knows "
                f"only {low:.4g} near both levels; widen the interval"
            )
        descent = [round_level(level) for level in grid(interval.points, interval.t_max, low)]
        for _ in range(interval.repeats):
            yield low, descent[0], True
            for now, then in pairwise(descent):
                yield from fall(now, then, restart=True)

    def legs() -> Iterator[Leg]:
        for (now, then), level in zip(pairwise(known), levels[1:], strict=True):
            yield from fall(now, then, restart=False)
            if interval := restarts.get(level):
                yield from restart(interval, then)

    return path_of(list(legs()))


def _checked(
    levels: Sequence[float], intervals: Iterable[RestartInterval]
) -> tuple[list[float], tuple[RestartInterval, ...]]:
    """Returns a main grid of floats that fall, and intervals, which take no more steps together than there can be.

    Raises:
        InputError: they are no such things.
    """
    grid, intervals = as_levels("the main grid", levels), listed("the list of restart intervals", intervals)
    for interval in intervals:
        require_kind("a restart interval", interval, RestartInterval, "RestartInterval(points, repeats, t_min, t_max)")
    if len(grid) < 2 or not grid[0] <= HIGHEST or grid[-1] < 0 or not all(then < now for now, then in pairwise(grid)):
        raise InputError(f"a main grid must fall from a finite level to 0 or above; given {describe_levels(grid)}")
    falls = len(grid) - 1 + sum(each.repeats * (each.points - 1) for each in intervals)
    if falls > MAX_FALLS:
        raise InputError(f"the sampler would take {falls:,} steps; at most {MAX_FALLS:,} are possible")
    return grid, intervals


def _by_level(intervals: Iterable[RestartInterval], levels: Sequence[float]) -> dict[float, RestartInterval]:
    """Returns the intervals by the levels of the main grid that their t_min snap to.

    Raises:
        InputError: two snap to one level, or one does not fit the grid.
    """
    restarts: dict[float, RestartInterval] = {}
    for interval in intervals:
        level = interval.snap(levels)
        if level in restarts:
            raise InputError(
                f"restart intervals {restarts[level]} and {interval} both snap to level {level:g} of the main grid; "
                f"move one of them or use more steps"
            )
        restarts[level] = interval
    return restarts
