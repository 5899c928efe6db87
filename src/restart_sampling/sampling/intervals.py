"""`RestartInterval`: between which levels a sampler restarts, how often, and in how many steps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import format_number, real_number, whole_number
from restart_sampling.sampling.levels import as_levels
from restart_sampling.sampling.process import Process


@dataclass(frozen=True)
class RestartInterval:
    """One restart: `repeats` times back up from t_min to t_max, and down again over `points` levels.

    Written [points, repeats, t_min, t_max], the order of the paper's tables: [N_restart, K, t_min, t_max].

    Attributes:
        points: levels of each descent, both ends counted, so points - 1 steps; at least 2.
        repeats: how often, at least 1.
        t_min: where the restart begins and ends; snaps to the nearest level of the main grid.
        t_max: how far up it goes; used as given.

    Raises:
        InputError: a number is out of its range.

    Source: Restart sampling (arXiv 2306.14878), section 3 and tables 3 and 5.
    """

    points: int
    repeats: int
    t_min: float
    t_max: float

    def __post_init__(self) -> None:
        for name in ("t_min", "t_max"):
            object.__setattr__(self, name, real_number(f"restart interval {self}: {name}", getattr(self, name)))
        for symbol, name in (("N_restart", "points"), ("K", "repeats")):
            object.__setattr__(self, name, whole_number(f"restart interval {self}: {symbol}", getattr(self, name)))
        if self.points < 2:
            raise InputError(
                f"restart interval {self}: N_restart = {self.points}, but it counts both ends; give at least 2"
            )
        if self.repeats < 1:
            raise InputError(f"restart interval {self}: K = {self.repeats}; give at least 1 repeat")
        if not (isfinite(self.t_max) and 0 <= self.t_min < self.t_max):
            raise InputError(f"restart interval {self}: give finite noise levels with 0 <= t_min < t_max")

    def __str__(self) -> str:
        return f"[{self.points},{self.repeats},{format_number(self.t_min)},{format_number(self.t_max)}]"

    def snap(self, levels: Sequence[float]) -> float:
        """Finds the positive level of `levels` that is nearest to t_min.

        Raises:
            InputError: the restart from that level does not rise, or rises above the first level; or there is none.
        """
        levels = as_levels("the main grid", levels)
        if not any(level > 0 for level in levels):
            raise InputError(f"the main grid {levels} has no level above 0; give falling levels such as [80, 5, 0]")
        level = min((level for level in levels if level > 0), key=lambda level: abs(level - self.t_min))
        if self.t_max > levels[0]:
            raise InputError(
                f"restart interval {self}: t_max is above sigma_max, the first level of the main grid; "
                f"give t_max <= {levels[0]:g}"
            )
        if level >= self.t_max:
            raise InputError(
                f"restart interval {self}: t_min snaps to the nearest level of the main grid, {level:g}, "
                f"which is not below t_max; widen the interval or use more steps"
            )
        return level

    def check_levels(self, process: Process) -> None:
        """Makes sure that it is given in the levels of a process.

        Raises:
            InputError: it rises above them all, as one in sigma does for a flow, whose levels are t.
        """
        if self.t_max > process.highest:
            low, high = (float(f"{process.level(ratio):.3g}") for ratio in (self.t_min, self.t_max))
            own = f"; these levels as sigma are {replace(self, t_min=low, t_max=high)}" if low < high else ""
            raise InputError(
                f"restart interval {self}: t_max is above {process.highest:g}, the level of pure noise of the process "
                f"{process.name}; a restart keeps some of the data, so give a t_max well below it{own}"
            )


def cap(intervals: Iterable[RestartInterval], levels: Sequence[float]) -> tuple[RestartInterval, ...]:
    """Fits restarts to a main grid that begins late, on data that are noised to its first level (image-to-image).

    None rises above that level: t_max is lowered to it, and restarts whose t_min would snap to it are left out.
    """
    start, second = levels[:2]
    below = (start + second) / 2 if second > 0 else 0.0  # from here on, t_min does not snap to the first level
    return tuple(replace(each, t_max=min(each.t_max, start)) for each in intervals if each.t_min < below)
