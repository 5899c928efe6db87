"""`Move`: one move of a noise path, a fall or a rise."""

from dataclasses import dataclass


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
