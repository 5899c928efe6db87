"""`Sizes`: how many images race and confirmation take, cut where the time is short."""

from typing import NamedTuple

LEAST = 1000
"""Below this nothing is cut, however short the time: a verdict on fewer images says too little."""


class Sizes(NamedTuple):
    """Images of each plan of the race, and of each block of the confirmation."""

    race: int
    confirm: int

    def cut(self, part: float) -> "Sizes":
        """Returns a part of them, in whole thousands: at least `LEAST` and at most what they are."""
        return Sizes(*(min(size, max(LEAST, int(part * size) // LEAST * LEAST)) for size in self))
