"""Distance against one number of a restart interval, all else equal: K (figure 5), t_min and length (figure 10)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from restart_sampling.base.errors import InputError
from restart_sampling.pictures.nfe import mark
from restart_sampling.pictures.points import Curve, Point, by_length, by_position, by_repeats, curves
from restart_sampling.pictures.style import Style, log_scale, new_figure, spread, style, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT = 2.2  # inches, of one panel
_LEGEND_LINE = 0.15


def draw_repeats(points: Sequence[Point]) -> "Figure":
    """Distance against K; a plan without the restart is K = 0.

    Raises:
        InputError: no two plans differ in K alone.
    """
    from matplotlib.ticker import MaxNLocator

    found = curves(points, by_repeats, zero=True)
    if not found:
        raise InputError("--kind K: no two rows differ in K alone; sweep plans such as 18 [3,2,0.06,0.3] with other K")
    figure = _draw([("K (repeats of the restart)", found)])
    figure.axes[0].xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return figure


def draw_interval(points: Sequence[Point]) -> "Figure":
    """Distance against t_min at the same length, and against the length at the same t_min, where there are such rows.

    Raises:
        InputError: there are neither.
    """
    panels = [
        (r"$t_\mathrm{min}$, as it snaps to the grid", curves(points, by_position, zero=False)),
        (r"length of the interval, $t_\mathrm{max} - t_\mathrm{min}$", curves(points, by_length, zero=True)),
    ]
    panels = [(label, found) for label, found in panels if found]
    if not panels:
        raise InputError(
            "--kind interval: no two rows differ in t_min alone at the same length, or in t_max alone; sweep such plans"
        )
    return _draw(panels)


def _draw(panels: Sequence[tuple[str, Sequence[Curve]]]) -> "Figure":
    lines = sum(len(found) for _, found in panels)
    with style():
        figure = new_figure(_HEIGHT * len(panels) + _LEGEND_LINE * lines)
        for axes, (label, found) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
            _draw_curves(axes, found)
            axes.set_xlabel(label)
            axes.set_ylabel("Fréchet distance")
    return figure


def _draw_curves(axes: "Axes", found: Sequence[Curve]) -> None:
    looks = styles([f"{curve.family} {curve.label}" for curve in found])
    for curve, look in zip(found, looks.values(), strict=True):
        x = [number for number, _ in curve.points]
        y = [point.distance for _, point in curve.points]
        axes.plot(x, y, color=look.colour, linewidth=1.2, marker=look.marker, markersize=0, zorder=3, label=curve.label)
        spread(axes, x, y, [point.error for _, point in curve.points], look.colour)
        for number, point in curve.points:
            mark(axes, point, number, look if number else Style(look.colour, "o"))
    numbers = [number for curve in found for number, _ in curve.points]
    if min(numbers) > 0 and max(numbers) > 10 * min(numbers):
        log_scale(axes, "x", numbers)
    legend = axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), handlelength=2.2)
    for handle in legend.get_lines():
        handle.set_markersize(4)
