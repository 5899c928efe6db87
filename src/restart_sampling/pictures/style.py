"""`style` of figures: a journal column wide, with colours that everybody can tell apart."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import log10
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from restart_sampling.base.files import atomic
from restart_sampling.base.lock import alone

WIDTH = 3.4  # inches: a column
LEGEND_LINE = 0.15
FORMATS = ("pdf", "svg", "png")
SECONDARY = "#555555"

# Around Okabe and Ito's colours, which are safe for the colour-blind: ODE blue, SDE green, Restart orange and red.
_COLOURS = {
    "ODE": ("#0072b2", "#56b4e9", "#003f63"),
    "SDE": ("#009e73", "#004d38", "#74c9ad"),
    "Restart": ("#d55e00", "#e69f00", "#cc79a7", "#7a3600"),
}
_OTHER = ("#444444", "#888888", "#b0a000")
_MARKERS = "osD^vPX*<>"

_RC: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SECONDARY,
    "axes.linewidth": 0.6,
    "xtick.color": SECONDARY,
    "ytick.color": SECONDARY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # as text, which publishers ask for
    "text.parse_math": False,  # a $ in the name of a row is a $
    "svg.hashsalt": "restart-sampling",  # the same file from the same results
}


@dataclass(frozen=True)
class Style:
    """The colour and the marker of a family, the same in all figures of a results file."""

    colour: str
    marker: str


def styles(families: Sequence[str]) -> dict[str, Style]:
    """Gives each family a colour and a marker; the marker alone tells up to ten apart."""
    used: dict[str, int] = {}
    given = {}
    for index, family in enumerate(families):
        kind = family.partition(" ")[0]
        colours = _COLOURS.get(kind, _OTHER)
        group = kind if kind in _COLOURS else ""
        given[family] = Style(colours[used.get(group, 0) % len(colours)], _MARKERS[index % len(_MARKERS)])
        used[group] = used.get(group, 0) + 1
    return given


def paper_line(look: Style) -> dict[str, Any]:
    """Gives the settings of a published curve: thin and dashed, in the colour of the family that it belongs to."""
    return {
        "color": look.colour,
        "linewidth": 0.9,
        "linestyle": (0, (3, 1.5)),
        "marker": look.marker,
        "markersize": 3.5,
        "markerfacecolor": "white",
        "markeredgewidth": 0.8,
        "zorder": 2.5,
    }


@contextmanager
def style() -> Iterator[None]:
    """Holds matplotlib's settings while a figure is made and saved."""
    with mpl.rc_context(_RC):
        yield


def stacked(panels: int, height: float, *, sharex: bool = False) -> tuple[Figure, Sequence[Axes]]:
    """Makes an empty figure of a column's width, with panels of so many inches one below another."""
    figure = Figure(figsize=(WIDTH, height * panels), facecolor="white", layout="constrained")
    return figure, figure.subplots(panels, 1, sharex=sharex, squeeze=False)[:, 0].tolist()


def legend_below(figure: Figure, ours: Sequence[Artist], theirs: Sequence[Artist] = ()) -> None:
    """Adds a legend, for which the figure grows.

    It has two columns, with the paper's curves ours are the left one; one column where names are too long for two.
    """
    rows = max(len(ours), len(theirs)) if theirs else (len(ours) + 1) // 2
    blank = Line2D([], [], color="none", label=" ")
    left = [*ours, *[blank] * (rows - len(ours))] if theirs else ours
    place = partial(figure.legend, loc="outside lower center", handlelength=2.2, columnspacing=1.2)
    legend = place(handles=[*left, *theirs], ncols=2)
    if legend.get_window_extent().width > figure.bbox.width:
        legend.remove()
        place(handles=[*ours, *theirs])
        rows = len(ours) + len(theirs)
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * rows)


def spread(axes: Axes, x: Sequence[float], y: Sequence[float], error: Sequence[float], colour: str) -> None:
    """Plots the standard error: shaded along a line, a bar at a point that stands alone."""
    if len(x) > 1:
        low, high = ([value + sign * each for value, each in zip(y, error, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)
    else:
        axes.errorbar(x, y, error, color=colour, linewidth=0, elinewidth=0.8, capsize=1.5, zorder=2)


def log_scale(axes: Axes, name: Literal["x", "y"], values: Sequence[float]) -> None:
    """Makes an axis logarithmic, with as many plain numbers as fit; one of values close together stays linear."""
    axis = axes.xaxis if name == "x" else axes.yaxis
    decades = log10(max(values) / min(values)) if min(values) > 0 else 0.0
    if decades < 0.4:
        # As many ticks at any height: the layout, whose margins hang on the ticks, could swing between two numbers.
        whole = all(float(value).is_integer() for value in values)
        axis.set_major_locator(MaxNLocator(6, steps=(1, 2, 2.5, 5, 10), integer=whole))
        return
    if decades > 3:
        steps: tuple[float, ...] = (1,)
    elif decades > 0.8:
        steps = (1, 2, 5)
    else:
        steps = (1, 1.5, 2, 3, 4, 5, 6, 8)
    axes.set(**{f"{name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def save_figure(figure: Figure, out: Path) -> list[Path]:
    """Writes a figure, each file whole.

    Args:
        figure: made within `style`.
        out: with a suffix of `FORMATS`, that file; without one, a .pdf and a .png.

    Returns:
        The files.
    """
    paths = [out] if out.suffix else [out.with_name(f"{out.name}.{kind}") for kind in ("pdf", "png")]
    for path in paths:
        kind = path.suffix[1:].lower()
        dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
        with style(), alone(path), atomic(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=300, metadata=dates.get(kind))
    return paths
