"""Options and outputs that commands share. Imports nothing heavy."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import wraps
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.logbook import KINDS as LOGBOOKS

if TYPE_CHECKING:
    import torch

    from restart_sampling.base.ranks import Ranks
    from restart_sampling.images.sources import Source

T = TypeVar("T")

_ANY = "any"
_MAX_CLASSES = 12  # that are listed
PAPER = ("cifar10-vp", "cifar10-edm", "cifar10-pfgmpp", "imagenet64")
"""Settings of the paper: the keys of `comparison.published.CHECKPOINTS`."""
DETECTOR_HELP = "inception, dinov2-hf, tiny-clip (for pictures like CIFAR-10's), or the path of a TorchScript file."


class FiniteRange(click.FloatRange):
    """Numbers within a range; of click's own, nan is in all of them, and inf in those without an upper end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Reads a number."""
        number = float(super().convert(value, param, ctx))
        if not isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto takes cuda, then mps, then cpu.",
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="What networks compute in; auto is float16 on cuda, float32 elsewhere.",
)
batch_option = click.option("--batch", default=64, show_default=True, type=click.IntRange(1), help="Images at a time.")
drawn_batch_option = click.option(
    "--batch",
    type=click.IntRange(1),
    help="Images at a time; default: as many as pay, up to 512 on cuda, 16 on the CPU.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="End with one line of JSON on standard output.")
detector_option = click.option(
    "--detector", "detector_name", default="inception", show_default=True, help=DETECTOR_HELP
)
log_option = click.option(
    "--log",
    "log_kind",
    type=click.Choice(LOGBOOKS),
    help="Also write what is measured on the way to event files in RUN/tensorboard, or to a run of Weights & Biases.",
)


def _hash_or_any(_context: click.Context, _option: click.Parameter, text: str | None) -> bool | str:
    if text is None or text == _ANY:
        return text == _ANY
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise click.BadParameter(
            f"'{text}' is no SHA-256 (64 hexadecimal digits); to trust any file put the option last"
        )
    return text


trust_option = click.option(
    "--trust-detector",
    "trust",
    is_flag=False,
    flag_value=_ANY,
    callback=_hash_or_any,
    metavar="[SHA256]",
    help="Load a TorchScript detector that is not published, which can run code; with a SHA-256 that file alone.",
)


def _different_keys(_context: click.Context, _option: click.Parameter, settings: tuple[str, ...]) -> tuple[str, ...]:
    keys = [setting.partition("=")[0] for setting in settings]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise click.UsageError(f"--set {twice[0]} is given twice; give it once")
    return settings


set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_different_keys,
    help="A setting over the plan; may be repeated.",
)


def as_one(name: str, kind: type, options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """Makes a decorator that adds options to a command, whose values come to it as one argument.

    Args:
        name: of the argument.
        kind: a dataclass with fields of the options' names; other options come to the command as they are.
        options: click's.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_one(**values: Any) -> Any:
            one = kind(**{each.name: values.pop(each.name) for each in fields(kind) if each.name in values})
            return command(**values, **{name: one})

        for option in reversed(options):
            with_one = option(with_one)
        return with_one

    return add


@dataclass(frozen=True)
class ProcessOptions:
    """What the user asks of the processes of a run: the values of `process_options`."""

    device: str
    rank_timeout: float

    def ranks(self) -> AbstractContextManager[Ranks]:
        """Starts the processes, as `distributed` does.

        Raises:
            InputError: torch does not see such a device.
        """
        from restart_sampling.base.ranks import distributed

        return distributed(pick_device(self.device), self.rank_timeout)


process_options = as_one(
    "processes",
    ProcessOptions,
    (
        device_option,
        click.option(
            "--rank-timeout",
            default=30.0,
            show_default=True,
            type=FiniteRange(0, min_open=True),
            metavar="MINUTES",
            help="Under torchrun: end the run where a process does nothing for so long while others wait for it.",
        ),
    ),
)
"""Adds the options of a command that torchrun may start, which come to it as `processes`."""


def given(names: Collection[str]) -> str | None:
    """Finds the first option of the parameters of these names that the user gave, whatever its value; None: none.

    Of flags that share a parameter it is the one that this names.
    """
    context = click.get_current_context()
    for option in context.command.params:
        if option.name in names and context.get_parameter_source(option.name) is not ParameterSource.DEFAULT:
            shares = isinstance(option, click.Option) and option.is_flag and not option.is_bool_flag
            if not shares or option.opts[0] == context.params[option.name]:
                return option.opts[0]
    return None


def pick_device(name: str) -> torch.device:
    """Finds the device of this name; auto takes the fastest there is.

    Raises:
        InputError: torch does not see such a device.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, is_there in there.items() if is_there))
    if not there[name]:
        raise InputError(
            f"--device {name}: torch sees no such device here; allowed: auto, {', '.join(d for d in there if there[d])}"
        )
    return torch.device(name)


def read_list(kind: Callable[[str], T], text: str) -> list[T]:
    """Reads values with commas between; [] where one of them cannot be read."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        return []


def check_suffix(out: Path, what: str, suffix: str) -> None:
    """Makes sure that a file will be named as what it is.

    Raises:
        InputError: it will not.
    """
    if out.suffix.lower() != suffix:
        raise InputError(f"--out {out}: the {what} is a {suffix[1:].upper()} file; give a name that ends in {suffix}")


def print_settings(rows: dict[str, Any]) -> None:
    """Prints what a command will do, on standard error, so that standard output holds results only."""
    width = max(map(len, rows), default=0) + 2
    for name, value in rows.items():
        click.echo(f"{name:{width}}{value}", err=True)


def describe_source(source: Source, with_classes: bool = False) -> dict[str, Any]:
    """Makes rows for `print_settings` of a source of images: its classes, what else is there, and what looks wrong."""
    from restart_sampling.images.class_notes import class_notes

    rows = {"left out": source.left_out} if source.left_out else {}
    if with_classes and source.classes:
        named = [f"{number} {shorten(name, 40) or '(no folder)'}" for number, name in enumerate(source.classes)]
        shown = named if len(named) <= _MAX_CLASSES else [*named[: _MAX_CLASSES - 2], "...", named[-1]]
        rows["classes"] = ", ".join(shown)
        if notes := class_notes(source.classes, source.names):
            rows["note"] = "; ".join(notes)
    return rows


def print_json(result: dict[str, Any]) -> None:
    """Prints one JSON line on standard output."""
    click.echo(json.dumps(result))


def print_table(columns: Mapping[str, Sequence[str]], err: bool = False) -> None:
    """Prints a table on standard output, or on standard error.

    Words are never cut or divided: on a terminal that is too narrow for the longest of each column, it goes on beyond.

    Args:
        columns: titles, and the cells below them.
        err: whether it is for standard error.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    longest = [max(map(len, chain(*(cell.split() for cell in (title, *cells))))) for title, cells in columns.items()]
    table = Table(box=None, pad_edge=False)
    for title, width in zip(columns, longest, strict=True):
        table.add_column(title, min_width=width)
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(escape, cells))
    least = sum(longest) + 2 * len(longest)
    Console(stderr=err, width=max(table_width(err), least)).print(table, crop=False)


def table_width(err: bool = False) -> int:
    """Returns how many letters a line of a table can have: those of the terminal, and 240 in a file."""
    from rich.console import Console

    return Console().width if (sys.stderr if err else sys.stdout).isatty() else 240
