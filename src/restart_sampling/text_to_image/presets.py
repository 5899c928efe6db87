"""Restart settings from the paper and others, by guidance scale or step count."""

from collections.abc import Hashable
from math import isfinite
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import real_number, require_kind, whole_number

_RESTARTS: dict[float, list[list[float]]] = {
    2.0: [[5, 2, 1.0, 9.0], [5, 2, 5.0, 10.0]],
    3.0: [[10, 2, 0.1, 3.0]],
    5.0: [[10, 2, 0.1, 2.0]],
    8.0: [[10, 2, 0.1, 2.0]],
}
"""By guidance scale: [points, repeats, t_min, t_max] of each restart."""
_FORMS: dict[int, tuple[list[list[float]], int, float]] = {
    20: ([[4, 1, 1.0, 9.0], [4, 1, 5.25, 10.0]], 6, 0.107),
    25: ([[4, 1, 0.91, 9.0], [4, 1, 5.5, 10.0]], 7, 0.082),
    30: ([[5, 1, 1.1, 9.0], [5, 1, 5.1, 10.0]], 9, 0.107),
}
"""By evaluations: the restarts at guidance 2; points and t_min of the one at others, whose t_max stays the paper's."""

_NO_OTHER_GRID = {"use_exponential_sigmas": False, "use_beta_sigmas": False}
"""Said too, since the config of the pipeline may have another."""


def guidance_preset(guidance: float, evaluations: int | None = None) -> dict[str, Any]:
    """Returns the paper's settings for Stable Diffusion v1.5 at a guidance scale, or a form of them with fewer calls.

    Use them as `RestartScheduler.from_config(pipe.scheduler.config, **guidance_preset(7.5))` and run the pipeline with
    num_inference_steps=30: 30 DDIM steps from timestep 958, to which the restarts are added; 62 network evaluations at
    guidance 2, 64 at 3, 5 and 8, each counted once though guidance makes it two. As in the original the path ends at
    timestep 0, whose level (0.029) is not quite 0.

    The forms of 20, 25 and 30 evaluations (run with as many num_inference_steps) have DPM-Solver++(2M) on Karras's grid
    in place of DDIM and Heun, one pass in place of two, a quarter to a third of the evaluations in the restarts
    (AUTOMATIC1111 has a quarter for each pass), and the paper's t_max; each t_min is the level of the grid that is next
    to the paper's. They follow from these rules alone. That of 25 was measured afterwards, on
    `tiny-text-to-image`: it is better than DPM-Solver++(2M) on the same grid at guidance 5 and 8, level at 3, and worse
    at 2.

    Args:
        guidance: the pipeline's guidance_scale. The paper has 2, 3, 5 and 8; any other takes the nearest of these, and
            in the middle of two the lower.
        evaluations: 20, 25 or 30; none: the paper's own settings.

    Returns:
        Keyword arguments of `RestartScheduler`.

    Raises:
        InputError: guidance is not finite, or there is no form of so many evaluations.

    Source: Restart sampling (arXiv 2306.14878), section 5.3 and table 6, and the authors' pipeline.
    """
    if not isfinite(guidance := real_number("guidance", guidance)):
        raise InputError(f"guidance is {guidance:g}; give a finite scale, such as 7.5")
    nearest = min(_RESTARTS, key=lambda scale: abs(scale - guidance))
    if evaluations is not None:
        if not isinstance(evaluations, Hashable) or evaluations not in _FORMS:
            raise InputError(
                f"evaluations is {evaluations!r}; there are forms of {', '.join(map(str, _FORMS))}, or leave it out "
                f"for the paper's own settings"
            )
        high, points, t_min = _FORMS[evaluations]
        low: list[list[float]] = [[points, 1, t_min, _RESTARTS[nearest][0][3]]]
        return {
            "restart": [list(interval) for interval in (high if nearest == 2 else low)],
            "restart_budget": "calls",
            "restart_grid": "karras",
            "solver": "dpmpp_2m",
            "restart_solver": "dpmpp_2m",
            "euler_below": 0.0,
            "timestep_spacing": "linspace",  # so that Karras's grid begins at the model's highest level
            "final_sigmas_type": "zero",
            "use_karras_sigmas": True,
            **_NO_OTHER_GRID,
        }
    return {
        "restart": [list(interval) for interval in _RESTARTS[nearest]],
        "restart_budget": "extra",
        "restart_grid": "timesteps",
        "solver": "euler",
        "restart_solver": "heun",
        # Between the levels of timesteps 1 (0.0413) and 2: the original does not correct a step that ends at 1 or 0.
        "euler_below": 0.045,
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "final_sigmas_type": "sigma_min",
        "use_karras_sigmas": False,
        **_NO_OTHER_GRID,
    }


def steps_preset(steps: int, solver: str = "heun") -> dict[str, Any]:
    """Returns the settings that AUTOMATIC1111's web UI derives from the number of steps.

    Fewer than 20 steps have no restart; from 20 there is one pass of 9 steps, from 36 two passes of a quarter of the
    steps, between levels 0.1 and 2; all of them out of the number of steps, with Heun on Karras's grid.

    Args:
        steps: the pipeline's num_inference_steps.
        solver: of the main grid and the restarts. A step of AUTOMATIC1111's Heun is two evaluations; of "dpmpp_2m" or
            "unipc" it is one, so that 20, 25 and 30 steps are as many evaluations (which was not measured on trained
            weights).

    Returns:
        Keyword arguments of `RestartScheduler`, which says where there is no solver of this name.

    Raises:
        InputError: steps is no whole number above 0, or the solver no text.
    """
    restart: list[list[float]] = []
    if (steps := whole_number("steps", steps)) < 1:
        raise InputError(f"steps is {steps}; give the pipeline's num_inference_steps, 1 or more")
    require_kind("the solver", solver, str, "its name, such as 'heun'")
    if steps >= 36:
        restart = [[steps // 4 + 1, 2, 0.1, 2.0]]
    elif steps >= 20:
        restart = [[10, 1, 0.1, 2.0]]
    return {
        "restart": restart,
        "restart_budget": "inside",
        "restart_grid": "karras",
        "solver": solver,
        "restart_solver": solver,
        "use_karras_sigmas": True,
        **_NO_OTHER_GRID,
    }
