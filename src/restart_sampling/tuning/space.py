"""`Space`: the plans that are searched, of exactly the evaluations that are asked for."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import ROUND_FLOOR
from functools import cached_property
from math import inf, log, sqrt
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.sampling.intervals import RestartInterval
from restart_sampling.sampling.net import Net
from restart_sampling.sampling.net_plan import net_path
from restart_sampling.sampling.plan import SETTINGS, Plan
from restart_sampling.sampling.restart_path import MOST_CHURN
from restart_sampling.tuning.budget import (
    MOST_INTERVALS,
    WIDTHS,
    Part,
    Wanted,
    check_nfe,
    count_calls,
    given_intervals,
    level_range,
    share_out,
    suggest_intervals,
)
from restart_sampling.tuning.given_trial import GIVEN, GivenTrial
from restart_sampling.tuning.numbers import Numbers, PlanNumbers, adds_noise
from restart_sampling.tuning.own_levels import in_levels_of, rounded, with_levels
from restart_sampling.tuning.usual import found_plans, usual_plans

ODE_SOLVERS = (
    *("euler", "heun", "midpoint", "dpm2", "ab", "ab:order=2", "deis", "deis:order=2"),
    *("ipndm", "dpmpp_2m", "dpmpp_3m", "unipc", "unipc:p=2"),
)
"""Of one or two evaluations a step, so that any NFE is met to within one."""
STOCHASTIC_SOLVERS = ("ddpm", "ddim:eta=0.5", "sde_dpmpp_2m", "sa", "sa:tau=0.5")
MOST_NFE = 1000
"""Stage 0 takes the square of it in steps."""
OWN = "own"
"""The grid of stage 0, in place of a rule's."""

Grids = Mapping[str, Mapping[int, tuple[float, ...]]]
"""Levels of a main grid by solver and number of steps."""


@dataclass(frozen=True)
class Space:
    """The plans of a net that take `nfe` calls, or one less where a solver's steps do not divide it.

    Intervals are placed in the log of the noise-to-data ratio, which is sigma, or t / (1 - t) of a flow.

    Attributes:
        net: that is tuned.
        nfe: calls of the denoiser.
        grids: of stage 0.
        rises: whether there may be restarts, churn and stochastic solvers.
        restarts: whether there may be restarts among these.
        only: solvers that plans may have; None: all that are searched.
        known: whether plans that `tune` found before are tried.
        guidance: scale around which that of the plans is searched; None: they have none of their own.
    """

    net: Net
    nfe: int
    grids: Grids = field(default_factory=dict)
    rises: bool = True
    restarts: bool = True
    only: Sequence[str] | None = None
    known: bool = True
    guidance: float | None = None

    def __post_init__(self) -> None:
        check_nfe(self.nfe)
        if self.guidance is not None:
            check_scale(self.guidance)
        if self.nfe > MOST_NFE:
            raise InputError(f"NFE {self.nfe} is more than is searched; give at most {MOST_NFE:,}")
        if self.only is not None:
            unknown = [name for name in self.only if name not in self._all]
            if unknown or not self.only:
                given = f"the search has no solver {', '.join(unknown)}" if unknown else "no solvers are given"
                raise InputError(f"{given}; give some of {', '.join(self._all)}")

    def suggest(self, trial: Any) -> Plan:
        """Makes a plan of what an Optuna trial suggests.

        Raises:
            InputError: the net's timesteps are too few for it.
        """
        solver = trial.suggest_categorical("solver", self.solvers)
        grid = trial.suggest_categorical("grid", ("karras", "exponential", "time", *((OWN,) if self.grids else ())))
        scale = None if self.guidance is None else suggest_scale(trial, self.guidance)
        settings: dict[str, Any] = {"solver": solver, "guidance": scale}
        if grid == OWN:
            settings["grid"] = OWN
        else:
            settings |= {"grid": grid, **self._range(trial)}
            if grid == "karras":
                settings["rho"] = rounded(trial.suggest_float("rho", 1, 14, log=True))
        if not self.rises:
            return self._plan(settings, [])
        settings["s_noise"] = round(trial.suggest_float("s_noise", 0.98, 1.04), 4)
        if trial.suggest_categorical("churn", (False, True)):
            settings |= self._churn(trial)
        wanted = suggest_intervals(trial, *self._ratios) if self.restarts else []
        if wanted:
            other = trial.suggest_categorical("restart_solver", ("the same", *self.solvers))
            settings |= {} if other in ("the same", solver) else {"restart_solver": other}
        return self._plan(settings, wanted)

    def usual(self) -> list[str]:
        """Lists what one would try without a search; where guidance is searched, at the scale that it is around."""
        texts = usual_plans(self.net, self.nfe, self.rises, self.restarts, self.only, self.known)
        return [self.text(replace(Plan.parse(text), guidance=self.guidance)) for text in texts]

    def text(self, plan: Plan) -> str:
        """Writes a plan, with its scale where it has one of its own."""
        return plan.with_guidance

    def complexity(self, plan: str) -> tuple[int, int]:
        """Orders plans from the simplest: numbers that a user would have to understand, then the length of the text."""
        parsed = Plan.parse_found(plan)
        settings = sum(getattr(parsed, entry.name) != entry.default for entry in SETTINGS)
        settings += (parsed.guidance != self.guidance) + len(parsed.own_levels) + 4 * len(parsed.intervals)
        return settings, len(plan)

    def one_restart(self, t_min: float, t_max: float) -> dict[str, Any]:
        """Returns what a trial has to suggest for a plan with this interval; the rest of the plan is left open."""
        low, high = level_range(*self._ratios)
        level = min(max(self.net.process.ratio(t_min), low), high)
        width = min(max(self.net.process.ratio(t_max) / level, WIDTHS[0]), WIDTHS[1])
        own = {"level_0": level, "width_0": width, "K_0": 1, "restart_solver": "the same"}
        return {"intervals": 1, "churn": False, **own}

    def known_plans(self) -> list[dict[str, Any]]:
        """Returns what trials have to suggest for the plans that were found for the models of the package.

        Plans carry over to other models at times, by their noise-to-data ratios; those of another NFE keep their
        intervals and the shares of them. One with levels of its own, which no trial suggests, is given as it is beside
        the nearest suggestion, and only where it has this NFE.
        """
        found = []
        for text in found_plans(self.nfe) if self.known else ():
            with suppress(InputError):
                plan = in_levels_of(self.net.process, Plan.parse(text))
                own = plan.own_levels
                rule = replace(plan, grid="karras", sigma_min=own[-2], sigma_max=own[0]) if own else plan
                suggestion = self.suggestion(str(rule))
                if suggestion and not own:
                    found.append(suggestion)
                elif suggestion and self.rises and self.restarts and self.nfe - self._nfe(plan) in (0, 1):
                    plan = self._plain(self._below_the_highest(replace(plan, guidance=self.guidance)))
                    found.append({**suggestion, GIVEN: self.text(plan)})
        return found

    def suggestion(self, text: str) -> dict[str, Any] | None:
        """Returns what a trial has to suggest for a plan, as near as it comes; None: it has what no trial suggests."""
        plan = Plan.parse_found(text)
        solver, restart_solver = plan.solver, plan.restart_solver or plan.solver
        if not {solver, restart_solver} <= {*self.solvers} or plan.own_levels or len(plan.intervals) > MOST_INTERVALS:
            return None
        ratio = self.net.process.ratio
        levels = [level for level in plan.levels(self.net.sigma_min, self.net.sigma_max) if level > 0]
        values: dict[str, Any] = {"solver": solver, "grid": plan.grid, "sigma_min": levels[-1], "sigma_max": levels[0]}
        values |= {"guidance": self.guidance if plan.guidance is None else plan.guidance}
        values |= {"rho": plan.rho, "s_noise": plan.s_noise, "churn": plan.churn > 0}
        values |= {"restart_solver": "the same" if restart_solver == solver else restart_solver}
        if plan.churn:
            bottom, top = (ratio(min(max(each, levels[-1]), levels[0])) for each in (plan.s_min, plan.s_max))
            values |= {"churn_low": bottom, "churn_width": top / bottom, "s_churn": plan.churn}
        snapped = [_snapped(each, levels) for each in plan.intervals]
        nfe = count_calls(plan)
        values |= given_intervals(snapped, ratio, restart_solver, self.nfe if self.nfe - nfe in (0, 1) else nfe)
        given = GivenTrial(values)
        with suppress(InputError):  # a range or a window that is empty in this model's levels
            self.suggest(given)
            return given.taken
        return None

    def way(self, text: str) -> tuple[object, ...]:
        """Returns what a plan does: plans with other texts and the same way are one."""
        plan = Plan.parse_found(text)
        return net_path(self.net, plan), plan.solver, plan.restart_solver or plan.solver, plan.s_noise, plan.guidance

    def numbers(self, text: str) -> Numbers | None:
        """Returns the numbers of a plan, which can be moved; its evaluations stay. None: there are too few."""
        plan = Plan.parse_found(text)
        scales = (1.0, 1.0) if self.guidance is None else scale_range(self.guidance)
        own = PlanNumbers(self.net, plan, self._limits, scales)
        if own.count < 2:  # such as the one level of a flow between its first and 0, which CMA-ES cannot move
            return None
        nfe = self._nfe(plan)

        def moved(moves: Sequence[float]) -> str:
            found = self._plain(self._below_the_highest(own.moved(moves)))
            if self._nfe(found) != nfe:
                raise InputError(f"the plan '{found}' has other evaluations than '{plan}'")
            return self.text(found)

        return Numbers((plan.solver, len(plan.intervals)), own.count, moved)

    def _nfe(self, plan: Plan) -> int:
        return net_path(self.net, plan).nfe(*plan.solvers)

    @cached_property
    def solvers(self) -> tuple[str, ...]:
        """Their names, with settings."""
        return self._all if self.only is None else tuple(name for name in self._all if name in self.only)

    @property
    def _all(self) -> tuple[str, ...]:
        return (*ODE_SOLVERS, *(STOCHASTIC_SOLVERS if self.rises else ()))

    @cached_property
    def _ratios(self) -> tuple[float, float]:
        """The lowest and the highest noise-to-data ratio between which intervals are placed."""
        process = self.net.process
        low, high = (process.ratio(level) for level in self._limits)
        return max(low, min(0.03, high / 8)), min(high, 80.0)

    @cached_property
    def _limits(self) -> tuple[float, float]:
        """The lowest level above 0 and the highest, in the model's levels and those that samplers use."""
        return max(self.net.sigma_min, 0.001), min(self.net.sigma_max, 160.0)

    def _range(self, trial: Any) -> dict[str, float]:
        """Suggests where the main grid ends, and where it begins unless that is where no data is left."""
        low, high = self._limits
        last = max(low, min(50 * low, high / 20))
        found = {"sigma_min": rounded(trial.suggest_float("sigma_min", low, last, log=True))}
        if self.net.process.highest == inf:
            found["sigma_max"] = rounded(
                trial.suggest_float("sigma_max", max(high / 16, sqrt(low * high)), high, log=True)
            )
        else:
            found["sigma_max"] = rounded(high, ROUND_FLOOR)
        return found

    def _churn(self, trial: Any) -> dict[str, float]:
        low, high = self._ratios
        s_min = trial.suggest_float("churn_low", low, max(low, high / 4), log=True)
        width = trial.suggest_float("churn_width", 2, max(2, high / low), log=True)
        ends = (self.net.process.level(ratio) for ratio in (s_min, min(s_min * width, high)))
        churn = rounded(trial.suggest_float("s_churn", 0.5, 2 * self.nfe, log=True))
        return {"churn": churn, **dict(zip(("s_min", "s_max"), map(rounded, ends), strict=True))}

    def _plan(self, settings: Mapping[str, Any], wanted: Sequence[Wanted]) -> Plan:
        """Makes the plan: restarts within the budget, the main grid of what is left, intervals at its levels."""
        solver, restart_solver = settings["solver"], settings.get("restart_solver") or settings["solver"]
        parts, steps = share_out(wanted, solver, restart_solver, self.nfe)
        plan = Plan(steps, **{**settings, "grid": "karras" if settings["grid"] == OWN else settings["grid"]})
        if settings["grid"] == OWN:
            # Stochastic solvers have none of their own, and their drift is Euler's. Of too many steps: EDM's rule.
            levels = self.grids[solver if solver in self.grids else "euler"].get(steps)
            plan = with_levels(plan, levels) if levels else plan
        plan = self._below_the_highest(plan)
        intervals = self._place(plan, list(zip(wanted, parts, strict=False)))
        if intervals is None:  # the net's timesteps, which levels are rounded to, have no room for so many
            if not parts:
                raise InputError(f"the plan '{plan}' has more steps than the net has timesteps for")
            return self._plan(settings, wanted[: len(parts) - 1])
        return self._plain(replace(plan, intervals=tuple(intervals)))

    def _below_the_highest(self, plan: Plan) -> Plan:
        """Lowers the window of churn so that no rise goes above the process's highest level, or takes churn out."""
        top = rounded(self.net.process.highest / (1 + min(plan.churn / plan.steps, MOST_CHURN)), ROUND_FLOOR)
        if plan.s_min < top:
            return replace(plan, s_max=min(plan.s_max, top)) if plan.churn else plan
        return replace(plan, churn=0.0, s_min=0.0, s_max=inf)

    def _plain(self, plan: Plan) -> Plan:
        """Takes out the settings that do nothing in this plan."""
        if not plan.intervals:
            plan = replace(plan, restart_solver=None)
        if not (plan.gamma or any(move.rises and not move.restart for move in net_path(self.net, plan).moves)):
            plan = replace(plan, churn=0.0, s_min=0.0, s_max=inf)
        if not adds_noise(self.net, plan):
            plan = replace(plan, s_noise=1.0)
        return plan

    def _place(self, plan: Plan, parts: Sequence[tuple[Wanted, Part]]) -> list[RestartInterval] | None:
        """Gives each interval a level of the main grid of its own; None: one of them does not fit."""
        ratio, process = self.net.process.ratio, self.net.process
        levels = [level for level in plan.levels(self.net.sigma_min, self.net.sigma_max) if level > 0]
        free, top = levels[1:], levels[0]
        intervals = []
        for want, part in parts:
            low = min(free, key=lambda level: abs(log(ratio(level) / want.level)))
            free.remove(low)
            high = min(process.level(ratio(low) * want.width), top)
            if not low < (t_max := min(rounded(high), rounded(top, ROUND_FLOOR))):
                return None
            intervals.append(RestartInterval(part.steps + 1, part.repeats, rounded(low), t_max))
        intervals.sort(key=lambda each: -each.t_min)
        with suppress(InputError):
            path = net_path(self.net, replace(plan, intervals=tuple(intervals)))
            if path.nfe(*plan.solvers) in (self.nfe - 1, self.nfe):
                return intervals
        return None


def _snapped(interval: RestartInterval, levels: Sequence[float]) -> RestartInterval:
    """Returns the interval with t_min at its level of the grid; as it is, where that is none below t_max."""
    with suppress(InputError):
        return replace(interval, t_min=interval.snap(levels))
    return interval


def check_scale(guidance: float) -> None:
    """Makes sure that guidance can be searched around a scale.

    Raises:
        InputError: it is none.
    """
    if not guidance > 1:
        raise InputError(f"the guidance scale is searched around {guidance:g}, which is none; give a scale above 1")


def suggest_scale(trial: Any, guidance: float) -> float:
    """Suggests a guidance scale around one: scale - 1, which is guidance's weight, is half to twice."""
    return rounded(trial.suggest_float("guidance", *scale_range(guidance), log=True))


def scale_range(guidance: float) -> tuple[float, float]:
    """Returns the lowest scale and the highest of those that are searched around one."""
    return 1 + (guidance - 1) / 2, 1 + 2 * (guidance - 1)
