"""How far a run is, in steps or seconds, and how many steps until the next check."""

from math import ceil

ROUND_SECONDS = 2.0
"""A round is the steps between two looks: long beside a step, short beside the time between two saves."""


class Progress:
    """Steps and seconds of a run of either a number of steps or a number of seconds.

    The clock runs in the rounds only: neither pictures nor the first step of a process (it compiles and picks
    algorithms) count.

    Args:
        steps: in the whole run, or None.
        seconds: of the whole run, or None.

    Attributes:
        steps: done so far.
        seconds: spent so far.
        pace: seconds a step in the last round; None until it is known.
    """

    def __init__(self, steps: int | None, seconds: float | None) -> None:
        self.all_steps, self.all_seconds = steps, seconds
        self.steps, self.seconds = 0, 0.0
        self.pace: float | None = None
        self._warm = False

    @property
    def finished(self) -> bool:
        """Whether the run is at its end."""
        return self.steps == self.all_steps or (self.all_seconds is not None and self.seconds >= self.all_seconds)

    def next_round(self) -> list[float]:
        """Computes the part of the run that is done at the middle of each step of the next round.

        By the clock these are estimated from the pace of the last round, for all processes must agree on them.
        """
        count = max(1, int(ROUND_SECONDS / self.pace)) if self.pace else 1
        if self.all_steps is not None:
            count = min(count, self.all_steps - self.steps)
            return [(self.steps + step + 0.5) / self.all_steps for step in range(count)]
        assert self.all_seconds is not None  # a run has one of the two lengths
        pace = self.pace or 0.0
        if pace:
            count = min(count, ceil((self.all_seconds - self.seconds) / pace))
        return [min(1.0, (self.seconds + (step + 0.5) * pace) / self.all_seconds) for step in range(count)]

    def advance(self, steps: int, seconds: float) -> None:
        """Counts a round."""
        self.steps += steps
        if self._warm:
            self.seconds += seconds
            self.pace = seconds / steps
        self._warm = True

    def seconds_left(self) -> float | None:
        """Estimates the seconds left; None until the pace is known."""
        if self.all_seconds is not None:
            return self.all_seconds - self.seconds
        return None if self.pace is None or self.all_steps is None else (self.all_steps - self.steps) * self.pace
