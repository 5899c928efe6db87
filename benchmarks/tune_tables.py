"""What `tune.py` found, in one file, and the tables of it."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from restart_sampling.evaluation.metrics import paired_difference
from restart_sampling.evaluation.results_file import read_results

TUNED, USUAL, UNTUNED, RIVAL = "tuned", "usual", "untuned", "rival"
TRANSFER, CONTROL = "transfer", "control"
"""Families of plans in a comparison."""
ROLES = "; "
"""Between the names of a plan that is several things, and between their families."""
SHOWN = 6
_KEPT = (
    "name",
    "family",
    "plan",
    "nfe",
    "frechet_distance",
    "frechet_distance_error",
    "frechet_distance_without_group",
)

Row = Mapping[str, Any]


def gather(out: Path, kept: Path) -> dict[str, Any]:
    """Collects the searches and comparisons of `tune.py`, and the searches that are kept from before, as JSON."""
    searches: dict[str, dict[str, Any]] = {}
    for path in [*sorted(kept.glob("*/plan-*.json")), *sorted(out.glob("*/plan-*.json"))]:
        content = json.loads(path.read_text("utf-8"))
        if "scores" in content["evidence"]:
            searches.setdefault(path.parent.name, {})[str(content["nfe"])] = _search(content)
    rows = {
        path.parent.name: [each for row in _named(path) for each in _roles(row)]
        for path in sorted(out.glob("*/results.jsonl"))
    }
    return {"searches": searches, "rows": rows}


def _named(path: Path) -> Iterator[Row]:
    """Yields the results whose plans are asked for now, by their names of now: an earlier start had other ones."""
    with path.parent.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        names = {row["plan"]: row for row in csv.DictReader(file)}
    return ({**row, **names[row["plan"]]} for row in read_results(path) if row["plan"] in names)


def _roles(row: Row) -> Iterator[dict[str, Any]]:
    """Yields a row for each name of its plan."""
    for name, family in zip(row["name"].split(ROLES), row["family"].split(ROLES), strict=True):
        yield {**{key: row[key] for key in _KEPT}, "name": name, "family": family}


def _search(content: Row) -> dict[str, Any]:
    evidence = content["evidence"]
    scores = {
        plan: {
            name: {"distance": sum(score["values"]) / len(score["values"]), "recall": score["metrics"].get("recall")}
            for name, score in each.items()
        }
        for plan, each in evidence["scores"].items()
    }
    cost = {key: value for key, value in evidence["cost"].items() if key != "importances"}
    kept = {key: evidence[key] for key in ("usual", "better", "gain")}
    return {"plan": content["plan"], **kept, "scores": scores, "cost": cost}


def print_tables(found: Mapping[str, Any]) -> None:
    """Prints the searches, and of each comparison plans of any NFE, rivals, transfer and controls."""
    searches, rows = found["searches"], found["rows"]
    print_searches(searches)
    for name, own in rows.items():
        model = name.removesuffix("-compared").removesuffix("-second")
        if name.endswith("-compared"):
            print_any_nfe(model, own)
            print_rivals(model, own)
        if name.endswith("-controls"):
            print_rows(name, own[0], own)
        if name.endswith(("-compared", "-second")):
            print_from_other_nfe(name, own)
    for kind in ("compared", "second"):
        compared = {name.removesuffix(f"-{kind}"): own for name, own in rows.items() if name.endswith(f"-{kind}")}
        if compared:
            print_from_other_models(f"by the {'search' if kind == 'compared' else kind} detector", compared)


def print_searches(searches: Mapping[str, Any]) -> None:
    print(
        "| search, evaluations | plan | by | best usual | found | difference | recall | evaluations, trials, seconds |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for run, own in searches.items():
        for nfe, each in sorted(own.items(), key=lambda pair: int(pair[0])):
            cost = each["cost"]
            spent = f"{cost['evaluations'] / 1e6:.1f} million, {cost.get('trials', '-')}, {cost['seconds']:.0f}"
            for name, score in each["scores"][each["plan"]].items():
                usual, gain = each["scores"][each["usual"]][name], each["gain"].get(name)
                difference = "-"
                if gain:
                    sure = "**" if gain["told_apart"] else ""
                    difference = (
                        f"{gain['difference']:+.3f} +- {gain['error']:.3f} ({sure}{gain['relative']:+.1%}{sure})"
                    )
                recall = f"{usual['recall']:.3f} to {score['recall']:.3f}" if score["recall"] is not None else ""
                print(
                    f"| {run}, {nfe} | `{each['plan']}` | {name} | {usual['distance']:.3f} | {score['distance']:.3f} | "
                    f"{difference} | {recall} | {spent} |"
                )


def print_any_nfe(model: str, rows: list[Row]) -> None:
    """Prints how the plan found at 20 evaluations stands beside all that were not tuned."""
    tuned = [row for row in rows if row["name"] == "tuned 20"]
    found = {row["plan"] for row in rows if row["family"] in (TUNED, TRANSFER)}  # which a default may be
    own = [row for row in rows if row["family"] in (UNTUNED, USUAL) and row["plan"] not in found]
    others = sorted(own, key=lambda row: float(row["frechet_distance"]))
    if tuned and others:
        better = sum(row["frechet_distance"] < tuned[0]["frechet_distance"] for row in others)
        span = f"{min(row['nfe'] for row in others)} to {max(row['nfe'] for row in others)} evaluations"
        title = f"{model}, the plan found at 20 beside {len(others)} untuned ones of {span}, {better} of them lower"
        print_rows(title, tuned[0], [tuned[0], *others[:SHOWN]])


def print_rivals(model: str, rows: list[Row]) -> None:
    for tuned in (row for row in rows if row["family"] == TUNED):
        nfe = tuned["name"].split()[-1]
        own = [row for row in rows if row["family"] in (USUAL, RIVAL) and row["name"].split()[-1] == nfe]
        print_rows(f"{model}, rivals at {nfe}", tuned, [tuned, *own])


def print_rows(title: str, base: Row, rows: list[Row]) -> None:
    print(f"\n{title}; differences to the first row\n\n| | plan | evaluations | distance | difference |")
    print("|---|---|---|---|---|")
    for row in rows:
        difference = "" if row is base else _difference(row, base)
        name = "" if row["name"] == row["plan"] else row["name"]
        plan = re.sub(r"grid=(\d+)/\S*/0\b", r"grid=\1/.../0", row["plan"])
        print(f"| {name} | `{plan}` | {row['nfe']} | {row['frechet_distance']:.3f} | {difference} |")


def print_from_other_nfe(name: str, rows: list[Row]) -> None:
    """Prints a plan found at one NFE, with as many main steps as make it another, less the best usual one there."""
    cells = {}
    for row in rows:
        words = row["name"].split()
        if row["family"] == TUNED:
            cells[words[1], words[1]] = row
        elif row["family"] == TRANSFER and name.startswith(f"{words[0]}-"):
            cells[words[1], words[3]] = row
    usual = {row["name"].split()[-1]: row for row in rows if row["family"] == USUAL}
    _print_square(f"{name}: found at, used at", cells, usual)


def print_from_other_models(title: str, compared: Mapping[str, list[Row]]) -> None:
    """Prints the plan found for one model, used on another, less the best usual one there."""
    for nfe in ("10", "20", "40"):
        cells, usual = {}, {}
        for model, rows in compared.items():
            for row in rows:
                words = row["name"].split()
                if row["family"] == USUAL and words[-1] == nfe:
                    usual[model] = row
                elif row["family"] == TUNED and words[1] == nfe:
                    cells[model, model] = row
                elif row["family"] == TRANSFER and words[1] == words[-1] == nfe:
                    cells[words[0], model] = row
        _print_square(f"{title}, {nfe} evaluations: found for, used on", cells, usual)


def _print_square(title: str, cells: Mapping[tuple[str, str], Row], usual: Mapping[str, Row]) -> None:
    columns = [each for each in usual if any(used == each for _, used in cells)]
    if not columns:
        return
    print(f"\n{title}; difference to the best usual plan\n\n| | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for row in dict.fromkeys(source for source, _ in cells):
        print(f"| {row} | {' | '.join(_cell(cells.get((row, column)), usual[column]) for column in columns)} |")


def _cell(row: Row | None, usual: Row) -> str:
    return "-" if row is None else f"{row['frechet_distance']:.3f} ({_difference(row, usual)})"


def _difference(row: Row, base: Row) -> str:
    value, error = paired_difference(dict(row), dict(base))
    return f"{value:+.3f} +- {error:.3f}"
