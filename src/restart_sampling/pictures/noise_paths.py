"""Noise paths: the level against the evaluations so far, a panel for each sampler."""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from restart_sampling.base.errors import shorten
from restart_sampling.pictures.points import Point, Schedule, families
from restart_sampling.pictures.style import SECONDARY, log_scale, stacked, style, styles

_HEIGHT = 0.9  # inches, of one panel
_MOST = 6  # panels, where the user names no rows


def best_of_families(points: Sequence[Point]) -> list[Point]:
    """Picks the point of the lowest distance of each family; of many families, of ODE, SDE and Restart."""
    lowest = {point.family: point for point in sorted(points, key=lambda point: point.distance, reverse=True)}
    best = [lowest[family] for family in families(points)]
    if len(best) <= _MOST:
        return best
    of_kind = {each.family.partition(" ")[0]: each for each in sorted(best, key=lambda each: -each.distance)}
    return [each for each in best if each in of_kind.values()]


@style()
def plot_paths(points: Sequence[Point]) -> Figure:
    """Plots the paths of the points, one below another."""
    looks = styles(families(points))
    figure, panels = stacked(len(points), _HEIGHT)
    figure.set_figheight(figure.get_figheight() + 0.3)  # of the label below
    nfe = max(point.nfe for point in points)
    plot_schedules(panels, nfe, [(point.name, point.schedule, looks[point.family].colour) for point in points])
    for axes, point in zip(panels, points, strict=True):
        colour = looks[point.family].colour
        axes.set_title(f"{point.family}: {point.distance:.3g}", loc="left", fontsize=7, color=colour, pad=2)
        place: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "top"}
        axes.text(0.99, 0.97, shorten(point.name, 36), fontsize=6, color=SECONDARY, **place)
    figure.supylabel("noise level", fontsize=8)
    return figure


@style()
def plot_path(schedule: Schedule, title: str) -> Figure:
    """Plots one noise path, a dot after each move, under the text of its sampler."""
    figure = Figure(figsize=(5, 2.6), facecolor="white", layout="constrained")
    axes = figure.subplots()
    plot_schedules([axes], schedule[-1][0], [(title, schedule, styles(["Restart"])["Restart"].colour)])
    axes.lines[0].set(marker="o", markersize=2)
    axes.set_title(fill(shorten(title, 300), 95), loc="left", fontsize=7, pad=4)
    axes.set_ylabel("noise level")
    return figure


def plot_schedules(panels: Sequence[Axes], nfe: int, paths: Sequence[tuple[str, Schedule, str]]) -> None:
    """Plots a noise path in each panel, from the top: all on the same axes, so that costs and levels compare.

    Args:
        panels: one for each path.
        nfe: where the axes end.
        paths: name, schedule and colour of each.
    """
    levels = [level for _, schedule, _ in paths for _, level in schedule if level > 0]
    for axes, (name, schedule, colour) in zip(panels, paths, strict=True):
        positive = [(spent, level) for spent, level in schedule if level > 0]
        axes.plot(*zip(*positive, strict=True), color=colour, linewidth=1.2, label=name)
        axes.set_xlim(0, nfe)
        axes.set_ylim(min(levels) / 1.3, max(levels) * 1.3)
        log_scale(axes, "y", levels)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelbottom=axes is panels[-1])
    panels[-1].set_xlabel("evaluations of the denoiser so far")
