"""Restart sampling for diffusers pipelines of noise-predicting models: Stable Diffusion 1.5, 2 and XL."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import log
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.sampling.intervals import RestartInterval
from restart_sampling.sampling.levels import Grid
from restart_sampling.sampling.process import VE, Process
from restart_sampling.text_to_image.configs import (
    PREDICTIONS,
    arguments_of,
    check_noise_schedule,
    check_values,
    noise_config,
)
from restart_sampling.text_to_image.main_grid import check_own
from restart_sampling.text_to_image.noise_schedule import EULERS, OTHERS, alphas_cumprod, edm_levels
from restart_sampling.text_to_image.pipeline_checks import (
    check_clean_parts,
    check_free_init,
    check_views,
    denoising_end,
)
from restart_sampling.text_to_image.restart_steps import RestartSteps

_UNSCALED = 0.3
"""A level up to which a network hardly feels that its input was not scaled, by at most 1.05."""
_CLEARLY_NOISE = 2.0
"""A level from which on a sample of half its size cannot have the noise of that level in it."""
_log = logging.getLogger(__name__)


class RestartScheduler(RestartSteps, EulerDiscreteScheduler):
    """Restart for every pipeline that takes diffusers' Karras schedulers; levels are sigma = std / alpha.

    `pipe.scheduler = RestartScheduler.from_config(pipe.scheduler.config, restart=[[10, 2, 0.1, 2.0]])`.

    The main grid is that of EulerDiscreteScheduler, whose other arguments it takes. One call of the model is one row of
    `timesteps`, and one step of num_inference_steps is as many rows as the main solver has evaluations.

    Args:
        restart: intervals [points, repeats, t_min, t_max] in sigma; none: the main solver alone.
        solver: of the main grid: "heun", "euler" (DDIM), "midpoint", "dpm2", "dpm3", "ddpm", "ddim:eta=0.5".
        restart_solver: of the restarts, likewise; default: the main grid's.
        restart_budget: "calls" takes the restarts' evaluations out of the number of steps, and what is left of the main
            grid begins at its first level; "inside" does so on diffusers' grid of the steps that are left, which may
            begin lower (version 0.1.0); "extra" adds them, as "calls" does where the user passes sigmas or timesteps;
            None: inside, but extra where any are passed (0.1.0).
        restart_grid: levels of the restarts: "karras", "exponential", "even" (in sigma), or "timesteps" (whole
            timesteps, evenly spaced, with t_max at the nearest of them; not where timesteps are continuous, as EDM's).
        euler_below: steps of the restarts that end at this sigma or below are Euler steps.
        snr_shift_scale: divides the signal-to-noise ratio of each timestep (CogVideoX).
        sigma_data: of EDM's preconditioning (Cosmos, Playground 2.5); the levels then go from sigma_max to sigma_min,
            and there are no betas.
        sigma_schedule: of EDM: "karras" or "exponential".
        rho: of EDM's karras.

    Raises:
        InputError: an argument is out of its range, or a prediction type or a config that this class does not know.
    """

    __module__ = "restart_sampling.text_to_image"  # written into the files of saved pipelines
    process: ClassVar[Process] = VE
    _tuples_have_x0: ClassVar[bool] = True  # as EulerDiscreteScheduler
    _config_of = staticmethod(noise_config)

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
        solver: str = "euler",
        restart_solver: str | None = None,
        restart_budget: str | None = "calls",
        restart_grid: str = "karras",
        euler_below: float = 0.0,
        snr_shift_scale: float = 1.0,
        sigma_data: float | None = None,
        sigma_schedule: str = "karras",
        rho: float = 7.0,
    ) -> None:
        self._register(**check_values(type(self), self.config))
        if trained_betas is None and beta_schedule not in EULERS + OTHERS:
            raise InputError(
                f"beta_schedule is {beta_schedule!r}; RestartScheduler knows {', '.join(EULERS + OTHERS)}, or give "
                f"trained_betas"
            )
        check_noise_schedule(self.config)
        changed = {
            "beta_schedule": beta_schedule if beta_schedule in EULERS else "linear",
            "rescale_betas_zero_snr": rescale_betas_zero_snr and snr_shift_scale == 1,
        }
        super().__init__(**arguments_of(EulerDiscreteScheduler, self.config) | changed)
        if prediction_type not in PREDICTIONS:
            raise InputError(
                f"prediction_type is {prediction_type!r}; RestartScheduler knows {', '.join(PREDICTIONS)}, and "
                f"FlowMatchRestartScheduler is for flow models"
            )
        self.register_to_config(beta_schedule=beta_schedule, rescale_betas_zero_snr=rescale_betas_zero_snr)
        if sigma_data is not None:
            self._set_edm_grid(edm_levels(num_train_timesteps + 1, self.config))
        elif beta_schedule in OTHERS or snr_shift_scale != 1:
            self.alphas_cumprod = alphas_cumprod(self.betas, self.config)
            self.sigmas = torch.tensor([*self._training_levels[::-1], 0.0], dtype=torch.float32)
        self._begin()

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
            InputError: the restarts do not fit the levels or the number of steps, or the pipeline does with its samples
                what they do not bear.
        """
        check_free_init()
        self._read_settings()
        given = timesteps is not None or sigmas is not None
        falls = bool(self._restarts.intervals)
        check_own("timesteps", timesteps, falls, highest=self.config.num_train_timesteps - 1)
        check_own("sigmas", sigmas, falls, least=2)
        main_grid = super().set_timesteps

        def grid(steps: int | None) -> None:
            if self.config.sigma_data is None:
                main_grid(steps, device, timesteps, sigmas)
            elif timesteps is not None or (steps is None) == (sigmas is None):
                raise InputError("EDM's levels are given by num_inference_steps or by sigmas alone; give one of them")
            else:
                levels = [*map(float, sigmas or ())] if steps is None else edm_levels(steps, self.config)
                self._set_edm_grid(levels, device)

        self._set_steps(grid, num_inference_steps, given)
        if self.path.rises:
            check_views()
            if (end := denoising_end()) is not None:
                self._check_cut(end)

    def _set_edm_grid(self, levels: list[float], device: str | torch.device | None = None) -> None:
        self.sigmas = torch.tensor(levels, dtype=torch.float32)
        self.timesteps = torch.tensor(self._time(levels[:-1]), dtype=torch.float32, device=device)

    def _check_cut(self, end: float) -> None:
        """SDXL's base stops at the first rows whose timesteps are those of its denoising_end.

        Raises:
            InputError: these rows end within a restart, at another level than the refiner begins at.
        """
        times, total = self._kept[0], self.config.num_train_timesteps
        cut = round(total - end * total)
        rows = sum(time >= cut for time in times)
        if min(times[:rows], default=cut) < cut:
            raise InputError(
                f"denoising_end={end:g} stops at timestep {cut}, and a restart goes across it, so that the base would "
                f"stop at another level than its refiner begins at; give restarts wholly above or wholly below it"
            )
        if self.config.restart_budget != "extra":
            _log.warning(
                "denoising_end: the refiner needs this scheduler with the same settings and steps; for another "
                "scheduler give restart_budget='extra', which keeps its grid"
            )

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor) -> Tensor:
        """Returns what the network sees: the sample over the standard deviation of data and noise at its level.

        Raises:
            InputError: the run cannot begin at this timestep.
        """
        row = self._enter(timestep, sample) if self._begins else self._step_index or 0
        self._scaled = True
        return sample * self._get_conditioning_c_in(self._calls[row].level)

    def _get_conditioning_c_in(self, sigma: Any) -> Any:
        """Returns the scale of the network's input; EDM's pipelines (Cosmos) ask for it by this name."""
        return (sigma**2 + (self.config.sigma_data or 1.0) ** 2) ** -0.5

    @property
    def init_noise_sigma(self) -> float | Tensor:
        """The standard deviation of the first sample."""
        start = super().init_noise_sigma
        return start if self.config.sigma_data is None else (float(self.sigmas.max()) ** 2 + 1) ** 0.5

    def _forget_steps(self) -> None:
        super()._forget_steps()
        self._scaled = False

    def _check_first_step(self, row: int, sample: Tensor) -> None:
        level = self._calls[row].level
        if not self._scaled and level > _UNSCALED:
            raise InputError(
                f"the network was called without scheduler.scale_model_input before, so that it saw a sample of std "
                f"{level:.3g} where it knows about 1; call it, or use another scheduler in a pipeline that does not "
                f"(such as Kandinsky's)"
            )
        size = float(sample.float().square().mean().sqrt())
        if level > _CLEARLY_NOISE and size < level / 2:
            raise InputError(
                f"the run begins at noise level {level:.3g}, and the sample has the size of {size:.3g}; multiply the "
                f"first noise by scheduler.init_noise_sigma, give step the sample and not the scaled one, or use "
                f"another scheduler in a pipeline that does not (such as DiT's)"
            )

    def _check_entry(self, row: int, sample: Tensor) -> None:
        super()._check_entry(row, sample)
        first, level = self._calls[0].level, self._calls[row].level
        if self._begin_index is None and level < first / 2 and abs(float(sample.std()) / first - 1) < 0.1:
            raise InputError(
                f"the sample is as noisy as the first timestep, {self._kept[0][0]:g}, has it, and enters at "
                f"{self._kept[0][row]:g}; pass each of scheduler.timesteps in order, not an index"
            )

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noises data [B, ...] to the levels of timesteps [B]; before the first step, to that where the run begins.

        Raises:
            InputError: the restarts do not fit into what an image-to-image pipeline's strength leaves, or the pipeline
                shows the network a part without noise.
        """
        check_clean_parts()
        self._about_to_noise(timesteps)
        return super().add_noise(original_samples, noise, timesteps)

    @property
    def _training_levels(self) -> np.ndarray:
        """Sigma at each timestep, rising; float64, so that whole timesteps come out whole."""
        return ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt().double().numpy()

    @property
    def _continuous(self) -> bool:
        """Whether the network is told a quarter of the level's logarithm, so that there are no whole timesteps."""
        continuous = self.config.timestep_type == "continuous" and self.config.prediction_type == "v_prediction"
        return continuous or self.config.sigma_data is not None

    def _grids(self) -> Mapping[str, Grid]:
        grids = super()._grids()
        return grids if self._continuous else {**grids, "timesteps": partial(_timestep_grid, self)}

    def _known(self, interval: RestartInterval) -> RestartInterval:
        if self.config.restart_grid != "timesteps":
            return interval
        levels = self._training_levels
        if interval.t_max > levels[-1]:
            return interval  # which the main grid will refuse
        return replace(interval, t_max=levels[np.abs(levels - interval.t_max).argmin()].item())

    def _time(self, levels: Sequence[float]) -> Sequence[float]:
        if self._continuous:
            return (0.25 * np.log(levels)).tolist()
        return self._sigma_to_t(np.array(levels), np.log(self._training_levels)).tolist()

    def _time_scale(self, level: float) -> float:
        return log(level)

    def _first_step(self, strength: float, steps: int) -> int:
        return steps - int(steps * strength)

    def _slope(self, output: Tensor, x: Tensor, level: float) -> Tensor:
        data, prediction = self.config.sigma_data, self.config.prediction_type
        if prediction == "epsilon" and data is None:
            return output
        if prediction == "sample":
            return (x - output) / level
        total = level**2 + (data or 1.0) ** 2
        sign = -1.0 if prediction == "epsilon" else 1.0  # of EDM
        return torch.add(level / total * x, output, alpha=sign * (data or 1.0) * total**-0.5)


def _timestep_grid(scheduler: RestartScheduler, points: int, high: float, low: float) -> tuple[float, ...]:
    """Makes whole timesteps, evenly spaced between those of two levels, as the authors' pipeline has them.

    Raises:
        InputError: there are fewer timesteps than points.
    """
    first, last = np.round(scheduler._time([high, low]))
    inner = scheduler._training_levels[np.linspace(first, last, points).round().astype(int)[1:-1]].tolist()
    levels = (high, *inner, low)
    if any(then >= now for now, then in pairwise(levels)):
        raise InputError(f"a restart of {points} points has fewer timesteps than that between {high:g} and {low:g}")
    return levels
