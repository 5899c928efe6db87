"""`race`: the best plans once more, on fresh seeds; what cannot win any more is dropped."""

from collections.abc import Sequence

from restart_sampling.generation.seeds import cut
from restart_sampling.tuning.allowed import GROUPS, ROUNDS
from restart_sampling.tuning.bench import Bench
from restart_sampling.tuning.objective import Key
from restart_sampling.tuning.score import Score, difference

ALPHA = 0.05
"""Level of all tests of a race, and of a confirmation, together."""


def race(bench: Bench, plans: Sequence[str], seeds: range) -> list[str]:
    """Measures plans in rounds of fresh seeds, and drops those that are told apart from the leader.

    Args:
        bench: measures them.
        plans: their texts.
        seeds: of all rounds.

    Returns:
        The plans that are left, the best first.
    """
    scores: dict[str, list[Score]] = {plan: [] for plan in plans}
    alpha = ALPHA / max(1, ROUNDS * (len(plans) - 1))
    for fresh in cut(seeds, len(seeds) // ROUNDS):
        for plan in list(scores):
            result = bench.together("race", Key(plan, range(fresh[0], fresh[-1] + 1), groups=GROUPS))
            if result.score is None:
                del scores[plan]
            else:
                scores[plan].append(result.score)
        joined = {plan: Score.joined(each) for plan, each in scores.items()}
        leader = min(joined, key=lambda plan: joined[plan].value, default="")
        scores = {
            plan: each
            for plan, each in scores.items()
            if plan == leader or not difference(joined[plan], joined[leader]).told_apart(alpha)
        }
        if len(scores) < 2:
            break
    return sorted(scores, key=lambda plan: joined[plan].value)
