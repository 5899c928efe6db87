"""The demonstration: ODE, SDE and Restart side by side, on the same seeds and classes, at the same cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from restart_sampling.base.errors import require_extra
from restart_sampling.base.files import atomic
from restart_sampling.generation.drawing import generate
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.sampling.plan import Plan
from restart_sampling.sampling.sample import net_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# All of 43 evaluations. The settings of SDE and Restart suit the models of this package, not the published ones.
SAMPLERS = {
    "ODE": "22",
    "SDE": "22 churn=8 s_min=0.5 s_max=20",
    "Restart": "cifar10-small-43",
}
_COLOURS = {"ODE": "#4477aa", "SDE": "#228833", "Restart": "#cc3311"}
_PIXEL = 3  # each pixel of an image is drawn as so many, so that no smoothing hides them


@dataclass(frozen=True)
class Row:
    """One sampler of the demonstration.

    Attributes:
        name: of the sampler.
        plan: its settings.
        nfe: calls of the denoiser.
        seconds: for all images.
        images: uint8 [B, H, W, 3].
        schedule: (evaluations so far, level), from `NoisePath.schedule`.
    """

    name: str
    plan: Plan
    nfe: int
    seconds: float
    images: np.ndarray
    schedule: list[tuple[int, float]]


def run_demo(model: Denoiser, seeds: Sequence[int], batch_size: int, advance: Callable[[int], None]) -> list[Row]:
    """Draws the same seeds with each sampler; where the model has classes, one after another.

    Args:
        model: one with RGB images.
        seeds: one for each column.
        batch_size: images at a time.
        advance: called with the number of images after each batch.
    """
    classes = [column % model.label_dim for column in range(len(seeds))] if model.label_dim else None
    rows = []
    for name, text in SAMPLERS.items():
        plan = Plan.parse(text)
        path = net_path(model, plan)
        start = time.perf_counter()
        batches = []
        for batch in generate(model, plan, seeds, batch_size=batch_size, classes=classes):
            batches.append(batch.images.numpy())
            advance(len(batch.seeds))
        seconds = time.perf_counter() - start
        images = np.concatenate(batches).transpose(0, 2, 3, 1)
        rows.append(Row(name, plan, path.nfe(*plan.solvers), seconds, images, path.schedule(*plan.solvers)))
    return rows


def draw_demo(rows: Sequence[Row], names: Sequence[str], out: Path) -> None:
    """A picture with one labelled row a sampler: its images, and its noise path beside them.

    Args:
        rows: from `run_demo`.
        names: one over each column.
        out: a PNG file, written whole.

    Raises:
        InputError: matplotlib is not installed.
    """
    require_extra("matplotlib", "figures")
    from matplotlib.figure import Figure

    columns, size = rows[0].images.shape[:2]
    widths = (1.25, 0.9 * columns, 2.6)
    width = sum(widths) + 0.6  # inches; the margin holds the labels of the levels
    figure = Figure(figsize=(width, 0.92 * len(rows) + 0.75), dpi=160, facecolor="white")
    grid = figure.add_gridspec(
        len(rows),
        3,
        width_ratios=widths,
        left=0.15 / width,
        right=1 - 0.5 / width,
        top=0.91,
        bottom=0.15,
        wspace=0.03,
        hspace=0.07,
    )
    for index, row in enumerate(rows):
        title = figure.add_subplot(grid[index, 0])
        title.axis("off")
        title.text(0, 0.62, row.name, fontsize=15, fontweight="bold", color=_COLOURS[row.name], va="center")
        title.text(0, 0.28, f"{row.nfe} evaluations", fontsize=8.5, color="#444444", va="center")
        strip = figure.add_subplot(grid[index, 1])
        strip.axis("off")
        gap = max(1, size // 16)
        strip.imshow(_strip(row.images, gap), interpolation="nearest")
        if index == 0:
            for column, name in enumerate(names):
                centre = _PIXEL * ((size + gap) * column + size / 2)
                strip.text(centre, -_PIXEL * gap, name, fontsize=8, color="#444444", ha="center", va="bottom")
        _draw_path(figure.add_subplot(grid[index, 2]), row, first=index == 0, last=index == len(rows) - 1)
    with atomic(out) as temporary:
        figure.savefig(temporary, format="png")


def _strip(images: np.ndarray, gap: int) -> np.ndarray:
    """Images [B, H, W, 3] side by side, with white between them."""
    spaced = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    strip = np.concatenate(list(spaced), axis=1)[:, :-gap]
    return strip.repeat(_PIXEL, axis=0).repeat(_PIXEL, axis=1)


def _draw_path(axes: Axes, row: Row, first: bool, last: bool) -> None:
    positive = [(spent, level) for spent, level in row.schedule if level > 0]
    axes.plot(*zip(*positive, strict=True), color=_COLOURS[row.name], linewidth=1.8)
    axes.set_yscale("log")
    axes.set_xlim(0, row.nfe)
    axes.set_ylim(1.2e-3, 200)
    axes.yaxis.tick_right()
    axes.set_yticks([0.01, 1, 100], ["0.01", "1", "100"])
    axes.minorticks_off()
    axes.tick_params(labelsize=7, length=2, labelbottom=last, colors="#444444")
    if first:
        axes.set_title("noise level on the way", fontsize=8, color="#444444", pad=4)
    if last:
        axes.set_xlabel("evaluations of the network", fontsize=8, color="#444444", labelpad=2)
    for side in ("top", "left"):
        axes.spines[side].set_visible(False)
    for side in ("right", "bottom"):
        axes.spines[side].set_color("#999999")
