"""`TextSpace`: the samplers of a text-to-image pipeline that are searched, as the text commands write them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.sampling.intervals import RestartInterval
from restart_sampling.text_to_image.drawing import TextDrawing
from restart_sampling.text_to_image.intervals import as_lists
from restart_sampling.text_to_image.presets import guidance_preset, steps_preset
from restart_sampling.text_to_image.row_layout import without_notes
from restart_sampling.text_to_image.samplers import Sampler, is_flow, restart_sampler
from restart_sampling.tuning.budget import (
    MOST_INTERVALS,
    Part,
    Wanted,
    check_nfe,
    given_intervals,
    main_steps,
    restart_calls,
    share_out,
    suggest_intervals,
)
from restart_sampling.tuning.given_trial import GivenTrial
from restart_sampling.tuning.own_levels import rounded
from restart_sampling.tuning.space import ODE_SOLVERS, STOCHASTIC_SOLVERS, suggest_scale

_NOISE_GRIDS: Mapping[str, Mapping[str, Any]] = {
    "karras": {"timestep_spacing": "linspace", "use_karras_sigmas": True},
    "exponential": {"timestep_spacing": "linspace", "use_exponential_sigmas": True},
    "linspace": {"timestep_spacing": "linspace"},
    "trailing": {"timestep_spacing": "trailing"},
    "leading": {"timestep_spacing": "leading"},
}
_FLOW_GRIDS: Mapping[str, Mapping[str, Any]] = {
    "even": {},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
}
_RESTART_GRIDS = ("karras", "exponential", "even")
_AROUND = ("euler", "heun", "ab", "deis", "dpmpp_2m", "unipc", "sde_dpmpp_2m")
"""Solvers that the published restarts are tried with."""
_SHARE = 0.25  # of the evaluations, in the paper's restarts where there is no form of so few
_TOP = 0.98  # of the highest level: restarts from above are new starts


@dataclass(frozen=True)
class TextSpace:
    """The samplers of a pipeline that take `nfe` rows of the scheduler, or one less where a solver does not divide it.

    Attributes:
        nfe: rows of the scheduler.
        config: of the pipeline's own scheduler.
        guidance: scale of classifier-free guidance, which chooses the published restarts.
        draw: asks the pipeline what a sampler costs in it.
        rises: whether there may be restarts and stochastic solvers.
        restarts: whether there may be restarts among these.
        tune_guidance: whether samplers may have another scale, around this one.
    """

    nfe: int
    config: Mapping[str, Any]
    guidance: float
    draw: Callable[[str], TextDrawing]
    rises: bool = True
    restarts: bool = True
    tune_guidance: bool = False

    def __post_init__(self) -> None:
        check_nfe(self.nfe)
        if self.nfe > (most := self.config["num_train_timesteps"]):
            raise InputError(f"NFE {self.nfe} is more than the {most} timesteps that the model knows; give fewer")

    def suggest(self, trial: Any) -> Sampler:
        """Makes a sampler of what an Optuna trial suggests.

        Raises:
            InputError: none of this NFE comes of it.
        """
        solver = trial.suggest_categorical("solver", self.solvers)
        grid = trial.suggest_categorical("grid", tuple(self._grids))
        settings = {"solver": solver, **self._grids[grid], **self._range(trial, grid)}
        guidance = self._scale(trial)
        wanted = suggest_intervals(trial, *self._ratios) if self.rises and self.restarts else []
        if wanted:
            other = trial.suggest_categorical("restart_solver", ("the same", *self.solvers))
            settings["restart_solver"] = solver if other == "the same" else other
            settings["restart_grid"] = trial.suggest_categorical("restart_grid", _RESTART_GRIDS)
        with without_notes():
            for count in range(len(wanted), -1, -1):  # restarts for which the main grid has no room are left out
                parts, _ = share_out(wanted[:count], solver, settings.get("restart_solver", solver), self.nfe)
                if sampler := self._exact(settings, self._place(wanted, parts), guidance):
                    return sampler
        raise InputError(f"no sampler of NFE {self.nfe} around {solver} fits the pipeline")

    def usual(self) -> list[str]:
        """Lists what one would try without a search.

        DDIM, DDPM, Heun and DPM-Solver++ of diffusers, every solver of our scheduler on two grids, and around some of
        them the restarts of the paper for the guidance scale and AUTOMATIC1111's.
        """
        with without_notes():
            return [text for text in dict.fromkeys(map(str, self._usual())) if self._fits(text)]

    def text(self, sampler: Sampler) -> str:
        """Writes a sampler."""
        return str(sampler)

    def complexity(self, text: str) -> tuple[int, int]:
        """Orders samplers from the simplest: by settings that one would have to understand, then by length."""
        sampler = Sampler.parse(text)
        return len(sampler.settings) + (sampler.guidance is not None) + 4 * len(sampler.intervals), len(text)

    def suggestion(self, text: str) -> dict[str, Any] | None:
        """Returns what a trial has to suggest for a sampler of our scheduler, as near as it comes; None: for others."""
        sampler = Sampler.parse(text)
        if sampler.family != "Restart" or len(sampler.intervals) > MOST_INTERVALS:
            return None
        settings = self.draw(text).scheduler.config
        solver, restart_solver = settings["solver"], settings["restart_solver"]
        fitting = [name for name, rule in self._grids.items() if all(settings[key] == rule[key] for key in rule)]
        if not fitting or not {solver, restart_solver or solver} <= {*self.solvers}:
            return None
        values: dict[str, Any] = {"solver": solver, "grid": max(fitting, key=lambda name: len(self._grids[name]))}
        values |= {"sigma_min": settings.get("sigma_min") or 0.0, "sigma_max": settings.get("sigma_max") or inf}
        values |= {"guidance": self.guidance if sampler.guidance is None else sampler.guidance}
        same = restart_solver in (None, solver)
        values |= {"restart_solver": "the same" if same else restart_solver, "restart_grid": settings["restart_grid"]}
        values |= given_intervals(sampler.intervals, self._scheduler.process.ratio, restart_solver or solver, self.nfe)
        given = GivenTrial(values)
        self.suggest(given)
        return given.taken

    def way(self, text: str) -> object:
        """Returns what a sampler does: here its text, which has the scheduler's own levels."""
        return text

    def numbers(self, text: str) -> None:
        """Returns none: the levels of a sampler are the scheduler's own."""
        return

    @cached_property
    def solvers(self) -> tuple[str, ...]:
        """Their names, with settings."""
        return (*ODE_SOLVERS, *(STOCHASTIC_SOLVERS if self.rises else ()))

    @cached_property
    def _flow(self) -> bool:
        return is_flow(self.config)

    @cached_property
    def _grids(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings of the rules for the main grid, by name."""
        return _FLOW_GRIDS if self._flow else _NOISE_GRIDS

    @cached_property
    def _scheduler(self) -> Any:
        """Of Euler's method, for the model's levels."""
        return self.draw(self._plain("euler", "even" if self._flow else "linspace", self.nfe)).scheduler

    @property
    def _highest(self) -> float:
        return float(self._scheduler.path.levels[0])

    @cached_property
    def _ratios(self) -> tuple[float, float]:
        """The noise-to-data ratios between which intervals are placed."""
        low, high = map(self._scheduler.process.ratio, (self._scheduler.path.levels[-2], self._highest))
        return max(min(low, 0.1), 0.03), min(high, 80.0)

    def _range(self, trial: Any, grid: str) -> dict[str, float]:
        """Suggests where grids begin and end that do not follow the timesteps."""
        if self._flow or grid not in ("karras", "exponential"):
            return {}
        high = min(self._highest, 160.0)
        return {
            "sigma_min": rounded(trial.suggest_float("sigma_min", high / 500, high / 30, log=True)),
            "sigma_max": rounded(_TOP * trial.suggest_float("sigma_max", high / 3, high, log=True)),
        }

    def _scale(self, trial: Any) -> float | None:
        """Suggests the guidance scale; None: that of all."""
        if not self.tune_guidance:
            return None
        scale = suggest_scale(trial, self.guidance)
        return None if scale == self.guidance else scale

    def _place(self, wanted: Sequence[Wanted], parts: Sequence[Part]) -> list[RestartInterval]:
        """Makes the intervals of the parts, whose t_min the scheduler moves to its grid."""
        level, top = self._scheduler.process.level, _TOP * self._highest
        ends = [(rounded(level(want.level)), rounded(min(level(want.width * want.level), top))) for want in wanted]
        pairs = zip(parts, ends, strict=False)
        return [RestartInterval(part.steps + 1, part.repeats, *own) for part, own in pairs if own[0] < own[1]]

    def _exact(
        self, settings: Mapping[str, Any], intervals: Sequence[RestartInterval], guidance: float | None = None
    ) -> Sampler | None:
        """Returns the sampler with t_min as the scheduler has them; None: it has another NFE, or does not fit."""
        steps = main_steps(settings["solver"], self.nfe) or 1
        for count in (steps, steps + 1, steps - 1):
            sampler = self._sampler(settings, intervals, count, guidance)
            if self._fits(str(sampler)):
                break
        else:
            return None
        path = self.draw(str(sampler)).scheduler.path
        main = [*(move.now for move in path.moves if not (move.restart or move.rises)), path.levels[-1]]
        snapped = [replace(each, t_min=rounded(each.snap(main))) for each in sampler.intervals]
        exact = replace(sampler, intervals=tuple(snapped))
        return exact if self._fits(str(exact)) else sampler

    def _sampler(
        self,
        settings: Mapping[str, Any],
        intervals: Sequence[RestartInterval],
        steps: int,
        guidance: float | None = None,
    ) -> Sampler:
        restarts = as_lists(intervals)
        own = {key: value for key, value in settings.items() if restarts or not key.startswith("restart_")}
        end = {} if self._flow else {"final_sigmas_type": "zero"}
        budget = {"restart_budget": "calls"} if restarts else {}
        scale = self.guidance if guidance is None else guidance
        sampler = restart_sampler(steps, {"restart": restarts, **budget, **own, **end}, self._flow, scale)
        return replace(sampler, guidance=guidance)

    def _plain(self, solver: str, grid: str, steps: int) -> str:
        return str(self._sampler({"solver": solver, **self._grids[grid]}, (), steps))

    def _fits(self, text: str) -> bool:
        with suppress(InputError):
            return self.draw(text).nfe in (self.nfe - 1, self.nfe)
        return False

    def _usual(self) -> Iterator[str | Sampler]:
        nfe = self.nfe
        if not self._flow:
            for karras in ("", " use_karras_sigmas=true"):
                yield f"dpmpp:{nfe}{karras}"
                yield f"heun:{(nfe + 1) // 2}{karras}"
                if self.rises:
                    yield f"dpmpp:{nfe} algorithm_type=sde-dpmsolver++{karras}"
            yield f"ddim:{nfe}"
            if self.rises:
                yield f"ddpm:{nfe}"
        for grid in ("even", "karras") if self._flow else ("karras", "trailing"):
            for solver in self.solvers:
                if steps := main_steps(solver, nfe):
                    yield self._plain(solver, grid, steps)
        if self._flow or not (self.rises and self.restarts):  # no restarts are published for flow models
            return
        for solver in _AROUND:
            for restart in self._published(restart_calls(solver)):
                intervals = [RestartInterval(int(n), int(k), low, high) for n, k, low, high in restart]
                own = {"solver": solver, "restart_solver": solver, "restart_grid": "karras", **self._grids["karras"]}
                if sampler := self._exact(own, intervals):
                    yield sampler

    def _published(self, calls: int) -> Iterator[list[list[float]]]:
        """Lists the published restarts, for a solver of so many evaluations a step."""
        paper = guidance_preset(self.guidance)["restart"]
        steps = max(1, round(_SHARE * self.nfe / (calls * len(paper))))
        yield [[steps + 1, 1, low, high] for _, _, low, high in paper]
        yield steps_preset(self.nfe)["restart"]
