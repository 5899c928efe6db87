"""One prompt across samplers: a column for each with the same seeds, and below it the path of its noise levels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from restart_sampling.base.files import atomic
from restart_sampling.pictures.style import SECONDARY, log_scale, style, styles
from restart_sampling.text_to_image.drawing import TextDrawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Inches.
_CELL = 1.9  # of an image
_GAP = 0.06
_PATH = 1.1
_LEFT, _RIGHT, _BOTTOM = 0.62, 0.12, 0.4
_PROMPT_LINE, _NAME_LINE, _COST_LINE = 0.2, 0.13, 0.17
_LEAST_DPI, _MOST_DPI = 160, 320


@dataclass(frozen=True, eq=False)
class Column:
    """One sampler of a preview.

    Attributes:
        drawing: what was asked.
        images: uint8 [B, H, W, 3].
        seconds: for all of them.
    """

    drawing: TextDrawing
    images: np.ndarray
    seconds: float

    @property
    def family(self) -> str:
        """Of the sampler, for its colour."""
        sampler = self.drawing.request.sampler
        return f"{sampler.family} ({sampler})"


def run_preview(drawings: Sequence[TextDrawing], seeds: Sequence[int], advance: Callable[[int], None]) -> list[Column]:
    """Draws the same seeds with each sampler.

    Args:
        drawings: one a column, of the same pipeline and prompt.
        seeds: one a row; that of an image is added to the seed of the request.
        advance: called with the number of images after each batch.
    """
    columns = []
    for drawing in drawings:
        start = time.perf_counter()
        batches = []
        for batch in drawing.draw(seeds):
            batches.append(batch.images.numpy())
            advance(len(batch.seeds))
        images = np.concatenate(batches).transpose(0, 2, 3, 1)
        columns.append(Column(drawing, images, time.perf_counter() - start))
    return columns


def draw_preview(columns: Sequence[Column], prompt: str, seeds: Sequence[int], out: Path) -> None:
    """A picture with a labelled column a sampler, a row a seed, and the path of noise levels below each.

    Args:
        columns: of `run_preview`.
        prompt: at the top.
        seeds: of the rows.
        out: a PNG file, written whole.
    """
    from matplotlib.figure import Figure

    count, height, width = columns[0].images.shape[:3]
    tall = _CELL * height / width
    prompt_lines = wrap(prompt, 22 * len(columns), max_lines=3, placeholder=" ...")
    names = [wrap(str(column.drawing.request.sampler), 30) for column in columns]
    title = 0.1 + _NAME_LINE * max(map(len, names)) + _COST_LINE
    first = 0.15 + _PROMPT_LINE * len(prompt_lines) + title  # of the images, from the top
    size = (
        _LEFT + len(columns) * (_CELL + _GAP) - _GAP + _RIGHT,
        first + count * (tall + _GAP) + _PATH + _BOTTOM,
    )
    looks = styles([column.family for column in columns])
    dpi = min(max(width / _CELL, _LEAST_DPI), _MOST_DPI)
    with style():
        figure = Figure(figsize=size, dpi=dpi, facecolor="white")

        def text(left: float, top: float, words: str, **settings: Any) -> None:
            figure.text(left / size[0], 1 - top / size[1], words, **settings)

        def axes(left: float, top: float, height: float) -> Axes:
            return figure.add_axes((left / size[0], 1 - (top + height) / size[1], _CELL / size[0], height / size[1]))

        text(_LEFT, 0.12, "\n".join(prompt_lines), fontsize=10, va="top", linespacing=1.25)
        for place, (column, name) in enumerate(zip(columns, names, strict=True)):
            colour = looks[column.family].colour
            left = _LEFT + place * (_CELL + _GAP)
            bold = {"fontsize": 10 if len(name) == 1 and len(name[0]) < 24 else 7, "fontweight": "bold"}
            text(left, first - _COST_LINE - 0.02, "\n".join(name), color=colour, linespacing=1.2, va="bottom", **bold)
            text(left, first - 0.04, _cost(column.drawing), fontsize=7, color=SECONDARY, va="bottom")
            for row, image in enumerate(column.images):
                cell = axes(left, first + row * (tall + _GAP), tall)
                cell.imshow(image, interpolation="nearest" if width < dpi * _CELL / 2 else "antialiased", aspect="auto")
                cell.set_axis_off()
            _draw_path(axes(left, size[1] - _PATH - _BOTTOM, _PATH), columns, place, colour)
        for row, seed in enumerate(seeds):
            middle = first + row * (tall + _GAP) + tall / 2
            text(_LEFT - 0.08, middle, f"seed {seed}", rotation=90, ha="right", va="center", color=SECONDARY)
    with atomic(out) as temporary:
        figure.savefig(temporary, format="png")


def _cost(drawing: TextDrawing) -> str:
    if drawing.network_evaluations == drawing.nfe:
        return f"NFE {drawing.nfe}"
    return f"NFE {drawing.nfe}, {drawing.network_evaluations} network evaluations"


def _draw_path(axes: Axes, columns: Sequence[Column], place: int, colour: str) -> None:
    """Levels against evaluations; all columns on the same axes, so that costs and levels can be compared."""
    from matplotlib.ticker import MaxNLocator

    paths = [[(spent, level) for spent, level in column.drawing.path if level > 0] for column in columns]
    levels = [level for path in paths for _, level in path]
    axes.plot(*zip(*paths[place], strict=True), color=colour, linewidth=1.1)
    axes.set_xlim(0, max(column.drawing.nfe for column in columns))
    axes.set_ylim(min(levels) / 1.3, max(levels) * 1.3)
    log_scale(axes, "y", levels)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, prune="upper"))  # the next panel begins there
    axes.set_xlabel("evaluations so far", fontsize=7, labelpad=1)
    axes.tick_params(labelsize=6, length=2, pad=2, labelleft=place == 0)
    if place == 0:
        axes.set_ylabel("noise level", fontsize=7)
