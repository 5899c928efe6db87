"""Processes: how a model's state mixes data and noise at each level."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Process:
    """A model's state at a level is x = alpha(level) x0 + std(level) noise.

    This is all that solvers and kernels know of a model. alpha and std are linear in the level, as they are for VE
    and for flow matching; other schedules enter by rescaling the state to one of these, as EDM does with VP.

    Attributes:
        name: for messages and printing.
        alpha: weight of the data, for a float or a tensor of levels.
        std: standard deviation of the noise, likewise.
        highest: the highest level there is.
    """

    name: str
    alpha: Callable[[Any], Any]
    std: Callable[[Any], Any]
    highest: float = inf

    def velocity(self, x: Tensor, x0: Tensor, level: float) -> Tensor:
        """The probability-flow ODE: dx/dlevel = alpha' x0 + std' noise_hat, noise_hat = (x - alpha x0) / std.

        Args:
            x: state [B, ...] at `level`.
            x0: the denoiser's estimate of the data, like x.
            level: above 0.

        Source: Karras et al. 2022 (arXiv 2206.00364), equation 1, for VE; Lipman et al. 2023
        (arXiv 2210.02747) for FLOW.
        """
        alpha, std = self.alpha(level), self.std(level)
        alpha_slope, std_slope = self.alpha(1.0) - self.alpha(0.0), self.std(1.0) - self.std(0.0)
        return (std_slope / std) * x + (alpha_slope - std_slope * alpha / std) * x0

    def rise(self, low: float, high: float) -> tuple[float, float]:
        """What brings a state from `low` up to `high`: (keep, noise_std) of x <- keep x + noise_std n, n ~ N(0, 1).

        Source: Restart sampling (arXiv 2306.14878), algorithm 2, for VE.
        """
        keep = self.alpha(high) / self.alpha(low)
        return keep, sqrt(self.std(high) ** 2 - keep**2 * self.std(low) ** 2)

    def ratio(self, level: float) -> float:
        """Noise to data, std / alpha = exp(-lambda) with lambda half the log signal-to-noise ratio; inf without data.

        For VE it is sigma; a flow at t has that of sigma = t / (1 - t).
        """
        alpha = self.alpha(level)
        return self.std(level) / alpha if alpha > 0 else inf

    def level(self, ratio: float) -> float:
        """The level of a finite noise-to-data ratio, the inverse of `ratio`."""
        alpha_slope, std_slope = self.alpha(1.0) - self.alpha(0.0), self.std(1.0) - self.std(0.0)
        return (ratio * self.alpha(0.0) - self.std(0.0)) / (std_slope - ratio * alpha_slope)


VE = Process("VE", alpha=lambda sigma: 1.0 + 0.0 * sigma, std=lambda sigma: sigma)
"""Variance exploding: the level is sigma, x = x0 + sigma noise (EDM, VP, VE, iDDPM and PFGM++ models)."""

FLOW = Process("FLOW", alpha=lambda t: 1.0 - t, std=lambda t: t, highest=1.0)
"""Flow matching: the level is t in [0, 1], x = (1 - t) x0 + t noise."""
