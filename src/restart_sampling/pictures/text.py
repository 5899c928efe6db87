"""Fréchet distance against CLIP and aesthetic score, a line a sampler through its guidance scales (paper, figure 6)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from restart_sampling.base.errors import InputError
from restart_sampling.comparison.published_text import PublishedText
from restart_sampling.comparison.results import Result
from restart_sampling.pictures.style import (
    SECONDARY,
    Style,
    new_figure,
    paper_line,
    style,
    styles,
    two_columns,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT = 2.2  # inches, of one panel
_LEGEND_LINE = 0.15
_TITLES = {"clip": "CLIP score", "aesthetic": "aesthetic score"}


def draw_text(
    results: Mapping[str, Result], paper: Sequence[PublishedText] = (), *, same_detector: bool = True
) -> "Figure":
    """Draws the figure: a panel for each score that the results have.

    Args:
        results: ours, from `read_text_rows`.
        paper: published ones, drawn dashed and hollow.
        same_detector: whether both are distances of the same features; otherwise the published ones have panels of
            their own.

    Raises:
        InputError: the results have no score.
    """
    ours = list(results.values())
    scores = [name for name in _TITLES if all(f"{name}_score" in result for result in ours)]
    if not scores:
        raise InputError("--kind text: the rows have no CLIP or aesthetic score; run 'text compare' with these metrics")
    looks = _looks(ours, paper)
    apart = bool(paper) and not same_detector
    panels = [(score, shown) for shown in ("ours", "paper")[: 1 + apart] for score in scores]
    samplers, printed = (len({*names}) for names in ((r["sampler"] for r in ours), (row.printed for row in paper)))
    with style():
        rows = max(samplers, printed) if paper else (samplers + 1) // 2
        figure = new_figure(_HEIGHT * len(panels) + _LEGEND_LINE * rows)
        handles: list[object] = []
        theirs: list[object] = []
        for axes, (score, shown) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
            if shown == "ours":
                handles = _draw_ours(axes, ours, score, looks)
            if paper and (shown == "paper") == apart:
                theirs = _draw_paper(axes, paper, score, looks)
            axes.set_xlabel(_TITLES[score])
            axes.set_ylabel("Fréchet distance" if shown == "ours" else "published FID (Inception)")
        handles = two_columns(handles, theirs) if paper else handles
        figure.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=2.2)
    return figure


def _looks(ours: Sequence[Result], paper: Sequence[PublishedText]) -> dict[str, Style]:
    """A colour for each kind of scheduler, and a marker for each sampler."""
    samplers = list(dict.fromkeys([*(result["sampler"] for result in ours), *(row.sampler for row in paper)]))
    families = {result["sampler"].partition(":")[0]: result["family"] for result in ours}
    names = [sampler.partition(":")[0] for sampler in samplers]
    kinds = {name: f"{families.get(name, _PAPER_FAMILIES.get(name))} ({name})" for name in names}
    colours, markers = styles(list(dict.fromkeys(kinds.values()))), styles(samplers)
    return {
        sampler: Style(colours[kinds[name]].colour, markers[sampler].marker)
        for sampler, name in zip(samplers, names, strict=True)
    }


_PAPER_FAMILIES = {"ddim": "ODE", "heun": "ODE", "ddpm": "SDE", "restart": "Restart"}


def _draw_ours(axes: "Axes", ours: Sequence[Result], score: str, looks: Mapping[str, Style]) -> list[object]:
    handles: list[object] = []
    for sampler in dict.fromkeys(result["sampler"] for result in ours):
        own = sorted((each for each in ours if each["sampler"] == sampler), key=lambda each: each["guidance"])
        x, y = [each[f"{score}_score"] for each in own], [each["frechet_distance"] for each in own]
        look = looks[sampler]
        axes.errorbar(
            x,
            y,
            yerr=[each["frechet_distance_error"] for each in own],
            xerr=[each[f"{score}_score_error"] for each in own],
            fmt="none",
            ecolor=look.colour,
            elinewidth=0.6,
            alpha=0.5,
            zorder=2,
        )
        (line,) = axes.plot(
            x,
            y,
            color=look.colour,
            linewidth=1.2,
            marker=look.marker,
            markersize=4,
            markeredgecolor="white",
            markeredgewidth=0.4,
            zorder=3,
            label=f"{sampler} (NFE {_span(each['nfe'] for each in own)})",
        )
        handles.append(line)
        if sampler == ours[-1]["sampler"]:  # one line is enough to read all of them
            for each, at in zip(own, zip(x, y, strict=True), strict=True):
                axes.annotate(
                    f"{each['guidance']:g}", at, (3, 3), textcoords="offset points", fontsize=6, color=SECONDARY
                )
    return handles


def _draw_paper(axes: "Axes", paper: Sequence[PublishedText], score: str, looks: Mapping[str, Style]) -> list[object]:
    handles: list[object] = []
    for printed in dict.fromkeys(row.printed for row in paper):
        own = [row for row in paper if row.printed == printed]
        look = looks[own[0].sampler]
        (line,) = axes.plot(
            [getattr(row, score) for row in own],
            [row.fid for row in own],
            **paper_line(look),
            label=f"paper: {printed}",
        )
        handles.append(line)
    return handles


def _span(numbers: Any) -> str:
    """One number, or the least and the greatest: the paper's restarts depend on the guidance scale."""
    found = sorted(set(numbers))
    return f"{found[0]}" if len(found) == 1 else f"{found[0]}-{found[-1]}"
