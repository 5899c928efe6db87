"""What the commands that compare rows share: one figure after another, and what is said of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import click

from restart_sampling.cli.options import Progress

Finished = dict[str, dict[str, Any]]
"""Lines of the results file by the keys of their rows."""


class Row(Protocol):
    """One figure to make."""

    @property
    def name(self) -> str:
        """For the user."""

    @property
    def key(self) -> str:
        """Of the figure."""

    @property
    def nfe(self) -> int:
        """What an image costs."""


R = TypeVar("R", bound=Row)


def measure_missing(
    rows: Sequence[R],
    finished: Finished,
    measure: Callable[[R, Callable[[int], None]], dict[str, Any]],
    images: int,
    shown: bool,
) -> dict[str, str]:
    """Makes the figures that are missing, one after another; one that fails does not end the others.

    Args:
        rows: all of them.
        finished: lines that are there; the new ones come to them.
        measure: makes the figure of a row, and tells a function how many images are there more.
        images: of each row.
        shown: whether this process says what happens.

    Returns:
        What failed, by key, and why.
    """
    from restart_sampling.comparison.run import RowError

    failed: dict[str, str] = {}
    missing = [row for row in rows if row.key not in finished]
    work, total = 0, sum(row.nfe for row in missing)
    start = time.monotonic()
    with Progress("images x NFE", total * images, shown) as advance:
        for row in missing:
            try:
                result = measure(row, lambda count, nfe=row.nfe: advance(count * nfe))  # type: ignore[misc]
                finished[row.key] = result
                said = f"distance {distance(result)} in {result['seconds']:.0f} s"
            except RowError as error:
                failed[row.key] = str(error)
                said = f"failed: {error}"
            work += row.nfe
            left = timedelta(seconds=round((time.monotonic() - start) * (total / work - 1)))
            if shown:
                place = f"row {rows.index(row) + 1} of {len(rows)}, {row.name}"
                click.echo(f"{place}: {said}" + f"; about {left} left" * (work < total), err=True)
    return failed


def distance(result: Mapping[str, Any]) -> str:
    """The Fréchet distance with its standard error."""
    return f"{result['frechet_distance']:.6g} +- {result['frechet_distance_error']:.2g}"


def print_failures(rows: Sequence[Row], failed: Mapping[str, str]) -> None:
    """The rows that failed, at the end, where they are not overlooked."""
    for row in rows:
        if row.key in failed:
            click.echo(f"row '{row.name}' failed: {failed[row.key]}; the same command tries it again", err=True)
