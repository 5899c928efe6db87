"""`Score`: what a plan is worth on some seeds; and the paired difference of two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from statistics import NormalDist, fmean
from typing import Any

from restart_sampling.evaluation.distances import jackknife


@dataclass(frozen=True)
class Score:
    """What a plan is worth on some seeds; lower is better, but of a CLIP score.

    Attributes:
        values: of each block of seeds.
        without: of each block, its value without each of its groups of seeds in turn; (): no errors are asked for.
        metrics: JSON, further metrics of all the seeds.
    """

    values: tuple[float, ...]
    without: tuple[tuple[float, ...], ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def value(self) -> float:
        """The mean over the blocks."""
        return fmean(self.values)

    @cached_property
    def error(self) -> float:
        """The standard error of `value`."""
        return _error(self.without)

    def json(self) -> dict[str, Any]:
        """Returns JSON that `Score.read` reads."""
        return {"values": self.values, "without": self.without, **({"metrics": self.metrics} if self.metrics else {})}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Score":
        """Makes a score of what `json` gave."""
        without = tuple(tuple(map(float, each)) for each in content["without"])
        return cls(tuple(map(float, content["values"])), without, content.get("metrics", {}))

    @classmethod
    def of_means(cls, means: Sequence[float], blocks: int, groups: int) -> "Score":
        """Makes one of the means of parts of equal size.

        Args:
            means: of blocks x groups parts in their order; of the blocks where groups is 0.
            blocks: of seeds.
            groups: of each block; 0: no errors are asked for.
        """
        width = max(groups, 1)
        runs = [means[block * width : (block + 1) * width] for block in range(blocks)]
        without = [tuple(fmean([*run[:left], *run[left + 1 :]]) for left in range(groups)) for run in runs if groups]
        return cls(tuple(map(fmean, runs)), tuple(without))

    @classmethod
    def joined(cls, scores: Sequence["Score"]) -> "Score":
        """Makes one score of those of several blocks of seeds."""
        return cls(tuple(v for each in scores for v in each.values), tuple(w for each in scores for w in each.without))


@dataclass(frozen=True)
class Difference:
    """A score less another on the same seeds.

    Attributes:
        value: below 0 where the first is better.
        error: standard error; what the seeds have in common cancels.
        freedom: degrees of freedom of the error; inf: it is known.
    """

    value: float
    error: float
    freedom: float

    def told_apart(self, alpha: float) -> bool:
        """Tells whether the two differ, in a two-sided t-test of this level."""
        return abs(self.value) > student(1 - alpha / 2, self.freedom) * self.error


def difference(score: Score, base: Score) -> Difference:
    """Compares two scores of the same blocks and groups of seeds: a jackknife over the groups of each block.

    The error is that of the mean over blocks, which are independent; it has groups - 1 degrees of freedom a block.
    """
    without = [
        [a - b for a, b in zip(one, other, strict=True)] for one, other in zip(score.without, base.without, strict=True)
    ]
    return Difference(score.value - base.value, _error(without), sum(len(each) - 1 for each in without))


def _error(without: Sequence[Sequence[float]]) -> float:
    return jackknife([*chain(*without)], len(without))


def student(probability: float, freedom: float) -> float:
    """Computes a quantile of Student's t, to 0.3 % from 9 degrees of freedom and up to 0.9995; of inf a normal one.

    Source: Abramowitz and Stegun, equation 26.7.5.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
