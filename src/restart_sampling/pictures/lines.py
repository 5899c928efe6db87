"""The lines and markers of a figure's own points, each with its standard error."""

from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from restart_sampling.pictures.points import Point
from restart_sampling.pictures.style import Style, spread


def plot_line(axes: Axes, points: Sequence[tuple[float, Point]], look: Style, label: str) -> Artist:
    """Plots a line through (x, point) with the standard error; returns its entry of a legend, with the marker."""
    x, y = [place for place, _ in points], [point.distance for _, point in points]
    line: dict[str, Any] = {"color": look.colour, "linewidth": 1.2, "label": label}
    axes.plot(x, y, **line, zorder=3)
    spread(axes, x, y, [point.error for _, point in points], look.colour)
    return Line2D([], [], **line, marker=look.marker, markersize=4)


def plot_marker(axes: Axes, point: Point, x: float, look: Style) -> None:
    """Plots a marker of its own for a point, which in SVG links to the row of the same key."""
    axes.plot(
        [x],
        [point.distance],
        look.marker,
        color=look.colour,
        markersize=4,
        markeredgecolor="white",
        markeredgewidth=0.4,
        zorder=4,
        gid=f"point-{point.key}",
        url=f"#row-{point.key}",
    )
