"""Which rows of a results file can be compared, and how rows are identified."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.comparison.named_plans import family_of
from restart_sampling.evaluation.results_file import SCORES, Result, describe_damage, read_results
from restart_sampling.sampling.plan import Plan

SAMPLES = "samples"

_NAMES = {"model_sha256": "model"}


class Rows(dict[str, dict[str, Any]]):
    """Rows of a results file by their keys, in the order of the file; of two alike the last.

    Attributes:
        damaged: numbers of the lines that were left out.
    """

    damaged: Sequence[int] = ()


def comparison(result: Result) -> dict[str, Any]:
    """Returns all that a row depends on but its own settings: rows can be compared where it is equal."""
    own = _row_settings(result)
    found = {key: value for key, value in result["run"].items() if key not in own}
    found |= {key: result.get(key) for key in ("detector", "metrics", "blocks")}
    found["reference"] = (result.get("reference") or {}).get("sha256")
    for score in SCORES:
        if score in result:
            found[score] = {key: value for key, value in result[score].items() if key != "model"}
    return found


def row_key(result: Result) -> str:
    """Names a row: names are equal exactly where all that the rows depend on is."""
    own = [result["run"].get(name) for name in _row_settings(result)]
    return hashlib.sha256(json.dumps([comparison(result), *own], sort_keys=True).encode()).hexdigest()[:16]


def _row_settings(result: Result) -> tuple[str, ...]:
    """Returns what rows of a comparison differ in."""
    return ("plan",) if "plan" in result["run"] else ("sampler", "guidance", "scheduler")


def check_comparable(path: Path, results: Iterable[Result], other: Result | None = None) -> None:
    """Makes sure that all results of a file differ in their plans alone.

    Args:
        path: of the file, for the message.
        results: its lines.
        other: a result that they have to fit; default: the first of them.

    Raises:
        InputError: one is of another model, detector, reference or the like.
    """
    expected = None if other is None else comparison(other)
    for result in results:
        found = comparison(result)
        expected = expected or found
        different = [key for key in sorted(found.keys() | expected.keys()) if found.get(key) != expected.get(key)]
        if different:
            names = " and ".join(_NAMES.get(key, key) for key in different)
            values = "; ".join(f"{_short(found.get(key))} and {_short(expected.get(key))}" for key in different)
            advice = "give another folder to --out" if other else "keep rows that cannot be compared in separate files"
            raise InputError(f"{path} holds a row with different {names} ({values}); {advice}")


def read_sweep(path: Path) -> Rows:
    """Reads the rows of plans in a results file.

    Raises:
        InputError: the file cannot be read, has no such row, or rows that cannot be compared.
    """
    return _read(path, "plan", "row of a sampler; make some with 'restart-sampling sweep'")


def read_text_rows(path: Path) -> Rows:
    """Reads the rows of text-to-image samplers in a results file, as `read_sweep` gives those of plans.

    Raises:
        InputError: the file cannot be read, has no such row, or rows that cannot be compared.
    """
    return _read(path, "sampler", "row of a text-to-image sampler; make some with 'restart-sampling text compare'")


def _read(path: Path, kind: str, what: str) -> Rows:
    file = read_results(path)
    results = [result for result in file if result.get(kind) is not None]
    if not results:
        raise InputError(f"{path} has no {what}" + f" ({describe_damage(file.damaged)})" * bool(file.damaged))
    check_comparable(path, results)
    rows = Rows({row_key(result): result for result in results})
    rows.damaged = file.damaged
    return rows


def chosen(results: Mapping[str, Result], names: Sequence[str]) -> dict[str, Result]:
    """Finds the rows with these names, or of these families or text-to-image samplers, in this order.

    Raises:
        InputError: there is no such row.
    """
    known = {key: (row_name(result), result.get("sampler") or row_family(result)) for key, result in results.items()}
    found: dict[str, Result] = {}
    for name in names:
        keys = [key for key, own in known.items() if name in own]
        if not keys:
            names_and_lines = dict.fromkeys(chain.from_iterable(known.values()))
            nearest = ", ".join(get_close_matches(name, names_and_lines, n=3, cutoff=0.3))
            raise InputError(f"--row '{name}': there is no row of that name; nearest: {nearest or 'none'}")
        found |= {key: results[key] for key in keys}
    return found


def row_name(result: Result) -> str:
    """Returns what a row is called: its plan, where it has no name."""
    return result.get("name", result["plan"])


def row_family(result: Result) -> str:
    """Returns the family that a row of a plan says, or else the plan's own."""
    return result.get("family") or family_of(Plan.parse(result["plan"]))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
