"""Configs of other schedulers: which of them have a meaning for ours, by class and by their keys."""

import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from math import inf
from types import NoneType
from typing import Any, get_args

import diffusers
import numpy as np

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import is_number, real_number, truth_value, whole_number

Config = Mapping[str, Any]

PREDICTIONS = ("epsilon", "v_prediction", "sample")
"""What the network of a noise schedule of betas may predict."""

_BETAS = (
    "CogVideoXDDIMScheduler",
    "CogVideoXDPMScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
    "RestartScheduler",
)
_EDM = ("EDMDPMSolverMultistepScheduler", "EDMEulerScheduler")
_FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchRestartScheduler")

_DISTILLED = "is for networks that were distilled to be asked at a few levels of their own"
_MAP = "is for networks that predict where a step lands, not a slope"
_REVERSED = "runs from data to noise"
_OWN_WAY = "is called by its pipelines in a way of its own"
_REFUSED = {
    "CMStochasticIterativeScheduler": _DISTILLED,
    "CosineDPMSolverMultistepScheduler": "scales its network in a way of its own",
    "DDIMInverseScheduler": _REVERSED,
    "DDPMWuerstchenScheduler": "has a noise schedule of its own",
    "DPMSolverMultistepInverseScheduler": _REVERSED,
    "FlowMapEulerDiscreteScheduler": _MAP,
    "FlowMatchLCMScheduler": _DISTILLED,
    "HeliosDMDScheduler": _DISTILLED,
    "HeliosScheduler": "changes the resolution between its stages",
    "IPNDMScheduler": "has a noise schedule of its own",
    "KarrasVeScheduler": _OWN_WAY,
    "LCMScheduler": _DISTILLED,
    "LTXEulerAncestralRFScheduler": _OWN_WAY,
    "MiniMaxH3Scheduler": "counts its time and its sign the other way round",
    "PiflowScheduler": _MAP,
    "RePaintScheduler": _OWN_WAY,
    "RFD4ProteinaScheduler": "has a noise schedule of its own",
    "SCMScheduler": _MAP,
    "ScoreSdeVeScheduler": _OWN_WAY,
    "TCDScheduler": _DISTILLED,
    "UnCLIPScheduler": _OWN_WAY,
}
"""Schedulers whose configs look like one that we know, and why they are none."""

OF_THE_MODEL = {
    "num_train_timesteps": None,
    "prediction_type": None,
    "beta_start": None,
    "beta_end": None,
    "beta_schedule": None,
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
    "snr_shift_scale": 1.0,
    "shift": None,
    "use_dynamic_shifting": False,
}
"""Settings of the noise that a network was trained with, at the values of a config that has no such key."""
_MADE_ONCE = OF_THE_MODEL.keys() - {"prediction_type"}
"""Settings that __init__ makes tables of, and that are not read again."""
_MISSPELT = 0.6
"""Likeness to a setting, as difflib has it, at which a key is meant to be it."""
_OF_EDM = {"sigma_min", "sigma_max", "sigma_data", "sigma_schedule", "rho", "final_sigmas_type"}
_OF_BETAS = ("use_exponential_sigmas", "use_beta_sigmas", "rescale_betas_zero_snr")
_GRIDS = {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"}
OURS = ("restart", "solver", "restart_solver", "restart_budget", "restart_grid", "euler_below")
"""Settings that both of our schedulers have beside those of diffusers."""


def kind_of(config: Config) -> str:
    """Says what the config is of: "betas", "edm" or "flow".

    Raises:
        InputError: its class, a key of it or what its network predicts has no meaning here.
    """
    name, keys = _source(config), _keys(config)
    what = f"the config of {name}" if name else "the config"
    if name in _REFUSED:
        raise InputError(f"{name} {_REFUSED[name]}, which restarts cannot follow; keep the pipeline's own scheduler")
    if name in _EDM or (name is None and "sigma_data" in keys and not keys & {"beta_schedule", "shift"}):
        kind = "edm"
    elif name in _FLOW or (name is None and "shift" in keys and "beta_schedule" not in keys):
        kind = "flow"
    elif name in _BETAS or (name is None and "beta_schedule" in keys):
        kind = "flow" if config.get("use_flow_sigmas") else "betas"
    else:
        raise InputError(
            f"{what} has no meaning for restarts, which know schedules of betas (SD 1.5, 2, XL), of EDM and of flow "
            f"models (SD3, FLUX); keep the pipeline's own scheduler"
        )
    known = _known_keys()
    if (name is None or name in ("RestartScheduler", "FlowMatchRestartScheduler")) and (unknown := keys - known):
        raise InputError(f"{what} has an unknown key {_nearest(min(unknown), known)}")
    prediction = _prediction(config)
    if kind == "flow" and "prediction_type" in keys and name not in _FLOW and prediction != "flow_prediction":
        raise InputError(f"{what} has use_flow_sigmas with prediction_type {prediction!r}; give flow_prediction")
    if kind != "flow" and prediction not in PREDICTIONS[: 2 if kind == "edm" else 3]:
        raise InputError(
            f"{what} has prediction_type {prediction!r}; RestartScheduler knows {', '.join(PREDICTIONS)}, and "
            f"FlowMatchRestartScheduler flow_prediction with use_flow_sigmas"
        )
    return kind


def noise_config(config: Config, defaults: Config, given: Config) -> dict[str, Any]:
    """Makes the config that RestartScheduler reads: what belongs to the model is kept, even as a default there.

    Args:
        config: of a scheduler with betas, or of EDM.
        defaults: of RestartScheduler.
        given: keyword arguments of the user's beside it.

    Raises:
        InputError: it is not such a config.
    """
    kind = kind_of(config)
    if kind == "flow":
        raise InputError(
            f"the config of {_source(config) or 'this scheduler'} is of a flow model (it has no noise schedule of "
            f"betas); use FlowMatchRestartScheduler"
        )
    if config.get("use_lu_lambdas") and not config.get("use_karras_sigmas") and not given.keys() & _GRIDS:
        config = {**config, "use_exponential_sigmas": True}  # Lu's grid, by its other name
    old = {"predict_epsilon", "use_lu_lambdas"}
    config = {key: value for key, value in config.items() if key not in old} | {"prediction_type": _prediction(config)}
    if kind == "edm":
        config = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0, **config}
    return _kept(config, defaults, OF_THE_MODEL.keys() | (_OF_EDM if kind == "edm" else set()))


def flow_config(config: Config, defaults: Config) -> dict[str, Any]:
    """Makes the config that FlowMatchRestartScheduler reads, also of a solver with flow sigmas (Wan, Sana).

    Args:
        config: of a flow model's scheduler.
        defaults: of FlowMatchRestartScheduler.

    Raises:
        InputError: it is not such a config, or its levels are others.
    """
    if kind_of(config) != "flow":
        raise InputError(
            f"the config of {_source(config) or 'this scheduler'} is not of a flow model's scheduler; for models that "
            f"predict noise (SD 1.5, 2, XL, Cosmos) use RestartScheduler"
        )
    if config.get("use_flow_sigmas"):
        grids = sorted(key for key in _GRIDS | {"use_lu_lambdas"} if config.get(key))
        if grids and "restart" not in config:
            raise InputError(
                f"the config of {_source(config) or 'this scheduler'} has {grids[0]} with use_flow_sigmas (as Cosmos "
                f"2.5), whose levels are others than those of a flow model's scheduler; keep the pipeline's own, or "
                f"turn {grids[0]} off in a copy of the config"
            )
        config = {**config, "shift": config.get("flow_shift", 1.0)}
    return _kept(config, defaults, set(defaults))


def check_keywords(class_name: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuses keyword arguments of from_config that would be dropped.

    Raises:
        InputError: one of them is unknown; the message has the nearest, or says that it is of the other scheduler.
    """
    known = [*known, "dtype"]
    for each in given:
        if each not in known and class_name == "FlowMatchRestartScheduler" and each in _known_keys():
            raise InputError(
                f"'{each}' is no setting of a flow model's scheduler, and there are no presets for flow models; give "
                f"restarts in t, such as restart=[[4, 1, 0.3, 0.6]]"
            )
        if each not in known:
            raise InputError(f"{class_name} has no setting {_nearest(each, known)}")


def check_registered(config: Config, given: Config) -> None:
    """Refuses what register_to_config would take and not follow.

    A key that is like none of the schedulers' is a note of the user's, as in diffusers; so is one of another class.

    Args:
        config: of the scheduler.
        given: the settings that are registered.

    Raises:
        InputError: a key is nearly a setting, or one is of the noise schedule, which is made with the scheduler.
    """
    known = _known_keys()
    for key, value in given.items():
        if key not in known and get_close_matches(key, known, n=1, cutoff=_MISSPELT):
            raise InputError(f"there is no setting {_nearest(key, known)}")
        if key in _MADE_ONCE and key in config and not np.array_equal(value, config[key]):
            raise InputError(
                f"{key} is of the noise schedule, which stays as it was made; make a new scheduler with "
                f"from_config(scheduler.config, {key}={value!r})"
            )


def check_values(class_: type, config: Config) -> dict[str, Any]:
    """Returns the numbers and truth values that a class has, of any type, as Python's own, which JSON keeps.

    Raises:
        InputError: a value is none of its argument's kind, or there are no timesteps; the message names it.
    """
    plain: dict[str, Any] = {}
    for key, each in inspect.signature(class_.__init__).parameters.items():  # type: ignore[misc]
        kinds = get_args(each.annotation) or (each.annotation,)
        value: Any = config.get(key)
        if key in OURS or (value is None and (NoneType in kinds or bool in kinds)):
            continue
        if bool in kinds:
            plain[key] = truth_value(key, value)
        elif int in kinds:
            plain[key] = whole_number(key, value)
        elif float in kinds:
            plain[key] = value if is_number(value) else real_number(key, value)
    if config["num_train_timesteps"] < 1:
        raise InputError(f"num_train_timesteps is {config['num_train_timesteps']}; give at least 1")
    return plain


def check_noise_schedule(config: Config) -> None:
    """Refuses settings of RestartScheduler that are not of its noise schedule, of betas or of EDM, and were ignored.

    Raises:
        InputError: there is one; the message names it.
    """
    if config["timestep_type"] not in ("discrete", "continuous"):
        raise InputError(f"timestep_type is {config['timestep_type']!r}; give discrete or continuous")
    if config["sigma_schedule"] not in ("karras", "exponential"):
        raise InputError(f"sigma_schedule is {config['sigma_schedule']!r}; give karras or exponential")
    if config["sigma_data"] is None:
        for key, default in {"rho": 7.0, "sigma_schedule": "karras"}.items():
            if config[key] != default:
                raise InputError(
                    f"{key} is {config[key]!r}, which is of EDM's levels, and there is no sigma_data; leave it out, "
                    f"or give both"
                )
        return
    for key in ("sigma_data", "sigma_min", "sigma_max"):
        if config[key] is not None and not 0 < config[key] < inf:
            raise InputError(f"{key} is {config[key]:g}; EDM's levels need a finite number above 0")
    on = {key: config[key] for key in _OF_BETAS if config[key]}
    if config["use_karras_sigmas"] and config["sigma_schedule"] != "karras":
        on["use_karras_sigmas"] = True
    if config["snr_shift_scale"] != 1:
        on["snr_shift_scale"] = config["snr_shift_scale"]
    for key, value in on.items():
        raise InputError(
            f"{key} is {value!r}, which EDM's levels (sigma_data) do not follow; leave it out, and choose them by "
            f"sigma_schedule, rho, sigma_min and sigma_max"
        )


def arguments_of(base: type, config: Config) -> dict[str, Any]:
    """Returns the part of a config that the constructor of a base class takes."""
    return {key: config[key] for key in inspect.signature(base.__init__).parameters if key in config}  # type: ignore[misc]


def _kept(config: Config, defaults: Config, keys: set[str]) -> dict[str, Any]:
    """Returns the config, where values of these keys and our settings count as given, and not as defaults to replace.

    diffusers drops what a config says is a default, though another class has another default, a copy of the config may
    have been edited, and what was given by position is taken for a default.
    """
    dropped = [
        key
        for key in config.get("_use_default_values", ())
        if key not in defaults
        or config.get(key) == defaults[key]
        or (key not in keys.union(OURS) and _is_default(config, key))
    ]
    return {**config, "_use_default_values": dropped} if "_use_default_values" in config else dict(config)


def _is_default(config: Config, key: str) -> bool:
    """Tells whether a value is the default of the class that the config is of, or may be of: then nobody has set it."""
    names = [_source(config)] if _source(config) else [*_BETAS, *_EDM, *_FLOW]
    classes = [getattr(diffusers, name, None) for name in names if name and _parameters(name) <= _keys(config)]
    parameters = [inspect.signature(each.__init__).parameters.get(key) for each in classes if each]
    return not parameters or any(each is not None and each.default == config.get(key) for each in parameters)


def _source(config: Config) -> str | None:
    """Finds the class that a config is of; None for one that is written by hand or passed through several classes.

    Raises:
        InputError: two classes that mean different things have configs of the same keys.
    """
    name = config.get("_class_name")
    if name is not None:
        return str(name if isinstance(name, str) else name[-1])
    keys = _keys(config)
    alike = [each for each in _REFUSED if _parameters(each) == keys]
    twins = [each for each in (*_BETAS, *_EDM, *_FLOW) if alike and _parameters(each) == keys]
    if twins:
        raise InputError(
            f"a config of {', '.join(sorted(keys))} may be of {' or '.join([*twins, *alike])}; name the class: "
            f"from_config({{**config, '_class_name': '{twins[0]}'}})"
        )
    return alike[0] if alike else next((each for each in _EDM if _parameters(each) == keys), None)


def _prediction(config: Config) -> Any:
    """Returns what the network predicts; configs before diffusers 0.10 say it by predict_epsilon."""
    return "sample" if config.get("predict_epsilon") is False else config.get("prediction_type", "epsilon")


def _keys(config: Config) -> set[str]:
    return {key for key in config if not key.startswith("_")}


@cache
def _parameters(name: str) -> frozenset[str]:
    """Lists the keys of a class of diffusers; none where this version has no such class."""
    class_ = getattr(diffusers, name, None)
    return frozenset(inspect.signature(class_.__init__).parameters) - {"self", "kwargs"} if class_ else frozenset()


@cache
def _known_keys() -> frozenset[str]:
    classes = (*_BETAS, *_EDM, *_FLOW)
    return frozenset({"predict_epsilon", *OURS}).union(*map(_parameters, classes))


def _nearest(word: str, known: Iterable[str]) -> str:
    """Writes the word, and the nearest of those that are known."""
    close = get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return f"'{word}'" + (f"; did you mean '{close[0]}'?" if close else "; leave it out")
