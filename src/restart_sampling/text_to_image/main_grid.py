"""The main grid as a diffusers scheduler makes it: falling levels, repetitions among them, and their timesteps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from restart_sampling.base.errors import InputError

Levels = tuple[float, ...]
TimeMap = Callable[[Sequence[float]], Sequence[float]]

_MEET = 1e-6
"""Relative distance at which two levels are one: the rounding of float32, a step over which changes nothing."""
_AGREE = 1e-3
"""Of the range of the timesteps: how far the grid's own may be from those of the model's noise schedule."""


def check_own(name: str, values: object, falls: bool, least: int = 1, highest: float = np.inf) -> None:
    """Makes sure that levels or timesteps of the user's can be a main grid; None is none of them.

    Args:
        name: of the argument.
        values: numbers, as any sequence.
        falls: whether they must fall, as restarts need them.
        least: how many there must be.
        highest: of them.

    Raises:
        InputError: they cannot.
    """
    if values is None:
        return
    try:
        numbers = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):  # such as lists of unequal lengths
        numbers = np.empty(0)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iuf" or len(numbers) < least:
        raise InputError(f"{name} = {values!r}; give a list of at least {least} numbers")
    for each in numbers:
        if not 0 <= each <= highest:
            raise InputError(f"{name} has {each:g}; give numbers from 0 to {highest:g}")
    for now, then in pairwise(numbers) if falls else ():
        if then >= now:
            raise InputError(f"{name} has {then:g} after {now:g}; with restarts each must be below the one before")


@dataclass(frozen=True)
class MainGrid:
    """The levels of a main grid.

    Attributes:
        given: all levels of the scheduler, of which neighbours may be equal; the last may be 0.
        levels: the same without repetitions, so that they fall.
        times: the timestep of each of `levels`, but for a last one that was not repeated.
        repeated: (level, timestep) where a level comes again: diffusers calls the network, and makes a step of no size.
    """

    given: Levels
    levels: Levels
    times: tuple[float, ...]
    repeated: tuple[tuple[float, float], ...]

    @classmethod
    def read(cls, given: Sequence[float], times: Sequence[float]) -> "MainGrid":
        """Reads the levels and timesteps of a scheduler; there is one level more than timesteps.

        Raises:
            InputError: two levels rise, or there is no step; the message names them.
        """
        levels, own, repeated = [given[0]], [times[0]], []
        for index, (now, then) in enumerate(pairwise(given)):
            if then > now * (1 + _MEET) or not now < float("inf"):
                raise InputError(
                    f"the main grid must fall from a finite level, and level {index + 1} of it is {now:.6g} and the "
                    f"next {then:.6g}; give other sigmas or timesteps, or another final_sigmas_type"
                )
            if now - then > _MEET * now:
                levels.append(then)
                own += times[index + 1 : index + 2]
            else:
                repeated.append((now, times[index]))
                own[-1:] = times[index + 1 : index + 2] or own[-1:]
        if len(levels) < 2:
            raise InputError(f"the main grid has only level {given[0]:.6g}, so there is no step; give two levels")
        return cls(tuple(given), tuple(levels), tuple(own), tuple(repeated))

    def place(self, step: int) -> int:
        """Finds the index in `levels` of a step of `given`."""
        return sum(now - then > _MEET * now for now, then in pairwise(self.given[: step + 1]))

    def interpolated(
        self, levels: Sequence[float], model_times: TimeMap, scale: Callable[[float], float]
    ) -> Sequence[float]:
        """Finds the timesteps at levels between those of the grid.

        They are the model's own, unless the user gave the grid timesteps of another map: then they lie on the straight
        lines between the grid's pairs.

        Args:
            levels: between the grid's first and last positive one.
            model_times: the timesteps at levels by the model's noise schedule.
            scale: of the levels, in which the lines are straight.
        """
        pairs = [(level, time) for level, time in zip(self.levels, self.times, strict=False) if level > 0]
        grid, times = zip(*reversed(pairs), strict=True)
        if np.abs(np.subtract(model_times(grid), times)).max() <= _AGREE * np.ptp(times) or len(pairs) < 2:
            return model_times(levels)
        result: list[float] = np.interp(
            [scale(level) for level in levels], [scale(level) for level in grid], times
        ).tolist()
        return result


def resample(levels: Levels, first: int, steps: int) -> Levels:
    """Makes a grid of other steps along the same curve, geometric between its levels.

    Args:
        levels: falling; the last may be 0, and stays the last.
        first: index of the level where the new grid begins, not the last.
        steps: of the new grid; one where `first` is the last but one.
    """
    positive = len(levels) - 1
    places = np.linspace(first, positive - 1, steps)
    between = np.exp(np.interp(places, np.arange(positive), np.log(levels[:positive]))).tolist()
    exact = [levels[int(at)] if at == int(at) else level for at, level in zip(places, between, strict=True)]
    return (*exact, levels[-1])
