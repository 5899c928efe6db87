"""`Verdict`: which plan to take, and how sure that is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot
from typing import Any

from restart_sampling.base.numbers import rounded_to, with_error
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
        fallen: of these, those that were not considered, with what they are worse by beyond its error.
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
        fallen = [f"`{plan}` is left out: it is worse by {name}." for plan, name in self.fallen.items()]
        return "\n".join([*self._found, *fallen, *(f"Note: {note}." for note in self.few.values())])

    @property
    def _found(self) -> list[str]:
        if not self.differences:
            why = (
                "there are too few images to call another one better"
                if next(iter(self.scores[self.usual])) in self.few
                else "no other one is better beyond its error, or as good and simpler"
            )
            return [f"Take the best usual plan, `{self.usual}`: {why}.", *self._rivals()]
        lines = [f"`{self.plan}` against the best usual plan, `{self.usual}`:"]
        lines += [self._line(name) for name in self.differences]
        if not self.better:
            lines.append("They cannot be told apart, and it is the simpler one.")
        return lines

    def _line(self, name: str) -> str:
        ours, theirs, found = self.scores[self.plan][name], self.scores[self.usual][name], self.differences[name]
        sure = "" if found.told_apart(ALPHA / self.finalists) else ": cannot be told apart"
        words = [
            f"- {name}: {rounded_to(ours.value, found.error)} against {rounded_to(theirs.value, found.error)}, "
            f"{with_error(found.value, found.error, sign='+')} ({describe_relative(_relative(found, theirs))}){sure}"
        ]
        words += [f"{what} {a:.4g} against {b:.4g}{note}" for what, a, b, note in _metrics(ours, theirs)]
        return "; ".join(words)

    def _rivals(self) -> list[str]:
        """What was found, beside the best usual plan."""
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
    of plans that are compared with it. A plan that a test tells apart as worse by anything else that was measured,
    another detector or the CLIP score, is not considered; nor is any where the images are too few.

    Args:
        scores: of the confirmation, on the same seeds for all plans.
        usual: the best of the usual plans, which is one of them.
        complexity: orders them from the simplest.
        few: of `too_few`.
    """
    few = few or {}
    (name, *others) = scores[usual]
    finalists = [plan for plan in scores if plan != usual]
    alpha = ALPHA / max(1, len(finalists))

    def to(base: str, plan: str, name: str = name) -> Difference:
        return difference(scores[plan][name], scores[base][name])

    def is_worse(plan: str, other: str) -> bool:
        change = to(usual, plan, other)
        return (change.value < 0) == (other == CLIP_SCORE) and change.told_apart(alpha)

    fallen = {plan: other for plan in finalists for other in others if is_worse(plan, other)}
    rivals = [] if name in few else [plan for plan in finalists if plan not in fallen]
    better = [plan for plan in rivals if to(usual, plan).value < 0 and to(usual, plan).told_apart(alpha)]
    best = min(better or [usual], key=lambda plan: scores[plan][name].value)
    pool = better or [usual, *(plan for plan in rivals if not to(usual, plan).told_apart(alpha))]
    plan = min((each for each in pool if not to(best, each).told_apart(alpha)), key=complexity)
    differences = {each: difference(scores[plan][each], scores[usual][each]) for each in scores[usual] if plan != usual}
    return Verdict(plan, usual, plan in better, differences, scores, max(1, len(finalists)), fallen, few)


def _relative(found: Difference, base: Score) -> float | None:
    """A difference as a part of what it is to; None: that is 0, such as a share of bad samples."""
    return found.value / base.value if base.value else None


def describe_relative(relative: float | None) -> str:
    """Says what `Verdict.json` has as relative."""
    return "from 0" if relative is None else f"{relative:+.1%}"


def _metrics(ours: Score, theirs: Score) -> list[tuple[str, float, float, str]]:
    """Lists title, our value, theirs and a note, where ours is worse beyond the error."""
    found = []
    titles: Sequence[tuple[str, str, int]] = (
        ("frechet_distance_infinity", "at infinity", 1),
        ("precision", "precision", -1),
        ("recall", "recall", -1),
    )
    for key, title, sign in titles:
        if key in ours.metrics:
            a, b = ours.metrics[key], theirs.metrics[key]
            error = hypot(ours.metrics[f"{key}_error"], theirs.metrics[f"{key}_error"])
            found.append((title, a, b, " (WORSE beyond its error)" if sign * (a - b) > 2 * error else ""))
    if "frechet_distance_per_class" in ours.metrics:
        mine, other = (each.metrics["frechet_distance_per_class"] for each in (ours, theirs))
        errors = [
            hypot(ours.metrics["frechet_distance_per_class_error"][key], error)
            for key, error in theirs.metrics["frechet_distance_per_class_error"].items()
        ]
        worse = sum(mine[key] - other[key] > 2 * error for key, error in zip(other, errors, strict=True))
        mean, mean_other = (sum(each.values()) / len(each) for each in (mine, other))
        found.append(("mean over classes", mean, mean_other, f" ({worse} of {len(other)} worse beyond their error)"))
    return found
