"""Noise paths: every sampler is a list of falls (ODE steps) and rises (fresh noise) between levels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, isfinite, sqrt
from typing import TypeVar

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import real_number, require_kind, whole_number
from restart_sampling.sampling.explain_moves import describe_levels, explain_moves
from restart_sampling.sampling.levels import HIGHEST, Grid, power_grid
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.process import VE, Process
from restart_sampling.sampling.solvers.protocol import Solver, require_solvers

T = TypeVar("T")

MAX_FALLS = 100_000
"""Beyond any sampler; a slip of the finger would fill the memory with levels."""
MOST_CHURN = sqrt(2) - 1
"""The most that a rise of churn adds to a level, as a part of it (arXiv 2206.00364, algorithm 2)."""


@dataclass(frozen=True)
class RestartInterval:
    """One restart: `repeats` times back up from t_min to t_max, and down again over `points` levels.

    Written [points, repeats, t_min, t_max], the order of the paper's tables: [N_restart, K, t_min, t_max].

    Attributes:
        points: levels of each descent, both ends counted, so points - 1 steps; at least 2.
        repeats: how often, at least 1.
        t_min: where the restart begins and ends; snaps to the nearest level of the main grid.
        t_max: how far up it goes; used as given.

    Raises:
        InputError: a number is out of its range.

    Source: Restart sampling (arXiv 2306.14878), section 3 and tables 3 and 5.
    """

    points: int
    repeats: int
    t_min: float
    t_max: float

    def __post_init__(self) -> None:
        for name in ("t_min", "t_max"):
            object.__setattr__(self, name, real_number(f"restart interval {self}: {name}", getattr(self, name)))
        for symbol, name in (("N_restart", "points"), ("K", "repeats")):
            object.__setattr__(self, name, whole_number(f"restart interval {self}: {symbol}", getattr(self, name)))
        if self.points < 2:
            raise InputError(
                f"restart interval {self}: N_restart = {self.points}, but it counts both ends; give at least 2"
            )
        if self.repeats < 1:
            raise InputError(f"restart interval {self}: K = {self.repeats}; give at least 1 repeat")
        if not (isfinite(self.t_max) and 0 <= self.t_min < self.t_max):
            raise InputError(f"restart interval {self}: give finite noise levels with 0 <= t_min < t_max")

    def __str__(self) -> str:
        return f"[{self.points},{self.repeats},{format_number(self.t_min)},{format_number(self.t_max)}]"

    def snap(self, levels: Sequence[float]) -> float:
        """Finds the positive level of `levels` that is nearest to t_min.

        Raises:
            InputError: the restart from that level does not rise, or rises above the first level; or there is none.
        """
        levels = _numbers("the main grid", levels)
        if not any(level > 0 for level in levels):
            raise InputError(f"the main grid {levels} has no level above 0; give falling levels such as [80, 5, 0]")
        level = min((level for level in levels if level > 0), key=lambda level: abs(level - self.t_min))
        if self.t_max > levels[0]:
            raise InputError(
                f"restart interval {self}: t_max is above sigma_max, the first level of the main grid; "
                f"give t_max <= {levels[0]:g}"
            )
        if level >= self.t_max:
            raise InputError(
                f"restart interval {self}: t_min snaps to the nearest level of the main grid, {level:g}, "
                f"which is not below t_max; widen the interval or use more steps"
            )
        return level


def check_levels(intervals: Iterable[RestartInterval], process: Process) -> None:
    """Makes sure that restarts are given in the levels of a process.

    Raises:
        InputError: one rises above them all, as intervals in sigma do for a flow, whose levels are t.
    """
    for each in intervals:
        if each.t_max > process.highest:
            low, high = (float(f"{process.level(ratio):.3g}") for ratio in (each.t_min, each.t_max))
            raise InputError(
                f"restart interval {each}: t_max is above {process.highest:g}, the level of pure noise of the process "
                f"{process.name}; a restart keeps some of the data, so give a t_max well below it"
                + f"; these levels as sigma are {replace(each, t_min=low, t_max=high)}"
                * (low < high)
            )


def cap(intervals: Iterable[RestartInterval], levels: Sequence[float]) -> tuple[RestartInterval, ...]:
    """Fits restarts to a main grid that begins late, on data that are noised to its first level (image-to-image).

    None rises above that level: t_max is lowered to it, and restarts whose t_min would snap to it are left out.
    """
    start, second = levels[:2]
    below = (start + second) / 2 if second > 0 else 0.0  # from here on, t_min does not snap to the first level
    return tuple(replace(each, t_max=min(each.t_max, start)) for each in intervals if each.t_min < below)


@dataclass(frozen=True)
class NoisePath:
    """A sampler: the moves from the first noise level to the last.

    `ode_path`, `churn_path`, `restart_path` and `Plan.path` make them.

    Attributes:
        moves: each begins at the level where the one before it ended.
    """

    moves: tuple[Move, ...]

    @classmethod
    def through(cls, levels: Sequence[float]) -> "NoisePath":
        """Makes the path that visits these levels, rises included: the inverse of `levels`.

        A rise from which the levels come back to where it began is the jump of a restart; one that they fall past is
        churn.

        Raises:
            InputError: fewer than two levels, one is not a finite number, 0 or above, or the last move rises.
        """
        levels = _numbers("the list of levels", levels)
        if len(levels) < 2 or not all(0 <= level <= HIGHEST for level in levels):
            raise InputError(f"a path has at least two levels, finite and 0 or above; given {describe_levels(levels)}")
        if levels[-1] > levels[-2]:
            raise InputError(
                f"the path ends with a rise, from {levels[-2]:.4g} to {levels[-1]:.4g}; a rise adds noise, and falls "
                f"have to follow it (rising levels do not invert the ODE)"
            )
        legs: list[tuple[float, float, bool]] = []
        restart_ends = 0
        for index, (now, then) in enumerate(pairwise(levels)):
            if then > now and index >= restart_ends:
                back = next((place for place in range(index + 1, len(levels)) if levels[place] <= now), len(levels))
                churn = back < len(levels) and levels[back] < now
                restart_ends = index if churn else back
            legs.append((now, then, index < restart_ends))
        return _path(legs)

    @property
    def levels(self) -> tuple[float, ...]:
        """Every level that is visited, in order; the state that `follow` takes is at the first."""
        return (self.moves[0].now, *(move.then for move in self.moves))

    @property
    def rises(self) -> tuple[Move, ...]:
        """The moves that add noise, in order: rise k takes draw k of each seed (with an ODE solver; the falls of a
        stochastic one take draws too)."""
        return tuple(move for move in self.moves if move.rises)

    def nfe(self, solver: Solver, restart_solver: Solver | None = None) -> int:
        """Counts the calls of the denoiser, with `restart_solver` (default: `solver`) in the restart intervals."""
        pairs = self._with_solvers(solver, restart_solver)
        return sum(active.evaluations(move) for move, active in pairs if not move.rises)

    def _with_solvers(self, solver: Solver, restart_solver: Solver | None) -> Iterator[tuple[Move, Solver]]:
        restart_solver = restart_solver or solver
        require_solvers(solver, restart_solver)
        for move in self.moves:
            yield move, restart_solver if move.restart else solver

    def noisy_falls(self, solver: Solver, restart_solver: Solver | None = None, process: Process = VE) -> list[Move]:
        """Lists the falls in which a stochastic solver adds noise; solvers as of `nfe`."""
        pairs = self._with_solvers(solver, restart_solver)
        return [move for move, active in pairs if not move.rises and active.landing(move, process) < move.then]

    def schedule(self, solver: Solver, restart_solver: Solver | None = None) -> list[tuple[int, float]]:
        """Lists what a figure of the path shows: (evaluations so far, level) before the first move and after each."""
        points, spent = [(0, self.levels[0])], 0
        for move, active in self._with_solvers(solver, restart_solver):
            spent += 0 if move.rises else active.evaluations(move)
            points.append((spent, move.then))
        return points

    def check_levels(self, process: Process) -> None:
        """Makes sure that all levels are ones of a process.

        Raises:
            InputError: the path goes higher, or it is no process.
        """
        require_kind("the process", process, Process, "rs.VE or rs.FLOW")
        if max(self.levels) > process.highest:
            raise InputError(
                f"the path goes up to level {max(self.levels):g}, and the highest of the process {process.name} is "
                f"{process.highest:g}; give levels, restarts and churn (s_max) that stay below it, or another process"
            )

    def explain(self, process: Process = VE) -> str:
        """Says in words and numbers what the path is: main grid, restarts, and the std of the noise of each rise.

        Raises:
            InputError: as `check_levels`.
        """
        self.check_levels(process)
        return explain_moves(self.moves, process)


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

    def fall(now: float, then: float, restart: bool) -> Iterator[tuple[float, float, bool]]:
        churn = (gamma if restart else main_gamma) if s_min <= now <= s_max else 0.0
        raised = round_level(now * (1 + churn)) if churn else now
        if raised > HIGHEST:
            raise InputError(f"churn raises level {now:g} to {raised:g}, above {HIGHEST:g}; lower gamma = {gamma:g}")
        if raised > now:
            yield now, raised, restart
        yield raised, then, restart

    def restart(interval: RestartInterval, low: float) -> Iterator[tuple[float, float, bool]]:
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

    def legs() -> Iterator[tuple[float, float, bool]]:
        for (now, then), level in zip(pairwise(known), levels[1:], strict=True):
            yield from fall(now, then, restart=False)
            if interval := restarts.get(level):
                yield from restart(interval, then)

    return _path(list(legs()))


def _checked(
    levels: Sequence[float], intervals: Iterable[RestartInterval]
) -> tuple[list[float], tuple[RestartInterval, ...]]:
    """Returns a main grid of floats that fall, and intervals, which take no more steps together than there can be.

    Raises:
        InputError: they are no such things.
    """
    grid, intervals = _numbers("the main grid", levels), _listed("the list of restart intervals", intervals)
    for interval in intervals:
        require_kind("a restart interval", interval, RestartInterval, "RestartInterval(points, repeats, t_min, t_max)")
    if len(grid) < 2 or not grid[0] <= HIGHEST or grid[-1] < 0 or not all(then < now for now, then in pairwise(grid)):
        raise InputError(f"a main grid must fall from a finite level to 0 or above; given {describe_levels(grid)}")
    falls = len(grid) - 1 + sum(each.repeats * (each.points - 1) for each in intervals)
    if falls > MAX_FALLS:
        raise InputError(f"the sampler would take {falls:,} steps; at most {MAX_FALLS:,} are possible")
    return grid, intervals


def _numbers(role: str, levels: Iterable[float]) -> list[float]:
    return [real_number("a level", level) for level in _listed(role, levels)]


def _listed(role: str, values: Iterable[T]) -> tuple[T, ...]:
    try:
        return tuple(values)
    except TypeError:
        raise InputError(f"{role} is of type {type(values).__name__}; give a sequence") from None


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


def format_number(value: float) -> str:
    """Writes a float so that it reads back exactly, without a trailing '.0'."""
    return repr(value).removesuffix(".0")


def _path(legs: list[tuple[float, float, bool]]) -> NoisePath:
    """Makes the moves, and counts from the end how many falls of the main grid each has before it on the way to 0."""
    ends_at_zero = legs[-1][1] == 0
    moves: list[Move] = []
    left = 0
    for now, then, restart in reversed(legs):
        moves.append(Move(now, then, restart, left if ends_at_zero and not restart else None))
        left += then <= now and not restart
    return NoisePath(tuple(reversed(moves)))
