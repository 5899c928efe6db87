"""A sweep as one HTML page that needs nothing else: settings, figures, a table that sorts, and images of each row."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from restart_sampling.base.errors import InputError
from restart_sampling.comparison.published import CHECKPOINTS, NOTES
from restart_sampling.comparison.results import SAMPLES, Result, row_family, row_name
from restart_sampling.evaluation.metrics import paired_difference
from restart_sampling.pictures.figure import draw
from restart_sampling.pictures.points import pareto_front, points_of
from restart_sampling.pictures.style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CAPTIONS = {
    "nfe": "Distance against NFE. Shaded, or as bars: the standard error. The line of a family goes through its best "
    "at each NFE. A point leads to its images.",
    "K": "Distance against the repeats of a restart, all else equal; K = 0 is the plan without it.",
    "interval": "Distance against the place and the length of a restart interval, all else equal.",
    "paths": "Noise paths of the best plan of each family, with its distance.",
}


def make_report(folder: Path, results: Mapping[str, Result], paper: str | None = None) -> str:
    """The page.

    Args:
        folder: of the sweep, for the images that it kept.
        results: its figures, from `read_sweep`.
        paper: the setting of the paper whose figures are shown too.

    Returns:
        HTML with everything inside.
    """
    first = next(iter(results.values()))
    title = f"Sweep of {first['model']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{len(results)} rows, {first["images"]} images each, the same seeds for all.</p>',
        "<h2>Figures</h2>",
        f'<div class="figures">{_figures(results, paper)}</div>',
        "<h2>Rows</h2>",
        "<p>A click on a head sorts; ◆ marks the Pareto front of distance and NFE. Differences are to the row "
        f"<code>{escape(row_name(first))}</code>, paired by seed.</p>",
        f'<div class="wide">{_table(results)}</div>',
        "<h2>Images</h2>",
        "<p>The first seeds of every row, one column each; not chosen.</p>",
        _samples(folder, results),
        "<h2>Settings</h2>",
        _settings(first),
        _notes(paper) if paper else "",
    ]
    css, js = (
        files("restart_sampling.pictures").joinpath(f"report.{kind}").read_text("utf-8") for kind in ("css", "js")
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>\n{css}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + f"\n<script>\n{js}</script>\n</body>\n</html>\n"
    )


def _figures(results: Mapping[str, Result], paper: str | None) -> str:
    """Those kinds that these rows can fill."""
    drawn = []
    for kind, caption in _CAPTIONS.items():
        try:
            figure = draw(kind, results, paper if kind == "nfe" else None)
        except InputError:
            continue
        drawn.append(f"<figure>{_svg(figure, kind)}<figcaption>{caption}</figcaption></figure>")
    return "\n".join(drawn)


def _svg(figure: "Figure", kind: str) -> str:
    """The figure for a page: names of its own for what is inside, and links that stay on the page."""
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' (xmlns(:xlink)?|target)="[^"]*"', "", text)
    text = text.replace("xlink:href", "href").replace(' id="', f' id="{kind}-').replace("url(#", f"url(#{kind}-")
    text = re.sub(r'href="#(?!row-)', f'href="#{kind}-', text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(_CAPTIONS[kind])}"', 1)


def _table(results: Mapping[str, Result]) -> str:
    base = next(iter(results.values()))
    front = {point.key for point in pareto_front(points_of(results))}
    minimum = all("frechet_distance_min" in result for result in results.values())
    published = any(result.get("published_fid") is not None for result in results.values())
    heads = [
        "row",
        "plan",
        "family",
        "NFE",
        "distance",
        "error",
        *["minimum"] * minimum,
        *["published FID"] * published,
    ]
    heads += ["difference", "error of it", "seconds"]
    words = ("row", "plan", "family")
    top = "".join(
        f'<th{"" if head in words else " class=number"}><button type="button">{head}</button></th>' for head in heads
    )
    lines = []
    for key, result in results.items():
        difference = ("", "") if result is base else paired_difference(dict(result), dict(base))
        numbers: list[tuple[Any, str]] = [
            (result["nfe"], "d"),
            (result["frechet_distance"], ".4f"),
            (result["frechet_distance_error"], ".2g"),
            *([(result["frechet_distance_min"], ".4f")] if minimum else []),
            *([(_or_empty(result.get("published_fid")), ".2f")] if published else []),
            (difference[0], "+.4f"),
            (difference[1], ".2g"),
            (result["seconds"], ".1f"),
        ]
        cells = [
            f'<td><a href="#row-{key}">{escape(row_name(result))}</a></td>',
            f"<td><code>{escape(result['plan'])}</code></td>",
            f"<td>{escape(row_family(result))}</td>",
            *(f'<td class="number" data-value="{value}">{_format(value, form)}</td>' for value, form in numbers),
        ]
        tip = f"{row_name(result)}: NFE {result['nfe']}, distance {result['frechet_distance']:.4g}"
        mark = ' class="front"' if key in front else ""
        lines.append(f'<tr data-key="{key}" title="{escape(tip)}"{mark}>{"".join(cells)}</tr>')
    return f'<table id="rows"><thead><tr>{top}</tr></thead><tbody>\n' + "\n".join(lines) + "\n</tbody></table>"


def _or_empty(value: float | None) -> float | str:
    return "" if value is None else value


def _format(value: float | str, form: str) -> str:
    return value if isinstance(value, str) else format(value, form)


def _samples(folder: Path, results: Mapping[str, Result]) -> str:
    """The images of each row in one line, under the numbers of their seeds."""
    strips = {key: folder / SAMPLES / f"{key}.png" for key in results}
    counts = [_count(strip) for strip in strips.values() if strip.is_file()]
    seeds = "".join(f"<span>{seed}</span>" for seed in range(max(counts, default=0)))
    lines = [f'<div class="samples seeds"><div>seed</div><div>{seeds}</div></div>']
    for key, result in results.items():
        name = escape(row_name(result))
        text = f'<div class="name">{name}</div><div class="soft">NFE {result["nfe"]}, distance '
        text += f"{result['frechet_distance']:.4g} ± {result['frechet_distance_error']:.2g}</div>"
        if strips[key].is_file():
            data = base64.b64encode(strips[key].read_bytes()).decode()
            image = f'<img alt="images of the first seeds with {name}" src="data:image/png;base64,{data}">'
        else:
            image = '<span class="soft">its images were not kept</span>'
        lines.append(f'<div class="samples" id="row-{key}" data-key="{key}"><div>{text}</div>{image}</div>')
    return "\n".join(lines)


def _count(strip: Path) -> int:
    """How many square images stand side by side in a file."""
    with Image.open(strip) as picture:
        return picture.width // picture.height


def _settings(result: Result) -> str:
    run, reference = result["run"], result["reference"]
    images = reference["images"] or "unknown number of"
    rows = {
        "model": f"{result['model']}, sha256 {run['model_sha256']}",
        "network": run.get("arithmetic"),
        "seeds": run["seeds"],
        "class": "drawn for each seed" if run["class"] is None else run["class"],
        "guidance": f"{run['guidance']:g}",
        "noise": run["noise"],
        "D (PFGM++)": run["D"],
        "blocks of seeds": result["blocks"],
        "metrics": ", ".join(result["metrics"]),
        "reference": f"{reference['path']}, sha256 {reference['sha256']}, {images} images",
        "detector": f"{result.get('detector_name', '')}, {result['detector']}",
        "device": result["device"],
        "versions": ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
    }
    return _definitions({name: value for name, value in rows.items() if value is not None})


def _definitions(rows: Mapping[str, Any]) -> str:
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{escape(str(value))}</dd>' for name, value in rows.items())}</dl>"


def _notes(paper: str) -> str:
    return f"<h2>Notes on the published figures</h2><p>They are of {escape(CHECKPOINTS[paper])}.</p>" + _list(
        NOTES[paper]
    )


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}.</li>' for line in lines)}</ul>"
