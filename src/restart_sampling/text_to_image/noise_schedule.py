"""Noise schedules of models that EulerDiscreteScheduler does not know: other betas, CogVideoX's shift, and EDM."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from diffusers.schedulers.scheduling_euler_discrete import betas_for_alpha_bar
from torch import Tensor

from restart_sampling.sampling.levels import Grid, log_grid, power_grid

EULERS = ("linear", "scaled_linear", "squaredcos_cap_v2")
"""Schedules of betas that EulerDiscreteScheduler knows."""
OTHERS = ("exp", "laplace", "sigmoid")
"""Those that Heun's and DDPM's know beside them."""


def alphas_cumprod(betas: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Computes the share of the data's variance at each timestep, falling, float32 [num_train_timesteps].

    Args:
        betas: those of the config before they are rescaled to no signal at the end, where Euler knows its schedule.
        config: of RestartScheduler.
    """
    count, schedule = config["num_train_timesteps"], config["beta_schedule"]
    if config["trained_betas"] is None and schedule == "sigmoid":
        betas = (
            torch.linspace(-6, 6, count).sigmoid() * (config["beta_end"] - config["beta_start"]) + config["beta_start"]
        )
    elif config["trained_betas"] is None and schedule in OTHERS:
        betas = betas_for_alpha_bar(count, alpha_transform_type=schedule)
    alphas = (1 - betas.double()).cumprod(0)
    alphas = alphas / (config["snr_shift_scale"] + (1 - config["snr_shift_scale"]) * alphas)
    if config["rescale_betas_zero_snr"]:
        roots = alphas.sqrt()
        alphas = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
        alphas[-1] = 2**-24  # as in diffusers: the first sigma must be finite
    return alphas.float()


def edm_levels(steps: int, config: Mapping[str, Any]) -> list[float]:
    """Computes the levels of EDM's schedulers for so many steps, with the last one, which may be the one before it."""
    rules: dict[str, Grid] = {"karras": partial(power_grid, rho=config["rho"]), "exponential": log_grid}
    levels = rules[config["sigma_schedule"]](steps, config["sigma_max"] or 80.0, config["sigma_min"] or 0.002)
    return [*levels, levels[-1] if config["final_sigmas_type"] == "sigma_min" else 0.0]
