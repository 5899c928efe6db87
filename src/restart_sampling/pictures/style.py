"""`style` of figures: a journal column wide, with colours that everybody can tell apart."""

from collections import Counter
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
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from restart_sampling.base.errors import shorten
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
_RAMPS = {
    "ODE": ("#a6cbe8", "#56b4e9", "#0072b2", "#003f63", "#6a5acd"),
    "SDE": ("#b9d77a", "#74c9ad", "#009e73", "#004d38", "#5f7a1f"),
    "Restart": ("#f0c040", "#e69f00", "#d55e00", "#7a3600", "#cc79a7"),
}
"""Through which the colours go of more families than have one above."""
_APART = 0.1  # of the axis, between two numbers beside it
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
    kinds = [family.partition(" ")[0] for family in families]
    groups = [kind if kind in _COLOURS else "" for kind in kinds]
    colours = {group: iter(_colours(group, groups.count(group))) for group in groups}
    return {
        family: Style(next(colours[group]), _MARKERS[index % len(_MARKERS)])
        for index, (family, group) in enumerate(zip(families, groups, strict=True))
    }


def _colours(group: str, count: int) -> Sequence[str]:
    """Gives so many families of a kind a colour each."""
    chosen = _COLOURS.get(group, _OTHER)
    if count <= len(chosen):
        return chosen
    ramp = LinearSegmentedColormap.from_list("", _RAMPS.get(group, _OTHER))
    return [to_hex(ramp(place / (count - 1))) for place in range(count)]


def detector_note(detector: str) -> str:
    """Writes the name of a detector, or of its file, in brackets."""
    name = Path(detector).name
    return f"({shorten(name.partition('.')[0] or name, 30)})"


def distance_label(detector: str) -> str:
    """Names the axis of distances: a Fréchet distance says nothing without its features."""
    return f"Fréchet distance\n{detector_note(detector)}" if detector else "Fréchet distance"


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


DOT: dict[str, Any] = {"markersize": 4, "markeredgecolor": "white", "markeredgewidth": 0.4}
"""The look of a measured point."""


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


def ticks_at(axes: Axes, values: Sequence[float]) -> None:
    """Puts the numbers of the x axis where the data are: where most are, then at the ends, then where there is room."""
    scale = log10 if axes.get_xscale() == "log" else float
    counts, ends = Counter(values), (min(values), max(values))
    apart = _APART * (scale(ends[1]) - scale(ends[0]))
    kept: list[float] = []
    for value in sorted(counts, key=lambda value: (-counts[value], value not in ends, value)):
        if all(abs(scale(value) - scale(other)) >= apart for other in kept):
            kept.append(value)
    axes.xaxis.set_major_locator(FixedLocator(sorted(kept)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}" if value >= 100 else f"{value:.3g}"))


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
        with alone(path):
            write_figure(figure, path)
    return paths


def write_figure(figure: Figure, path: Path) -> None:
    """Writes a figure made within `style`, whole, to a file of a suffix of `FORMATS` that nobody else is writing."""
    kind = path.suffix[1:].lower()
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with style(), atomic(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=300, metadata=dates.get(kind))
