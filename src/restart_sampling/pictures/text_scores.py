"""`plot_text`: Fréchet distance against CLIP and aesthetic score (paper, figure 6)."""

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from restart_sampling.base.errors import InputError
from restart_sampling.comparison.published_text import PublishedText
from restart_sampling.evaluation.results_file import SCORES, Result
from restart_sampling.pictures.points import count, number
from restart_sampling.pictures.style import (
    DOT,
    SECONDARY,
    Style,
    detector_note,
    distance_label,
    legend_below,
    paper_line,
    stacked,
    style,
    styles,
)

_HEIGHT = 2.2  # inches, of one panel
_PAPER_FAMILIES = {"ddim": "ODE", "heun": "ODE", "ddpm": "SDE", "restart": "Restart"}


@style()
def plot_text(
    results: Mapping[str, Result], paper: Sequence[PublishedText] = (), *, same_detector: bool = True
) -> Figure:
    """Plots the distance against each score that the results have, a panel each.

    Args:
        results: ours, from `read_text_rows`.
        paper: published ones, dashed and hollow.
        same_detector: whether both are distances of the same features; otherwise the published ones have panels of
            their own.

    Raises:
        InputError: the results have no score, or a value that is plotted is no number.
    """
    ours = list(results.values())
    scores = [name for name in SCORES if all(f"{name}_score" in result for result in ours)]
    if not scores:
        raise InputError("--kind text: the rows have no CLIP or aesthetic score; run 'text compare' with these metrics")
    looks = _looks(ours, paper)
    apart = bool(paper) and not same_detector
    panels = [(score, shown) for shown in ("ours", "paper")[: 1 + apart] for score in scores]
    figure, stack = stacked(len(panels), _HEIGHT)
    handles: list[Artist] = []
    theirs: list[Artist] = []
    for axes, (score, shown) in zip(stack, panels, strict=True):
        if shown == "ours":
            handles = _plot_ours(axes, ours, score, looks)
        if paper and (shown == "paper") == apart:
            theirs = _plot_paper(axes, paper, score, looks)
        axes.locator_params("x", nbins=6)
        if shown == "ours":
            scored_by = f" {detector_note(ours[0]['clip']['model'])}" if score == "clip" else ""
            axes.set_xlabel(SCORES[score] + scored_by)
            axes.set_ylabel(distance_label(str(ours[0].get("detector_name", ""))))
        else:
            axes.set_xlabel(f"published {SCORES[score]}")
            axes.set_ylabel("published FID\n(Inception)")
    legend_below(figure, handles, theirs)
    return figure


def _looks(ours: Sequence[Result], paper: Sequence[PublishedText]) -> dict[str, Style]:
    """Gives a colour to each kind of scheduler, and a marker to each sampler."""
    samplers = list(dict.fromkeys([*(result["sampler"] for result in ours), *(row.sampler for row in paper)]))
    families = _PAPER_FAMILIES | {_kind(result["sampler"]): result["family"] for result in ours}
    kinds = {sampler: f"{families.get(_kind(sampler))} ({_kind(sampler)})" for sampler in samplers}
    colours, markers = styles(list(dict.fromkeys(kinds.values()))), styles(samplers)
    return {sampler: Style(colours[kinds[sampler]].colour, markers[sampler].marker) for sampler in samplers}


def _kind(sampler: str) -> str:
    return sampler.partition(":")[0]


def _plot_ours(axes: Axes, ours: Sequence[Result], score: str, looks: Mapping[str, Style]) -> list[Artist]:
    handles: list[Artist] = []
    for sampler in dict.fromkeys(result["sampler"] for result in ours):
        own = sorted((each for each in ours if each["sampler"] == sampler), key=lambda each: number(each, "guidance"))
        x, y = ([number(each, key) for each in own] for key in (f"{score}_score", "frechet_distance"))
        x_error, y_error = (
            [number(each, key, least=0) for each in own] for key in (f"{score}_score_error", "frechet_distance_error")
        )
        look = looks[sampler]
        axes.errorbar(x, y, y_error, x_error, fmt="none", ecolor=look.colour, elinewidth=0.6, alpha=0.5, zorder=2)
        handles += axes.plot(
            x,
            y,
            color=look.colour,
            linewidth=0.8,
            marker=look.marker,
            **DOT,
            zorder=3,
            label=f"{sampler} (NFE {_span(count(each, 'nfe') for each in own)})",
        )
    _write_scales(axes, ours, score)
    return handles


def _write_scales(axes: Axes, ours: Sequence[Result], score: str) -> None:
    """Writes each guidance scale once, above and to the left of its highest point, where worse samplers would be."""
    for scale in sorted({number(each, "guidance") for each in ours}):
        own = [each for each in ours if each["guidance"] == scale]
        top = max(own, key=lambda each: number(each, "frechet_distance"))
        axes.annotate(
            f"{scale:g}",
            (number(top, f"{score}_score"), number(top, "frechet_distance")),
            (-3, 2),
            textcoords="offset points",
            ha="right",
            fontsize=6,
            color=SECONDARY,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
            zorder=4,
        )


def _plot_paper(axes: Axes, paper: Sequence[PublishedText], score: str, looks: Mapping[str, Style]) -> list[Artist]:
    handles: list[Artist] = []
    for printed in dict.fromkeys(row.printed for row in paper):
        own = [row for row in paper if row.printed == printed]
        x, y = [getattr(row, score) for row in own], [row.fid for row in own]
        handles += axes.plot(x, y, **paper_line(looks[own[0].sampler]), label=f"paper: {printed}")
    return handles


def _span(values: Iterable[int]) -> str:
    """Writes one number, or the least and the greatest: the paper's restarts depend on the guidance scale."""
    found = sorted(set(values))
    return f"{found[0]}" if len(found) == 1 else f"{found[0]}-{found[-1]}"
