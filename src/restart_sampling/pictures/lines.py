"""The lines and markers of a figure's own points, each with its standard error."""

from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from restart_sampling.pictures.points import Point
from restart_sampling.pictures.style import DOT, Style


def plot_line(axes: Axes, points: Sequence[tuple[float, Point]], look: Style, label: str, dashes: str = "-") -> Artist:
    """Plots a line through (x, point); returns its entry of a legend, with the marker."""
    x, y = [place for place, _ in points], [point.distance for _, point in points]
    line: dict[str, Any] = {"color": look.colour, "linewidth": 1.0, "linestyle": dashes, "label": label}
    axes.plot(x, y, **line, zorder=3)
    return Line2D([], [], **line, marker=look.marker, markersize=4)


def plot_marker(axes: Axes, point: Point, x: float, look: Style) -> None:
    """Plots a point with its standard error, and a marker of its own, which in SVG links to the row of the same key."""
    axes.errorbar(
        [x], [point.distance], [point.error], fmt="none", ecolor=look.colour, elinewidth=0.8, capsize=1.5, zorder=2.5
    )
    axes.plot(
        [x],
        [point.distance],
        look.marker,
        color=look.colour,
        **DOT,
        zorder=4,
        gid=f"point-{point.key}",
        url=f"#row-{point.key}",
    )
