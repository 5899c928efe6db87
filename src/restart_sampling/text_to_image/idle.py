"""Settings of samplers that do nothing in a pipeline, or that their schedulers fail with."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError, one_line
from restart_sampling.text_to_image.drawing import TextDrawing, prepare
from restart_sampling.text_to_image.row_layout import without_notes
from restart_sampling.text_to_image.sampler_settings import FAILURES
from restart_sampling.text_to_image.samplers import Sampler

Setting = tuple[str, str]


def idle_notes(drawings: Iterable[TextDrawing]) -> list[str]:
    """Says which settings of samplers do nothing in any of these drawings, a sentence for each sampler.

    Nothing is said of a sampler that was found for the pipeline: it states all that it is.

    Raises:
        InputError: as `idle_settings`.
    """
    found: dict[Sampler, list[str]] = {}
    for drawing in drawings:
        if found.get(sampler := drawing.request.sampler) != []:  # else none of them is idle in all
            own = [] if sampler.made_for else idle_settings(drawing)
            found[sampler] = [setting for setting in found.get(sampler, own) if setting in own]
    return [
        f"the sampler '{sampler}' draws the same without {' or '.join(idle)}" for sampler, idle in found.items() if idle
    ]


def idle_settings(drawing: TextDrawing) -> list[str]:
    """Lists settings, `key=value`, without each of which the images are the same.

    The sampler draws with a function in place of the network, with the setting and without it.

    Raises:
        InputError: it cannot draw with its settings; the message names those without which it can.
    """
    sampler = drawing.request.sampler
    if not sampler.settings:
        return []
    try:
        own = _drawn(drawing, sampler.settings)
    except InputError as error:
        blamed = ["=".join(each) for each in sampler.settings if _without(drawing, each) is not None]
        advice = f"leave out {' or '.join(blamed)}" if blamed else "give other settings"
        raise InputError(f"sampler '{sampler}' {error}; {advice}") from error
    others = {"=".join(each): _without(drawing, each) for each in sampler.settings}
    return [setting for setting, other in others.items() if other is not None and torch.equal(other, own)]


def _without(drawing: TextDrawing, setting: Setting) -> Tensor | None:
    """Draws as `_drawn` without one of the sampler's settings; None: it cannot do without."""
    with suppress(InputError):
        return _drawn(drawing, [each for each in drawing.request.sampler.settings if each != setting])
    return None


def _drawn(drawing: TextDrawing, settings: Sequence[Setting]) -> Tensor:
    """Draws with the sampler and these settings, in the rows that the pipeline sets; returns the states of all rows.

    Raises:
        InputError: the settings do not fit the pipeline, a step of the scheduler fails, or a state is not finite.
    """
    request = drawing.request
    sampler = replace(request.sampler, settings=tuple(settings))
    with without_notes():
        scheduler = prepare(drawing.model, replace(request, sampler=sampler)).scheduler
    generator, states = torch.Generator().manual_seed(0), []
    noise = {"generator": generator} if "generator" in signature(scheduler.step).parameters else {}
    x = torch.randn(1, 4, 8, 8, generator=generator).to(scheduler.timesteps.device)
    x = x * getattr(scheduler, "init_noise_sigma", 1)
    copies = 2 if _has_variance(drawing, scheduler.config) else 1
    try:
        for timestep in scheduler.timesteps:
            output = torch.sin(3 * x + timestep / 100).repeat(1, copies, 1, 1)
            x = scheduler.step(output, timestep, x, **noise, return_dict=False)[0]
            states.append(x)
    except FAILURES as error:
        raise InputError(f"fails in a step of {type(scheduler).__name__} ({one_line(error)})") from error
    drawn = torch.stack(states)
    if not drawn.isfinite().all():
        raise InputError("ends at values that are not finite")
    return drawn


def _has_variance(drawing: TextDrawing, config: Mapping[str, Any]) -> bool:
    """Tells whether a pipeline gives its scheduler a variance from its network too, as DeepFloyd's do."""
    channels: Any = drawing.model.network.config
    learned = str(config.get("variance_type")).startswith("learned")
    return learned and channels.get("out_channels") == 2 * channels.get("in_channels", 0)
