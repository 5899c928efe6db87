"""How the evaluations of an NFE are shared out between a main grid and its restarts."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import whole_number
from restart_sampling.sampling.intervals import RestartInterval
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.plan import Plan
from restart_sampling.sampling.restart_path import ode_path
from restart_sampling.sampling.solvers.by_name import make_solver
from restart_sampling.tuning.allowed import LEAST_NFE, LEAST_STEPS

MOST_INTERVALS = 3
WIDTHS = 1.3, 30.0
"""The least and the most that the noise-to-data ratio of an interval grows by."""


@dataclass(frozen=True)
class Wanted:
    """An interval as it is suggested: noise-to-data ratio, width as a factor, repeats, share of the evaluations."""

    level: float
    width: float
    repeats: int
    share: float


@dataclass(frozen=True)
class Part:
    """What an interval takes of the evaluations."""

    steps: int
    repeats: int

    def falls(self) -> int:
        """Counts the steps of all its passes."""
        return self.steps * self.repeats


def check_nfe(nfe: int) -> None:
    """Makes sure that there is something to choose from.

    Raises:
        InputError: an NFE is too little.
    """
    if nfe < LEAST_NFE:
        raise InputError(
            f"NFE {nfe} is too little to choose from; give at least {LEAST_NFE}: {LEAST_STEPS} steps and one of a "
            f"restart"
        )


def as_nfes(nfe: int | Sequence[int]) -> list[int]:
    """Returns one NFE or several as a list.

    Raises:
        InputError: there is none, or one does not fit.
    """
    nfes = [whole_number("nfe", each) for each in (nfe if isinstance(nfe, Iterable) else [nfe])]
    if not nfes:
        raise InputError("nfe is empty; give one number of evaluations or several, such as [10, 20]")
    for each in nfes:
        check_nfe(each)
    return nfes


def level_range(low: float, high: float) -> tuple[float, float]:
    """Returns the lowest and the highest ratio at which an interval may begin, of those from `low` to `high`."""
    return low, max(low, high / 2)


def suggest_intervals(trial: Any, low: float, high: float) -> list[Wanted]:
    """Takes intervals from an Optuna trial, in the log of the noise-to-data ratio.

    Args:
        trial: suggests.
        low: the lowest ratio.
        high: the highest.
    """
    return [
        Wanted(
            level=trial.suggest_float(f"level_{place}", *level_range(low, high), log=True),
            width=trial.suggest_float(f"width_{place}", *WIDTHS, log=True),
            repeats=trial.suggest_int(f"K_{place}", 1, 4),
            share=trial.suggest_float(f"share_{place}", 0.05, 0.7),
        )
        for place in range(trial.suggest_int("intervals", 0, MOST_INTERVALS))
    ]


def given_intervals(
    intervals: Sequence[RestartInterval], ratio: Callable[[float], float], restart_solver: str, nfe: int
) -> dict[str, float]:
    """Returns what a trial has to suggest for intervals, the inverse of `suggest_intervals` and `share_out`.

    Args:
        intervals: whose t_min are levels of the main grid.
        ratio: noise-to-data ratio of a level.
        restart_solver: of the restarts.
        nfe: all evaluations.
    """
    found: dict[str, float] = {"intervals": len(intervals)}
    for place, each in enumerate(intervals):
        share = (each.points - 1) * each.repeats * restart_calls(restart_solver) / nfe
        found |= {f"level_{place}": ratio(each.t_min), f"width_{place}": ratio(each.t_max) / ratio(each.t_min)}
        found |= {f"K_{place}": each.repeats, f"share_{place}": share}
    return found


def share_out(wanted: Sequence[Wanted], solver: str, restart_solver: str, nfe: int) -> tuple[list[Part], int]:
    """Gives intervals their steps, fewer where too little is left for the main grid.

    Args:
        wanted: the intervals.
        solver: of the main grid.
        restart_solver: of the restarts.
        nfe: all evaluations.

    Returns:
        The parts of the first intervals, of all of them where they fit, and the steps of the main grid.
    """
    calls = restart_calls(restart_solver)
    parts = [Part(max(1, round(each.share * nfe / (each.repeats * calls))), each.repeats) for each in wanted]
    while True:
        steps = main_steps(solver, nfe - calls * sum(map(Part.falls, parts)))
        if not parts or (steps is not None and steps > max(LEAST_STEPS - 1, len(parts))):
            assert steps is not None
            return parts, steps
        parts = _smaller(parts)


def _smaller(parts: Sequence[Part]) -> list[Part]:
    """Takes a step from each pass of the largest part, or a pass, or the part."""
    place = max(range(len(parts)), key=lambda each: parts[each].falls())
    part = parts[place]
    if part.steps > 1:
        rest = [Part(part.steps - 1, part.repeats)]
    else:
        rest = [Part(1, part.repeats - 1)] if part.repeats > 1 else []
    return [*parts[:place], *rest, *parts[place + 1 :]]


def count_calls(plan: Plan) -> int:
    """Counts the calls of a plan by its steps and intervals, wherever their levels are."""
    solver, restart_solver = plan.solver, plan.restart_solver or plan.solver
    falls = sum((each.points - 1) * each.repeats for each in plan.intervals)
    return _main_calls(plan.steps, solver) + falls * restart_calls(restart_solver)


def restart_calls(solver: str) -> int:
    """Counts the calls of a solver's step within a restart."""
    return make_solver(solver).evaluations(Move(2.0, 1.0, restart=True))


@cache
def main_steps(solver: str, nfe: int) -> int | None:
    """Finds the most steps of a main grid that take `nfe` calls, or one less; None: there are none."""
    steps = bisect_right(range(1, nfe + 2), nfe, key=lambda steps: _main_calls(steps, solver))
    return steps if steps and nfe - _main_calls(steps, solver) <= 1 else None


def _main_calls(steps: int, solver: str) -> int:
    return ode_path([float(level) for level in range(steps, -1, -1)]).nfe(make_solver(solver))
