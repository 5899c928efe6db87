"""The kinds of figures of a sweep, by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from restart_sampling.comparison.published import published
from restart_sampling.comparison.published_text import published_text
from restart_sampling.comparison.results import Result, chosen
from restart_sampling.pictures.ablation import draw_interval, draw_repeats
from restart_sampling.pictures.nfe import draw_nfe
from restart_sampling.pictures.paths import best_of_families, draw_paths
from restart_sampling.pictures.points import Point, points_of
from restart_sampling.pictures.text import draw_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER_DETECTOR = "inception"

KINDS: dict[str, Callable[[Sequence[Point]], "Figure"]] = {
    "nfe": draw_nfe,
    "K": draw_repeats,
    "interval": draw_interval,
    "paths": draw_paths,
}


def draw(kind: str, results: Mapping[str, Result], paper: str | None = None, rows: Sequence[str] = ()) -> "Figure":
    """Draws a figure.

    Args:
        kind: of `KINDS`, or "text".
        results: from `read_sweep`, or for "text" from `read_text_rows`.
        rows: names of those to draw; default: all, and for "paths" the best of each family.
        paper: for "nfe" and "text", the setting whose published curves are drawn too.

    Raises:
        InputError: there is no row of such a name, or the rows that the figure needs are not there.
    """
    results = chosen(results, rows) if rows else results
    same = all(result.get("detector_name") == PAPER_DETECTOR for result in results.values())
    if kind == "text":
        return draw_text(results, published_text() if paper else (), same_detector=same)
    points = points_of(results)
    if paper:
        return draw_nfe(points, published(paper), same_detector=same)
    if kind == "paths" and not rows:
        points = best_of_families(points)
    return KINDS[kind](points)
