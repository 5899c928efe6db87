"""`Numbers`: what of a sampler is moved while its solver, its steps and its repeats stay; `PlanNumbers`: a plan's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp, inf, log
from typing import Any

import numpy as np

from restart_sampling.sampling.intervals import RestartInterval
from restart_sampling.sampling.net import Net
from restart_sampling.sampling.net_plan import net_path
from restart_sampling.sampling.plan import Plan
from restart_sampling.tuning.own_levels import rounded, with_levels

KNOTS = 8
"""Of a longer main grid so many levels are moved, and those between them in proportion."""
SPACING = 0.2
"""A move of 1 takes a level so much of the way to the next, in the log of the noise-to-data ratio."""
FACTOR = 0.2
"""A move of 1 changes the log of a width, and of other settings, by so much."""
NOISE = 0.004
"""A move of 1 changes s_noise by so much."""


@dataclass(frozen=True)
class Numbers:
    """The numbers of a sampler.

    Attributes:
        kind: what stays, so far as samplers of another kind are worth a start of their own.
        count: of them, at least 2.
        moved: makes the text of the sampler whose numbers are moved, each by about 1 for a small change; raises
            InputError where there is none.
    """

    kind: object
    count: int
    moved: Callable[[Sequence[float]], str]


@dataclass(frozen=True)
class PlanNumbers:
    """The numbers of a plan: levels, widths of intervals, and the settings that do something in it.

    Attributes:
        net: that it is for.
        plan: from which they move.
        limits: the lowest level above 0 and the highest.
        scales: the lowest guidance scale and the highest, of a plan that has its own.
    """

    net: Net
    plan: Plan
    limits: tuple[float, float]
    scales: tuple[float, float]

    @property
    def count(self) -> int:
        """How many there are."""
        return self._knots + len(self.plan.intervals) + len(self._settings)

    def moved(self, moves: Sequence[float]) -> Plan:
        """Returns the plan with its numbers moved; the restarts begin at the same places of the main grid.

        Raises:
            InputError: two levels have become one, or an interval or a window of churn is empty.
        """
        if not any(moves):
            return self.plan
        ratio, level = self.net.process.ratio, self.net.process.level
        own = iter(moves)
        plan = with_levels(self.plan, self._moved_levels([next(own) for _ in range(self._knots)]))
        intervals = []
        for each in self.plan.intervals:
            old = each.snap(self._levels)
            low = plan.own_levels[self._levels.index(old)]
            high = level(min(ratio(low) * ratio(each.t_max) / ratio(old) * exp(FACTOR * next(own)), 1e9))
            intervals.append(RestartInterval(each.points, each.repeats, low, min(rounded(high), plan.own_levels[0])))
        settings: dict[str, Any] = {name: self._setting(name, next(own)) for name in self._settings}
        return replace(plan, intervals=tuple(intervals), **settings)

    @cached_property
    def _levels(self) -> list[float]:
        """The main grid, without 0."""
        return [level for level in self.plan.levels(self.net.sigma_min, self.net.sigma_max) if level > 0]

    @property
    def _fixed(self) -> int:
        """How many levels stay: the first where no data is left."""
        return int(self.net.process.highest < inf)

    @property
    def _knots(self) -> int:
        return min(len(self._levels) - self._fixed, KNOTS)

    @cached_property
    def _settings(self) -> list[str]:
        """The names of the settings that move."""
        plan, ratio = self.plan, self.net.process.ratio
        does = {
            "s_noise": adds_noise(self.net, plan),
            "churn": plan.churn > 0,
            "gamma": plan.gamma > 0,
            **{name: plan.churn > 0 and 0 < ratio(getattr(plan, name)) < inf for name in ("s_min", "s_max")},
            "rho": any(each.points > 2 for each in plan.intervals),
            "guidance": plan.guidance is not None,
        }
        return [name for name, moves in does.items() if moves]

    def _moved_levels(self, moves: Sequence[float]) -> list[float]:
        """Moves the knots of the main grid, and what is between them; the order stays."""
        ratio = self.net.process.ratio
        low, high = (log(min(ratio(level), 1e9)) for level in self.limits)
        places = np.log([ratio(level) for level in self._levels[self._fixed :]])
        count = len(places)
        steps = np.interp(range(count), np.linspace(0, count - 1, self._knots), moves)
        gaps = np.abs(np.gradient(places)) if count > 1 else 1.0  # one level has no next one
        moved = np.clip(places + SPACING * gaps * steps, low, high)
        levels = [self.net.process.level(exp(place)) for place in sorted(moved.tolist(), reverse=True)]
        return [*self._levels[: self._fixed], *levels, 0.0]

    def _setting(self, name: str, move: float) -> float:
        value = getattr(self.plan, name)
        if name == "s_noise":
            return rounded(max(0.0, value + NOISE * move))
        if name == "guidance":
            low, high = self.scales
            return rounded(min(max(1 + (value - 1) * exp(FACTOR * move), low), high))
        if name in ("s_min", "s_max"):
            return rounded(self.net.process.level(self.net.process.ratio(value) * exp(FACTOR * move)))
        return rounded(value * exp(FACTOR * move))


def adds_noise(net: Net, plan: Plan) -> bool:
    """Says whether a plan adds noise: in restarts, in churn, or in the falls of a stochastic solver."""
    path = net_path(net, plan)
    return bool(path.rises or path.noisy_falls(*plan.solvers, net.process))
