"""Settings of samplers that do nothing in a pipeline."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from inspect import signature

import torch
from torch import Tensor

from restart_sampling.text_to_image.drawing import TextDrawing, prepare
from restart_sampling.text_to_image.row_layout import without_notes
from restart_sampling.text_to_image.samplers import Sampler


def idle_notes(drawings: Iterable[TextDrawing]) -> list[str]:
    """Says which settings of samplers do nothing in any of these drawings, a sentence for each sampler."""
    found: dict[Sampler, list[str]] = {}
    for drawing in drawings:
        if found.get(sampler := drawing.request.sampler) != []:  # else none of them is idle in all
            own = idle_settings(drawing)
            found[sampler] = [setting for setting in found.get(sampler, own) if setting in own]
    return [
        f"the sampler '{sampler}' draws the same without {' or '.join(idle)}" for sampler, idle in found.items() if idle
    ]


def idle_settings(drawing: TextDrawing) -> list[str]:
    """Lists settings, `key=value`, without each of which the images are the same.

    The sampler draws with a function in place of the network, with the setting and without it.
    """
    settings = drawing.request.sampler.settings
    if not settings:
        return []

    def same(without: tuple[str, str]) -> bool:
        with suppress(Exception):  # it cannot do without
            return torch.equal(_drawn(drawing, *(each for each in settings if each != without)), own)
        return False

    try:
        own = _drawn(drawing, *settings)
    except Exception:  # of a setting that its scheduler looks at in a step; the pipeline will say what is wrong
        return []
    return ["=".join(each) for each in settings if same(each)]


def _drawn(drawing: TextDrawing, *settings: tuple[str, str]) -> Tensor:
    """Draws with the sampler and these settings, in the rows that the pipeline sets; returns the states of all rows."""
    request = drawing.request
    sampler = replace(request.sampler, settings=settings)
    with without_notes():
        scheduler = prepare(drawing.model, replace(request, sampler=sampler)).scheduler
    generator, states = torch.Generator().manual_seed(0), []
    noise = {"generator": generator} if "generator" in signature(scheduler.step).parameters else {}
    x = torch.randn(1, 4, 8, 8, generator=generator, dtype=torch.float64).to(scheduler.timesteps.device)
    x = x * getattr(scheduler, "init_noise_sigma", 1)
    for timestep in scheduler.timesteps:
        x = scheduler.step(torch.sin(3 * x + timestep / 100), timestep, x, **noise, return_dict=False)[0]
        states.append(x)
    return torch.stack(states).nan_to_num()
