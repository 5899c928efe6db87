"""What the page says of plans. Text and sliders follow each other: a slider changes in the text what it stands for."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import log10
from typing import Any

from markupsafe import Markup

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import is_number
from restart_sampling.comparison.named_plans import family_of
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.pictures.noise_paths import plot_schedules
from restart_sampling.pictures.page import svg
from restart_sampling.pictures.points import Schedule
from restart_sampling.pictures.style import stacked, style, styles
from restart_sampling.sampling.intervals import RestartInterval
from restart_sampling.sampling.net_plan import levels_of, net_path
from restart_sampling.sampling.plan import Plan

MAX_NFE = 500
"""Of a plan on the page, which others may wait for."""

SLIDERS: Mapping[str, tuple[float, float]] = {
    "steps": (1, 100),
    "solver": (0, 0),  # which is chosen from a list
    "churn": (0, 80),
    "K": (0, 10),
    "N_restart": (2, 10),
    "t_min": (-2.5, 1.5),
    "t_max": (-2.0, 1.9),
}
"""The ends of each, in this order; those of the levels are decimal logarithms."""

_PANEL = 1.15  # inches


def _level(position: float) -> float:
    return float(f"{10**position:.2g}")


_ENTRIES: Mapping[str, tuple[str, Callable[[float], float]]] = {
    "K": ("repeats", round),
    "N_restart": ("points", round),
    "t_min": ("t_min", _level),
    "t_max": ("t_max", _level),
}
"""Sliders of a restart interval: the attribute that each stands for, and how its position is read."""


def read_plan(text: str, net: Denoiser) -> Plan:
    """Reads a plan, and makes sure that it is one for the page.

    Raises:
        InputError: it is none, does not fit the net, or takes too many evaluations.
    """
    plan = parse_plan(text)
    nfe = net_path(net, plan).nfe(*plan.solvers)
    if nfe > MAX_NFE:
        raise InputError(f"the plan takes {nfe} evaluations, and the page at most {MAX_NFE}; use fewer steps")
    return plan


def parse_plan(text: str) -> Plan:
    """Reads a plan.

    Raises:
        InputError: it is none, or a file.
    """
    require_no_file(text, "the plan itself, such as 18 [3,2,0.06,0.30]")
    return Plan.parse(text)


def require_no_file(text: str, instead: str) -> None:
    """Makes sure that a text of the page, which others may write, names no file of this machine.

    Raises:
        InputError: it does, or its field was emptied.
    """
    if not isinstance(text, str):
        raise InputError(f"the field is empty; write {instead}")
    if text.strip().endswith(".json"):
        raise InputError(f"the page reads no files; write {instead}")


def sliders_of(plan: Plan) -> tuple[float | str | None, ...]:
    """Gives the positions of the `SLIDERS` for a plan; None: the slider stays where it is.

    They show the first restart interval only, and what lies beyond a slider's end at that end: Gradio would refuse it.
    """
    shown: dict[str, float] = {"steps": plan.steps, "churn": plan.churn, "K": 0}
    for first in plan.intervals[:1]:
        low, high = (round(log10(max(level, 1e-3)), 2) for level in (first.t_min, first.t_max))
        shown |= {"K": first.repeats, "N_restart": first.points, "t_min": low, "t_max": high}
    within = {name: min(max(value, SLIDERS[name][0]), SLIDERS[name][1]) for name, value in shown.items()}
    return tuple(plan.solver if name == "solver" else within.get(name) for name in SLIDERS)


def moved(text: str, name: str, positions: Sequence[float | str | None]) -> str:
    """Writes the plan in which a slider was moved; all else in it stays.

    Args:
        text: of the plan before.
        name: of the slider.
        positions: of all `SLIDERS`, as they are now.

    Raises:
        InputError: the text is no plan, or would be none, or a slider that it takes has no position.
    """
    plan = parse_plan(text)
    at = dict(zip(SLIDERS, positions, strict=True))
    if name in ("steps", "churn"):
        return str(plan.set(f"{name}={_position(name, at[name]):g}"))
    if name == "solver":
        return str(plan.set(f"solver={at[name] or ''}"))  # None of an empty field

    def entry(name: str) -> dict[str, Any]:
        key, read = _ENTRIES[name]
        return {key: read(_position(name, at[name]))}

    first, rest = plan.intervals[:1], plan.intervals[1:]
    if entry("K")["repeats"] == 0:
        first = ()
    elif first:
        first = (replace(first[0], **entry(name)),)
    else:
        first = (RestartInterval(**{key: value for each in _ENTRIES for key, value in entry(each).items()}),)
    return str(replace(plan, intervals=first + rest))


def _position(name: str, value: object) -> float:
    """Reads where a slider is.

    Raises:
        InputError: its field was emptied, or is beyond its ends.
    """
    low, high = SLIDERS[name]
    if not (is_number(value) and low <= value <= high):
        raise InputError(f"{name} is {'empty' if value is None else value}; give a number from {low:g} to {high:g}")
    return value


def explain(text: str, net: Denoiser) -> Markup:
    """Says what a plan will do, or what is wrong with it."""
    try:
        plan = read_plan(text, net)
    except InputError as error:
        return wrong(error)
    *lines, nfe = plan.explain(*levels_of(net)).splitlines()
    count, _, parts = nfe.removeprefix("NFE").strip().partition(" = ")
    details = Markup("<details><summary>What it does</summary><pre>{}</pre></details>").format("\n".join(lines))
    return Markup("<p><b>NFE {}</b> = {}</p>").format(count, parts) + details


def wrong(error: InputError) -> Markup:
    """Writes what is wrong into the page."""
    return Markup('<p class="wrong" role="alert">{}</p>').format(error)


def plot_plans(texts: Sequence[str], net: Denoiser) -> Markup:
    """Plots the noise paths of plans A and B; what is no plan is left out."""
    shown: list[tuple[str, str, int, Schedule]] = []
    for letter, text in zip("AB", texts, strict=True):
        with suppress(InputError):
            plan = read_plan(text, net)
            schedule = net_path(net, plan).schedule(*plan.solvers)
            shown.append((f"plan {letter}", family_of(plan), schedule[-1][0], schedule))
    return plot_schedules_of(shown)


@style()
def plot_schedules_of(shown: Sequence[tuple[str, str, int, Schedule]]) -> Markup:
    """Plots noise paths, one below the other, on the same axes.

    Args:
        shown: name, family, NFE and path of each.
    """
    if not shown:
        return Markup("")
    families = [f"{family} {name}" for name, family, _, _ in shown]  # one family has as many colours
    looks = styles(families)
    colours = [looks[family].colour for family in families]
    figure, panels = stacked(len(shown), _PANEL)
    figure.set_figheight(figure.get_figheight() + 0.3)  # of the label below
    most = max(nfe for _, _, nfe, _ in shown)
    plot_schedules(panels, most, [(each[0], each[-1], colour) for each, colour in zip(shown, colours, strict=True)])
    for axes, (name, family, nfe, _), colour in zip(panels, shown, colours, strict=True):
        axes.set_title(f"{name}: {family}, NFE {nfe}", loc="left", fontsize=7, color=colour, pad=2)
    figure.supylabel("noise level", fontsize=8)
    return svg(figure, "paths", "Noise paths: the level against the evaluations so far")
