"""Samples of plans as they come, with the states on the way."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted
from restart_sampling.generation.net_drawing import as_pixels
from restart_sampling.images.writers import encode_png, image_grid
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.sampling.net_plan import net_path
from restart_sampling.sampling.plan import Plan
from restart_sampling.sampling.sample import steps

COLUMNS = 4
BETWEEN = 0.25
"""Seconds, of pictures on the way."""

_SMALL = 64  # pixels of a side
_DATA_STD = 0.5  # of images, as EDM takes it


@dataclass(frozen=True, eq=False)
class Progress:
    """A sampler on its way.

    Attributes:
        evaluations: of the network, so far.
        nfe: of all the way.
        level: where its states are.
        images: uint8 [B, C, H, W], estimates or states; at the end the samples.
    """

    evaluations: int
    nfe: int
    level: float
    images: np.ndarray


def asked_seeds(first: float | None, count: float | None, most: int) -> range:
    """Returns the seeds of as many images as are asked for, 1 to `most`; None is of an empty field."""
    first = int(first or 0)
    return range(first, first + min(max(int(count or 1), 1), most))


def on_the_way(
    net: Denoiser, plan: Plan, seeds: Sequence[int], classes: Sequence[int] | None, noisy: bool
) -> Iterator[Progress]:
    """Draws the samples of seeds, the same as `generate`, and yields after each move.

    Args:
        net: the model.
        plan: the sampler.
        seeds: one for each image.
        classes: one for each seed; None where the model has none.
        noisy: whether to show the states, scaled to the spread of images; else the denoiser's estimates.

    Raises:
        InputError: the plan does not fit the net (at once), or an image is not finite (at the end).
    """
    schedule = net_path(net, plan).schedule(*plan.solvers)
    labels = {} if classes is None else {"class_labels": net.one_hot(torch.tensor(classes, device=net.device))}
    walked = steps(net, plan, seeds, net.shape, **labels)

    def progress() -> Iterator[Progress]:
        last = len(schedule) - 2
        for step in walked:
            x = step.state
            if step.index < last:
                x = x * (_DATA_STD / sqrt(_DATA_STD**2 + step.level**2)) if noisy or step.x0 is None else step.x0
            elif not torch.isfinite(x).all():
                raise InputError(f"an image is not finite with plan '{plan}'; look whether it suits the model")
            yield Progress(schedule[step.index + 1][0], schedule[-1][0], step.level, pixels(x))

    return progress()


def advance_together(runs: Sequence[Iterator[Progress]]) -> Iterator[list[Progress | None]]:
    """Advances samplers together: the one with the fewest evaluations goes first. Yields what each has, or None yet."""
    latest: list[Progress | None] = [None] * len(runs)
    going = dict(enumerate(runs))
    while going:
        place = min(going, key=lambda each: (found.evaluations if (found := latest[each]) else -1, each))
        progress = next(going[place], None)
        if progress is None:
            del going[place]
            continue
        latest[place] = progress
        yield list(latest)


def pixels(x: Tensor) -> np.ndarray:
    """Turns values from -1 to 1 to uint8, on the CPU; those that are no numbers are black."""
    return as_pixels(x.nan_to_num(-1.0)).cpu().numpy()


def show(name: str, progress: Progress) -> Markup:
    """Writes the images of a sampler into the page, with how far it is."""
    place = f"sigma {progress.level:.3g}" if progress.evaluations < progress.nfe else "done"
    return picture(name, progress.images, f"{progress.evaluations} of {counted(progress.nfe, 'evaluation')}, {place}")


def picture(name: str, images: np.ndarray, caption: str) -> Markup:
    """Writes images, uint8 [B, C, H, W], into the page as one picture with a caption."""
    grid = encode_png(image_grid(images, COLUMNS, scale=2 if images.shape[-1] <= _SMALL else 1))
    return Markup(
        '<figure><img class="samples" alt="{}" src="data:image/png;base64,{}"><figcaption>{}</figcaption></figure>'
    ).format(f"Samples of {name}", base64.b64encode(grid).decode(), f"{name}: {caption}")
