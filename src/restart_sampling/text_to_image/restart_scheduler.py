"""Restart sampling for diffusers pipelines of noise-predicting models: Stable Diffusion 1.5, 2 and XL."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.sampling.levels import Grid
from restart_sampling.sampling.path import RestartInterval
from restart_sampling.sampling.process import VE, Process
from restart_sampling.text_to_image.restart_steps import RestartSteps

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
"""What EulerDiscreteScheduler knows."""


class RestartScheduler(RestartSteps, EulerDiscreteScheduler):
    """Restart for every pipeline that takes diffusers' Karras schedulers; levels are sigma = std / alpha.

    `pipe.scheduler = RestartScheduler.from_config(pipe.scheduler.config, restart=[[10, 2, 0.1, 2.0]])`.

    The main grid is that of EulerDiscreteScheduler, whose other arguments it takes. One call of the model is one row of
    `timesteps`, and one step of num_inference_steps is as many rows as the main solver has evaluations.

    Args:
        restart: intervals [points, repeats, t_min, t_max] in sigma; none: the main solver alone.
        solver: of the main grid: "heun", "euler" (DDIM), "midpoint", "dpm2", "dpm3", "ddpm", "ddim:eta=0.5".
        restart_solver: of the restarts, likewise; default: the main grid's.
        restart_budget: "inside" takes the restarts' evaluations out of the number of steps, "extra" adds them;
            default: inside, but extra where the pipeline passes its own sigmas or timesteps.
        restart_grid: levels of the restarts: "karras", "exponential", "even" (in sigma), or "timesteps" (whole
            timesteps, evenly spaced, with t_max at the nearest of them).
        euler_below: steps of the restarts that end at this sigma or below are Euler steps.

    Raises:
        InputError: an argument is out of its range, or a prediction type or a config that this class does not know.
    """

    __module__ = "restart_sampling.text_to_image"  # written into the files of saved pipelines
    process: ClassVar[Process] = VE

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None,
        prediction_type: str = "epsilon",
        interpolation_type: str = "linear",
        use_karras_sigmas: bool | None = False,
        use_exponential_sigmas: bool | None = False,
        use_beta_sigmas: bool | None = False,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        timestep_spacing: str = "linspace",
        timestep_type: str = "discrete",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
        final_sigmas_type: str = "zero",
        restart: list[list[float]] | None = None,
        solver: str = "heun",
        restart_solver: str | None = None,
        restart_budget: str | None = None,
        restart_grid: str = "karras",
        euler_below: float = 0.0,
    ) -> None:
        if trained_betas is None and beta_schedule not in BETA_SCHEDULES:
            raise InputError(
                f"beta_schedule is {beta_schedule!r}; RestartScheduler knows {', '.join(BETA_SCHEDULES)}, or give "
                f"trained_betas"
            )
        super().__init__(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            trained_betas=trained_betas,
            prediction_type=prediction_type,
            interpolation_type=interpolation_type,
            use_karras_sigmas=use_karras_sigmas,
            use_exponential_sigmas=use_exponential_sigmas,
            use_beta_sigmas=use_beta_sigmas,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
            timestep_spacing=timestep_spacing,
            timestep_type=timestep_type,
            steps_offset=steps_offset,
            rescale_betas_zero_snr=rescale_betas_zero_snr,
            final_sigmas_type=final_sigmas_type,
        )
        if prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise InputError(
                f"prediction_type is {prediction_type!r}; RestartScheduler knows epsilon, v_prediction and sample, and "
                f"FlowMatchRestartScheduler is for flow models"
            )
        self._read_settings()

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """A scheduler from the config of another one.

        Raises:
            InputError: the config is of a scheduler without betas, such as a flow model's.
        """
        if isinstance(config, Mapping) and "beta_schedule" not in config:
            raise InputError(
                f"the config of {config.get('_class_name', 'this scheduler')} has no noise schedule of betas, which "
                f"RestartScheduler needs; for flow models (SD3, FLUX) use FlowMatchRestartScheduler"
            )
        return super().from_config(config, return_unused_kwargs, **kwargs)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
    ) -> None:
        """Sets the rows: one for each call of the model.

        Args:
            num_inference_steps: steps of the main solver, restarts included unless the budget is "extra".
            device: of `timesteps`.
            timesteps: the main grid as timesteps instead.
            sigmas: the main grid as levels instead, with the last 0.

        Raises:
            InputError: the restarts do not fit the levels or the number of steps.
        """
        grid = super().set_timesteps
        given = timesteps is not None or sigmas is not None
        self._set_steps(lambda steps: grid(steps, device, timesteps, sigmas), num_inference_steps, given)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Data [B, ...] at the levels of these timesteps [B]; before the first step, at that of set_begin_index.

        Raises:
            InputError: the restarts do not fit into what an image-to-image pipeline's strength leaves.
        """
        self._about_to_noise()
        return super().add_noise(original_samples, noise, timesteps)

    @property
    def _training_levels(self) -> np.ndarray:
        """Sigma at each timestep, rising; float64, so that whole timesteps come out whole."""
        return ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt().double().numpy()

    def _grids(self) -> Mapping[str, Grid]:
        return {**super()._grids(), "timesteps": partial(_timestep_grid, self)}

    def _known(self, interval: RestartInterval) -> RestartInterval:
        if self.config.restart_grid != "timesteps":
            return interval
        levels = self._training_levels
        return replace(interval, t_max=levels[np.abs(levels - interval.t_max).argmin()].item())

    def _time(self, levels: Sequence[float]) -> Sequence[float]:
        if self.config.timestep_type == "continuous" and self.config.prediction_type == "v_prediction":
            return (0.25 * np.log(levels)).tolist()
        return self._sigma_to_t(np.array(levels), np.log(self._training_levels)).tolist()

    def _first_step(self, strength: float, steps: int) -> int:
        return steps - int(steps * strength)

    def _slope(self, output: Tensor, x: Tensor, level: float) -> Tensor:
        if self.config.prediction_type == "epsilon":
            return output
        if self.config.prediction_type == "sample":
            return (x - output) / level
        return torch.add(level / (level**2 + 1) * x, output, alpha=(level**2 + 1) ** -0.5)


def _timestep_grid(scheduler: RestartScheduler, points: int, high: float, low: float) -> tuple[float, ...]:
    """Whole timesteps, evenly spaced between those of two levels, as the authors' pipeline has them.

    Raises:
        InputError: there are fewer timesteps than points.
    """
    first, last = np.round(scheduler._time([high, low]))
    inner = scheduler._training_levels[np.linspace(first, last, points).round().astype(int)[1:-1]].tolist()
    levels = (high, *inner, low)
    if any(then >= now for now, then in pairwise(levels)):
        raise InputError(f"a restart of {points} points has fewer timesteps than that between {high:g} and {low:g}")
    return levels
