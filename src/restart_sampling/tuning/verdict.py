"""`Verdict`: which plan to take, and how sure that is."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import hypot, inf
from statistics import fmean
from typing import Any

from restart_sampling.base.numbers import rounded_to, with_error
from restart_sampling.evaluation.metrics import GROUPS
from restart_sampling.tuning.objective import CLIP_SCORE, Scores
from restart_sampling.tuning.race import ALPHA
from restart_sampling.tuning.score import Difference, Score, difference


@dataclass(frozen=True)
class Verdict:
    """What the confirmation says.

    Attributes:
        plan: to take.
        usual: the best of the usual plans.
        better: whether `plan` is told apart from `usual` by what the search went by.
        differences: of `plan` to `usual`, by what they were measured with; {}: they are the same.
        scores: of all that were confirmed.
        finalists: how many plans were compared with `usual`.
        fallen: of these, those that were not considered, with what became worse beyond its error, in words and numbers.
        few: a sentence on each detector that has too few images for its features.
    """

    plan: str
    usual: str
    better: bool
    differences: Mapping[str, Difference]
    scores: Mapping[str, Scores]
    finalists: int
    fallen: Mapping[str, str] = field(default_factory=dict)
    few: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The verdict in words and numbers."""
        fallen = [f"`{plan}` is left out, worse beyond the error: {worse}." for plan, worse in self.fallen.items()]
        return "\n".join([*self._found, *fallen, *(f"Note: {note}." for note in self.few.values())])

    @property
    def _found(self) -> list[str]:
        if not self.differences:
            others = "of those that are not left out none" if self.fallen else "no other one"
            why = (
                "there are too few images to call another one better"
                if next(iter(self.scores[self.usual])) in self.few
                else f"{others} is better beyond its error, or as good and simpler"
            )
            return [f"Take the best usual plan, `{self.usual}`: {why}.", *self._rivals()]
        lines = [f"`{self.plan}` against the best usual plan, `{self.usual}`:"]
        lines += [self._line(name) for name in self.differences]
        if not self.better:
            lines.append("They cannot be told apart, and it is the simpler one.")
        return lines

    def _line(self, name: str) -> str:
        ours, theirs, found = self.scores[self.plan][name], self.scores[self.usual][name], self.differences[name]
        alpha = ALPHA / self.finalists
        sure = "" if found.told_apart(alpha) else ": cannot be told apart"
        words = [
            f"- {name}: {rounded_to(ours.value, found.error)} against {rounded_to(theirs.value, found.error)}, "
            f"{with_error(found.value, found.error, sign='+')} ({describe_relative(_relative(found, theirs))}){sure}"
        ]
        words += [f"{each}{' (WORSE beyond its error)' * each.is_worse(alpha)}" for each in _metrics(ours, theirs)]
        return "; ".join(words)

    def _rivals(self) -> list[str]:
        """Lists what was found, beside the best usual plan."""
        lines = []
        for plan in self.scores:
            if plan != self.usual:
                for name, score in self.scores[plan].items():
                    found = difference(score, self.scores[self.usual][name])
                    value, gain = rounded_to(score.value, found.error), with_error(found.value, found.error, sign="+")
                    lines.append(f"- `{plan}`, {name}: {value}, {gain}")
        return lines

    def json(self) -> dict[str, Any]:
        """Returns JSON with everything."""
        return {
            "verdict": self.text,
            "usual": self.usual,
            "better": self.better,
            "finalists": self.finalists,
            "left_out": dict(self.fallen),
            "alpha": ALPHA,
            "gain": {
                name: {
                    "difference": each.value,
                    "error": each.error,
                    "relative": _relative(each, self.scores[self.usual][name]),
                    "told_apart": each.told_apart(ALPHA / self.finalists),
                }
                for name, each in self.differences.items()
            },
            "scores": {
                plan: {name: each.json() for name, each in found.items()} for plan, found in self.scores.items()
            },
        }


def judge(
    scores: Mapping[str, Scores],
    usual: str,
    complexity: Callable[[str], tuple[int, int]],
    few: Mapping[str, str] | None = None,
) -> Verdict:
    """Chooses a plan: of those that cannot be told apart from the best, the simplest.

    A plan counts as better than the best usual one only where a test says so, at a level that is divided by the number
    of plans that are compared with it. A plan that a test of the same level tells apart as worse by anything else that
    must not fall is not considered: the distance by another detector, the CLIP score, and by each detector what
    `must_not_fall` lists. Nor is any where the images are too few.

    Args:
        scores: of the confirmation, on the same seeds for all plans.
        usual: the best of the usual plans, which is one of them.
        complexity: orders them from the simplest.
        few: of `too_few`.
    """
    few = few or {}
    name = next(iter(scores[usual]))
    finalists = [plan for plan in scores if plan != usual]
    alpha = ALPHA / max(1, len(finalists))

    def to(base: str, plan: str, name: str = name) -> Difference:
        return difference(scores[plan][name], scores[base][name])

    def worse(plan: str) -> Iterator[str]:
        for other, base in scores[usual].items():
            own, is_clip = scores[plan][other], other == CLIP_SCORE
            whole = Change("distance", own.value, base.value, -1 if is_clip else 1, difference(own, base))
            for each in (*(() if other == name else (whole,)), *must_not_fall(own, base)):
                if each.is_worse(alpha):
                    yield replace(each, title=other if is_clip else f"{each.title} by {other}").text

    fallen = {plan: "; ".join(found) for plan in finalists if (found := list(worse(plan)))}
    rivals = [] if name in few else [plan for plan in finalists if plan not in fallen]
    better = [plan for plan in rivals if to(usual, plan).value < 0 and to(usual, plan).told_apart(alpha)]
    best = min(better or [usual], key=lambda plan: scores[plan][name].value)
    pool = better or [usual, *(plan for plan in rivals if not to(usual, plan).told_apart(alpha))]
    plan = min((each for each in pool if not to(best, each).told_apart(alpha)), key=complexity)
    differences = {each: difference(scores[plan][each], scores[usual][each]) for each in scores[usual] if plan != usual}
    return Verdict(plan, usual, plan in better, differences, scores, max(1, len(finalists)), fallen, few)


def _relative(found: Difference, base: Score) -> float | None:
    """Computes a difference as a part of the size of what it is to; None: that is 0, as a share can be."""
    return found.value / abs(base.value) if base.value else None


def describe_relative(relative: float | None) -> str:
    """Says what `Verdict.json` has as relative."""
    return "from 0" if relative is None else f"{relative:+.1%}"


@dataclass(frozen=True)
class Change:
    """What else was measured of two plans.

    Attributes:
        title: of the value.
        ours: the value.
        theirs: that of the plan that it is compared with.
        sign: 1 where lower is better, -1 where higher is.
        found: the difference.
    """

    title: str
    ours: float
    theirs: float
    sign: int
    found: Difference

    def __str__(self) -> str:
        """Writes the two values."""
        return f"{self.title} {self.ours:.4g} against {self.theirs:.4g}"

    @property
    def text(self) -> str:
        """The two values and their difference."""
        return f"{self}, {with_error(self.found.value, self.found.error, sign='+')}"

    def is_worse(self, alpha: float) -> bool:
        """Tells whether a two-sided test of this level finds it worse."""
        return self.sign * self.found.value > 0 and self.found.told_apart(alpha)


_RECALL, _CLASSES = "recall", "mean over classes"


def must_not_fall(ours: Score, theirs: Score) -> list[Change]:
    """Lists what has to hold beside a distance: recall, and the mean over classes of the distance of each.

    Recall is a share of the same reference images for both plans, and its error that of a share of independent ones: a
    normal test of the two tells apart too little rather than too much. The error of a class's distance is a
    jackknife's over groups of its images, and classes share none: one t-test of their mean, in place of one for each
    class, of which chance would fail some. It takes the two plans as independent, which on common seeds they are not,
    and so is careful in the same way.

    Args:
        ours: of the plan.
        theirs: of the one that it is compared with, on the same seeds.
    """
    return [each for each in _metrics(ours, theirs) if each.title in (_RECALL, _CLASSES)]


def _metrics(ours: Score, theirs: Score) -> Iterator[Change]:
    """Yields what both scores have beside the value."""
    for key, title, sign in (
        ("frechet_distance_infinity", "at infinity", 1),
        ("precision", "precision", -1),
        ("recall", _RECALL, -1),
    ):
        if key in ours.metrics and key in theirs.metrics:
            a, b = ours.metrics[key], theirs.metrics[key]
            error = hypot(ours.metrics[f"{key}_error"], theirs.metrics[f"{key}_error"])
            if sign > 0 and ours.without:  # that of the line lacks the scatter of the images themselves
                error = hypot(error, difference(ours, theirs).error)
            yield Change(title, a, b, sign, Difference(a - b, error, inf))
    key = "frechet_distance_per_class"
    if key in ours.metrics and key in theirs.metrics:
        (a, error), (b, other) = (
            _mean(each.metrics[key].values(), each.metrics[f"{key}_error"].values()) for each in (ours, theirs)
        )
        freedom = (GROUPS - 1) * len(theirs.metrics[key])
        yield Change(_CLASSES, a, b, 1, Difference(a - b, hypot(error, other), freedom))


def _mean(values: Collection[float], errors: Collection[float]) -> tuple[float, float]:
    """Computes the mean of independent values, and its standard error."""
    return fmean(values), hypot(*errors) / len(errors)
