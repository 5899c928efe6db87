"""The page of a run of `tune`."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from restart_sampling.base.errors import InputError
from restart_sampling.pictures.page import render, svg
from restart_sampling.pictures.restart_map import plot_map
from restart_sampling.pictures.tuning import plot_confirmed, plot_importances, plot_trials
from restart_sampling.tuning.bench import Key, Measured, read_measured
from restart_sampling.tuning.run import MAP, MEASURED, SAMPLES, read_run


def make_tune_report(folder: Path) -> tuple[int, str]:
    """Makes the page; returns the number of plans on it too.

    Args:
        folder: of the run.

    Raises:
        InputError: there is neither a plan nor a map in it.
    """
    run = read_run(folder)
    plans = sorted((json.loads(path.read_text()) for path in folder.glob("plan-*.json")), key=lambda each: each["nfe"])
    path = folder / MEASURED
    results = dict(read_measured(path)) if path.exists() else {}
    found_map = json.loads((folder / MAP).read_text()) if (folder / MAP).exists() else None
    if not plans and found_map is None:
        raise InputError(f"{folder} has neither a plan nor a map yet; let 'restart-sampling tune' finish")
    page = render(
        "tune.html",
        title=f"Tuning of {run['model']}",
        run=run,
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
        "trials": "Plans in the order of the search; lines: the best so far, and dashed the best usual plan.",
        "paths": "Noise paths of the plans that were confirmed, the best usual one on top.",
        "importances": "What decides whether a plan is among the best, over all plans that were searched.",
    }
    plots = {"trials": plot_trials(results, nfe), "paths": plot_confirmed(evidence)}
    if evidence["cost"]["importances"]:
        plots["importances"] = plot_importances(evidence["cost"]["importances"])
    figures = [(captions[kind], svg(figure, f"{kind}-{nfe}", captions[kind])) for kind, figure in plots.items()]
    return {"figures": figures, "rows": [_row(folder, nfe, *each) for each in enumerate(evidence["scores"].items())]}


def _row(folder: Path, nfe: int, place: int, plan_scores: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    plan, scores = plan_scores
    strip = folder / SAMPLES / f"{nfe}-{place}.png"
    return {
        "plan": plan,
        "values": {name: score["values"] for name, score in scores.items()},
        "metrics": next(iter(scores.values())).get("metrics", {}),
        "png": base64.b64encode(strip.read_bytes()).decode() if strip.is_file() else "",
    }
