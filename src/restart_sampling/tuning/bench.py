"""`Bench`: measures plans, keeps each result in a file, and never measures the same twice."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from json import JSONDecodeError
from math import inf, log
from pathlib import Path
from statistics import median
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import append_line
from restart_sampling.base.numbers import is_finite, is_whole, parts_of
from restart_sampling.base.ranks import Ranks
from restart_sampling.base.strict_json import parse_json
from restart_sampling.generation.seeds import cut
from restart_sampling.tuning.objective import Key, Objective, ObjectiveError, Scores
from restart_sampling.tuning.score import Score

LOOK = "look at images of the model first ('generate'); where they are not finite, try --dtype float32"
"""What to do where no plan can be measured."""


@dataclass(frozen=True)
class Measured:
    """A result.

    Attributes:
        stage: that asked for it first.
        nfe: of the plan.
        scores: None: its samples were not finite.
        error: why.
        seconds: of all processes together, as the clock on the wall has it.
        search: the NFE whose search asked for it first; None: of the map, or of an earlier version.
    """

    stage: str
    nfe: int
    scores: Scores | None
    error: str
    seconds: float
    search: int | None = None

    def is_of(self, nfe: int) -> bool:
        """Tells whether it belongs to the search of an NFE, whose plans may take one evaluation less."""
        if self.search is not None:
            return self.search == nfe
        return self.stage != "map" and nfe - self.nfe in (0, 1)

    @property
    def score(self) -> Score | None:
        """What the search goes by."""
        return next(iter(self.scores.values())) if self.scores else None

    @property
    def value(self) -> float:
        """Its value; inf where there is none."""
        return self.score.value if self.score else inf


@dataclass
class Bench:
    """Measures plans with all processes, which all call the same methods in the same order.

    Attributes:
        objective: gives the scores.
        ranks: the processes.
        path: a line for each result is added to this file, by the first process.
        search: the NFE whose search this is; None: of the map.
        told: called with each new result and what it is of.
        found: all results.
    """

    objective: Objective
    ranks: Ranks
    path: Path
    search: int | None = None
    told: Callable[[Key, Measured], None] = lambda key, result: None
    found: dict[Key, Measured] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ranks = replace(self.ranks, forgiving=self.ranks.size > 1)
        lines = list(read_measured(self.path)) if self.ranks.first and self.path.exists() else []
        self.found |= dict(self.ranks.gather(lines)[0])

    def each(self, stage: str, plans: Sequence[str], seeds: range, *, groups: int = 0) -> list[Measured]:
        """Measures plans on the same seeds, each on one process.

        Args:
            stage: asks.
            plans: their texts.
            seeds: of each.
            groups: of `Key`.
        """
        keys = _keys(plans, seeds, groups)
        alone = Ranks(0, 1, self.ranks.device)
        missing = [key for key in dict.fromkeys(keys) if key not in self.found]
        for dealt in cut(missing, self.ranks.size):
            own = [self._measure(stage, key, alone) for key in self.ranks.deal(dealt)]
            for key, result in zip(dealt, (one for many in self.ranks.gather(own) for one in many), strict=True):
                self._add(key, replace(result, seconds=result.seconds / len(dealt)))
        return [self.found[key] for key in keys]

    def knows(self, plans: Sequence[str], seeds: range) -> bool:
        """Says whether `each` has nothing to measure of these."""
        return self.found.keys() >= {*_keys(plans, seeds)}

    def together(self, stage: str, key: Key, keep: Path | None = None) -> Measured:
        """Measures a plan on seeds that are shared by the processes."""
        if key not in self.found:
            self._add(key, self._measure(stage, key, self.ranks, keep))
        return self.found[key]

    def seconds(self, nfe: int) -> float:
        """Sums up the time that the plans of an NFE took, on this start and earlier ones."""
        return sum(each.seconds for each in self.found.values() if each.is_of(nfe))

    def evaluations(self, nfe: int) -> int:
        """Sums up the evaluations that the plans of an NFE took."""
        return sum(each.nfe * len(key.seeds) for key, each in self.found.items() if each.is_of(nfe))

    def speed(self, images: int) -> float:
        """Finds the evaluations a second of all processes, in measurements of about so many images, with all they took.

        The median, so that a compilation does not count.
        """
        speeds: dict[int, list[float]] = {}
        for key, each in self.found.items():
            if each.scores and not (key.groups or key.confirm):
                seeds = len(key.seeds)
                speeds.setdefault(seeds, []).append(each.nfe * seeds / each.seconds)
        return median(speeds[min(speeds, key=lambda seeds: abs(log(seeds / images)))])

    def _measure(self, stage: str, key: Key, ranks: Ranks, keep: Path | None = None) -> Measured:
        start = time.perf_counter()
        scores, error = None, ""
        nfe = self.objective.nfe(key.plan)
        try:
            scores = self.objective.measure(key, ranks, keep)
        except ObjectiveError:
            raise
        except InputError as failure:  # such as a network that overflows with this plan: others are not concerned
            error = str(failure)
        return Measured(stage, nfe, scores, error, max(time.perf_counter() - start, 1e-6), self.search)

    def _add(self, key: Key, result: Measured) -> None:
        self.found[key] = result
        if self.ranks.first:
            append_line(self.path, (json.dumps(_line(key, result), allow_nan=False) + "\n").encode())
            self.told(key, result)


def _keys(plans: Sequence[str], seeds: range, groups: int = 0) -> list[Key]:
    return [Key(plan, seeds, groups=groups) for plan in plans]


def _line(key: Key, result: Measured) -> dict[str, Any]:
    scores = None if result.scores is None else {name: score.json() for name, score in result.scores.items()}
    seeds = [key.seeds.start, key.seeds.stop]
    return {**key._asdict(), "seeds": seeds, **vars(result), "scores": scores}


def read_measured(path: Path) -> Iterator[tuple[Key, Measured]]:
    """Reads the results of a file; an unfinished line, which only a killed run leaves, is passed over.

    Raises:
        InputError: another line is none that `Bench` wrote.
    """
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            yield _read(parse_json(line.decode()))
        except JSONDecodeError:
            continue
        except (LookupError, TypeError, AttributeError, ValueError):
            raise InputError(f"{path}, line {number}: it is no result of tune; choose another folder") from None


def _read(line: dict[str, Any]) -> tuple[Key, Measured]:
    """Reads what `_line` gave; raises one of several errors where it is something else."""
    start, end = line.pop("seeds")
    key = Key(seeds=range(start, end), **{name: line.pop(name) for name in Key._fields if name != "seeds"})
    scores = line["scores"] and {name: Score.read(score) for name, score in line["scores"].items()}
    result = Measured(**{**line, "scores": scores or None})
    sizes = {(len(each.values), *map(len, each.without)) for each in (scores or {}).values()}
    right = (
        isinstance(key.plan, str)
        and all(map(is_whole, (start, end, key.blocks, key.groups)))
        and 0 <= start < end
        and sizes <= {(key.blocks, *[key.groups] * key.blocks * (key.groups > 0))}
        and isinstance(result.stage, str)
        and (result.search is None or is_whole(result.search))
        and is_finite(result.nfe)
        and is_finite(result.seconds)
        and min(result.nfe, result.seconds) > 0
        and all(map(is_finite, _numbers(line["scores"])))
    )
    if not right:
        raise ValueError("a value is out of its range")
    return key, result


def _numbers(content: object) -> Iterator[float]:
    """Reads the numbers in JSON."""
    if isinstance(content, int | float):
        yield content
    for each in parts_of(content):
        yield from _numbers(each)
