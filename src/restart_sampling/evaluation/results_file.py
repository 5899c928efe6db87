"""The results file: one JSON line for each row, with all that is needed to repeat it.

Every line is an object with at least

    schema            "restart-sampling-results/1"
    images            how many were evaluated
    frechet_distance  their distance to the reference, with `frechet_distance_error`, its standard error
    detector          identity of the detector; features of different detectors cannot be compared
    reference         {path, sha256, images, source} of the statistics
    run               what defines the images: {model_sha256, D, plan, seeds, class, guidance, noise, arithmetic} for a
                      sampler, {images, max_images} for files; two lines with equal run, detector and reference are
                      the same row
    model, plan, nfe  of a sampler; null for files
    seconds, device, versions, time

and the further metrics of `metrics.compute_metrics`. Lines of `text score` have `clip_score`, `aesthetic_score` or
both, each with its `_error` and what it was made with under `clip` and `aesthetic`, in place of a distance, detector
and reference. Lines of `text compare` have both kinds, `sampler` and `guidance` in place of a plan, and a `run` that is
{model_sha256, prompts, sampler, guidance, seed, scheduler and the rest of `TextDrawing.about`}. Comparisons and plots
read this file.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import append_line, in_utf16
from restart_sampling.base.numbers import is_number

SCHEMA = "restart-sampling-results/1"
RESULTS = "results.jsonl"
"""Its name in the folder of a sweep."""
TITLES = {
    "frechet_distance": "Fréchet distance",
    "frechet_distance_min": "minimum",
    "kernel_distance": "KID",
    "precision": "precision",
    "recall": "recall",
    "frechet_distance_infinity": "at infinity",
}
"""What tables show of the metrics, by the key in a line."""
SCORES = {"clip": "CLIP score", "aesthetic": "aesthetic score"}
"""Titles of the scores of prompted images, by name: a line has `<name>_score`, and what made it under `<name>`."""

Result = Mapping[str, Any]
"""A line."""

_LISTS = ("frechet_distance_blocks", "frechet_distance_without_group")
_TYPES = {
    **dict.fromkeys(("run", "versions", *SCORES), dict),
    **dict.fromkeys(("metrics", *_LISTS), list),
    **dict.fromkeys(("name", "family", "sampler"), str),
    **dict.fromkeys(("model", "plan"), str | None),
    **dict.fromkeys(("reference", "published"), dict | None),
}
_OF_ROWS = {"run", "images", "model", "detector", "reference", "metrics", "versions", "device"}


def append_result(path: Path, result: Mapping[str, Any]) -> None:
    """Adds one line, in one write; a line that a killed run left unfinished is closed first."""
    append_line(path, (json.dumps({"schema": SCHEMA, **result}, allow_nan=False) + "\n").encode())


@dataclass(frozen=True)
class Results:
    """What a results file holds; iterating gives its lines.

    Attributes:
        lines: in their order.
        damaged: numbers, from 1, of what is no line: a killed process, a full disk or an editor left it.
    """

    lines: Sequence[dict[str, Any]]
    damaged: Sequence[int]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.lines)


def read_results(path: Path) -> Results:
    """Reads a results file, once.

    Raises:
        InputError: the file cannot be read, or a line is of another schema.
    """
    try:
        texts = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"results {path} cannot be read ({error.strerror})") from error
    if in_utf16(texts[0]):  # lines are added to it in UTF-8
        raise InputError(f"results {path} is in UTF-16; save it as UTF-8")
    lines, damaged = [], []
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text, parse_constant=_no_number, parse_int=_moderate)
        except (ValueError, RecursionError):
            damaged.append(number)
            continue
        if not isinstance(line, dict) or line.get("schema") != SCHEMA:
            raise InputError(f"results {path}, line {number}: its schema is not {SCHEMA}; it is another kind of file")
        if _is_sound(line):
            lines.append(line)
        else:
            damaged.append(number)
    return Results(lines, damaged)


def describe_damage(damaged: Sequence[int]) -> str:
    """Says which lines of a results file were left out; nothing, where none was."""
    if not damaged:
        return ""
    s = "s" * (len(damaged) > 1)
    return f"{len(damaged)} damaged line{s} left out, number{s} {', '.join(map(str, damaged))}"


def _is_sound(line: Mapping[str, Any]) -> bool:
    """Checks that what a line says is of the type that its readers expect, and that a row of samples is complete.

    Numbers are left to those who want them: their messages name the row.
    """
    of_samples = line.get("plan") is not None or line.get("sampler") is not None
    if of_samples and not line.keys() >= _OF_ROWS:
        return False
    lists = (value for name in _LISTS for value in line.get(name, ()))
    return all(isinstance(line[name], kind) for name, kind in _TYPES.items() if name in line) and (
        all(map(is_number, lists))
    )


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _moderate(text: str) -> int:
    if len(text) > 20:
        raise ValueError("no integer of a results file is so long")
    return int(text)
