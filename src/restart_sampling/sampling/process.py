"""Processes: how a model's state mixes data and noise at each level."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, sqrt
from typing import NamedTuple, TypeVar

from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import is_finite

Level = TypeVar("Level", float, Tensor)


@dataclass(frozen=True)
class Process:
    """A model's state at a level is x = alpha(level) x0 + std(level) noise, alpha and std linear in the level.

    This is all that solvers and noise know of a model. VE and FLOW are the two that models have; a schedule that is not
    linear enters by rescaling the state to one of them, as EDM does with VP and `from_eps` with DDPM's.

    Attributes:
        name: for messages and printing.
        alpha_at_0: weight of the data at level 0.
        alpha_slope: its change with the level, 0 or below.
        std_at_0: standard deviation of the noise at level 0.
        std_slope: its change with the level, above 0.

    Raises:
        InputError: a coefficient is no finite number, alpha rises with the level, or std does not.
    """

    name: str = field(compare=False)
    alpha_at_0: float
    alpha_slope: float
    std_at_0: float
    std_slope: float

    def __post_init__(self) -> None:
        numbers = (self.alpha_at_0, self.alpha_slope, self.std_at_0, self.std_slope)
        if not all(map(is_finite, numbers)):
            raise InputError(
                f"process {self.name} has the coefficients {numbers}; alpha and std are linear in the level, so give "
                f"the value at 0 and the slope of each, and rescale the states of another schedule (see `from_eps`)"
            )
        if not (self.alpha_at_0 > 0 >= self.alpha_slope and self.std_at_0 >= 0 < self.std_slope):
            raise InputError(
                f"process {self.name} has alpha = {self.alpha_at_0:g} + {self.alpha_slope:g} level and std = "
                f"{self.std_at_0:g} + {self.std_slope:g} level; with the level, alpha must fall or stay, from above 0, "
                f"and std rise, from 0 or above, so that std / alpha rises"
            )

    @property
    def highest(self) -> float:
        """The highest level, where no data is left; inf where some always is."""
        return -self.alpha_at_0 / self.alpha_slope if self.alpha_slope else inf

    def without_rounding(self, level: float) -> float:
        """Returns the highest level for one that is above it by rounding alone, as a flow's first sigma often is."""
        return self.highest if self.highest < level < self.highest + 1e-5 else level

    def alpha(self, level: Level) -> Level:
        """Returns the weight of the data, like level."""
        return self.alpha_at_0 + self.alpha_slope * level

    def std(self, level: Level) -> Level:
        """Returns the standard deviation of the noise, like level."""
        return self.std_at_0 + self.std_slope * level

    def velocity(self, x: Tensor, x0: Tensor, level: float) -> Tensor:
        """Returns dx/dlevel of the probability-flow ODE: alpha' x0 + std' noise with noise = (x - alpha x0) / std.

        Args:
            x: state [B, ...] at `level`.
            x0: the denoiser's estimate of the data, like x.
            level: above 0.

        Source: Karras et al. 2022 (arXiv 2206.00364), equation 1, for VE; Lipman et al. 2023
        (arXiv 2210.02747) for FLOW.
        """
        alpha, std = self.alpha(level), self.std(level)
        return (self.std_slope / std) * x + (self.alpha_slope - self.std_slope * alpha / std) * x0

    def rise(self, low: float, high: float) -> tuple[float, float]:
        """Returns (keep, noise_std) of x <- keep x + noise_std n, n ~ N(0, 1), which brings a state up to `high`.

        Source: Restart sampling (arXiv 2306.14878), algorithm 2, for VE.
        """
        keep = self.alpha(high) / self.alpha(low)
        return keep, sqrt(self.std(high) ** 2 - keep**2 * self.std(low) ** 2)

    def ratio(self, level: float) -> float:
        """Returns std / alpha = exp(-lambda), with lambda half the log signal-to-noise ratio; inf without data.

        For VE it is sigma; a flow at t has that of sigma = t / (1 - t).
        """
        alpha = self.alpha(level)
        return self.std(level) / alpha if alpha > 0 else inf

    def level(self, ratio: float) -> float:
        """Returns the level of a finite noise-to-data ratio: the inverse of `ratio`."""
        return (ratio * self.alpha_at_0 - self.std_at_0) / (self.std_slope - ratio * self.alpha_slope)


VE = Process("VE", alpha_at_0=1.0, alpha_slope=0.0, std_at_0=0.0, std_slope=1.0)
"""Variance exploding: the level is sigma, x = x0 + sigma noise (EDM, VP, VE, iDDPM and PFGM++ models)."""

FLOW = Process("FLOW", alpha_at_0=1.0, alpha_slope=-1.0, std_at_0=0.0, std_slope=1.0)
"""Flow matching: the level is t in [0, 1], x = (1 - t) x0 + t noise."""


class KnownLevels(NamedTuple):
    """What plans take of a model; by default of one that knows all levels of sigma.

    Attributes:
        sigma_min: the lowest level that it knows.
        sigma_max: the highest.
        round_level: rounds a level to one that it knows (iDDPM).
        process: whose levels they are.
    """

    sigma_min: float = 0.0
    sigma_max: float = inf
    round_level: Callable[[float], float] = lambda level: level
    process: Process = VE
