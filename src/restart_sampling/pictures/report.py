"""`report`: a sweep as one HTML page with settings, figures, a table and images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import check_writable, write_bytes
from restart_sampling.base.lock import alone
from restart_sampling.base.numbers import require_kind
from restart_sampling.comparison.comparable import SAMPLES, read_sweep
from restart_sampling.comparison.published import CHECKPOINTS, NOTES
from restart_sampling.comparison.verdict import verdict
from restart_sampling.evaluation.metrics import paired_difference
from restart_sampling.evaluation.results_file import RESULTS, Result, describe_damage
from restart_sampling.pictures.kinds import KINDS, left_out, plot
from restart_sampling.pictures.page import png_in, render, svg
from restart_sampling.pictures.points import pareto_front, points_of
from restart_sampling.pictures.tune_report import make_tune_report
from restart_sampling.tuning.run import RUN

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
    """Writes a sweep, or a run of `tune`, as one HTML page, which needs no internet.

    Args:
        folder: of the sweep or the run.
        out: the page.
        paper: the setting of the paper whose values are shown too, of `CHECKPOINTS`.

    Returns:
        The number of its rows, or of the plans that were found.

    Raises:
        InputError: the folder holds neither, the page is not named .html or cannot be written, or there is no such
            setting, or no sweep to set beside it.
    """
    require_kind("the folder", folder, (str, Path), "the path of a sweep or of a run of tune")
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"the page would be {out}, and it is an HTML file; give a name that ends in .html")
    if paper not in (None, *CHECKPOINTS):
        raise InputError(f"the paper has no setting '{paper}'; give one of {', '.join(CHECKPOINTS)}")
    check_writable(Path(out))
    if (Path(folder) / RUN).exists():
        if paper is not None:
            raise InputError(f"the values of the paper ({paper}) are for a sweep, and {folder} is a run of tune")
        count, page = make_tune_report(Path(folder))
    elif not (Path(folder) / RESULTS).exists():
        raise InputError(
            f"{folder} has neither the {RESULTS} of a sweep nor the {RUN} of a run of tune; give what was their --out"
        )
    else:
        results = read_sweep(Path(folder) / RESULTS)
        count, page = len(results), make_report(Path(folder), results, paper)
    with alone(Path(out)):
        write_bytes(Path(out), page.encode(errors="backslashreplace"))
    return count


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
    return render(
        "report.html",
        title=f"Sweep of {first['model']}",
        first=first,
        figures=_figures(results, paper),
        rows=rows,
        verdict=verdict(results),
        texts=[name for name in ("plan", "family") if any(str(row[name]) != row["name"] for row in rows)],
        columns=_columns(rows),
        damage=describe_damage(getattr(results, "damaged", ())),
        seeds=max(map(_count, strips), default=0),
        paper=CHECKPOINTS[paper] if paper else None,
        notes=NOTES[paper] if paper else (),
    )


def _figures(results: Mapping[str, Result], paper: str | None) -> list[tuple[str, Markup]]:
    """Plots those kinds that these rows can fill."""
    figures = []
    for kind, (_, caption, _) in KINDS.items():
        try:
            figure = plot(kind, results, paper if kind == "nfe" else None)
        except InputError:
            continue
        note = left_out(kind, results)
        figures.append((f"{caption} {note[0].upper()}{note[1:]}." if note else caption, svg(figure, kind, caption)))
    return figures


def _rows(folder: Path, results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Gathers what the page shows of each row."""
    points = points_of(results)
    front = {point.key for point in pareto_front(points)}
    base = next(iter(results.values()))
    rows = []
    for point, result in zip(points, results.values(), strict=True):
        difference, its_error = (None, None) if result is base else paired_difference(dict(result), dict(base))
        rows.append(
            {
                **vars(point),
                "plan": result["plan"],
                "front": point.key in front,
                "png": png_in([folder / SAMPLES / f"{point.key}.png"]),
                "NFE": point.nfe,
                "minimum": result.get("frechet_distance_min"),
                "published FID": result.get("published_fid"),
                "difference": difference,
                "error of it": its_error,
                "seconds": result.get("seconds"),
            }
        )
    return rows


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Chooses the `_COLUMNS` that say something: with one block the minimum is the distance itself."""

    def says(name: str) -> bool:
        return any(row[name] is not None and (name != "minimum" or row[name] != row["distance"]) for row in rows)

    return {name: form for name, form in _COLUMNS.items() if says(name)}


def _count(strip: Path) -> int:
    """Counts the square images that stand side by side in a file."""
    with Image.open(strip) as picture:
        return picture.width // picture.height
