"""HTML pages with everything inside, and a policy that lets a browser run and fetch nothing else."""

import base64
import hashlib
import io
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from restart_sampling.base.numbers import counted
from restart_sampling.pictures.style import style


def render(template: str, **values: Any) -> str:
    """Fills a template; all values are escaped but figures of `svg`.

    Raises:
        ValueError: a value lacks what the template shows of it.
    """
    css, js = (_file(f"report.{kind}") for kind in ("css", "js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(css)}; script-src {_hash(js)}; "
        "base-uri 'none'; form-action 'none'"
    )
    try:
        return _template(template).render(policy=policy, css=Markup(css), js=Markup(js), **values)
    except jinja2.UndefinedError as error:
        raise ValueError(str(error)) from error


@cache
def _template(name: str) -> jinja2.Template:
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {"number": _number, "classes": _classes, "settings": _settings}
    return page.from_string(_file(name))


@cache
def _file(name: str) -> str:
    return files("restart_sampling.pictures").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _number(value: Any, form: str = "") -> Any:
    """Formats a number; what is none stays what it is, to be escaped as text."""
    return "" if value is None else format(value, form) if isinstance(value, int | float) else value


def _classes(value: Any) -> Any:
    """Says which class images are of: that of a run."""
    if isinstance(value, Mapping):
        return f"given for each of {counted(len(value), 'seed')}"
    return "drawn for each seed" if value is None else value


def _settings(run: Mapping[str, Any]) -> dict[str, Any]:
    """Writes what a run says of itself in words, by names in words; those of its settings are beside the others."""
    flat = {name: value for name, value in run.items() if name != "settings"}
    settings = run.get("settings")
    flat |= settings if isinstance(settings, Mapping) else {}
    return {
        name.replace("_", " "): _classes(value) if name == "class" else _words(value) for name, value in flat.items()
    }


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        parts = {
            name: f"({_words(each)})" if isinstance(each, Mapping) else _words(each) for name, each in value.items()
        }
        return "; ".join(map(" ".join, parts.items()))
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)


def png_in(places: Iterable[Path]) -> str:
    """Reads the first of these PNG files that is there, for a page: base64; "" where none is."""
    return next((base64.b64encode(place.read_bytes()).decode() for place in places if place.is_file()), "")


def svg(figure: Figure, kind: str, caption: str) -> Markup:
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
