"""What the page does with a text-to-image pipeline: a prompt with two samplers, from the same seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from restart_sampling.app.plans import MAX_NFE, plot_schedules_of, wrong
from restart_sampling.app.samples import COLUMNS, picture
from restart_sampling.base.errors import InputError
from restart_sampling.generation.drawing import Advance
from restart_sampling.text_to_image.bundled import GUIDANCE, TINY
from restart_sampling.text_to_image.drawing import Request, TextDrawing, prepare
from restart_sampling.text_to_image.pipeline import TextToImage
from restart_sampling.text_to_image.samplers import Sampler, is_flow

STARTS = ("ddim:50", "restart:30 [10,2,0.1,2.0]", "restart", "heun:26", "dpmpp:25", "ddpm:100")
FLOW_STARTS = ("euler:28", "restart:28 [4,1,0.3,0.6]", "heun:15")
"""Samplers to choose from; the page begins with the first two."""


def starts(model: TextToImage) -> tuple[str, ...]:
    """Samplers that suit a pipeline."""
    return FLOW_STARTS if is_flow(model.scheduler_config) else STARTS


def guidance_of(model: TextToImage) -> float:
    """The guidance scale that the page begins with."""
    return GUIDANCE if model.name == TINY else 7.5


def prepare_sampler(model: TextToImage, text: str, guidance: float, prompt: str) -> TextDrawing:
    """Makes the drawing of a sampler, which takes one evaluation of the network.

    Raises:
        InputError: it is no sampler, does not fit the pipeline, or takes too many evaluations for the page.
    """
    drawing = prepare(model, Request(Sampler.parse(text), guidance), prompt, COLUMNS)
    if drawing.nfe > MAX_NFE:
        raise InputError(
            f"the sampler takes {drawing.nfe} evaluations, and the page at most {MAX_NFE}; use fewer steps"
        )
    return drawing


def describe(model: TextToImage, texts: Sequence[str], guidance: float) -> list[Markup]:
    """Says what each sampler costs or what is wrong with it; last is the picture of the noise paths of all."""
    said, paths = [], []
    for letter, text in zip("AB", texts, strict=True):
        try:
            drawing = prepare_sampler(model, text, guidance, "")
        except InputError as error:
            said.append(wrong(error))
            continue
        network = drawing.network_evaluations
        more = f", {network} evaluations of the network with guidance" if network != drawing.nfe else ""
        said.append(Markup("<p><b>NFE {}</b>{}</p>").format(drawing.nfe, more))
        if drawing.note:
            said[-1] += Markup("<p>{}</p>").format(drawing.note)
        paths.append((f"sampler {letter}", drawing.request.sampler.family, drawing.nfe, drawing.path))
    return [*said, plot_schedules_of(paths)]


@dataclass(eq=False)
class _Side:
    """What one sampler has made so far."""

    name: str
    drawing: TextDrawing
    images: list[np.ndarray]


def draw(
    model: TextToImage,
    texts: Sequence[str],
    prompt: str,
    guidance: float,
    seeds: Sequence[int],
    advance: Advance = lambda images: None,
) -> Iterator[list[Markup | str]]:
    """Draws a prompt with two samplers, a few images of each in turn; yields what the page shows of either.

    The images are those of `text generate` for these seeds.

    Args:
        model: the pipeline.
        texts: the samplers.
        prompt: of all images.
        guidance: scale of classifier-free guidance.
        seeds: one for each image of a sampler.
        advance: is told how many more images are done, which may be parts of one.

    Raises:
        InputError: there is no prompt, a sampler is none, or an image is not finite.
    """
    if not prompt.strip():
        raise InputError("there is no prompt; write what the images should show")
    sides = [
        _Side(f"Sampler {letter}", prepare_sampler(model, text, guidance, prompt), [])
        for letter, text in zip("AB", texts, strict=True)
    ]
    for start in range(0, len(seeds), COLUMNS):
        for side in sides:
            side.images += [
                batch.images.numpy() for batch in side.drawing.draw(seeds[start : start + COLUMNS], advance)
            ]
            yield [_show(each, len(seeds)) for each in sides]


def _show(side: _Side, count: int) -> Markup | str:
    if not side.images:
        return ""
    images = np.concatenate(side.images)
    far = "done" if len(images) == count else f"{len(images)} of {count} images"
    return picture(side.name, images, f"{side.drawing.request.sampler}, NFE {side.drawing.nfe}: {far}")
