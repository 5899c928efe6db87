"""What the page does with a text-to-image pipeline: a prompt with two samplers, from the same seeds."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from restart_sampling.app.plans import MAX_NFE, plot_schedules_of, require_no_file, wrong
from restart_sampling.app.samples import COLUMNS, picture
from restart_sampling.app.text_samples import on_the_way
from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted, real_number
from restart_sampling.text_to_image.drawing import Request, TextDrawing, prepare
from restart_sampling.text_to_image.idle import idle_notes
from restart_sampling.text_to_image.pipeline import TextToImage
from restart_sampling.text_to_image.samplers import Sampler, is_flow

STARTS = ("ddim:50", "restart:30 [10,2,0.1,2.0]", "restart", "heun:26", "dpmpp:25", "ddpm:100")
FLOW_STARTS = ("euler:28", "restart:28 [4,1,0.3,0.6]", "heun:15")
"""Samplers to choose from; the page begins with the first two."""


def starts(model: TextToImage) -> tuple[str, ...]:
    """Lists samplers that suit a pipeline."""
    return FLOW_STARTS if is_flow(model.scheduler_config) else STARTS


def prepare_sampler(model: TextToImage, text: str, guidance: float, prompt: str) -> TextDrawing:
    """Makes the drawing of a sampler, for which the first one has the network evaluated once.

    Raises:
        InputError: it is no sampler, does not fit the pipeline, or takes too many evaluations for the page, or there is
            no guidance scale.
    """
    require_no_file(text, "the sampler itself, such as restart:30 [10,2,0.1,2.0]")
    asked = Request(Sampler.parse(text), real_number("guidance scale", guidance))  # None of an empty field
    drawing = prepare(model, asked, prompt, COLUMNS)
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
            notes = [drawing.note, *idle_notes([drawing])]
        except InputError as error:
            said.append(wrong(error))
            continue
        network = drawing.network_evaluations
        more = f", {network} evaluations of the network with guidance" if network != drawing.nfe else ""
        said.append(Markup("<p><b>NFE {}</b>{}</p>").format(drawing.nfe, more))
        for note in filter(None, notes):
            said[-1] += Markup("<p>{}</p>").format(note)
        paths.append((f"sampler {letter}", drawing.request.sampler.family, drawing.nfe, drawing.path))
    return [*said, plot_schedules_of(paths)]


@dataclass(eq=False)
class _Side:
    """A sampler of the page.

    Attributes:
        name: on the page.
        drawing: of the sampler.
        done: of its images, uint8 [3, H, W] each.
    """

    name: str
    drawing: TextDrawing
    done: list[np.ndarray] = field(default_factory=list)

    def show(self, count: int, evaluations: int = 0, images: Sequence[np.ndarray] = ()) -> Markup:
        """Writes what there is of `count` images into the page: those done, and after them those on the way."""
        far = [f"{len(self.done)} of {count} images"] if self.done and len(self.done) < count else []
        far += [f"{evaluations} of {counted(self.drawing.nfe, 'evaluation')}"] if evaluations else []
        caption = f"{self.drawing.request.sampler}, NFE {self.drawing.nfe}: {' and '.join(far) or 'done'}"
        pictures = [*self.done, *images]
        return picture(self.name, np.stack(pictures), caption) if pictures else Markup("<p>{}</p>").format(caption)


def draw(
    model: TextToImage, texts: Sequence[str], prompt: str, guidance: float, seeds: Sequence[int]
) -> Iterator[list[Markup | str]]:
    """Draws a prompt with two samplers, a few images of each in turn; yields what the page shows of either on the way.

    The images are those of `text generate` for these seeds. Where the iterator is closed no further step is taken.

    Args:
        model: the pipeline.
        texts: the samplers.
        prompt: of all images.
        guidance: scale of classifier-free guidance.
        seeds: one for each image of a sampler.

    Raises:
        InputError: there is no prompt, a sampler is none, or an image is not finite.
    """
    if not prompt.strip():
        raise InputError("there is no prompt; write what the images should show")
    sides = [
        _Side(f"Sampler {letter}", prepare_sampler(model, text, guidance, prompt))
        for letter, text in zip("AB", texts, strict=True)
    ]
    shown: list[Markup | str] = ["" for _ in sides]
    for start in range(0, len(seeds), COLUMNS):
        for place, side in enumerate(sides):
            with closing(on_the_way(side.drawing, seeds[start : start + COLUMNS])) as steps:
                for evaluations, images in steps:
                    if evaluations < side.drawing.nfe:
                        shown[place] = side.show(len(seeds), evaluations, images)
                    else:
                        side.done += images
                        shown[place] = side.show(len(seeds))
                    yield [*shown]
