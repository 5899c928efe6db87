"""Grids of noise levels: falling tuples of Python floats, so that nothing in a sampler waits for a device."""

from math import isfinite

from restart_sampling.errors import InputError


def power_grid(points: int, high: float, low: float, rho: float = 7.0) -> tuple[float, ...]:
    """Levels from `high` down to `low`, evenly spaced in level^(1/rho), both ends exact.

    Args:
        points: number of levels, at least 1 (one level is `high` alone).
        high: first level, in units of the model's level (sigma, or t of a flow model).
        low: last level, 0 <= low < high.
        rho: 7 is EDM's choice for sigma, 1 spaces evenly.

    Raises:
        InputError: the numbers do not make a falling grid.

    Source: Karras et al. 2022 (arXiv 2206.00364), equation 5.
    """
    if points < 1:
        raise InputError(f"a grid of {points} points is empty; give at least 1")
    if not (isfinite(high) and 0 <= low < high):
        raise InputError(f"a grid cannot fall from {high:g} to {low:g}; give 0 <= low < high, both finite")
    if not (isfinite(rho) and rho > 0):
        raise InputError(f"rho is {rho:g}; give a finite number above 0 (EDM uses 7)")
    if points == 1:
        return (high,)
    first, last = high ** (1 / rho), low ** (1 / rho)
    between = [(first + i / (points - 1) * (last - first)) ** rho for i in range(1, points - 1)]
    return (high, *between, low)


def karras_levels(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> tuple[float, ...]:
    """EDM's grid for `steps` steps: `steps` levels from sigma_max to sigma_min, then 0.0 (steps + 1 floats).

    With one step the grid is (sigma_max, 0).

    Raises:
        InputError: steps < 1, or the levels do not fall.

    Source: Karras et al. 2022 (arXiv 2206.00364), equation 5.
    """
    if steps < 1:
        raise InputError(f"a sampler of {steps} steps does nothing; give at least 1 step")
    if sigma_min <= 0:
        raise InputError(f"sigma_min is {sigma_min:g}; the last level before 0 must be above 0 (EDM uses 0.002)")
    return (*power_grid(steps, sigma_max, sigma_min, rho), 0.0)
