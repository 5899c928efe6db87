"""Levels as plans that are found have them: of four digits, within a net's range."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context

from restart_sampling.sampling.path import format_number
from restart_sampling.sampling.plan import Plan


def rounded(value: float, rounding: str = ROUND_HALF_EVEN) -> float:
    """Rounds to four digits, which is what plans show; levels at a net's ends into its range."""
    return float(Context(prec=4, rounding=rounding).create_decimal(repr(value)))


def with_levels(plan: Plan, levels: Sequence[float]) -> Plan:
    """Returns the plan with a main grid of its own levels, which rule out the settings of a rule."""
    plain = {name: getattr(Plan(1), name) for name in ("rho", "sigma_min", "sigma_max")}
    first, *between, last, end = levels
    short = [rounded(first, ROUND_FLOOR), *map(rounded, between), rounded(last, ROUND_CEILING), end]
    return replace(plan, steps=len(levels) - 1, grid="/".join(map(format_number, short)), **plain)
