"""`Move`: one move of a noise path, a fall or a rise."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Move:
    """One move of a noise path.

    Attributes:
        now: level before it.
        then: level after it. Lower: a fall, one step of a solver. Higher: a rise, fresh noise. The same, where a model
            knows no level between the two ends of a fall: it is evaluated, and the state stays.
        restart: whether it belongs to a restart interval.
        left: how many falls of the main grid are still to come after it, the last of them to level 0, before which
            solvers take lower orders; None in restarts, and where the path ends above 0.
    """

    now: float
    then: float
    restart: bool = False
    left: int | None = None

    @property
    def rises(self) -> bool:
        """Whether noise is added."""
        return self.then > self.now


def restart_jumps(moves: Sequence[Move]) -> list[bool]:
    """Says of each move whether it is the jump of a restart (and not churn, nor a fall).

    Every pass of a restart interval begins with the same jump, from its lowest level to its highest.
    """
    jumps: list[bool] = []
    for restart, group in groupby(moves, key=lambda move: move.restart):
        interval = list(group)
        jumps += [restart and (move.now, move.then) == (interval[0].now, interval[0].then) for move in interval]
    return jumps
