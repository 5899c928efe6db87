"""`plot_nfe`: distance against NFE, with Pareto front and the paper's curves (figures 3, 4)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import exp, log

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from restart_sampling.comparison.published import Published
from restart_sampling.pictures.lines import plot_line, plot_marker
from restart_sampling.pictures.points import Point, best_at_each, families, pareto_front
from restart_sampling.pictures.style import (
    SECONDARY,
    Style,
    distance_label,
    legend_below,
    log_scale,
    paper_line,
    stacked,
    style,
    styles,
    ticks_at,
)

_HEIGHT = 2.3  # inches, of one panel
_BESIDE = 0.03  # of the axis, between two points of the same NFE


@style()
def plot_nfe(points: Sequence[Point], paper: Sequence[Published] = (), *, same_detector: bool = True) -> Figure:
    """Plots the distance against NFE.

    Args:
        points: ours.
        paper: published ones, dashed and hollow.
        same_detector: whether both are distances of the same features; otherwise the published ones have a panel of
            their own.
    """
    looks = styles([*dict.fromkeys([*families(points), *(line.family for line in paper)])])
    apart = bool(paper) and not same_detector
    figure, panels = stacked(1 + apart, _HEIGHT, sharex=True)
    all_nfe = [*(point.nfe for point in points), *(line.nfe for line in paper)]
    log_scale(panels[-1], "x", all_nfe)
    ticks_at(panels[-1], all_nfe)
    places = places_of(points, max(all_nfe) / min(all_nfe), logarithmic=panels[-1].get_xscale() == "log")
    ours, theirs = _plot_ours(panels[0], points, looks, places), _plot_paper(panels[-1], paper, looks)
    panels[0].set_ylabel(distance_label(points[0].detector))
    if apart:
        panels[1].set_ylabel("published FID (Inception)")
    distances, fids = [point.distance for point in points], [line.fid for line in paper]
    for panel, heights in zip(panels, (distances, fids) if apart else (distances + fids,), strict=True):
        if max(heights) > 3 * min(heights):
            log_scale(panel, "y", heights)
    beside = "; equal ones side by side" if len({point.nfe for point in points}) < len(points) else " of the denoiser"
    panels[-1].set_xlabel(f"NFE (evaluations{beside})")
    legend_below(figure, ours, theirs)
    return figure


def places_of(points: Sequence[Point], ratio: float, *, logarithmic: bool) -> dict[str, float]:
    """Finds a place on the axis for each point, by key: those of the same NFE stand side by side around it.

    Args:
        points: of which those of a family stay together.
        ratio: of the highest NFE on the axis to the lowest.
        logarithmic: whether the axis is.
    """
    order = families(points)
    counts = Counter(point.nfe for point in points)
    forward, back = (log, exp) if logarithmic else (float, float)
    span = (log(ratio) if logarithmic else max(counts) * (1 - 1 / ratio)) or 1.0
    gaps = dict.fromkeys(counts, span)
    for low, high in pairwise(sorted(counts)):
        gap = forward(high) - forward(low)
        gaps[low], gaps[high] = min(gaps[low], gap), gap
    places: dict[str, float] = {}
    seen: Counter[int] = Counter()
    for point in sorted(points, key=lambda point: (order.index(point.family), point.distance)):
        count = counts[point.nfe]
        step = min(_BESIDE * span, 0.9 * gaps[point.nfe] / count)  # a group ends before its neighbours begin
        places[point.key] = back(forward(point.nfe) + step * (seen[point.nfe] - (count - 1) / 2))
        seen[point.nfe] += 1
    return places


def _plot_ours(
    axes: Axes, points: Sequence[Point], looks: Mapping[str, Style], places: Mapping[str, float]
) -> list[Artist]:
    front = pareto_front(points)
    staircase = axes.step(
        [point.nfe for point in front] + [max(point.nfe for point in points)],
        [point.distance for point in front] + [front[-1].distance],
        where="post",
        color=SECONDARY,
        linewidth=0.7,
        linestyle=":",
        zorder=1,
        label="Pareto front",
    )
    handles: list[Artist] = []
    for family in families(points):
        own = [point for point in points if point.family == family]
        line = [(places[point.key], point) for point in best_at_each(own)]
        handles.append(plot_line(axes, line, looks[family], family))
        for point in own:
            plot_marker(axes, point, places[point.key], looks[family])
    return [*handles, *staircase]


def _plot_paper(axes: Axes, paper: Sequence[Published], looks: Mapping[str, Style]) -> list[Artist]:
    handles: list[Artist] = []
    for sampler in dict.fromkeys(line.sampler for line in paper):
        own = sorted((line for line in paper if line.sampler == sampler), key=lambda line: line.nfe)
        x, y = [line.nfe for line in own], [line.fid for line in own]
        handles += axes.plot(x, y, **paper_line(looks[own[0].family]), label=f"paper: {sampler}")
    return handles
