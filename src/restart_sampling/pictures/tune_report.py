"""The page of a run of `tune`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import with_error
from restart_sampling.comparison.named_plans import family_of
from restart_sampling.pictures.page import png_in, render, svg
from restart_sampling.pictures.restart_map import plot_map
from restart_sampling.pictures.tuning import plot_confirmed, plot_importances, plot_trials
from restart_sampling.sampling.plan import Plan
from restart_sampling.text_to_image.samplers import SAMPLER_FORMAT, Sampler
from restart_sampling.tuning.bench import Measured, read_measured
from restart_sampling.tuning.objective import Key
from restart_sampling.tuning.run import MAP, MEASURED, SAMPLES, read_map, read_plans, read_run, whole
from restart_sampling.tuning.score import Score, difference
from restart_sampling.tuning.stages import strip_name
from restart_sampling.tuning.verdict import describe_relative


def make_tune_report(folder: Path) -> tuple[int, str]:
    """Makes the page; returns the number of plans on it too.

    Args:
        folder: of the run.

    Raises:
        InputError: there is neither a plan nor a map in it, or one is damaged.
    """
    run = read_run(folder)
    with whole(folder):
        return _page(folder, run)


def _page(folder: Path, run: Mapping[str, Any]) -> tuple[int, str]:
    plans = read_plans(folder)
    path = folder / MEASURED
    results = dict(read_measured(path)) if path.exists() else {}
    found_map = read_map(folder) if (folder / MAP).exists() else None
    if not plans and found_map is None:
        raise InputError(f"{folder} has neither a plan nor a map yet; let 'restart-sampling tune' finish")
    page = render(
        "tune.html",
        title=f"Tuning of {run['model']}",
        run=run,
        drift=found_map and "drift" in found_map,
        map=found_map and svg(plot_map(found_map), "map", "Map of restarts"),
        plans=[{**content, **_parts(folder, content, results)} for content in plans],
    )
    return len(plans), page


def _parts(folder: Path, content: Mapping[str, Any], results: Mapping[Key, Measured]) -> dict[str, Any]:
    """Makes the figures and tables of an NFE."""
    evidence, nfe = content["evidence"], content["nfe"]
    figures: list[tuple[str, Markup]] = []
    if "scores" not in evidence:  # of the grid alone
        return {"figures": figures, "rows": []}
    captions = {
        "trials": "Plans of search and polish, in order, with those that recall rules out; lines: the lowest so far, "
        "and dashed the best usual plan.",
        "paths": "Noise paths of the plans that were confirmed, the best usual one on top.",
        "importances": "What decides whether a plan is among the best, over all plans that were searched.",
    }
    plots = {} if _of_pipeline(content) else {"paths": plot_confirmed(evidence, content.get("levels", (None, None)))}
    if any(each.stage == "search" and each.is_of(nfe) for each in results.values()):
        plots = {"trials": plot_trials(results, nfe), **plots}
    if evidence["cost"]["importances"]:
        plots["importances"] = plot_importances(evidence["cost"]["importances"])
    figures = [(captions[kind], svg(figure, f"{kind}-{nfe}", captions[kind])) for kind, figure in plots.items()]
    rows = [_row(folder, content, place, plan) for place, plan in enumerate(evidence["scores"])]
    return {"figures": figures, "rows": rows, "summary": _summary(content)}


def _of_pipeline(content: Mapping[str, Any]) -> bool:
    return bool(content["format"] == SAMPLER_FORMAT)


def _kind(content: Mapping[str, Any], text: str) -> str:
    """Names the family of a plan, or of a sampler of a text-to-image pipeline."""
    return Sampler.parse(text).family if _of_pipeline(content) else family_of(Plan.parse_found(text))


def _summary(content: Mapping[str, Any]) -> str:
    """Says what was chosen, and why, without the values, which are in the table."""
    plan, evidence = content["plan"], content["evidence"]
    if plan == evidence["usual"]:
        return (
            "The best usual plan: none that was found is told apart from it as better, and no simpler one is as good."
        )
    kind, usual = (_kind(content, each) for each in (plan, evidence["usual"]))
    gains = ", ".join(f"{describe_relative(each['relative'])} by {name}" for name, each in evidence["gain"].items())
    told = "Better than" if evidence["better"] else "Simpler than, and not told apart from,"
    return f"{kind}. {told} the best usual plan, which is {usual}: {gains}."


def _row(folder: Path, content: Mapping[str, Any], place: int, plan: str) -> dict[str, Any]:
    """Makes the lines of a confirmed plan, one for each detector."""
    evidence, nfe = content["evidence"], content["nfe"]
    # Earlier versions named the strips by their places.
    strips = [folder / SAMPLES / name for name in (strip_name(nfe, plan), f"{nfe}-{place}.png")]
    scores = {name: Score.read(each) for name, each in evidence["scores"][plan].items()}
    lines = []
    for name, score in scores.items():
        found = difference(score, Score.read(evidence["scores"][evidence["usual"]][name]))
        to_usual = "" if plan == evidence["usual"] else with_error(found.value, found.error, sign="+", between=" ± ")
        lines.append(
            {
                "name": name,
                "value": score.value,
                "difference": to_usual,
                "blocks": score.values,
                "metrics": score.metrics,
            }
        )
    return {
        "plan": plan,
        "kind": _kind(content, plan),
        "scores": lines,
        "png": png_in(strips),
    }
