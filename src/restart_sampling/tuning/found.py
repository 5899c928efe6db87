"""`Found`: what a plan and a sampler have in common that `tune` found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Found:
    """What `tune` says of what it found.

    Attributes:
        evidence: JSON, why: verdict, scores of the confirmation, cost.
    """

    evidence: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def verdict(self) -> str:
        """Says how much better it is, by what measure, and how sure that is."""
        return str(self.evidence["verdict"])
