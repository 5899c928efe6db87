"""`Sizes`: how many images race and confirmation take, cut where the time is short; and where they are too few."""

from collections.abc import Mapping
from typing import NamedTuple

LEAST = 1000
"""Below this nothing is cut, however short the time: a verdict on fewer images says too little."""


class Sizes(NamedTuple):
    """Images of each plan of the race, and of each block of the confirmation."""

    race: int
    confirm: int

    def cut(self, part: float) -> "Sizes":
        """Returns a part of them, in whole thousands: at least `LEAST` and at most what they are."""
        part = min(part, 1.0)  # inf of as many minutes
        return Sizes(*(min(size, max(LEAST, int(part * size) // LEAST * LEAST)) for size in self))


def too_few(images: int, features: Mapping[str, int]) -> dict[str, str]:
    """Says of which detectors a distance says too little, a sentence each.

    Of so few images it is mostly what the distance of few images is too high by, which depends on the plan.

    Args:
        images: of each block.
        features: how many there are, by detector.
    """
    return {
        name: f"there are {images:,} images of each block for the {width:,} features of {name}, so that the distance "
        f"is too high by more than its error says, and not by the same for all plans; give more than {2 * width:,} "
        f"(--confirm-images), and the --minutes for them"
        for name, width in features.items()
        if images <= 2 * width
    }
