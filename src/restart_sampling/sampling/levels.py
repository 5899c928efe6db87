"""Grids of noise levels: falling tuples of Python floats, so that nothing in a sampler waits for a device."""

from collections.abc import Callable, Iterable
from functools import partial
from math import exp, expm1, isfinite, log, log1p, sqrt

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import listed, real_number, whole_number

Grid = Callable[[int, float, float], tuple[float, ...]]
"""grid(points, high, low) -> levels from `high` down to `low`, both ends exact: a rule for main and restart grids."""


HIGHEST = 1e100
"""Levels go up to here, and those above 0 down to 1/HIGHEST: their squares are numbers too."""


def power_grid(points: int, high: float, low: float, rho: float = 7.0) -> tuple[float, ...]:
    """Spaces levels from `high` down to `low` evenly in level^(1/rho), both ends exact.

    Args:
        points: number of levels, at least 1 (one level is `high` alone).
        high: first level, in units of the model's level (sigma, or t of a flow model).
        low: last level, 0 <= low < high.
        rho: 7 is EDM's choice for sigma, 1 spaces evenly.

    Raises:
        InputError: the numbers do not make a falling grid.

    Source: Karras et al. 2022 (arXiv 2206.00364), equation 5.
    """
    if not (isfinite(real_number("rho", rho)) and rho > 0):
        raise InputError(f"rho is {rho:g}; give a finite number above 0 (EDM uses 7)")
    try:
        return _even(points, high, low, lambda level: level ** (1 / rho), lambda place: place**rho)
    except OverflowError:
        raise InputError(f"rho is {rho:g}, too small for levels of {high:g}; give a larger one (EDM uses 7)") from None


def log_grid(points: int, high: float, low: float) -> tuple[float, ...]:
    """Spaces levels evenly in their logarithm, which for VE is the logarithm of the signal-to-noise ratio.

    Args:
        points: number of levels, at least 1.
        high: first level.
        low: last level, above 0.

    Raises:
        InputError: the numbers do not make a falling grid, or low is 0.

    Source: Lu et al. 2022 (arXiv 2206.00927): logSNR-uniform; k-diffusion's exponential schedule.
    """
    if low == 0:
        raise InputError("a grid even in the logarithm cannot end at level 0; give a last level above 0")
    return _even(points, high, low, log, exp)


def vp_time_grid(points: int, high: float, low: float) -> tuple[float, ...]:
    """Spaces levels evenly in the time t of the VP process, sigma(t) = sqrt(exp(19.9 t² / 2 + 0.1 t) - 1).

    Args:
        points: number of levels, at least 1.
        high: first sigma (152 at t = 1; higher ones continue the schedule).
        low: last sigma, 0 or above.

    Raises:
        InputError: the numbers do not make a falling grid.

    Source: Song et al. 2021 (arXiv 2011.13456), equation 32, in the sigma of Karras et al. 2022 (table 1, VP).
    """
    slope, start = 19.9, 0.1  # beta(t) = start + slope t
    return _even(
        points,
        high,
        low,
        lambda sigma: (sqrt(start**2 + 2 * slope * log1p(sigma**2)) - start) / slope,
        lambda t: sqrt(expm1(slope * t**2 / 2 + start * t)),
    )


def karras_levels(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> tuple[float, ...]:
    """Makes EDM's grid for `steps` steps: `steps` levels from sigma_max to sigma_min, then 0.0 (steps + 1 floats).

    With one step the grid is (sigma_max, 0).

    Raises:
        InputError: steps < 1, or the levels do not fall.

    Source: Karras et al. 2022 (arXiv 2206.00364), equation 5.
    """
    return levels_to_zero(steps, sigma_min, sigma_max, partial(power_grid, rho=rho))


def levels_to_zero(steps: int, sigma_min: float, sigma_max: float, grid: Grid) -> tuple[float, ...]:
    """Makes the main grid of `steps` steps by a rule: `steps` levels from sigma_max to sigma_min, then 0.0.

    Raises:
        InputError: steps < 1, or the levels do not fall.
    """
    if whole_number("steps", steps) < 1:
        raise InputError(f"a sampler of {steps} steps does nothing; give at least 1 step")
    if real_number("sigma_min", sigma_min) <= 0:
        raise InputError(f"sigma_min is {sigma_min:g}; the last level before 0 must be above 0 (EDM uses 0.002)")
    return (*grid(steps, sigma_max, sigma_min), 0.0)


GRIDS: dict[str, Grid] = {
    "karras": power_grid,
    "exponential": log_grid,
    "logsnr": log_grid,
    "time": vp_time_grid,
}
"""The rules by the name that plans have for them."""


def as_levels(role: str, levels: Iterable[float]) -> list[float]:
    """Lists levels of any type as floats.

    Raises:
        InputError: they are no sequence, or one is no number.
    """
    return [real_number("a level", level) for level in listed(role, levels)]


def _even(
    points: int, high: float, low: float, place: Callable[[float], float], level: Callable[[float], float]
) -> tuple[float, ...]:
    """Spaces levels evenly in place(level), of which `level` is the inverse."""
    high, low = real_number("high", high), real_number("low", low)
    if whole_number("points", points) < 1:
        raise InputError(f"a grid of {points} points is empty; give at least 1")
    if not 0 <= low < high <= HIGHEST or 0 < low < 1 / HIGHEST:
        raise InputError(
            f"a grid cannot fall from {high:g} to {low:g}; give 0 <= low < high <= {HIGHEST:g}, and a low of 0 or at "
            f"least {1 / HIGHEST:g}"
        )
    if points == 1:
        return (high,)
    first, last = place(high), place(low)
    between = [level(first + i / (points - 1) * (last - first)) for i in range(1, points - 1)]
    return (high, *between, low)
