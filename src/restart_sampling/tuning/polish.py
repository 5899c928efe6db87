"""`polish`: all numbers of the best plans are improved at once, by CMA-ES; their solvers and steps stay."""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.tuning.bench import Bench, Measured
from restart_sampling.tuning.numbers import Numbers
from restart_sampling.tuning.search import Candidates

STARTS = 3
"""Samplers that are polished, each of another kind: the worst falls after a third of the generations, then another."""
LEAST = 2
"""Generations for each of them; where there are fewer, fewer samplers are polished."""
POPULATION = 8
SIGMA = 1.0
"""Of the first population, in moves of `Numbers`."""


class _Climb:
    """A sampler whose numbers are moved, generation by generation."""

    def __init__(self, text: str, value: float, numbers: Numbers, seed: int) -> None:
        import numpy as np
        from cmaes import CMA

        self.values, self.generations, self.numbers = {text: value}, 0, numbers
        self.optimizer: Any = CMA(np.zeros(numbers.count), SIGMA, seed=seed, population_size=POPULATION)

    @property
    def best(self) -> float:
        return min(self.values.values())

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
    allowed: Callable[[Measured], bool] = lambda result: True,
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
        allowed: whether a sampler may be chosen, by its result; else it counts as the worst of its population.
        until: says whether it is time to stop; the first process is asked.

    Returns:
        Of each that was polished the best and the middle of the last population, where they are better than it was.

    Source: Hansen 2016 (arXiv 1604.00772): CMA-ES.
    """
    climbs = climbing = _climbs(space, bench, found, seeds, start)[: max(1, generations // LEAST)]
    # Texts by what they do: near ones do the same where a net rounds levels to its timesteps.
    ways = {space.way(text): text for climb in climbs for text in climb.values}

    def written(climb: _Climb, moved: Sequence[Any]) -> list[str | None]:
        texts = [climb.text(each.tolist()) for each in moved]
        return bench.ranks.gather([text and ways.setdefault(space.way(text), text) for text in texts])[0]

    def measured(climb: _Climb, texts: Sequence[str | None]) -> list[float]:
        plans = [text for text in dict.fromkeys(texts) if text]
        results = dict(zip(plans, bench.each("polish", plans, seeds), strict=True))
        values = {plan: each.value if allowed(each) else inf for plan, each in results.items()}
        climb.values |= values
        return [values[text] if text else inf for text in texts]

    for turn in range(generations if climbs else 0):
        left = len(climbs) - len(climbs) * turn // generations
        climbing = sorted(climbing, key=lambda climb: climb.best)[:left]
        climb = min(climbing, key=lambda climb: climb.generations)
        climb.generations += 1
        population = [climb.optimizer.ask() for _ in range(POPULATION)]
        texts = written(climb, population)
        # What an earlier start had the time for is gone through again, without any.
        if bench.ranks.gather(until())[0] and not bench.knows([text for text in texts if text], seeds):
            break
        climb.optimizer.tell(list(zip(population, measured(climb, texts), strict=True)))
    better: dict[str, float] = {}
    for climb in climbs:
        before = next(iter(climb.values.values()))
        best = min(climb.values, key=climb.values.__getitem__)
        middle = written(climb, [climb.optimizer.mean])
        measured(climb, middle)
        better |= {text: climb.values[text] for text in (best, *middle) if text and climb.values[text] < before}
    return sorted(better, key=better.__getitem__)


def _climbs(space: Candidates, bench: Bench, found: Sequence[str], seeds: range, start: int) -> list[_Climb]:
    """Begins at the best sampler of each kind."""
    kinds: dict[object, tuple[str, Numbers]] = {}
    for text in found:
        if numbers := space.numbers(text):
            kinds.setdefault(numbers.kind, (text, numbers))
    begins = list(kinds.values())[:STARTS]
    results = bench.each("polish", [text for text, _ in begins], seeds)
    return [
        _Climb(text, result.value, numbers, 1000003 * start + place)
        for place, ((text, numbers), result) in enumerate(zip(begins, results, strict=True))
    ]
