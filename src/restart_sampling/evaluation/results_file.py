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
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from restart_sampling.base.errors import InputError

SCHEMA = "restart-sampling-results/1"
SCORES = {"clip": "CLIP score", "aesthetic": "aesthetic score"}
"""Titles of the scores of prompted images, by name: a line has `<name>_score`, and what made it under `<name>`."""


def append_result(path: Path, result: Mapping[str, Any]) -> None:
    """Adds the line of a result."""
    append_line(path, {"schema": SCHEMA, **result})


def append_line(path: Path, content: Mapping[str, Any]) -> None:
    """Adds one line of JSON, in one write; a line that a killed run left unfinished is closed first."""
    line = json.dumps(content, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def read_results(path: Path) -> Iterator[dict[str, Any]]:
    """The results of a file, in order; an unfinished line, which only a killed run leaves, is passed over.

    Raises:
        InputError: the file cannot be read, or a line is of another schema.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise InputError(f"results {path} cannot be read ({error.strerror})") from error
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            result = json.loads(line)
        except json.JSONDecodeError:
            continue
        if not isinstance(result, dict) or result.get("schema") != SCHEMA:
            raise InputError(f"results {path}, line {number}: its schema is not {SCHEMA}; it is another kind of file")
        yield result
