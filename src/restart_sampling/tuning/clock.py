"""`Clock`: the time of an NFE, and whether it suffices for all stages."""

import time
from dataclasses import dataclass, field
from math import ceil

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted
from restart_sampling.tuning.settings import BLOCKS, Settings
from restart_sampling.tuning.sizes import Sizes

FOUND, USUAL, FINALISTS = 10, 5, 2
"""Plans of the search and usual ones that race, and found ones that are confirmed."""
FEW = 250
"""Images with which all usual plans are measured; the best third of them is measured as a trial is."""
THIRD = 3


@dataclass
class Clock:
    """The time of an NFE.

    Attributes:
        minutes: that it has.
        spent: seconds of earlier starts.
    """

    minutes: float
    spent: float
    start: float = field(default_factory=lambda: time.monotonic())

    @property
    def left(self) -> float:
        """Seconds; inf where it has no end."""
        return 60 * self.minutes - self.spent - (time.monotonic() - self.start)


def least_evaluations(settings: Settings, nfe: int, plans: int) -> float:
    """Counts the evaluations of all stages but the search, with the fewest images for race and confirmation.

    Args:
        settings: how a plan is looked for.
        nfe: of the plans.
        plans: how many usual ones there are.
    """
    usual = plans * min(FEW, settings.images) + (plans / THIRD + 4 * USUAL) * settings.images
    return nfe * (usual + seeds_later(Sizes(settings.race, settings.confirm).cut(0)))


def check_time(settings: Settings, nfe: int, speed: float, missing: float) -> None:
    """Makes sure that time is left for a search.

    Args:
        settings: how a plan is looked for.
        nfe: of the plans.
        speed: evaluations a second, of all processes.
        missing: seconds that the other stages need beyond those there are.

    Raises:
        InputError: there is none.
    """
    if missing > 0:
        raise InputError(
            f"no time is left for a search in {counted(settings.minutes, 'minute', 'g')} for NFE {nfe}: at {speed:.0f} "
            f"evaluations a second the usual plans, the race and the confirmation need "
            f"{counted(ceil(missing / 60), 'minute', ',')} more, even where they are cut; give more than "
            f"{counted(ceil(settings.minutes + missing / 60), 'minute', ',')} (--minutes), which leaves some for the "
            f"search, fewer images (--images, --race-images, --confirm-images), or a GPU, for which the defaults are "
            f"made"
        )


def seeds_later(sizes: Sizes) -> int:
    """Counts the seeds of race and confirmation, of all plans."""
    return (FOUND + USUAL) * sizes.race + (1 + FINALISTS) * BLOCKS * sizes.confirm
