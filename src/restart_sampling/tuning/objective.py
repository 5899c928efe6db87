"""`Objective`: gives plans their scores; `Key`: what a score is of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from restart_sampling.base.errors import InputError
from restart_sampling.base.ranks import Ranks
from restart_sampling.tuning.score import Score

CLIP_SCORE = "CLIP score (higher is better)"
"""The name of the one score that is no distance."""

Scores = Mapping[str, Score]
"""By what it was measured with; the first is what the search goes by."""


class Key(NamedTuple):
    """What scores are of.

    Attributes:
        plan: its text.
        seeds: a multiple of blocks x groups of them.
        blocks: of neighbouring seeds, each measured by itself.
        groups: of each block, for errors; 0: none are asked for.
        confirm: measured with everything there is; otherwise with what the search goes by, and recall where groups
            are 0.
    """

    plan: str
    seeds: range
    blocks: int = 1
    groups: int = 0
    confirm: bool = False

    @property
    def parts(self) -> int:
        """How many groups of the seeds there are, or blocks where groups is 0."""
        return self.blocks * max(self.groups, 1)


class Objective(Protocol):
    """Gives plans their scores."""

    @property
    def about(self) -> dict[str, Any]:
        """JSON, all that the scores depend on but plans and seeds."""

    @property
    def about_before(self) -> Mapping[str, Any]:
        """What `about` said in earlier versions, where it now says another thing."""

    @property
    def features(self) -> Mapping[str, int]:
        """How many features the detectors have, by the names of their scores."""

    def nfe(self, plan: str) -> int:
        """Returns the cost of a sample.

        Raises:
            InputError: the plan does not fit.
        """

    def measure(self, key: Key, ranks: Ranks, keep: Path | None = None) -> Scores:
        """Draws the samples of the seeds and measures them; all of `ranks` call this, and get the same.

        Args:
            key: what to measure.
            ranks: the processes that share the work.
            keep: a PNG file for the first images.

        Raises:
            InputError: a sample is not finite.
        """


class ObjectiveError(InputError):
    """The user's function is wrong, and not the plan."""
