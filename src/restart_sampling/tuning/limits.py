"""`Limits`: what may not fall while a search gains in distance."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from restart_sampling.tuning.bench import Bench, Measured
from restart_sampling.tuning.objective import CLIP_SCORE, Key
from restart_sampling.tuning.verdict import must_not_fall


@dataclass(frozen=True)
class Limits:
    """Recall by the search's detector, and the CLIP score of all samplers that have one on the seeds of a search.

    The confirmation leaves out what loses them, and distances prefer it: few and typical images, a low guidance scale.
    So a search that does not see them ends where nothing can be taken.

    Recall may be lower by one standard error of the difference. That leaves out at most one plan in six that loses
    nothing, on the first seeds and again on the second. Of those that lose 0.026, which 5,000 images tell apart, about
    one in five passes on 500 seeds and one in ten on 1,000. A search chooses the lowest distance of many trials, so a
    wider limit would let lucky ones fill up its best. A CLIP score, which has no error here, may not be lower at all.

    Attributes:
        known: results of the best usual plan, by the seeds; the limits of other seeds are not known.
    """

    known: Mapping[range, Measured] = field(default_factory=dict)

    @classmethod
    def of(cls, bench: Bench, usual: str, first: range, second: range) -> "Limits":
        """Makes those of the best usual plan, which was measured as a trial is and so never lies beyond them."""
        return cls({first: bench.each("usual", [usual], first)[0], second: bench.together("usual", Key(usual, second))})

    @property
    def names(self) -> str:
        """What may not fall, for the user."""
        is_scored = any(CLIP_SCORE in (each.scores or ()) for each in self.known.values())
        return "recall or CLIP score" if is_scored else "recall"

    def beyond(self, seeds: range, result: Measured) -> dict[str, float]:
        """Returns how far a result on seeds lies beyond each limit, by what it is of; 0 and below: within.

        What only one of the results has limits nothing: a function of the user's has no recall, nor has a reference
        without features or a result of an earlier version.
        """
        known = self.known.get(seeds)
        if not (known and known.scores and known.score and result.scores and result.score):
            return {}
        changes = must_not_fall(result.score, known.score)
        found = {each.title: each.sign * each.found.value - each.found.error for each in changes}
        if CLIP_SCORE in known.scores and CLIP_SCORE in result.scores:
            found["CLIP score"] = known.scores[CLIP_SCORE].value - result.scores[CLIP_SCORE].value
        return found

    def hold(self, seeds: range, result: Measured) -> bool:
        """Tells whether a result on seeds may be taken."""
        return all(beyond <= 0 for beyond in self.beyond(seeds, result).values())
