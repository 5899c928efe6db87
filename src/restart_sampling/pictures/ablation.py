"""Distance against one number of a restart interval: K, place and length (figures 5, 10)."""

from collections.abc import Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from restart_sampling.base.errors import InputError
from restart_sampling.pictures.lines import plot_line, plot_marker
from restart_sampling.pictures.points import Curve, Point, by_length, by_position, by_repeats, curves, families
from restart_sampling.pictures.style import (
    LEGEND_LINE,
    Style,
    distance_label,
    log_scale,
    stacked,
    style,
    styles,
    ticks_at,
)

_HEIGHT = 2.2  # inches, of one panel
_DASHES = ("-", "--", ":", "-.")
_MARKERS = "osD^vPX"


def plot_repeats(points: Sequence[Point]) -> Figure:
    """Plots the distance against K; a plan without the restart is K = 0.

    Raises:
        InputError: no two plans differ in K alone.
    """
    found = curves(points, by_repeats, zero=True)
    if not found:
        raise InputError("--kind K: no two rows differ in K alone; sweep plans such as 18 [3,2,0.06,0.3] with other K")
    return _plot(points, {"K (repeats of the restart)": found})


def plot_interval(points: Sequence[Point]) -> Figure:
    """Plots the distance against t_min at the same length, and against the length at the same t_min, where rows allow.

    Raises:
        InputError: they allow neither.
    """
    panels = {
        r"$t_\mathrm{min}$, as it snaps to the grid": curves(points, by_position, zero=False),
        r"length of the interval, $t_\mathrm{max} - t_\mathrm{min}$": curves(points, by_length, zero=True),
    }
    if not any(panels.values()):
        raise InputError(
            "--kind interval: no two rows differ in t_min alone at the same length, or in t_max alone; sweep such plans"
        )
    return _plot(points, {label: found for label, found in panels.items() if found}, logarithmic=True)


@style()
def _plot(points: Sequence[Point], panels: dict[str, list[Curve]], *, logarithmic: bool = False) -> Figure:
    """Plots a panel of curves each; a colour is that of the family, as in the other figures of the same points."""
    figure, stack = stacked(len(panels), _HEIGHT)
    looks = styles(families(points))
    for axes, (label, found) in zip(stack, panels.items(), strict=True):
        handles = [_plot_curve(axes, curve, place, looks, logarithmic) for place, curve in enumerate(found)]
        # On a logarithmic axis there is no place for plans without the interval: each is a line across.
        plain = {point.key: point for curve in found for number, point in curve.points if logarithmic and number == 0}
        handles += [_plot_across(axes, point, looks[point.family]) for point in plain.values()]
        numbers = [number for curve in found for number, _ in curve.points if number or not logarithmic]
        if logarithmic:
            log_scale(axes, "x", numbers)
        ticks_at(axes, numbers)
        axes.set_xlabel(label, parse_math=True)
        axes.set_ylabel(distance_label(points[0].detector))
        axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.22), handlelength=2.6)
        figure.set_figheight(figure.get_figheight() + LEGEND_LINE * len(handles))
    return figure


def _plot_curve(axes: Axes, curve: Curve, place: int, looks: Mapping[str, Style], logarithmic: bool) -> Artist:
    """Plots the curve, by its place in the panel with its own dashes and marker."""
    look = Style(looks[curve.family].colour, _MARKERS[place % len(_MARKERS)])
    shown = [(number, point) for number, point in curve.points if number or not logarithmic]
    for number, point in shown:
        plot_marker(axes, point, number, look if number else looks[point.family])
    return plot_line(axes, shown, look, curve.label, _DASHES[place % len(_DASHES)])


def _plot_across(axes: Axes, point: Point, look: Style) -> Artist:
    """Plots a distance as a line across, with its standard error."""
    axes.axhspan(point.distance - point.error, point.distance + point.error, color=look.colour, alpha=0.12, linewidth=0)
    return axes.axhline(point.distance, color=look.colour, linewidth=0.9, label=f"{point.name}, without it")
