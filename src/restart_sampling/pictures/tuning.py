"""Figures of a run of `tune`: distance by trial, what mattered, the paths of its plan and of the best usual one."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import inf
from operator import attrgetter
from typing import Any

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from restart_sampling.comparison.named_plans import family_of
from restart_sampling.pictures.noise_paths import plot_paths
from restart_sampling.pictures.points import Point
from restart_sampling.pictures.style import SECONDARY, detector_note, legend_below, stacked, style
from restart_sampling.sampling.plan import Plan
from restart_sampling.tuning.bench import Measured
from restart_sampling.tuning.objective import Key

_ONE, _OTHER = "#d55e00", "#0072b2"
_MOST = 12  # bars


@style()
def plot_trials(results: Mapping[Key, Measured], nfe: int) -> Figure:
    """Plots the distance of each plan in the order of the trials: on the seeds of all, of the good ones, of the polish.

    Args:
        results: of the run.
        nfe: of the trials.
    """
    own = {key: each for key, each in results.items() if nfe - each.nfe in (0, 1) and each.scores}
    searched = {key: each for key, each in own.items() if each.stage in ("search", "polish") and each.is_of(nfe)}
    order = list(dict.fromkeys(key.plan for key in searched))

    def seeds_of(stage: str) -> list[range]:
        own = {key.seeds for key, each in searched.items() if each.stage == stage}
        return sorted(own, key=attrgetter("start", "stop"))

    series = [
        *zip(seeds_of("search"), (SECONDARY, _ONE), ("first seeds", "second seeds, good plans"), strict=False),
        *((seeds, _OTHER, "both, polished plans") for seeds in seeds_of("polish")),
    ]
    figure, (axes,) = stacked(1, 2.2)
    handles: list[Artist] = []
    for seeds, colour, title in series:
        # Sorted, as the polish begins with plans of the search.
        shown = sorted((order.index(key.plan) + 1, each.value) for key, each in searched.items() if key.seeds == seeds)
        usual = [each.value for key, each in own.items() if key.seeds == seeds and each.stage == "usual"]
        if shown:
            places, values = zip(*shown, strict=True)
            handles.append(axes.scatter(places, values, s=5, color=colour, alpha=0.6, label=title))
            best = list(accumulate(values, min))
            axes.step(places, best, where="post", color=colour, linewidth=0.9)
        if usual:
            line = axes.axhline(min(usual), color=colour, linestyle="--", linewidth=0.8)
            line.set_label(f"best usual, {title.split()[0]} seeds")
            handles.append(line)
    ranked = sorted(each.value for each in searched.values())
    if ranked:  # a plan that failed would leave nothing to see of the others
        low, middle = ranked[0], ranked[len(ranked) // 2]
        axes.set_ylim(low - 0.1 * (middle - low), max(middle + (middle - low), low * 1.01))
    axes.set_xlabel("trial")
    names = dict.fromkeys(next(iter(each.scores)) for each in own.values() if each.scores)
    axes.set_ylabel("\n".join(["what the search went by", *map(detector_note, names)]))
    legend_below(figure, handles)
    return figure


@style()
def plot_importances(importances: Mapping[str, float]) -> Figure:
    """Plots what decides whether a plan is among the best."""
    shown = sorted(importances.items(), key=lambda pair: pair[1])[-_MOST:]
    figure, (axes,) = stacked(1, 0.5 + 0.16 * len(shown))
    axes.barh([name for name, _ in shown], [value for _, value in shown], color=_OTHER, height=0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("share of what decides (PED-ANOVA)")
    return figure


def plot_confirmed(evidence: Mapping[str, Any], levels: Sequence[float | None]) -> Figure:
    """Plots the noise paths of the plans that were confirmed, the best usual one first.

    Args:
        evidence: of the file of a plan.
        levels: the lowest and the highest that the model knows; None: there is no limit.
    """
    points = []
    low, high = (limit if level is None else level for level, limit in zip(levels, (0.0, inf), strict=True))
    for text, scores in evidence["scores"].items():
        plan, (first, *_) = Plan.parse_found(text), scores.values()
        values = first["values"]
        nfe = plan.path(low, high).nfe(*plan.solvers)
        points.append(Point(text, text, family_of(plan), plan, nfe, sum(values) / len(values), 0.0, low, high))
    return plot_paths(points)
