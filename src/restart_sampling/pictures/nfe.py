"""Distance against NFE: a line for each family, its spread, the Pareto front, the paper's curves (figures 3, 4)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from restart_sampling.comparison.published import Published
from restart_sampling.pictures.points import Point, best_at_each, families, pareto_front
from restart_sampling.pictures.style import (
    Style,
    log_scale,
    new_figure,
    paper_line,
    spread,
    style,
    styles,
    two_columns,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT = 2.3  # inches, of one panel
_LEGEND_LINE = 0.15


def draw_nfe(points: Sequence[Point], paper: Sequence[Published] = (), *, same_detector: bool = True) -> "Figure":
    """Draws the figure.

    Args:
        points: ours.
        paper: published ones, drawn dashed and hollow.
        same_detector: whether both are distances of the same features; otherwise the published ones have a panel of
            their own.
    """
    given = styles([*dict.fromkeys([*families(points), *(line.family for line in paper)])])
    apart = bool(paper) and not same_detector
    ours, samplers = len(families(points)) + 1, len({line.sampler for line in paper})
    legend_rows = max(ours, samplers) if paper else (ours + 1) // 2
    with style():
        figure = new_figure(_HEIGHT * (2 if apart else 1) + _LEGEND_LINE * legend_rows)
        panels = figure.subplots(2 if apart else 1, 1, sharex=True, squeeze=False)[:, 0]
        handles = _draw_ours(panels[0], points, given)
        panels[0].set_ylabel("Fréchet distance")
        if paper:
            handles = two_columns(handles, _draw_paper(panels[-1], paper, given))
        if apart:
            panels[1].set_ylabel("published FID (Inception)")
        distances = [point.distance for point in points]
        fids = [line.fid for line in paper]
        for panel, heights in zip(panels, (distances, fids) if apart else (distances + fids,), strict=True):
            if max(heights) > 3 * min(heights):
                log_scale(panel, "y", heights)
        log_scale(panels[-1], "x", [*(point.nfe for point in points), *(line.nfe for line in paper)])
        panels[-1].set_xlabel("NFE (evaluations of the denoiser)")
        figure.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=2.2, columnspacing=1.2)
    return figure


def _draw_ours(axes: "Axes", points: Sequence[Point], given: dict[str, Style]) -> list[object]:
    from matplotlib.lines import Line2D

    front = pareto_front(points)
    axes.step(
        [point.nfe for point in front] + [max(point.nfe for point in points)],
        [point.distance for point in front] + [front[-1].distance],
        where="post",
        color="#c4c4c4",
        linewidth=3,
        solid_capstyle="butt",
        zorder=1,
        label="Pareto front",
    )
    handles: list[object] = []
    for family in families(points):
        look = given[family]
        own = [point for point in points if point.family == family]
        line = best_at_each(own)
        x, y = [point.nfe for point in line], [point.distance for point in line]
        axes.plot(x, y, color=look.colour, linewidth=1.2, zorder=3, label=family)
        spread(axes, x, y, [point.error for point in line], look.colour)
        for point in own:
            mark(axes, point, point.nfe, look)
        handles.append(Line2D([], [], color=look.colour, linewidth=1.2, marker=look.marker, markersize=4, label=family))
    handles.append(Line2D([], [], color="#c4c4c4", linewidth=3, label="Pareto front"))
    return handles


def mark(axes: "Axes", point: Point, x: float, look: Style) -> None:
    """A marker of its own for a point, which in SVG links to the row of the same key."""
    axes.plot(
        [x],
        [point.distance],
        look.marker,
        color=look.colour,
        markersize=4,
        markeredgecolor="white",
        markeredgewidth=0.4,
        linestyle="none",
        zorder=4,
        gid=f"point-{point.key}",
        url=f"#row-{point.key}",
        label="_nolegend_",
    )


def _draw_paper(axes: "Axes", paper: Sequence[Published], given: dict[str, Style]) -> list[object]:
    handles: list[object] = []
    for sampler in dict.fromkeys(line.sampler for line in paper):
        own = sorted((line for line in paper if line.sampler == sampler), key=lambda line: line.nfe)
        look = given[own[0].family]
        handles += axes.plot(
            [line.nfe for line in own],
            [line.fid for line in own],
            **paper_line(look),
            label=f"paper: {sampler}",
        )
    return handles
