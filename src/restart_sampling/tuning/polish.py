"""`polish`: all numbers of the best plans are improved at once, by CMA-ES; their solvers and steps stay."""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.tuning.bench import Bench, Measured
from restart_sampling.tuning.limits import Limits
from restart_sampling.tuning.numbers import Numbers
from restart_sampling.tuning.search import Candidates

STARTS = 3
"""Samplers that are polished, each of another kind: the worst falls after a third of the generations, then another."""
LEAST = 2
"""Generations for each of them; where there are fewer, fewer samplers are polished."""
POPULATION = 8
SIGMA = 1.0
"""Of the first population, in moves of `Numbers`."""

Standing = tuple[float, float]
"""How far a sampler lies beyond the limits, then its value: the lower is the better one."""


class _Climb:
    """A sampler whose numbers are moved, generation by generation."""

    def __init__(self, text: str, standing: Standing, numbers: Numbers, seed: int) -> None:
        import numpy as np
        from cmaes import CMA

        self.standings, self.generations, self.numbers = {text: standing}, 0, numbers
        self.optimizer: Any = CMA(np.zeros(numbers.count), SIGMA, seed=seed, population_size=POPULATION)

    @property
    def best(self) -> Standing:
        return min(self.standings.values())

    def text(self, moves: Sequence[float]) -> str | None:
        """Writes the sampler at these moves; None: there is none."""
        try:
            return self.numbers.moved(moves)
        except InputError:
            return None


def polish(
    space: Candidates,
    bench: Bench,
    found: Sequence[str],
    seeds: range,
    *,
    generations: int,
    start: int = 0,
    limits: Limits,
    until: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Moves the numbers of the best samplers until nothing is left of the generations; all processes call this.

    Each population is dealt to the processes. All depends on the results alone, which the bench keeps: a killed run
    goes on with the populations that it would have had, on any number of processes. All samplers have the same seeds,
    so that near ones differ by their numbers and little else; what is only good on these seeds falls in the race.

    Args:
        space: what there is to choose from.
        bench: measures them.
        found: samplers, the best first.
        seeds: of all that are measured.
        generations: of `POPULATION` samplers each.
        start: another one makes another polish.
        limits: a sampler beyond them comes after all within, whatever its value, and is not returned.
        until: says whether it is time to stop; the first process is asked.

    Returns:
        Of each that was polished the best and the middle of the last population, where they are better than it was.

    Source: Hansen 2016 (arXiv 1604.00772): CMA-ES.
    """
    climbs = climbing = _climbs(space, bench, found, seeds, start, limits)[: max(1, generations // LEAST)]
    # Texts by what they do: near ones do the same where a net rounds levels to its timesteps.
    ways = {space.way(text): text for climb in climbs for text in climb.standings}

    def written(climb: _Climb, moved: Sequence[Any]) -> list[str | None]:
        texts = [climb.text(each.tolist()) for each in moved]
        return bench.ranks.gather([text and ways.setdefault(space.way(text), text) for text in texts])[0]

    def measured(climb: _Climb, texts: Sequence[str | None]) -> list[Standing]:
        plans = [text for text in dict.fromkeys(texts) if text]
        results = bench.each("polish", plans, seeds)
        climb.standings |= {plan: _standing(each, limits, seeds) for plan, each in zip(plans, results, strict=True)}
        return [climb.standings[text] if text else (inf, inf) for text in texts]

    for turn in range(generations):
        left = len(climbs) - len(climbs) * turn // generations
        climbing = sorted(climbing, key=lambda climb: climb.best)[:left]
        climb = min(climbing, key=lambda climb: climb.generations)
        climb.generations += 1
        population = [climb.optimizer.ask() for _ in range(POPULATION)]
        texts = written(climb, population)
        # What an earlier start had the time for is gone through again, without any.
        if bench.ranks.gather(until())[0] and not bench.knows([text for text in texts if text], seeds):
            break
        standings = measured(climb, texts)
        ranked = sorted(standings)  # CMA-ES goes by the order alone
        climb.optimizer.tell([(each, ranked.index(own)) for each, own in zip(population, standings, strict=True)])
    better: dict[str, Standing] = {}
    for climb in climbs:
        before = next(iter(climb.standings.values()))
        best = min(climb.standings, key=climb.standings.__getitem__)
        middle = written(climb, [climb.optimizer.mean])
        measured(climb, middle)
        ends = {text: climb.standings[text] for text in (best, *middle) if text}
        better |= {text: standing for text, standing in ends.items() if standing < before and not standing[0]}
    return sorted(better, key=better.__getitem__)


def _standing(result: Measured, limits: Limits, seeds: range) -> Standing:
    return max([0.0, *limits.beyond(seeds, result).values()]), result.value


def _climbs(
    space: Candidates, bench: Bench, found: Sequence[str], seeds: range, start: int, limits: Limits
) -> list[_Climb]:
    """Begins at the best sampler of each kind."""
    kinds: dict[object, tuple[str, Numbers]] = {}
    for text in found:
        if numbers := space.numbers(text):
            kinds.setdefault(numbers.kind, (text, numbers))
    begins = list(kinds.values())[:STARTS]
    results = bench.each("polish", [text for text, _ in begins], seeds)
    return [
        _Climb(text, _standing(result, limits, seeds), numbers, 1000003 * start + place)
        for place, ((text, numbers), result) in enumerate(zip(begins, results, strict=True))
    ]
