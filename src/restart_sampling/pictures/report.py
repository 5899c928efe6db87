"""`report`: a sweep as one HTML page with settings, figures, a table and images."""

import base64
import hashlib
import io
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from PIL import Image

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import check_writable, write_bytes
from restart_sampling.comparison.comparable import RESULTS, SAMPLES, Result, read_sweep
from restart_sampling.comparison.published import CHECKPOINTS, NOTES
from restart_sampling.evaluation.metrics import paired_difference
from restart_sampling.evaluation.results_file import describe_damage
from restart_sampling.pictures.kinds import KINDS, plot
from restart_sampling.pictures.points import pareto_front, points_of
from restart_sampling.pictures.style import style

_COLUMNS = {
    "NFE": "d",
    "distance": ".4f",
    "error": ".2g",
    "minimum": ".4f",
    "published FID": ".2f",
    "difference": "+.4f",
    "error of it": ".2g",
    "seconds": ".1f",
}
"""Columns of the table, and how their numbers are written."""


def report(folder: str | Path, out: str | Path, paper: str | None = None) -> int:
    """Writes a sweep as one HTML page, which needs no internet.

    Args:
        folder: of the sweep.
        out: the page.
        paper: the setting of the paper whose values are shown too, of `CHECKPOINTS`.

    Returns:
        The number of its rows.

    Raises:
        InputError: the folder holds no sweep, the page cannot be written, or there is no such setting.
    """
    if paper not in (None, *CHECKPOINTS):
        raise InputError(f"the paper has no setting '{paper}'; give one of {', '.join(CHECKPOINTS)}")
    results = read_sweep(Path(folder) / RESULTS)
    check_writable(Path(out))
    page = make_report(Path(folder), results, paper)
    write_bytes(Path(out), page.encode(errors="backslashreplace"))
    return len(results)


def make_report(folder: Path, results: Mapping[str, Result], paper: str | None = None) -> str:
    """Makes the page.

    Args:
        folder: of the sweep, for the images that it kept.
        results: its rows, from `read_sweep`.
        paper: the setting of the paper whose values are shown too.

    Returns:
        HTML with everything inside. All that comes from the results is escaped, and a content security policy keeps a
        browser from running or fetching anything but what this package wrote.

    Raises:
        InputError: a value that is plotted is no number, or the rows cannot be paired.
    """
    first = next(iter(results.values()))
    rows = _rows(folder, results)
    strips = [folder / SAMPLES / f"{row['key']}.png" for row in rows if row["png"]]
    css, js = (_file(f"report.{kind}") for kind in ("css", "js"))
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters["number"] = _number
    return page.from_string(_file("report.html")).render(
        policy=f"default-src 'none'; img-src data:; style-src {_hash(css)}; script-src {_hash(js)}; "
        "base-uri 'none'; form-action 'none'",
        title=f"Sweep of {first['model']}",
        css=Markup(css),
        js=Markup(js),
        first=first,
        figures=_figures(results, paper),
        rows=rows,
        columns={name: form for name, form in _COLUMNS.items() if any(row[name] is not None for row in rows)},
        damage=describe_damage(getattr(results, "damaged", ())),
        seeds=max(map(_count, strips), default=0),
        paper=CHECKPOINTS[paper] if paper else None,
        notes=NOTES[paper] if paper else (),
    )


def _file(name: str) -> str:
    return files("restart_sampling.pictures").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _number(value: Any, form: str = "") -> Any:
    """Formats a number; what is none stays what it is, to be escaped as text."""
    return "" if value is None else format(value, form) if isinstance(value, int | float) else value


def _figures(results: Mapping[str, Result], paper: str | None) -> list[tuple[str, Markup]]:
    """Plots those kinds that these rows can fill."""
    figures = []
    for kind, (_, caption) in KINDS.items():
        try:
            figure = plot(kind, results, paper if kind == "nfe" else None)
        except InputError:
            continue
        figures.append((caption, _svg(figure, kind, caption)))
    return figures


def _svg(figure: Figure, kind: str, caption: str) -> Markup:
    """Writes a figure for a page: names of its own for what is inside, links that stay on it, no styles in line."""
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<!--.*?-->|<(metadata|style)\b.*?</\1>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' (xmlns(:xlink)?|target)="[^"]*"', "", text)
    text = re.sub(r' style="([^"]*)"', lambda found: re.sub(r"([\w-]+): *([^;]*);? *", r' \1="\2"', found[1]), text)
    text = text.replace("xlink:href", "href").replace(' id="', f' id="{kind}-').replace("url(#", f"url(#{kind}-")
    text = re.sub(r'href="#(?!row-)', f'href="#{kind}-', text)
    strokes = 'stroke-linejoin="round" stroke-linecap="butt"'  # of the style sheet that was taken out
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}" {strokes}', 1))


def _rows(folder: Path, results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Gathers what the page shows of each row."""
    points = points_of(results)
    front = {point.key for point in pareto_front(points)}
    base = next(iter(results.values()))
    rows = []
    for point, result in zip(points, results.values(), strict=True):
        strip = folder / SAMPLES / f"{point.key}.png"
        difference, its_error = (None, None) if result is base else paired_difference(dict(result), dict(base))
        rows.append(
            {
                **vars(point),
                "plan": result["plan"],
                "front": point.key in front,
                "png": base64.b64encode(strip.read_bytes()).decode() if strip.is_file() else "",
                "NFE": point.nfe,
                "minimum": result.get("frechet_distance_min"),
                "published FID": result.get("published_fid"),
                "difference": difference,
                "error of it": its_error,
                "seconds": result.get("seconds"),
            }
        )
    return rows


def _count(strip: Path) -> int:
    """Counts the square images that stand side by side in a file."""
    with Image.open(strip) as picture:
        return picture.width // picture.height
