"""Plans as a search finds them: with levels of four digits within a net's range, or in another process's levels."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context
from math import inf
from typing import Any

from restart_sampling.base.numbers import format_number
from restart_sampling.sampling.plan import Plan
from restart_sampling.sampling.process import VE, Process


def rounded(value: float, rounding: str = ROUND_HALF_EVEN) -> float:
    """Rounds to four digits, which is what plans show; levels at a net's ends into its range."""
    return float(Context(prec=4, rounding=rounding).create_decimal(repr(value)))


def with_levels(plan: Plan, levels: Sequence[float]) -> Plan:
    """Returns the plan with a main grid of its own levels, which rule out the settings of a rule."""
    plain = {name: getattr(Plan(1), name) for name in ("rho", "sigma_min", "sigma_max")}
    first, *between, last, end = levels
    short = [rounded(first, ROUND_FLOOR), *map(rounded, between), rounded(last, ROUND_CEILING), end]
    return replace(plan, steps=len(levels) - 1, grid="/".join(map(format_number, short)), **plain)


def in_levels_of(process: Process, plan: Plan) -> Plan:
    """Returns a plan of levels sigma, with the same noise-to-data ratios in the levels of a process."""
    if process == VE:
        return plan

    def level(ratio: float) -> float:
        return ratio if ratio == inf else rounded(process.level(ratio))

    ends: dict[str, Any] = {name: level(getattr(plan, name)) for name in ("s_min", "s_max", "sigma_min", "sigma_max")}
    intervals = tuple(replace(each, t_min=level(each.t_min), t_max=level(each.t_max)) for each in plan.intervals)
    found = replace(plan, intervals=intervals, **ends)
    # A grid of its own begins where no data is left, as those of rules do.
    return with_levels(found, [process.highest, *map(level, plan.own_levels[1:])]) if plan.own_levels else found
