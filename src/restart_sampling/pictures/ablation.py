"""Distance against one number of a restart interval: K, place and length (figures 5, 10)."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from restart_sampling.base.errors import InputError
from restart_sampling.pictures.lines import plot_line, plot_marker
from restart_sampling.pictures.points import Curve, Point, by_length, by_position, by_repeats, curves
from restart_sampling.pictures.style import LEGEND_LINE, Style, log_scale, stacked, style, styles

_HEIGHT = 2.2  # inches, of one panel


def plot_repeats(points: Sequence[Point]) -> Figure:
    """Plots the distance against K; a plan without the restart is K = 0.

    Raises:
        InputError: no two plans differ in K alone.
    """
    found = curves(points, by_repeats, zero=True)
    if not found:
        raise InputError("--kind K: no two rows differ in K alone; sweep plans such as 18 [3,2,0.06,0.3] with other K")
    figure = _plot({"K (repeats of the restart)": found})
    figure.axes[0].xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return figure


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
    return _plot({label: found for label, found in panels.items() if found})


@style()
def _plot(panels: dict[str, list[Curve]]) -> Figure:
    figure, stack = stacked(len(panels), _HEIGHT)
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * sum(map(len, panels.values())))
    for axes, (label, found) in zip(stack, panels.items(), strict=True):
        looks = styles([f"{curve.family} {curve.label}" for curve in found]).values()
        handles = [plot_line(axes, curve.points, look, curve.label) for curve, look in zip(found, looks, strict=True)]
        for curve, look in zip(found, looks, strict=True):
            for number, point in curve.points:
                plot_marker(axes, point, number, look if number else Style(look.colour, "o"))
        numbers = [number for curve in found for number, _ in curve.points]
        if min(numbers) > 0 and max(numbers) > 10 * min(numbers):
            log_scale(axes, "x", numbers)
        axes.set_xlabel(label, parse_math=True)
        axes.set_ylabel("Fréchet distance")
        axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.22), handlelength=2.2)
    return figure
