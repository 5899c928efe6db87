"""`GivenTrial`: a trial that suggests what is known already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

GIVEN = "given"
"""Beside a suggestion, the text of the plan that the trial takes in place of what it suggests."""


@dataclass(frozen=True)
class GivenTrial:
    """A trial that suggests given values, moved into their ranges.

    Attributes:
        values: by setting.
        taken: those that were asked for.
    """

    values: Mapping[str, Any]
    taken: dict[str, Any] = field(default_factory=dict)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggests the value as it is."""
        self.taken[name] = self.values[name]
        return self.taken[name]

    def suggest_float(self, name: str, low: float, high: float, log: bool = False) -> Any:
        """Suggests the value, or the end of the range that is nearest to it."""
        self.taken[name] = min(max(self.values[name], low), high)
        return self.taken[name]

    suggest_int = suggest_float
