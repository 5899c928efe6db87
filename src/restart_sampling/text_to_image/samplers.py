"""Samplers of text-to-image pipelines, as users write them: each is a scheduler made from the pipeline's own."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from restart_sampling.base.errors import InputError, did_you_mean, one_line
from restart_sampling.base.numbers import format_number, is_finite
from restart_sampling.base.strict_json import parse_json
from restart_sampling.sampling.intervals import RestartInterval
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.plan_text import read_scale, split_plan
from restart_sampling.sampling.solvers.by_name import SOLVERS, make_solver
from restart_sampling.text_to_image.intervals import as_lists
from restart_sampling.text_to_image.presets import guidance_preset
from restart_sampling.text_to_image.sampler_settings import FAILURES, check_highest, check_order, read_setting

_OURS = "restart_sampling.text_to_image"
SAMPLER_FORMAT = "restart-sampling-sampler/1"
"""Of the files that `text tune` writes, which are samplers too."""


@dataclass(frozen=True)
class Kind:
    """What the name of a sampler stands for.

    Attributes:
        family: ODE, SDE or Restart.
        steps: where the user writes none.
        noise: module and class of the scheduler in pipelines that predict noise, v or the image; None: not for them.
        flow: likewise in pipelines of flow models.
    """

    family: str
    steps: int
    noise: tuple[str, str] | None = None
    flow: tuple[str, str] | None = None


_FLOW = (_OURS, "FlowMatchRestartScheduler")  # without restarts it is diffusers' Euler or Heun, and FLUX takes it
KINDS = {
    "ddim": Kind("ODE", 50, noise=("diffusers", "DDIMScheduler")),
    "ddpm": Kind("SDE", 100, noise=("diffusers", "DDPMScheduler")),
    "heun": Kind("ODE", 26, noise=("diffusers", "HeunDiscreteScheduler"), flow=_FLOW),
    "dpmpp": Kind("ODE", 25, noise=("diffusers", "DPMSolverMultistepScheduler")),
    "euler": Kind("ODE", 28, flow=_FLOW),
    "restart": Kind("Restart", 30, noise=(_OURS, "RestartScheduler"), flow=_FLOW),
    "restart-dpmpp": Kind("Restart", 25, noise=(_OURS, "RestartScheduler")),
}
"""The samplers by name."""

_FORM = "write NAME:STEPS, such as ddim:50, or restart:30 [10,2,0.1,2.0]"
_NO_RESTARTS = ("restart", "null")
_FALLS = [Move(2.0 * level, level) for level in (0.05, 0.5, 5.0)]  # some solvers add noise at some levels alone


@dataclass(frozen=True)
class MadeFor:
    """What a sampler was found for.

    Attributes:
        identity: of the pipeline, `TextToImage.identity`.
        guidance: the scale.
    """

    identity: str
    guidance: float


@dataclass(frozen=True)
class Sampler:
    """A sampler of a text-to-image pipeline.

    `str(sampler)` parses back to the same one.

    Attributes:
        name: of `KINDS`.
        steps: the pipeline's num_inference_steps.
        intervals: restarts in place of the preset's, which are chosen by the guidance scale; for family Restart alone.
        settings: (key, value) as they are written, over those of the scheduler.
        guidance: scale of classifier-free guidance that goes with it, written `guidance=4.2`; None: any does.
        made_for: the only pipeline that may have it, from the file of a sampler that was found for one; None: any.
    """

    name: str
    steps: int
    intervals: tuple[RestartInterval, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    guidance: float | None = None
    made_for: MadeFor | None = field(default=None, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str, steps: int | None = None) -> "Sampler":
        """Reads `ddim:50`, `heun`, `dpmpp:25 use_karras_sigmas=true`, `restart:30 [10,2,0.1,2.0] restart_solver=euler`.

        Args:
            text: name, number of steps (default: the name's), intervals and settings of the scheduler; or the path of a
                .json file that `text tune` wrote.
            steps: the number of steps where the text has none.

        Raises:
            InputError: not a sampler.
        """
        if not text.strip().endswith(".json"):
            return cls._parse(text, steps)
        path = Path(text.strip())
        found, made_for = _read_file(path)
        try:
            return replace(cls._parse(found, steps), made_for=made_for)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @classmethod
    def _parse(cls, text: str, steps: int | None) -> "Sampler":
        match = re.fullmatch(r"\s*([A-Za-z][\w.+-]*)\s*(?::\s*([^\s\[]+))?(.*)", text, re.DOTALL)
        name = match[1].lower() if match else ""
        if match is None or name not in KINDS:
            raise InputError(
                f"there is no sampler '{text}'; give one of {', '.join(KINDS)}, or a .json of 'text tune'{_meant(name)}"
            )
        if match[2] and steps is not None:
            raise InputError(f"sampler '{text}' has {match[2]} steps and {steps} are asked for; give the number once")
        if given := re.search(r"(?<!\w)restart\s*=\s*(?!null(?!\S))\S*", match[3]):
            raise InputError(
                f"sampler '{text}' has {given[0]}; write restarts by themselves, such as restart:30 [10,2,0.1,2.0], or "
                f"restart=null for none"
            )
        written = match[2] or (KINDS[name].steps if steps is None else steps)
        try:
            number, intervals, settings = split_plan(f"{written} {match[3]}")
        except InputError as error:
            raise InputError(f"sampler '{text}': {error}; {_FORM}") from None
        if number is None or number < 1:
            raise InputError(f"sampler '{text}' has {written} steps; {_FORM}")
        if intervals and KINDS[name].family != "Restart":
            raise InputError(
                f"sampler '{text}' has restart intervals, which only restart and restart-dpmpp take; {_FORM}"
            )
        pairs = dict(setting.split("=", 1) for setting in settings)
        if intervals and _NO_RESTARTS in pairs.items():
            raise InputError(f"sampler '{text}' has restart intervals and restart=null, which is none; leave one out")
        scale = pairs.pop("guidance", None)
        guidance = None if scale is None else read_scale(f"sampler '{text}'", scale)
        _check_pairs(text, name, pairs)
        return cls(name, number, intervals, tuple(pairs.items()), guidance)

    def __str__(self) -> str:
        settings = (f"{key}={value}" for key, value in self.settings)
        scale = [] if self.guidance is None else [f"guidance={format_number(self.guidance)}"]
        return " ".join([f"{self.name}:{self.steps}", *map(str, self.intervals), *settings, *scale])

    @property
    def family(self) -> str:
        """ODE, SDE or Restart."""
        settings = dict(self.settings)
        if settings.get("algorithm_type", "").startswith("sde"):
            return "SDE"
        if not self.without_restarts:
            return KINDS[self.name].family
        solver = make_solver(settings.get("solver", "euler"))
        return "ODE" if all(solver.landing(move) == move.then for move in _FALLS) else "SDE"

    @property
    def without_restarts(self) -> bool:
        """Whether it is a solver of our scheduler alone: `restart:25 restart=null solver=deis`."""
        return _NO_RESTARTS in self.settings


def _meant(name: str) -> str:
    """Says what a name that is no sampler may stand for."""
    if name in SOLVERS:
        return f"; {name} is a solver, so did you mean restart:25 restart=null solver={name}?"
    return did_you_mean(name.replace("+", "p"), KINDS)


def _check_pairs(text: str, name: str, pairs: Mapping[str, str]) -> None:
    """Makes sure, before any model is loaded, that settings in the text of a sampler can be some.

    Raises:
        InputError: one has no key or no value, is the number of steps, or is a solver that does not exist.
    """
    for key, value in pairs.items():
        if not (key and value):
            raise InputError(f"sampler '{text}': cannot read '{key}={value}'; write key=value, without spaces")
        if key in ("steps", "num_inference_steps"):
            raise InputError(f"sampler '{text}' has {key}={value}; write the number of steps as {name}:{value}")
        if key in ("solver", "restart_solver") and KINDS[name].family == "Restart" and value != "null":
            try:
                make_solver(value)
            except InputError as error:
                raise InputError(f"sampler '{text}': {error}") from None


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether this is the config of a flow model's scheduler, and not of one with betas.

    Raises:
        InputError: neither, or what the model predicts is not known here.
    """
    predictions = ("epsilon", "v_prediction", "sample")
    if config.get("prediction_type") in predictions if "beta_schedule" in config else "shift" in config:
        from restart_sampling.text_to_image.configs import kind_of  # which needs diffusers

        return kind_of(config) == "flow"
    predicts = f" that predicts {config['prediction_type']}" if "prediction_type" in config else ""
    raise InputError(
        f"the pipeline's scheduler is {config.get('_class_name', 'unknown')}{predicts}; the samplers are for models "
        f"that predict noise, v or the image with a schedule of betas (Stable Diffusion 1.5, 2, XL), and for flow "
        f"models (Stable Diffusion 3, FLUX)"
    )


def make_scheduler(sampler: Sampler, config: Mapping[str, Any], guidance: float) -> Any:
    """The scheduler of a sampler.

    Args:
        sampler: which.
        config: of the pipeline's own scheduler.
        guidance: scale of classifier-free guidance, which chooses the paper's restarts.

    Raises:
        InputError: the sampler is not for this kind of pipeline or has another guidance scale, or a setting is not one
            of its scheduler's.
    """
    if sampler.guidance not in (None, guidance):
        raise InputError(
            f"sampler '{sampler}' goes with guidance {sampler.guidance:g}, and {guidance:g} is asked for; ask for the "
            f"same, or take guidance={sampler.guidance:g} out of the sampler"
        )
    kind, flow = KINDS[sampler.name], is_flow(config)
    home = kind.flow if flow else kind.noise
    if home is None:
        own = [name for name, each in KINDS.items() if (each.flow if flow else each.noise)]
        what = "flow models" if flow else "models that predict noise"
        raise InputError(f"sampler '{sampler}' is not for {what}, as this pipeline's is one; give {', '.join(own)}")
    if sampler.steps > config["num_train_timesteps"]:
        raise InputError(f"sampler '{sampler}': the model knows {config['num_train_timesteps']} steps; give no more")
    from restart_sampling.text_to_image.configs import check_values  # which needs diffusers

    scheduler = _scheduler(home)
    try:
        others = {name: _scheduler(its) for name, each in KINDS.items() if (its := each.flow if flow else each.noise)}
        written = dict(read_setting(scheduler, *each, others) for each in sampler.settings)
        settings = own_settings(sampler, flow, guidance) | written
        made = scheduler.from_config(config, **settings)
        check_values(scheduler, made.config)
        if "solver_order" in written:
            check_order(made)
        if written.get("sigma_max") is not None and made.config.get("sigma_data") is None:
            check_highest(made)
        return made
    except FAILURES as error:
        raise InputError(f"sampler '{sampler}': {one_line(error)}") from error


def _scheduler(home: tuple[str, str]) -> Any:
    """Imports a class of schedulers, by its module and name."""
    return getattr(import_module(home[0]), home[1])


def check_samplers(rows: Iterable[tuple[Sampler, float]], config: Mapping[str, Any]) -> None:
    """Makes the scheduler and the path of every row of a table, before any work.

    Args:
        rows: samplers, each with a guidance scale.
        config: of the pipeline's own scheduler.

    Raises:
        InputError: one of them does not fit the model's levels; the message names the sampler and the guidance.
    """
    for sampler, guidance in rows:
        try:
            scheduler = make_scheduler(sampler, config, guidance)
            if not config.get("use_dynamic_shifting"):  # by the size of the images, which the pipeline knows
                scheduler.set_timesteps(sampler.steps)
        except FAILURES as error:
            said = one_line(error).removeprefix(f"sampler '{sampler}': ")
            raise InputError(f"sampler '{sampler}' at guidance {guidance:g}: {said}") from error


def check_pipeline(pipeline: str, sampler: Sampler) -> str | None:
    """What has to be known of a sampler in a class of pipelines; None where there is nothing.

    Args:
        pipeline: name of its class.
        sampler: which.

    Returns:
        A sentence for the user: the paper's restarts were chosen for another model.

    Raises:
        InputError: the pipeline never scales its network's input, as heun and restart need it.
    """
    unscaled = pipeline.startswith("Kandinsky") and not pipeline.startswith("Kandinsky5")
    if unscaled and (sampler.name == "heun" or sampler.family == "Restart"):
        raise InputError(
            f"{pipeline} never scales the input of its network, which {sampler.name} needs; use ddim, ddpm or dpmpp"
        )
    if sampler.family == "Restart" and not sampler.intervals and "XL" in pipeline:
        return (
            f"{sampler.name}'s intervals are the paper's for Stable Diffusion 1.5, and {pipeline} is of another model; "
            f"write your own, such as {sampler.name} [10,2,0.1,2.0]"
        )
    return None


def restart_sampler(steps: int, settings: Mapping[str, Any], flow: bool, guidance: float) -> Sampler:
    """The sampler of our scheduler with these settings; those that `restart` has by itself are not written.

    Args:
        steps: the pipeline's num_inference_steps.
        settings: of the scheduler; `restart` are lists [points, repeats, t_min, t_max], empty for none.
        flow: whether it is for a flow model.
        guidance: scale of classifier-free guidance.
    """
    intervals = tuple(RestartInterval(int(n), int(k), low, high) for n, k, low, high in settings["restart"])
    others = () if intervals else (_NO_RESTARTS,)
    own = own_settings(Sampler("restart", steps, intervals, others), flow, guidance)
    written = {key: value for key, value in settings.items() if key != "restart" and own.get(key) != value}
    words = ((key, value if isinstance(value, str) else json.dumps(value)) for key, value in written.items())
    return Sampler("restart", steps, intervals, (*others, *words))


def own_settings(sampler: Sampler, flow: bool, guidance: float) -> dict[str, Any]:
    """What a sampler sets over the pipeline's own settings, without those that are written."""
    if sampler.name == "dpmpp":
        return {"algorithm_type": "dpmsolver++", "solver_order": 2}
    if sampler.family != "Restart":
        return {"solver": sampler.name, "restart": None, "restart_budget": None} if flow else {}
    if flow and not (sampler.intervals or sampler.without_restarts):
        raise InputError(
            "no restarts are published for flow models; give intervals in t from 1 to 0, such as "
            f"restart:{sampler.steps} [4,1,0.3,0.6], or the samplers euler or heun"
        )
    # Of the paper's settings, what does not depend on the levels of Stable Diffusion.
    flow_settings = {"solver": "euler", "restart_solver": "heun", "restart_budget": "extra"}
    settings: dict[str, Any] = flow_settings if flow else guidance_preset(guidance, _evaluations(sampler))
    if sampler.intervals:
        settings["restart"] = as_lists(sampler.intervals)
    return settings


def _evaluations(sampler: Sampler) -> int | None:
    """Those of the preset's form; with intervals of the user's any number of steps will do."""
    if sampler.name == "restart":
        return None
    return KINDS[sampler.name].steps if sampler.intervals else sampler.steps


def _read_file(path: Path) -> tuple[str, MadeFor]:
    """Reads the text of a sampler, and what it was found for, from a file that `text tune` wrote."""
    advice = "give a file that 'restart-sampling text tune' wrote"
    try:
        content = parse_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"sampler {path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"sampler {path} is not JSON ({error}); {advice}") from error
    if not isinstance(content, dict) or content.get("format") != SAMPLER_FORMAT:
        raise InputError(f"sampler {path} has no format {SAMPLER_FORMAT}; {advice}")
    for key, kind in {"plan": "a text", "model_sha256": "a text", "guidance": "a finite number"}.items():
        value = content.get(key)
        if not (is_finite(value) if key == "guidance" else isinstance(value, str)):
            raise InputError(f"sampler {path} is damaged: its {key} has to be {kind}; tune again")
    evidence = content.get("evidence")
    if isinstance(evidence, dict) and content["plan"] not in evidence.get("scores", ()):
        raise InputError(
            f"sampler {path} was edited: its evidence is not of its plan '{content['plan']}'; give that text itself as "
            f"the sampler, or the file as 'restart-sampling text tune' wrote it"
        )
    return content["plan"], MadeFor(content["model_sha256"], content["guidance"])
