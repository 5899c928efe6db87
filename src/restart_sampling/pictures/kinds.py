"""`KINDS` of figures by name, and `plot`, which plots one of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from restart_sampling.base.errors import InputError
from restart_sampling.comparison.comparable import chosen
from restart_sampling.comparison.published import published
from restart_sampling.comparison.published_text import published_text
from restart_sampling.evaluation.results_file import Result
from restart_sampling.pictures.ablation import plot_interval, plot_repeats
from restart_sampling.pictures.nfe import plot_nfe
from restart_sampling.pictures.noise_paths import best_of_families, plot_paths
from restart_sampling.pictures.points import Point, points_of
from restart_sampling.pictures.text_scores import plot_text

PAPER_DETECTOR = "inception"


class Kind(NamedTuple):
    """A kind of figure of plans.

    Attributes:
        plot: its function; raises InputError where the rows do not suffice, and a report then leaves the figure out.
        caption: what a report says below it.
        of_paths: whether it needs the noise paths of plans; rows whose plans make none are left out.
    """

    plot: Callable[[Sequence[Point]], Figure]
    caption: str
    of_paths: bool = False


KINDS = {
    "nfe": Kind(
        plot_nfe,
        "Distance against NFE, with standard errors; points of the same NFE stand side by side. The line of a family "
        "goes through its best at each NFE. A point leads to its images.",
    ),
    "K": Kind(plot_repeats, "Distance against the repeats of a restart, all else equal; K = 0 is the plan without it."),
    "interval": Kind(
        plot_interval, "Distance against the place and the length of a restart interval, all else equal.", of_paths=True
    ),
    "paths": Kind(plot_paths, "Noise paths of the best plan of each family, with its distance.", of_paths=True),
}
"""By name. Every report has all of them that its rows suffice for."""


def plot(kind: str, results: Mapping[str, Result], paper: str | None = None, rows: Sequence[str] = ()) -> Figure:
    """Plots a figure.

    Args:
        kind: of `KINDS`, or "text".
        results: from `read_sweep`, or for "text" from `read_text_rows`.
        paper: for "nfe" and "text", the setting whose published curves are plotted too.
        rows: names of those to plot; default: all, and for "paths" the best of each family.

    Raises:
        InputError: there is no row of such a name, or the rows that the figure needs are not there.
    """
    results = chosen(results, rows) if rows else results
    same = all(result.get("detector_name") == PAPER_DETECTOR for result in results.values())
    if kind == "text":
        return plot_text(results, published_text() if paper else (), same_detector=same)
    points = points_of(results)
    if paper:
        return plot_nfe(points, published(paper), same_detector=same)
    if KINDS[kind].of_paths:
        points = [point for point in points if point.effect()]
        if not points:
            raise InputError(f"--kind {kind}: {left_out(kind, results)}, and there is no other")
    if kind == "paths" and not rows:
        points = best_of_families(points)
    return KINDS[kind].plot(points)


def left_out(kind: str, results: Mapping[str, Result], rows: Sequence[str] = ()) -> str:
    """Says which rows are not in a figure, and why; "" where all are. Arguments as of `plot`."""
    if kind not in KINDS or not KINDS[kind].of_paths:
        return ""
    points = points_of(chosen(results, rows) if rows else results)
    names = ", ".join(f"'{point.name}'" for point in points if not point.effect())
    return f"left out, for on the levels of their rows these plans make no path: {names}" if names else ""
