"""`plot_side_by_side`: cost, images and noise path of samplers on the same seeds."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from restart_sampling.base.files import atomic
from restart_sampling.base.lock import alone
from restart_sampling.base.numbers import counted
from restart_sampling.generation.batch import Batch
from restart_sampling.generation.drawing import Advance
from restart_sampling.generation.net_drawing import NetDrawing
from restart_sampling.pictures.noise_paths import plot_schedules
from restart_sampling.pictures.points import Schedule
from restart_sampling.pictures.style import SECONDARY, style, styles

# Inches.
_LEAST_CELL, _MOST_CELL = 1.0, 1.9  # width of an image
_GAP = 0.06
_PATH = 2.6
_MARGIN, _RIGHT, _BOTTOM = 0.12, 0.42, 0.45
_LINE, _PROMPT_LINE, _NAME_LINE = 0.22, 0.2, 0.13
_LETTER, _BOLD_LETTER = 0.058, 0.07
_LEAST_DPI, _MOST_DPI = 160, 320


@dataclass(frozen=True, eq=False)
class Sampled:
    """What one sampler made.

    Attributes:
        name: of the sampler.
        family: for its colour: ODE, SDE or Restart, and what tells it from others of that kind.
        cost: in words.
        nfe: calls of the denoiser.
        schedule: its noise path.
        images: uint8 [B, C, H, W].
        seconds: that all of them took.
    """

    name: str
    family: str
    cost: str
    nfe: int
    schedule: Schedule
    images: np.ndarray
    seconds: float


def take_images(batches: Iterable[Batch]) -> tuple[np.ndarray, float]:
    """Draws batches to their end; returns the images, uint8 [B, C, H, W], and the seconds that they took."""
    start = time.perf_counter()
    images = [batch.images.numpy() for batch in batches]
    return np.concatenate(images), time.perf_counter() - start


def draw_sampled(
    name: str, drawing: NetDrawing, seeds: Sequence[int], advance: Advance = lambda images: None
) -> Sampled:
    """Draws the images of a sampler.

    Args:
        name: of the sampler, and its family.
        drawing: draws them.
        seeds: one for each image.
        advance: is told how it goes on.
    """
    taken = take_images(drawing.draw(seeds, advance))
    schedule = drawing.path.schedule(*drawing.plan.solvers)
    return Sampled(name, name, counted(drawing.nfe, "evaluation"), drawing.nfe, schedule, *taken)


@style()
def plot_side_by_side(samplers: Sequence[Sampled], columns: Sequence[str], out: Path, title: str = "") -> None:
    """Writes a picture with a row for each sampler; all noise paths are on the same axes.

    Args:
        samplers: with the same number of images.
        columns: what to write over each column of images.
        out: a PNG file, written whole.
        title: over all; long ones are wrapped.
    """
    count, _, height, width = samplers[0].images.shape
    cell = min(max(width / _LEAST_DPI, _LEAST_CELL), _MOST_CELL)
    dpi = min(ceil(_LEAST_DPI * cell / width) * width / cell, _MOST_DPI)  # a whole number of dots for each pixel
    left = max(1.25, _LETTER * max(len(each.cost) for each in samplers)) + _MARGIN  # of the images
    names = [wrap(each.name, int(left / _BOLD_LETTER)) for each in samplers]
    tall = max(cell * height / width, 0.45 + _NAME_LINE * max(map(len, names)))
    path = left + count * (cell + _GAP) + _GAP  # left end of the noise paths
    size_x = path + _PATH + _RIGHT
    titles = wrap(title, int(11 * size_x), max_lines=3, placeholder=" ...")
    top = _MARGIN + _PROMPT_LINE * len(titles) + _LINE  # of the images
    size_y = top + len(samplers) * (tall + _GAP) + _BOTTOM
    figure = Figure(figsize=(size_x, size_y), dpi=dpi, facecolor="white")

    def text(x: float, y: float, words: str, **settings: Any) -> None:
        figure.text(x / size_x, 1 - y / size_y, words, **settings)

    def axes(x: float, y: float, wide: float) -> Axes:
        return figure.add_axes((x / size_x, 1 - (y + tall) / size_y, wide / size_x, tall / size_y))

    text(_MARGIN, _MARGIN, "\n".join(titles), fontsize=10, va="top", linespacing=1.25)
    heads: dict[str, Any] = {"y": top - 0.05, "fontsize": 8, "color": SECONDARY, "ha": "center"}
    for column, words in enumerate(columns):
        text(left + column * (cell + _GAP) + cell / 2, words=words, **heads)
    text(path + _PATH / 2, words="noise level on the way", **heads)
    looks = styles([each.family for each in samplers])
    panels = []
    for row, (each, name) in enumerate(zip(samplers, names, strict=True)):
        upper = top + row * (tall + _GAP)
        base = upper + max(0.55 * tall, _NAME_LINE * len(name))  # between the name and the cost
        bold = {"fontsize": 14 if len(each.name) <= 10 else 7, "fontweight": "bold", "color": looks[each.family].colour}
        text(_MARGIN, base, "\n".join(name), linespacing=1.2, va="bottom", **bold)
        text(_MARGIN, base + 0.06, each.cost, fontsize=7, color=SECONDARY, va="top")
        for column, image in enumerate(each.images):
            shown = axes(left + column * (cell + _GAP), upper, cell)
            sharp = "nearest" if dpi < _MOST_DPI else "antialiased"
            shown.imshow(image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255, interpolation=sharp)
            shown.set_axis_off()
        panels.append(axes(path, upper, _PATH))
        panels[-1].yaxis.tick_right()
        panels[-1].spines["left"].set_visible(False)
        panels[-1].spines["right"].set_visible(True)
        panels[-1].tick_params(length=2, pad=2)
    paths = [(each.name, each.schedule, looks[each.family].colour) for each in samplers]
    plot_schedules(panels, max(each.nfe for each in samplers), paths)
    with alone(out), atomic(out) as temporary:
        figure.savefig(temporary, format="png")
