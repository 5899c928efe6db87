"""Settings in the texts of samplers: their keys and values, as schedulers of diffusers take them."""

import inspect
import json
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from restart_sampling.base.errors import InputError, did_you_mean

FAILURES = (ArithmeticError, ImportError, LookupError, RuntimeError, TypeError, ValueError)
"""What schedulers of diffusers raise for values that they do not expect."""


def read_setting(scheduler: type, key: str, text: str, others: Mapping[str, type]) -> tuple[str, Any]:
    """Reads a setting with its value: JSON's true, false, null and numbers, or a word.

    Args:
        scheduler: class.
        key: of the setting.
        text: its value.
        others: classes of the other samplers for the pipeline, by their names.

    Raises:
        InputError: the scheduler has no such setting, or its value is of another kind.
    """
    known = keys_of(scheduler)
    if key not in known:
        owners = [name for name, each in others.items() if key in keys_of(each)]
        elsewhere = f", which is of {', '.join(owners)}" if owners else ""
        allowed = ["guidance", *(each for each in known if each not in _of_the_noise())]
        raise InputError(
            f"{scheduler.__name__} has no setting '{key}'{elsewhere}; give one of {', '.join(allowed)}"
            f"{did_you_mean(key, allowed)}"
        )
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    default, annotation = known[key].default, known[key].annotation
    number = (int, "a whole number") if annotation is int else ((int, float), "a number")
    for kinds, words in ((bool, "true or false"), number, (str, "a word")):
        if isinstance(default, kinds):
            if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
                example = "" if kinds is bool else f", such as {key}={default}"
                raise InputError(f"{key} is {text}; give {words}{example}")
            break
    parts = (annotation, *get_args(annotation))
    listed = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
    if listed and value not in (*listed, default):
        raise InputError(f"{key} is {text}; {scheduler.__name__} knows {', '.join(listed)}{did_you_mean(text, listed)}")
    return key, value


def keys_of(scheduler: type) -> Mapping[str, inspect.Parameter]:
    """Lists the settings of a scheduler's class, by their keys."""
    parameters = inspect.signature(scheduler.__init__).parameters  # type: ignore[misc]
    return {key: each for key, each in parameters.items() if key != "self"}


def check_order(scheduler: Any) -> None:
    """Makes sure that diffusers has a solver of a scheduler's order, of which it takes any number.

    Raises:
        InputError: it fails, or draws as with the order below.
    """
    import torch

    def drawn(order: int) -> Any:
        tried = scheduler.from_config(scheduler.config, solver_order=order)
        tried.set_timesteps(20)  # enough for the full order
        x, generator, states = torch.ones(1, dtype=torch.float64), torch.Generator().manual_seed(0), []
        for timestep in tried.timesteps:
            x = tried.step(torch.sin(timestep), timestep, x, generator=generator).prev_sample
            states.append(x)
        return torch.cat(states).nan_to_num()

    order = scheduler.config["solver_order"]
    try:
        known = order >= 1 and (order == 1 or not torch.equal(drawn(order), drawn(order - 1)))
    except (*FAILURES, NameError):  # as solvers fail that are not there
        known = False
    if not known:
        raise InputError(
            f"solver_order is {order}, and {type(scheduler).__name__} has no such solver; give 2, the usual"
        )


def check_highest(scheduler: Any) -> None:
    """Makes sure that a scheduler of betas begins at a level that the network knows.

    Raises:
        InputError: its sigma_max is above the levels of the timesteps.
    """
    highest = float(((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt().max())
    if scheduler.config["sigma_max"] > 1.001 * highest:
        raise InputError(
            f"sigma_max is {scheduler.config['sigma_max']:g}, and the network knows no level above {highest:g}; give "
            f"that, or less"
        )


def noise_note(settings: Mapping[str, str], made: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """Says where a sampler has another noise schedule than the network was trained with; None: it has not.

    Args:
        settings: of the sampler, as they are written.
        made: config of its scheduler.
        config: of the pipeline's own.
    """
    known = _of_the_noise()
    own = {key: config.get(key, known[key]) for key in settings if key in known}
    other = {key: value for key, value in own.items() if made[key] != value}
    if not other:
        return None
    trained, sampled = (", ".join(f"{key}={each[key]}" for key in other) for each in (own, settings))
    return f"the network was trained with {trained}, and the sampler has {sampled}"


def _of_the_noise() -> Mapping[str, Any]:
    """Settings of what the network was trained with, and their defaults; a flow's shift only chooses levels."""
    from restart_sampling.text_to_image.configs import OF_THE_MODEL  # which needs diffusers

    return {key: value for key, value in OF_THE_MODEL.items() if key not in ("shift", "use_dynamic_shifting")}
