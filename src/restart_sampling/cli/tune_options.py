"""What the commands that search share: the options of the search, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.base.errors import InputError, require_extra
from restart_sampling.base.logbook import require_logbook
from restart_sampling.base.numbers import counted
from restart_sampling.cli.dry_run import leaving_no_folder
from restart_sampling.cli.options import as_one, log_option, print_json, read_list, trust_option
from restart_sampling.tuning.allowed import MOST_START, SEARCHES, allowed_images

if TYPE_CHECKING:
    import torch

    from restart_sampling.base.ranks import Ranks
    from restart_sampling.evaluation.setup import EvaluationSetup
    from restart_sampling.tuning.run import Run
    from restart_sampling.tuning.search import Candidates
    from restart_sampling.tuning.settings import Settings


@dataclass(frozen=True)
class SearchOptions:
    """What the user asks of a search: the values of `search_options`."""

    trust: bool | str
    confirm_detectors: tuple[str, ...]
    confirm_references: tuple[str, ...]
    out: Path
    minutes: float
    trials: int | None
    images: int
    race: int
    confirm: int
    sampler: str
    start: int
    no_rises: bool
    no_restarts: bool
    log_kind: str | None

    def check(self, dry_run: bool) -> None:
        """Makes sure that what the search needs is installed, each detector has a reference, and a dry run has an end.

        Raises:
            InputError: it is not.
        """
        require_extra("optuna", "tune")
        require_logbook(self.log_kind)
        if self.no_rises and self.no_restarts:
            raise InputError("--no-rises is without restarts too; leave --no-restarts out")
        if len(self.confirm_detectors) != len(self.confirm_references):
            raise InputError(
                f"--confirm-detector is given {counted(len(self.confirm_detectors), 'time')} and --confirm-reference "
                f"{counted(len(self.confirm_references), 'time')}; give a reference for each detector"
            )
        if dry_run and self.minutes == inf:
            raise InputError(
                "--dry-run is for a search of so many minutes, and this has --minutes inf; leave one of them out"
            )

    def settings(self) -> Settings:
        """Makes the settings of the search.

        Raises:
            InputError: a number is out of its range.
        """
        from restart_sampling.tuning.settings import Settings

        own = {each.name: getattr(self, each.name) for each in fields(Settings) if hasattr(self, each.name)}
        return Settings(**own, rises=not self.no_rises, restarts=not self.no_restarts)

    def setups(self, detector: str, reference: str | None, device: torch.device) -> list[EvaluationSetup]:
        """Loads the detectors with their references, that of the search first; None: there is none.

        Raises:
            InputError: they do not fit together.
        """
        from restart_sampling.tuning.distance import open_setups

        own = [] if reference is None else [(detector, reference)]
        others = zip(self.confirm_detectors, self.confirm_references, strict=True)
        return open_setups([*own, *others], device, self.trust)

    @contextmanager
    def begun(self, run: Run, spaces: Sequence[Candidates], dry_run: bool) -> Iterator[None]:
        """Begins the folder of a run, and keeps others from it in the body; of a dry run it only checks what it asks.

        Args:
            run: whose folder is `out`. The first process calls this.
            spaces: one for each NFE.
            dry_run: whether nothing is to be written.

        Raises:
            InputError: as `Run.begin_folder`; a folder that was not there is not left.
        """
        from restart_sampling.base.lock import lock_in, locked

        with leaving_no_folder(self.out):
            run.check(spaces)
            if dry_run:
                yield
                return
            with locked(lock_in(self.out), str(self.out)):
                run.begin_folder(spaces)
                yield

    @property
    def time(self) -> str:
        """What the user gives it, in words."""
        minutes = [counted(self.minutes, "minute", "g")] if self.minutes < inf else []
        trials = [f"at most {counted(self.trials, 'trial')}"] if self.trials else []
        return f"{', '.join(minutes + trials)} for each NFE"

    def print_found(self, found: Mapping[int, Mapping[str, Any]], as_json: bool) -> None:
        """Prints what was found, by NFE."""
        for nfe, content in found.items():
            click.echo(f"{self.out / f'plan-{nfe}.json'}: {content['plan']}", err=as_json)
        if as_json:
            print_json({"plans": {str(nfe): content for nfe, content in found.items()}})


search_options = as_one(
    "search",
    SearchOptions,
    (
        trust_option,
        click.option(
            "--confirm-detector",
            "confirm_detectors",
            multiple=True,
            help="Another detector, which the search never sees; may be repeated, each with a --confirm-reference.",
        ),
        click.option("--confirm-reference", "confirm_references", multiple=True, metavar="NPZ", help="Its reference."),
        click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="A folder."),
        click.option("--minutes", default=10.0, show_default=True, help="For each NFE, with all stages."),
        click.option(
            "--trials",
            type=click.IntRange(1),
            help="At most so many plans are searched for each NFE; the polish is beside them.",
        ),
        click.option(
            "--images",
            default=1000,
            show_default=True,
            help=f"Of a trial, {allowed_images('images')}; twice as many more for a good one.",
        ),
        click.option(
            "--race-images",
            "race",
            default=10_000,
            show_default=True,
            help=f"Of each plan of the race, {allowed_images('race')}.",
        ),
        click.option(
            "--confirm-images",
            "confirm",
            default=10_000,
            show_default=True,
            help=f"Of each of the three blocks of the confirmation, {allowed_images('confirm')}.",
        ),
        click.option(
            "--search",
            "sampler",
            default="tpe",
            show_default=True,
            type=click.Choice(SEARCHES),
            help="What suggests plans; random is for comparison.",
        ),
        click.option(
            "--start",
            default=0,
            show_default=True,
            type=click.IntRange(0, MOST_START),
            help="Number of the search: another one suggests other plans.",
        ),
        click.option("--no-rises", is_flag=True, help="Without restarts and other noise, for comparison."),
        click.option("--no-restarts", is_flag=True, help="With other noise and no restarts, for comparison."),
        log_option,
    ),
)
"""Adds the options of a search, which come to the command as `search`."""


def told_by(ranks: Ranks) -> Callable[[str], None]:
    """Says to the user what the first process says."""
    return partial(click.echo, err=True) if ranks.first else lambda text: None


def read_nfes(text: str) -> list[int]:
    """Reads the numbers of evaluations.

    Raises:
        InputError: they are no different whole numbers.
    """
    numbers = read_list(int, text)
    if not numbers or len(set(numbers)) < len(numbers):
        raise InputError(f"--nfe {text}: give different whole numbers with commas between, such as 10,20,40")
    return numbers
