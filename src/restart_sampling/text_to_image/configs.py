"""Configs of other schedulers: which of them have a meaning for ours, by class and by their keys."""

import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

import diffusers
import numpy as np

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import real_number

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
_OURS = {"restart", "solver", "restart_solver", "restart_budget", "restart_grid", "euler_below"}


def kind_of(config: Config) -> str:
    """What the config is of: "betas", "edm" or "flow".

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
    prediction = config.get("prediction_type", "epsilon")
    if kind == "flow" and "prediction_type" in keys and name not in _FLOW and prediction != "flow_prediction":
        raise InputError(f"{what} has use_flow_sigmas with prediction_type {prediction!r}; give flow_prediction")
    if kind != "flow" and prediction not in PREDICTIONS[: 2 if kind == "edm" else 3]:
        raise InputError(
            f"{what} has prediction_type {prediction!r}; RestartScheduler knows {', '.join(PREDICTIONS)}, and "
            f"FlowMatchRestartScheduler flow_prediction with use_flow_sigmas"
        )
    return kind


def noise_config(config: Config, defaults: Config) -> dict[str, Any]:
    """The config as RestartScheduler reads it: what belongs to the model is kept, also where it is a default there.

    Args:
        config: of a scheduler with betas, or of EDM.
        defaults: of RestartScheduler.

    Raises:
        InputError: it is not such a config.
    """
    kind = kind_of(config)
    if kind == "flow":
        raise InputError(
            f"the config of {_source(config) or 'this scheduler'} is of a flow model (it has no noise schedule of "
            f"betas); use FlowMatchRestartScheduler"
        )
    if kind == "edm":
        config = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0, **config}
    return _kept(config, defaults, OF_THE_MODEL.keys() | (_OF_EDM if kind == "edm" else set()))


def flow_config(config: Config, defaults: Config) -> dict[str, Any]:
    """The config as FlowMatchRestartScheduler reads it, also of a solver that was told to use flow sigmas (Wan, Sana).

    Args:
        config: of a flow model's scheduler.
        defaults: of FlowMatchRestartScheduler.

    Raises:
        InputError: it is not such a config.
    """
    if kind_of(config) != "flow":
        raise InputError(
            f"the config of {_source(config) or 'this scheduler'} is not of a flow model's scheduler; for models that "
            f"predict noise (SD 1.5, 2, XL, Cosmos) use RestartScheduler"
        )
    if config.get("use_flow_sigmas"):
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


def check_numbers(class_: type, config: Config) -> None:
    """Refuses texts and other things where a class has numbers.

    Raises:
        InputError: a value is no number; the message names it.
    """
    for key, each in inspect.signature(class_.__init__).parameters.items():  # type: ignore[misc]
        kinds = (int, float) if config.get(key) is None else (int, float, int | None, float | None)
        if each.annotation in kinds and key not in _OURS:
            real_number(key, config[key])


def arguments_of(base: type, config: Config) -> dict[str, Any]:
    """The part of a config that the constructor of a base class takes."""
    return {key: config[key] for key in inspect.signature(base.__init__).parameters if key in config}  # type: ignore[misc]


def _kept(config: Config, defaults: Config, keys: set[str]) -> dict[str, Any]:
    """The config, where values of these keys (and our settings) count as given, and not as defaults to be replaced.

    diffusers drops what a config says is a default, though another class has another default, a copy of the config may
    have been edited, and what was given by position is taken for a default.
    """
    dropped = [
        key
        for key in config.get("_use_default_values", ())
        if key not in defaults
        or config.get(key) == defaults[key]
        or (key not in keys | _OURS and _is_default(config, key))
    ]
    return {**config, "_use_default_values": dropped} if "_use_default_values" in config else dict(config)


def _is_default(config: Config, key: str) -> bool:
    """Whether a value is the default of the class that the config is of, or may be of: then nobody has set it."""
    names = [_source(config)] if _source(config) else [*_BETAS, *_EDM, *_FLOW]
    classes = [getattr(diffusers, name, None) for name in names if name and _parameters(name) <= _keys(config)]
    parameters = [inspect.signature(each.__init__).parameters.get(key) for each in classes if each]
    return not parameters or any(each is not None and each.default == config.get(key) for each in parameters)


def _source(config: Config) -> str | None:
    """The class that a config is of; None for one that is written by hand or passed through several classes.

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


def _keys(config: Config) -> set[str]:
    return {key for key in config if not key.startswith("_")}


@cache
def _parameters(name: str) -> frozenset[str]:
    """The keys of a class of diffusers; none where this version has no such class."""
    class_ = getattr(diffusers, name, None)
    return frozenset(inspect.signature(class_.__init__).parameters) - {"self", "kwargs"} if class_ else frozenset()


@cache
def _known_keys() -> frozenset[str]:
    classes = (*_BETAS, *_EDM, *_FLOW)
    return frozenset({"predict_epsilon", *_OURS}).union(*map(_parameters, classes))


def _nearest(word: str, known: Iterable[str]) -> str:
    """The word, and the nearest of those that are known."""
    close = get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return f"'{word}'" + (f"; did you mean '{close[0]}'?" if close else "; leave it out")
