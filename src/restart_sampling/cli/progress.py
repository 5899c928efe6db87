"""How far a command is: a bar or lines with the rate and the time left, and a word where that is days."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Task

SECONDS_BETWEEN_LINES = 30.0
SECONDS_BEFORE_LINES = 5.0
"""To the first line, which says soon how long it will take."""
SECONDS_BEFORE_JUDGING = 20.0
"""Until a run is long enough to say whether it will take days."""
SECONDS_OF_A_DAY = 86400.0


def describe_seconds(seconds: float) -> str:
    """Writes a length of time in its two largest units."""
    whole = max(0, round(seconds))
    for size, unit, part_size, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part_size} {part}"
    return f"{whole} s"


def days_note(seconds: float) -> str:
    """Says what to know of a run that takes so long; nothing where that is less than a day."""
    if seconds < SECONDS_OF_A_DAY:
        return ""
    return (
        f"note: this takes about {describe_seconds(seconds)}; fewer images, a faster device or more processes "
        f"(torchrun) shorten it"
    )


class ProgressBar:
    """Progress on standard error: a bar on a terminal, elsewhere a line now and then; with the rate and the time left.

    The body is given a function that it tells how many more are done, which may be parts of one. What is told first may
    have been there before, or have waited for a compiler, and does not count for the rate.

    Args:
        label: of what is counted.
        total: how many there are.
        shown: whether this process speaks to the user.
    """

    def __init__(self, label: str, total: float, shown: bool = True) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
        from rich.text import Text

        class State(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text(_describe_task(task))

        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f} %"),
            State(),
            console=console,
            disable=not (shown and console.is_terminal),
            get_time=time.monotonic,
            speed_estimate_period=600,  # evaluations of large networks take long; the last 1000 reports at most count
        )
        self._task = self._progress.add_task(label, total=total)
        self._shown = shown
        first_line = inf if console.is_terminal else min(SECONDS_BEFORE_LINES, SECONDS_BETWEEN_LINES)
        self._next_line = time.monotonic() + first_line
        self._judge_at = time.monotonic() + SECONDS_BEFORE_JUDGING

    def __enter__(self) -> Callable[[float], None]:
        self._progress.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _advance(self, count: float) -> None:
        if count:  # of nothing, the time to the first one would count
            self._progress.advance(self._task, count)
        now = time.monotonic()
        if not self._shown or now < min(self._next_line, self._judge_at):
            return
        task = self._progress.tasks[0]
        if now >= self._next_line:
            self._next_line = now + SECONDS_BETWEEN_LINES
            click.echo(f"{task.description}: {_describe_task(task)}", err=True)
        if now >= self._judge_at and task.time_remaining is not None:
            self._judge_at = inf
            if note := days_note(task.time_remaining):
                click.echo(note, err=True)


def _describe_task(task: Task) -> str:
    """Says how many are done, the rate and the time left, as far as they are known."""
    state, speed = f"{int(task.completed + 1e-6)} of {task.total:.0f}", task.speed
    if not speed:
        return state
    rate = f"{speed:.{1 if speed < 100 else 0}f} a second" if speed >= 1 else f"{1 / speed:.1f} s each"
    left = "" if task.finished or task.time_remaining is None else f", {describe_seconds(task.time_remaining)} left"
    return f"{state}, {rate}{left}"
