"""Options, progress and columns shared by the commands that measure rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.base.numbers import counted, with_error
from restart_sampling.cli.dry_run import leaving_no_folder
from restart_sampling.cli.options import as_one, detector_option, print_table, table_width, trust_option
from restart_sampling.cli.progress import ProgressBar, describe_seconds

if TYPE_CHECKING:
    import torch

    from restart_sampling.comparison.rows import Outcome, Row, Watch
    from restart_sampling.comparison.run import Comparison
    from restart_sampling.evaluation.setup import EvaluationSetup

reference_option = click.option(
    "--reference", "reference_name", required=True, metavar="NPZ", help="Statistics: a file or an https URL."
)


@dataclass(frozen=True)
class SetupOptions:
    """What the user asks to measure with: the values of `setup_options`."""

    reference_name: str
    detector_name: str
    trust: bool | str
    metrics_text: str

    def open(self, blocks: int, device: torch.device) -> EvaluationSetup:
        """Loads it, as `open_setup` does."""
        from restart_sampling.evaluation.setup import open_setup

        return open_setup(
            self.reference_name, self.detector_name, self.metrics_text, blocks, device, trust_detector=self.trust
        )


setup_options = as_one(
    "measures",
    SetupOptions,
    (
        reference_option,
        detector_option,
        trust_option,
        click.option(
            "--metrics",
            "metrics_text",
            default="fd",
            show_default=True,
            help="With commas between: fd, kid, pr (precision and recall), fd-infinity, per-class.",
        ),
    ),
)
"""Adds the options of what to measure with, which come to the command as `measures`."""


def describe_setup(comparison: Comparison, arithmetic: str = "") -> dict[str, Any]:
    """Describes what a comparison measures with, and where, for `print_settings`."""
    setup, about = comparison.setup, comparison.about()
    images = setup.reference.statistics.count or "unknown number of"
    return {
        "reference": f"{setup.about['reference']['path']} ({images} images)",
        "detector": f"{setup.about['detector_name']} ({setup.detector.identity[:32]}), float32 without TF32",
        "metrics": ", ".join(about["metrics"]),
        "device": f"{about['device']}{arithmetic}",
        **({"note": setup.note} if setup.note else {}),
    }


def print_notes(notes: Mapping[str, Sequence[str]]) -> None:
    """Prints what has to be known of the values, by the names of the rows; what is true of all rows is said once."""
    rows: dict[str, list[str]] = {}
    for name, own in notes.items():
        for note in own:
            rows.setdefault(note, []).append(name)
    for note, names in rows.items():
        click.echo(f"note: {note}" if len(names) == len(notes) else f"note on {', '.join(names)}: {note}", err=True)


def print_new_notes(comparison: Comparison, outcomes: Sequence[Outcome]) -> None:
    """Prints those notes of rows that were not known before they were measured."""
    print_notes(
        {
            each.row.name: [note for note in each.result.get("notes", ()) if note not in comparison.notes(each.row)]
            for each in outcomes
            if each.result
        }
    )


def describe_rows(rows: Sequence[Row], cost: str, there: Mapping[str, Any]) -> str:
    """Says how many rows there are, what they cost, and how many are finished."""
    return f"{len(rows)}, {cost} in all" + f"; there already: {len(there)}" * bool(there)


@contextmanager
def looked_up(
    comparison: Comparison, rows: Sequence[Row], out: Path, dry_run: bool
) -> Iterator[dict[str, dict[str, Any]]]:
    """Claims the rows as `Comparison.claimed` does; for a dry run it only makes the same checks."""
    if dry_run:
        comparison.check(rows)
        with leaving_no_folder(out):
            yield comparison.take_up(rows)
    else:
        with comparison.claimed(rows) as there:
            yield there


@contextmanager
def watching(
    rows: Sequence[Row],
    there: Mapping[str, Any],
    shown: bool,
    announced: bool = False,
    ended: Callable[[Outcome], None] = lambda outcome: None,
) -> Iterator[Watch]:
    """Shows the user how a comparison goes on: progress, and a line for each row that ends.

    Args:
        rows: all of them.
        there: those that are finished, by name.
        shown: whether this process speaks to the user.
        announced: whether each row is named when it begins, too.
        ended: is told of each row that ends.
    """
    from restart_sampling.comparison.rows import Watch

    missing = [row for row in rows if row.name not in there]
    total = sum(row.cost for row in missing)
    unit = "evaluations" if any(row.drawing for row in missing) else "images"
    start = time.monotonic()

    class Shown(Watch):
        work = 0

        def begin(self, row: Row, there: int) -> None:
            if shown and announced:
                click.echo(f"{describe_row(row)}, {counted(row.images, 'image')}", err=True)
            if shown and there:
                click.echo(f"{counted(there, 'image')} from an earlier start", err=True)

        def advance(self, row: Row, images: float) -> None:
            advance(images * row.cost)

        def say(self, text: str) -> None:
            if shown:
                click.echo(text, err=True)

        def end(self, outcome: Outcome) -> None:
            ended(outcome)
            self.work += outcome.row.cost
            left = describe_seconds((time.monotonic() - start) * (total / self.work - 1))
            result = outcome.result
            said = f"distance {distance(result)} in {result['seconds']:.0f} s" if result else f"failed: {outcome.error}"
            if shown:
                place = f"row {rows.index(outcome.row) + 1} of {len(rows)}, {outcome.row.name}"
                click.echo(f"{place}: {said}" + f"; about {left} left" * (self.work < total), err=True)

    with ProgressBar(unit, sum(row.cost * row.images for row in missing), shown) as advance:
        yield Shown()


def describe_row(row: Row) -> str:
    """Names a row, with its model and its cost where its images are drawn."""
    return f"{row.name} on {row.about['model']}: NFE {row.cost}" if row.drawing else row.name


def distance(result: Mapping[str, Any]) -> str:
    """Writes the Fréchet distance with its standard error."""
    return with_error(result["frechet_distance"], result["frechet_distance_error"])


def metric_columns(outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
    """Writes for each metric the value of each row with its error, by its title, where rows have it."""
    from restart_sampling.evaluation.results_file import TITLES
    from restart_sampling.evaluation.values import value_of

    def value(key: str, result: Mapping[str, Any]) -> str:
        found = value_of(result, key)
        return found.written() if found else ""

    return {
        title: per_result(outcomes, partial(value, key), failed="failed" * (key == "frechet_distance"))
        for key, title in TITLES.items()
        if key == "frechet_distance" or any(key in each.result for each in outcomes if each.result)
    }


def paired(outcomes: Sequence[Outcome]) -> list[str]:
    """Writes for each row its difference to the first, paired by seed, with its standard error."""
    from restart_sampling.evaluation.metrics import paired_difference

    base = outcomes[0].result
    return [
        with_error(*paired_difference(each.result, base), sign="+")
        if each.result and base and each.result is not base
        else ""
        for each in outcomes
    ]


def print_rows(names: Sequence[str], plans: Sequence[str], columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Prints a table with a line for each row, none wider than the terminal: what does not fit goes below it.

    Args:
        names: of the rows.
        plans: likewise; "" where there is none.
        columns: titles, and the cells below them.

    Returns:
        The labels that stand for the names.
    """
    from restart_sampling.comparison.labels import labelled

    own, legend = labelled(names, plans)
    width = table_width()
    for place, part in enumerate(_parts({**own, **columns}, width)):
        click.echo("\n" * bool(place), nl=False)
        print_table(part)
    click.echo("\n" * bool(legend), nl=False)
    for label, text in legend.items():
        lines = wrap(text, width - 4, break_long_words=False, break_on_hyphens=False)
        click.echo(f"{label}  " + "\n    ".join(lines))
    return own["row"]


def _parts(columns: Mapping[str, Sequence[str]], width: int) -> Iterator[dict[str, Sequence[str]]]:
    """Divides a table that is too wide into such with some of the columns each, and the first column."""
    if sum(max(map(len, (title, *cells))) + 2 for title, cells in columns.items()) <= width + 2:
        yield dict(columns)
        return
    (first, labels), *others = columns.items()
    part, least = {first: labels}, max(map(len, (first, *labels)))
    used = least
    for title, cells in others:
        lines = wrap(title, max(map(len, (*cells, *title.split()))), break_on_hyphens=False)
        needed = 2 + max(map(len, (*cells, *lines)))
        if used + needed > width and len(part) > 1:
            yield part
            part, used = {first: labels}, least
        part["\n".join(lines)] = cells
        used += needed
    yield part


def per_result(outcomes: Sequence[Outcome], cell: Callable[[Any], str], failed: str = "") -> list[str]:
    """Makes a cell of each row of its line, or puts what stands there where it failed."""
    return [failed if each.result is None else cell(each.result) for each in outcomes]


def print_end(comparison: Comparison, outcomes: Sequence[Outcome], notes: Sequence[str] = ()) -> None:
    """Prints what is said after the table: notes, the rows that failed, where they are not overlooked, and the file."""
    print_new_notes(comparison, outcomes)
    for note in notes:
        click.echo(note, err=True)
    for each in outcomes:
        if each.result is None:
            click.echo(f"row '{each.row.name}' failed: {each.error}; the same command tries it again", err=True)
    click.echo(f"results: {comparison.results}", err=True)
