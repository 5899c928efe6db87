"""Noise paths: the level against the evaluations so far, a panel for each plan."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from restart_sampling.pictures.points import Point, families
from restart_sampling.pictures.style import SECONDARY, log_scale, new_figure, style, styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEIGHT = 0.85  # inches, of one panel


def best_of_families(points: Sequence[Point]) -> list[Point]:
    """The point of the lowest distance of each family."""
    names = families(points)
    return [
        min((point for point in points if point.family == name), key=lambda point: point.distance) for name in names
    ]


def draw_paths(points: Sequence[Point]) -> "Figure":
    """Draws the paths of the points, one below another."""
    from matplotlib.ticker import MaxNLocator

    looks = styles(families(points))
    paths = [[(spent, level) for spent, level in point.schedule if level > 0] for point in points]
    levels = [level for path in paths for _, level in path]
    with style():
        figure = new_figure(_HEIGHT * len(points) + 0.4)
        panels = figure.subplots(len(points), 1, squeeze=False, sharey=True)[:, 0]
        for axes, point, path in zip(panels, points, paths, strict=True):
            axes.plot(*zip(*path, strict=True), color=looks[point.family].colour, linewidth=1, label=point.name)
            axes.set_xlim(0, point.nfe)
            axes.set_title(
                f"{point.family}: {point.distance:.3g}", loc="left", fontsize=7, color=looks[point.family].colour, pad=2
            )
            place = {"xy": (1, 1), "xycoords": "axes fraction", "xytext": (-2, -2), "textcoords": "offset points"}
            axes.annotate(_short(point.name), **place, ha="right", va="top", fontsize=6, color=SECONDARY)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            log_scale(axes, "y", levels)
        panels[-1].set_xlabel("evaluations of the denoiser so far")
        figure.supylabel("noise level", fontsize=8)
    return figure


def _short(text: str, limit: int = 36) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
