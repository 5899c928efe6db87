"""Plans: what a user writes to choose a sampler, and the noise path that it stands for."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import pairwise
from math import inf, isfinite
from pathlib import Path
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted, format_number, real_number, require_kind, whole_number
from restart_sampling.sampling.explain import explain_sampler
from restart_sampling.sampling.intervals import RestartInterval, cap
from restart_sampling.sampling.levels import GRIDS, HIGHEST, Grid, levels_to_zero, power_grid
from restart_sampling.sampling.path import NoisePath
from restart_sampling.sampling.plan_file import read_plan_file
from restart_sampling.sampling.plan_text import read_scale, split_plan
from restart_sampling.sampling.presets import preset_text
from restart_sampling.sampling.process import VE, KnownLevels, Process
from restart_sampling.sampling.restart_path import MAX_FALLS, restart_path
from restart_sampling.sampling.solvers.by_name import make_solver
from restart_sampling.sampling.solvers.protocol import Solver


@dataclass(frozen=True)
class Plan:
    """A sampler with all its settings, one grammar for ODE, SDE and Restart.

    `18` is the ODE, `32 churn=30 s_min=0.01 s_max=1 s_noise=1.007` EDM's stochastic sampler, and
    `18 [3,2,0.06,0.30]` Restart; `str(plan)` prints what is not the default and parses back to the same plan.

    Attributes:
        steps: of the main grid.
        intervals: restarts, [N_restart, K, t_min, t_max] each; a tuple or a list of these four is made one.
        churn: EDM's S_churn in the main grid.
        gamma: churn inside the restarts, relative: a fall from t begins with a rise to (1 + gamma) t.
        s_min: lowest level that churns.
        s_max: highest level that churns.
        s_noise: factor on the noise of every rise.
        solver: of the main grid, as `make_solver` reads it: `heun`, `ddim:eta=0.5`.
        restart_solver: of the restarts; default: the main grid's.
        grid: rule of all grids, one of `GRIDS`, or the main grid's own levels, `80/20/5/1/0`, all of them used as they
            are (the number of steps is theirs; sigma_min, sigma_max say nothing; restart grids are Karras's).
        rho: spacing of Karras's grids (`power_grid`).
        sigma_min: last level before 0, raised to the model's own where that is higher.
        sigma_max: first level, lowered to the model's own where that is lower.
        made_for: identity of the only net that may have it, from the file of a plan that was found for one; None: any.
        or_made_for: identity of that net by itself, where `made_for` is of a file whose function makes it; None: none.
        D: augmented dimensions of that net, which its file may leave to the user; None: any, or Gaussian noise.
        guidance: scale of classifier-free guidance that goes with it, where `tune` chose that too; None: any does.
        found_at: guidance scale that it was found at, from the file of a plan that was found; None: not known.
        preset: name of the preset that it began as; None: of none.

    Raises:
        InputError: a setting is of another type or out of its range, or no such solver or grid.
    """

    steps: int
    intervals: tuple[RestartInterval, ...] = ()
    churn: float = 0.0
    gamma: float = 0.0
    s_min: float = 0.0
    s_max: float = inf
    s_noise: float = 1.0
    solver: str = "heun"
    restart_solver: str | None = None
    grid: str = "karras"
    rho: float = 7.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    made_for: str | None = field(default=None, compare=False, repr=False)
    or_made_for: str | None = field(default=None, compare=False, repr=False)
    D: int | None = field(default=None, compare=False, repr=False)
    guidance: float | None = field(default=None, compare=False, repr=False)
    found_at: float | None = field(default=None, compare=False, repr=False)
    preset: str | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", whole_number("steps", self.steps))
        object.__setattr__(self, "intervals", _intervals(self.intervals))
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.type is float:
                object.__setattr__(self, entry.name, real_number(entry.name, value))
            elif entry.name in _NAMES and not isinstance(value, str | type(entry.default)):
                raise InputError(f"{entry.name} = {value!r}; give its name, such as '{entry.default or 'heun'}'")
        if not 1 <= self.steps <= MAX_FALLS:
            raise InputError(f"the plan has {self.steps} steps; give 1 to {MAX_FALLS:,}")
        for name in ("churn", "gamma", "s_min", "s_noise"):
            _require(name, getattr(self, name), "a finite number, 0 or above", lambda v: isfinite(v) and v >= 0)
        _require("rho", self.rho, "a finite number above 0", lambda v: isfinite(v) and v > 0)
        for name in ("sigma_min", "sigma_max"):
            allowed = f"a number from {1 / HIGHEST:g} to {HIGHEST:g}"
            _require(name, getattr(self, name), allowed, lambda v: 1 / HIGHEST <= v <= HIGHEST)
        _require("s_max", self.s_max, f"a number from s_min = {self.s_min:g} up", lambda v: v >= self.s_min)
        _require("sigma_max", self.sigma_max, f"more than sigma_min = {self.sigma_min:g}", lambda v: v > self.sigma_min)
        self.solvers  # noqa: B018  raises for an unknown name
        if self.own_levels and self.steps != len(self.own_levels) - 1:
            raise InputError(
                f"grid={self.grid} has {counted(len(self.own_levels) - 1, 'step')}, but the plan has {self.steps}; "
                f"write {len(self.own_levels) - 1} grid={self.grid}"
            )

    @classmethod
    def parse(cls, text: str) -> "Plan":
        """Reads a plan, or the name of a preset with settings over it, or the path of a .json file that `tune` wrote.

        Also reads the original's forms: intervals as JSON, `18 {"0": [3, 2, 0.06, 0.30]}`, and intervals with commas
        between them or without a number of steps (then 18), `[3,2,0.06,0.30],[3,1,0.30,0.59]`.

        Raises:
            InputError: not a plan, an unknown preset, key or solver, or a setting out of its range.
        """
        require_kind("the plan", text, str, "its text, such as '18 [3,1,0.1,0.3]'")
        text = text.strip()
        if text.endswith(".json"):
            found, made_for = read_plan_file(Path(text))
            return replace(cls.parse_found(found), **made_for)
        return cls._parse(text)

    @classmethod
    def parse_found(cls, text: str) -> "Plan":
        """Reads a plan as files of `tune` have it, with the guidance scale that goes with it: `18 guidance=1.7`.

        Raises:
            InputError: not a plan, or the scale is no finite number.
        """
        plain, given, written = text.partition(" guidance=")
        plan = cls._parse(plain)
        return replace(plan, guidance=read_scale(f"plan '{text}'", written)) if given else plan

    @property
    def with_guidance(self) -> str:
        """The text that `parse_found` reads; that of a plan without a scale of its own is its usual one."""
        return str(self) if self.guidance is None else f"{self} guidance={format_number(self.guidance)}"

    @classmethod
    def _parse(cls, text: str) -> "Plan":
        name = re.match(r"[A-Za-z][\w.+-]*(?![\w=])", text)
        base = preset_text(name.group()) if name else text
        try:
            steps, intervals, settings = split_plan(base)
            if name:
                _, more, over = split_plan(f"{steps} {text[name.end() :]}")
                intervals, settings = intervals + more, settings + over
            elif text[0] not in "[{" and any(setting.startswith("steps=") for setting in settings):
                raise InputError("it has the number of steps twice; give it once")
            preset = name.group() if name else None
            return cls(**{"steps": steps, "intervals": intervals, "preset": preset, **dict(map(_convert, settings))})
        except InputError as error:
            raise InputError(f"plan '{text}': {error}") from None

    def set(self, *settings: str) -> "Plan":
        """Puts `key=value` settings over the plan; of two for one key the later holds.

        Raises:
            InputError: no such key, or a value that does not fit it.
        """
        return replace(self, **dict(map(_convert, settings)))

    def __str__(self) -> str:
        return " ".join([str(self.steps), *map(str, self.intervals), *self._written.values()])

    @property
    def _written(self) -> dict[str, str]:
        """`key=value` of the settings that are not the defaults, by key."""
        values = {name: getattr(self, name) for name, default in _DEFAULTS.items() if getattr(self, name) != default}
        return {
            name: f"{name}={format_number(value) if isinstance(value, float) else value}"
            for name, value in values.items()
        }

    @property
    def solvers(self) -> tuple[Solver, Solver]:
        """Of the main grid, and of the restarts."""
        return make_solver(self.solver), make_solver(self.restart_solver or self.solver)

    @property
    def own_levels(self) -> tuple[float, ...]:
        """The main grid where the plan lists it; empty where it names a rule.

        Raises:
            InputError: neither a rule nor falling levels.
        """
        if self.grid in GRIDS:
            return ()
        try:
            levels = tuple(map(float, self.grid.split("/")))
        except ValueError:
            levels = ()
        if len(levels) < 2 or not all(HIGHEST >= now > then >= 0 for now, then in pairwise(levels)):
            raise InputError(
                f"grid={self.grid} is no grid; give one of {', '.join(GRIDS)}, or falling levels such as 80/20/5/1/0"
            )
        return levels

    @property
    def rule(self) -> Grid:
        """Of the restart grids, and of the main grid unless that has its own levels."""
        return partial(power_grid, rho=self.rho) if self.grid == "karras" or self.own_levels else GRIDS[self.grid]

    def levels(self, sigma_min: float = 0.0, sigma_max: float = inf) -> tuple[float, ...]:
        """Makes the main grid for a model that knows the levels from sigma_min to sigma_max.

        Raises:
            InputError: the plan's own levels are beyond the model's, or one of these is no number.
        """
        sigma_min, sigma_max = real_number("sigma_min", sigma_min), real_number("sigma_max", sigma_max)
        if not self.own_levels:
            return levels_to_zero(self.steps, max(self.sigma_min, sigma_min), min(self.sigma_max, sigma_max), self.rule)
        for level in self.own_levels:
            if level > sigma_max or 0 < level < sigma_min:
                raise InputError(
                    f"level {level:g} of grid={self.grid} is not one of the model's; "
                    f"give levels from {sigma_min:g} to {sigma_max:g}, and 0"
                )
        return self.own_levels

    def path(
        self,
        sigma_min: float = 0.0,
        sigma_max: float = inf,
        round_level: Callable[[float], float] = lambda level: level,
    ) -> NoisePath:
        """Makes the noise path of this plan for a model.

        Args:
            sigma_min: the lowest level that the model knows.
            sigma_max: the highest.
            round_level: rounds a level to one that the model knows (iDDPM).

        Raises:
            InputError: an interval does not fit the grid, or is rounded to one level.
        """
        return self.path_on(self.levels(sigma_min, sigma_max), round_level)

    def path_on(
        self,
        levels: Sequence[float],
        round_level: Callable[[float], float] = lambda level: level,
        *,
        capped: bool = False,
    ) -> NoisePath:
        """Makes the noise path of this plan on a main grid from elsewhere, in place of its own.

        Args:
            levels: falling; the last may be 0.
            round_level: rounds a level to one that the model knows (iDDPM).
            capped: whether the restarts are fitted to a late first level, see `cap`.

        Raises:
            InputError: an interval does not fit the grid, or is rounded to one level.
        """
        return restart_path(
            levels,
            cap(self.intervals, levels) if capped else self.intervals,
            gamma=self.gamma,
            s_churn=self.churn,
            s_min=self.s_min,
            s_max=self.s_max,
            grid=self.rule,
            round_level=round_level,
        )

    def effect(self, model: KnownLevels = KnownLevels()) -> tuple[NoisePath, Solver, Solver, float]:
        """Returns what a model draws by; plans with the same draw the same samples. Raises what `path` raises."""
        path, (main, other) = self.path(*model[:3]), self.solvers
        s_noise = self.s_noise if path.rises or path.noisy_falls(main, other, model.process) else 1.0
        return path, main, other if self.intervals else main, s_noise

    def idle(self, model: KnownLevels = KnownLevels()) -> list[str]:
        """Lists settings, `key=value`, without each of which a model's samples are the same.

        A limit of the churn is none, unless there is no churn. Raises what `path` raises.
        """
        own = self.effect(model)

        def same(**others: Any) -> bool:
            with suppress(InputError):  # it cannot do without
                return replace(self, **others).effect(model) == own
            return False

        return [
            written
            for name, written in self._written.items()
            if same(**{name: _DEFAULTS[name]}) and (name not in ("s_min", "s_max") or same(churn=0.0, gamma=0.0))
        ]

    def explain(
        self,
        sigma_min: float = 0.0,
        sigma_max: float = inf,
        round_level: Callable[[float], float] = lambda level: level,
        process: Process = VE,
    ) -> str:
        """Says what the plan will do: main grid, restarts with their snapped t_min, noise of each rise, and NFE.

        Takes what `path` takes, and the model's process; raises what `path` raises.
        """
        model = KnownLevels(sigma_min, sigma_max, round_level, process)
        path = self.path(sigma_min, sigma_max, round_level)
        path.check_levels(process)
        levels = self.levels(sigma_min, sigma_max)
        lines = [f"plan       {self}"]
        lines += [f"snap       {each}: t_min {each.t_min:g} to {each.snap(levels):.4g}" for each in self.intervals]
        lines += [f"idle       {each}: the samples are the same without" for each in self.idle(model)]
        lines.append(explain_sampler(path, self.solver, self.restart_solver, self.s_noise, process))
        return "\n".join(lines)


def _intervals(entries: object) -> tuple[RestartInterval, ...]:
    """Reads restart intervals, of which each may also be a tuple or a list of its four numbers."""
    if isinstance(entries, list | tuple):
        each = [RestartInterval(*e) if isinstance(e, list | tuple) and len(e) == 4 else e for e in entries]
        if all(isinstance(interval, RestartInterval) for interval in each):
            return tuple(each)
    raise InputError(
        f"intervals = {entries!r}; give a list with [N_restart, K, t_min, t_max] for each, such as [(3, 2, 0.06, 0.3)]"
    )


def _require(name: str, value: float, allowed: str, holds: Callable[[float], bool]) -> None:
    if not holds(value):
        raise InputError(f"{name} is {value:g}; give {allowed}")


SETTINGS = tuple(entry for entry in fields(Plan)[2:] if entry.compare)
"""The fields that are written `key=value`."""
_NAMES = ("solver", "restart_solver", "grid")
_DEFAULTS: dict[str, Any] = {entry.name: entry.default for entry in SETTINGS}
_CONVERT: dict[str, Callable[[str], Any]] = {
    "steps": int,
    **{entry.name: entry.type if entry.type is float else str for entry in SETTINGS},
}


def _convert(setting: str) -> tuple[str, Any]:
    require_kind("a setting", setting, str, "its text, such as 's_noise=1.003'")
    key, equals, value = setting.partition("=")
    if not (key and equals):
        raise InputError(f"cannot read the setting '{setting}'; write KEY=VALUE, such as s_noise=1.003")
    if key == "guidance":
        raise InputError(
            f"'{setting}' is no setting of a plan; give the scale beside the plan (--guidance, in Python "
            f"guidance=...), or the .json that 'tune' wrote"
        )
    if key not in _CONVERT:
        raise InputError(f"unknown key '{key}' in '{setting}'; allowed: {', '.join(_CONVERT)}")
    try:
        return key, _CONVERT[key](value)
    except ValueError:
        raise InputError(f"'{setting}' is not a number; write {key}=NUMBER") from None


def as_plan(plan: Plan | str) -> Plan:
    """Returns a plan, or the one that a text stands for.

    Raises:
        InputError: it is neither, or the text is not a plan.
    """
    if isinstance(plan, str):
        return Plan.parse(plan)
    if not isinstance(plan, Plan):
        raise InputError(f"the plan is {plan!r}; give a Plan, or its text, such as '18 [3,2,0.06,0.30]'")
    return plan
