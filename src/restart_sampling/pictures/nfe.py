"""`plot_nfe`: distance against NFE, with Pareto front and the paper's curves (figures 3, 4)."""

from collections.abc import Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from restart_sampling.comparison.published import Published
from restart_sampling.pictures.lines import plot_line, plot_marker
from restart_sampling.pictures.points import Point, best_at_each, families, pareto_front
from restart_sampling.pictures.style import Style, legend_below, log_scale, paper_line, stacked, style, styles

_HEIGHT = 2.3  # inches, of one panel


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
    ours, theirs = _plot_ours(panels[0], points, looks), _plot_paper(panels[-1], paper, looks)
    panels[0].set_ylabel("Fréchet distance")
    if apart:
        panels[1].set_ylabel("published FID (Inception)")
    distances, fids = [point.distance for point in points], [line.fid for line in paper]
    for panel, heights in zip(panels, (distances, fids) if apart else (distances + fids,), strict=True):
        if max(heights) > 3 * min(heights):
            log_scale(panel, "y", heights)
    log_scale(panels[-1], "x", [*(point.nfe for point in points), *(line.nfe for line in paper)])
    panels[-1].set_xlabel("NFE (evaluations of the denoiser)")
    legend_below(figure, ours, theirs)
    return figure


def _plot_ours(axes: Axes, points: Sequence[Point], looks: Mapping[str, Style]) -> list[Artist]:
    front = pareto_front(points)
    staircase = axes.step(
        [point.nfe for point in front] + [max(point.nfe for point in points)],
        [point.distance for point in front] + [front[-1].distance],
        where="post",
        color="#c4c4c4",
        linewidth=3,
        solid_capstyle="butt",
        zorder=1,
        label="Pareto front",
    )
    handles: list[Artist] = []
    for family in families(points):
        own = [point for point in points if point.family == family]
        line = [(point.nfe, point) for point in best_at_each(own)]
        handles.append(plot_line(axes, line, looks[family], family))
        for point in own:
            plot_marker(axes, point, point.nfe, looks[family])
    return [*handles, *staircase]


def _plot_paper(axes: Axes, paper: Sequence[Published], looks: Mapping[str, Style]) -> list[Artist]:
    handles: list[Artist] = []
    for sampler in dict.fromkeys(line.sampler for line in paper):
        own = sorted((line for line in paper if line.sampler == sampler), key=lambda line: line.nfe)
        x, y = [line.nfe for line in own], [line.fid for line in own]
        handles += axes.plot(x, y, **paper_line(looks[own[0].family]), label=f"paper: {sampler}")
    return handles
