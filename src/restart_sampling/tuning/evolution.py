"""`Evolution`: an Optuna sampler that changes a few settings of a plan that is among the best."""

from math import exp, log
from random import Random
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

BEST, TOURNAMENT = 25, 4
"""A trial's parent is the best of so many that are drawn from the best."""
CHANGED = 0.3
"""Chance of each setting to differ from the parent's."""
STEP = 0.15
"""Standard deviation of a change, as a part of the setting's range, or of its logarithm's."""


class Evolution(BaseSampler):
    """Suggests for each setting what the parent has, or something near it, and something random where it has none.

    What is suggested for a setting depends on the seed, the setting's name and the trials before this one alone.
    Source: regularised evolution's tournament (Real et al. 2019, arXiv 1802.01548), without its ageing.

    Args:
        seed: of this trial.
        first: trials that are random, as there is nothing to go by yet.
    """

    def __init__(self, seed: int, first: int) -> None:
        self.seed = seed
        self.first = first

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Names no settings that are suggested together."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Suggests none of them together."""
        return {}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, distribution: Any) -> Any:
        """Suggests a setting."""
        random = Random(f"{self.seed} {param_name}")
        parent = self._parent(study, trial)
        if param_name not in parent or not distribution._contains(distribution.to_internal_repr(parent[param_name])):
            return _drawn(random, distribution)
        return _changed(random, distribution, parent[param_name]) if random.random() < CHANGED else parent[param_name]

    def _parent(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """Returns the settings of a trial that is among the best of those before this one; {}: there are too few."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        ranked = sorted((each.value, each.number) for each in done if each.number < trial.number)
        if trial.number < self.first or not ranked:
            return {}
        random = Random(self.seed)
        best = ranked[:BEST]
        _, number = min(random.sample(best, min(TOURNAMENT, len(best))))
        return next(each.params for each in done if each.number == number)


def _drawn(random: Random, distribution: Any) -> Any:
    """Draws a value of all that a setting may have."""
    if isinstance(distribution, CategoricalDistribution):
        return random.choice(distribution.choices)
    if isinstance(distribution.low, int):
        return random.randint(distribution.low, distribution.high)
    if distribution.log:
        return exp(random.uniform(log(distribution.low), log(distribution.high)))
    return random.uniform(distribution.low, distribution.high)


def _changed(random: Random, distribution: Any, value: Any) -> Any:
    """Draws a value near another one."""
    if isinstance(distribution, CategoricalDistribution):
        return random.choice(distribution.choices)
    low, high = distribution.low, distribution.high
    if isinstance(low, int):
        return min(max(value + random.choice((-1, 1)), low), high)
    if distribution.log:
        value = exp(log(value) + STEP * log(high / low) * random.gauss(0, 1))
    else:
        value += STEP * (high - low) * random.gauss(0, 1)
    return min(max(value, low), high)
