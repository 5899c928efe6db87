"""`Settings` of a search, and the seeds of its stages."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import accumulate, pairwise
from math import ceil, inf
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import real_number, truth_value, whole_number
from restart_sampling.generation.seeds import MAX_SEEDS
from restart_sampling.tuning.allowed import MOST_START, MULTIPLES, ROUNDS, SEARCHES, allowed_images

BLOCKS = 3
"""Of the confirmation."""


@dataclass(frozen=True)
class Settings:
    """How a plan is looked for.

    Attributes:
        minutes: for each NFE, with all stages; inf: the trials are the limit.
        trials: at most so many plans of the search, for each NFE, beside which there is the polish; None: the minutes
            are the limit.
        images: seeds of each trial; twice as many more for one that goes on.
        race: seeds of each plan of the race.
        confirm: seeds of each of the three blocks of the confirmation.
        sampler: of `SEARCHES`.
        start: another one makes another search.
        rises: whether there may be restarts, churn and stochastic solvers.
        restarts: whether there may be restarts among these.
        solvers: that the plans of a net may have; None: all that are searched.
        known: whether the search of a net begins with the plans that were found for the models of the package.
        tune_guidance: whether the guidance scale is searched too, of a pipeline or of a net of images with classes.
    """

    minutes: float = 10.0
    trials: int | None = None
    images: int = 1000
    race: int = 10_000
    confirm: int = 10_000
    sampler: str = "tpe"
    start: int = 0
    rises: bool = True
    restarts: bool = True
    solvers: Sequence[str] | None = None
    known: bool = True
    tune_guidance: bool = False

    def __post_init__(self) -> None:
        for name in ("images", "race", "confirm", "start", *(("trials",) if self.trials is not None else ())):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        for each in fields(self):
            if isinstance(each.default, bool):
                object.__setattr__(self, each.name, truth_value(each.name, getattr(self, each.name)))
        if self.solvers is not None:
            several = isinstance(self.solvers, Iterable) and not isinstance(self.solvers, str)
            names = tuple(self.solvers) if several else ()
            if not (several and all(isinstance(name, str) for name in names)):
                raise InputError(f"solvers = {self.solvers!r}; give a list of names, such as ['heun']")
            object.__setattr__(self, "solvers", names)
        object.__setattr__(self, "minutes", real_number("minutes", self.minutes))
        if not self.minutes > 0:
            raise InputError(f"minutes is {self.minutes:g}; give a number above 0")
        if self.minutes == inf and self.trials is None:
            raise InputError("a search without end; give minutes, trials or both")
        if self.sampler not in SEARCHES:
            raise InputError(f"there is no search '{self.sampler}'; give one of {', '.join(SEARCHES)}")
        if self.trials is not None and self.trials < 1:
            raise InputError(f"trials is {self.trials}; give at least 1")
        if not 0 <= self.start <= MOST_START:
            raise InputError(f"start is {self.start}; give a number from 0 to {MOST_START:,}")
        for name, parts in MULTIPLES.items():
            if not 2 * parts <= getattr(self, name) <= MAX_SEEDS or getattr(self, name) % parts:
                option = "" if name == "images" else f" (--{name}-images)"
                raise InputError(
                    f"{name}{option} is {getattr(self, name)}; give {allowed_images(name)} and at most {MAX_SEEDS:,}"
                )

    @property
    def about(self) -> dict[str, Any]:
        """JSON, what may not differ between starts; as runs have it from before all of these were settings."""
        later = {"restarts": True, "solvers": None, "known": True, "tune_guidance": False}
        own = {key: value for key, value in asdict(self).items() if key not in ("minutes", "trials")}
        if self.solvers is not None:
            own["solvers"] = sorted({*self.solvers})
        return {key: value for key, value in own.items() if key not in later or value != later[key]}

    @property
    def seeds(self) -> tuple[range, range, range, range]:
        """Of trials, of those that go on, of the race and of the confirmation: none is in two of them."""
        ends = list(accumulate((0, self.images, 2 * self.images, self.race, BLOCKS * self.confirm)))
        first, second, third, last = (range(start, end) for start, end in pairwise(ends))
        return first, second, third, last

    def even(self, batch: int) -> int:
        """Finds the batch size, from half of `batch` to it, that leaves the least of a batch over in the stages.

        A compiled network fills up a batch that is not whole: 600 images in batches of 500 take as long as 1,000.
        """
        counts = (self.images, 2 * self.images, 3 * self.images, self.race // ROUNDS, BLOCKS * self.confirm)

        def filled(size: int) -> float:
            return sum(ceil(count / size) * size / count for count in counts)

        return min(range(batch, batch // 2, -1), key=filled)
